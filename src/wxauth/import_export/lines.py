"""The format of imports and exports, in which each line is a JSON object with one identity and its user.

A line may also contain only a unionid of its user, and no identity.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_interface
from itertools import chain
from typing import Annotated, Any, Final, NamedTuple, Self
from uuid import UUID
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError, from_json, to_json

from wxauth import i_json
from wxauth.apps.registry import Apps
from wxauth.core.users import PROFILE_FIELDS, UserStatus
from wxauth.errors import UnknownApp
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.settings.settings import Settings
from wxauth.users.attributes import AttributesPatch
from wxauth.users.ids import LOOKS_LIKE, ExternalId, Openid, Unionid, refuse_invisible
from wxauth.users.phone_numbers import phone_number_in
from wxauth.users.schemas import MAX_AVATAR_URL, MAX_NICKNAME, AvatarUrl, Nickname, Reason, Roles
from wxauth.web import schemas
from wxauth.wechat.received import E164

_PAST_TIMES: Final = ("created_at", "identity_created_at", "last_login_at", "last_seen_at")
# All other fields identify a user, grant or end rights, or record the user's wishes, so none of them may be dropped.
SKIPPABLE_FIELDS: Final = frozenset({*PROFILE_FIELDS, "phone", "ban_reason", "attributes", *_PAST_TIMES})


class IdentityKey(NamedTuple):
    """An identity. Without an openid, the app_id is empty, and the `openid` is the unionid."""

    app_id: str
    openid: str


class Fault(NamedTuple):
    """A field, or `line` or `file`, and the rule that its value breaks."""

    field: str
    rule: Text


NOT_JSON: Final = Fault("line", _("must be a JSON object"))
NOT_UTF8: Final = Fault("line", _("must be UTF-8. If the file is GBK, convert it with iconv -f GB18030 -t UTF-8"))
WRONG_ATTRIBUTES: Final = Fault(
    "attributes",
    _("must be an object of up to 2048 bytes with up to 32 names (a-z, 0-9 and _), nested at most 4 levels deep"),
)
NUL_OR_SURROGATE: Final = _("must not contain NUL or lone surrogates such as \\ud83d")
_ZERO_DATE: Final = "0000-00-00"
_UUID_VERSION: Final = 7
_DATE_SEPARATORS: Final = str.maketrans({"/": "-", "年": "-", "月": "-", "日": " "})  # 2026/11/20 and 2026年11月20日
# `_DATE_SEPARATORS` has already been applied to the text. The groups of the minute and the second include the colon.
_DATE_AND_TIME: Final = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)(?:[Tt ] *(\d\d?)(:\d\d)(:\d\d(?:\.\d+)?)? *([Zz]|[+-]\d\d(?::?\d\d)?)?)?", re.ASCII
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_INTEGER: Final = re.compile(r"-?[0-9]+")
_MILLISECONDS: Final = re.compile(r"-?\d{1,15}", re.ASCII)
_SECONDS_OR_MILLISECONDS: Final = re.compile(r"(\d{10})(\d{3})?", re.ASCII)
_TIME_RULE: Final = _(
    "must be a time with a time zone, such as 2026-11-20T08:00:00+08:00, the seconds or "
    "milliseconds since 1970, or empty. With --time-zone, 2026-11-20, 2026/11/20 8:00 and "
    "2026年11月20日 are also accepted"
)
_NOT_DIGITS: Final = "not_digits"
_NOT_DIGITS_RULE: Final = _(
    "must be text or an integer, but is a number with a decimal point or an exponent, which may have been rounded. "
    "Export the ID as text"
)
_TOO_MANY_DIGITS: Final = Fault("line", _("must not contain numbers of more than 4,300 digits"))
_SHORT_TEXT_RULE: Final = _("must be 1 to 64 printable characters")


def unwrapped(value: object) -> object:
    """Return what MongoDB's tools, LeanCloud and Parse wrap, such as `{"$oid": "65a0…"}`; None for the time 0."""
    if not isinstance(value, dict):
        return value
    match list(value.items()):
        case [("$oid", str() as text)]:
            return text
        case [("$numberLong" | "$numberInt", int() | str() as number)] if _INTEGER.fullmatch(str(number)):
            return number
        case [("$numberDecimal" | "$numberDouble", str() as text)]:
            with suppress(ValueError):
                return text if _INTEGER.fullmatch(text) else float(text)
            return value
        case [("$date", date)]:
            return _as_time(unwrapped(date))
        case [("__type", "Date"), ("iso", text)] | [("iso", text), ("__type", "Date")] if isinstance(text, str):
            return text
        case _:
            return value


def _as_time(date: object) -> object:
    if isinstance(date, bool):  # true and false are ints in Python
        return date
    if isinstance(date, int | float) or (isinstance(date, str) and _MILLISECONDS.fullmatch(date)):
        with suppress(OverflowError, ValueError):  # too large, infinite, or not a number
            milliseconds = float(date)
            if not milliseconds:
                return None  # some tables contain 0 in place of a missing date
            return (_EPOCH + timedelta(milliseconds=milliseconds)).isoformat()
    return date


def _text_of_id(value: object) -> object:
    if isinstance(value, float):
        raise PydanticCustomError(_NOT_DIGITS, "Must be text or an integer")
    return str(value) if type(value) is int else value


def _known_app(value: str, info: ValidationInfo) -> str:
    parts: Mapping[type, Any] = info.context or {}
    apps: Apps = parts[Apps]
    try:
        apps.entry(value)
    except UnknownApp:
        raise ValueError("unknown") from None  # never shown, because each field has its own text
    return value


def _time_or_none(value: object, info: ValidationInfo) -> object:
    """Return ISO 8601, None for zeros in place of a date, or any other value for the field's own check."""
    # `isinstance` would also accept true and false, which are ints in Python.
    text = str(value).translate(_DATE_SEPARATORS).strip() if type(value) in (int, str) else ""
    if text == "0" or text.startswith(_ZERO_DATE):
        return None
    epoch_match = _SECONDS_OR_MILLISECONDS.fullmatch(text)
    if epoch_match is not None:
        seconds, thousandths = epoch_match.groups("000")  # "000" if the number has no milliseconds
        return datetime.fromtimestamp(int(seconds), UTC).replace(microsecond=int(thousandths) * 1000).isoformat()
    date_match = _DATE_AND_TIME.fullmatch(text)
    if date_match is None:
        return value
    year, month, day, hour, minute, second, offset = date_match.groups("")
    try:
        time = datetime.fromisoformat(
            f"{year}-{month:0>2}-{day:0>2}T{hour:0>2}{minute or ':00'}{second}{offset.upper()}"
        )
    except ValueError:  # for example the 30th of February
        return value
    if time.tzinfo is None:
        time = time.replace(tzinfo=(info.context or {}).get(ZoneInfo))
    return time.isoformat()


def _e164(value: object, info: ValidationInfo) -> object:
    text = str(value) if type(value) is int else value
    # `phone_number_in` would ignore a NUL at the beginning or the end, which the field's own check must refuse.
    if not isinstance(text, str) or E164.fullmatch(text) or "\0" in text:
        return text
    settings: Settings = (info.context or {})[Settings]
    return phone_number_in(text, region=settings.phone_region) or text


def _version_7(value: UUID) -> UUID:
    if value.version != _UUID_VERSION:
        raise ValueError("version")  # never shown, because each field has its own text
    return value


def _address(value: str) -> str:
    interface = ip_interface(value)
    return str(interface.ip if interface.network.prefixlen == interface.max_prefixlen else interface)


NoneIfBlank = AfterValidator(lambda text: text or None)
Time = Annotated[schemas.Time, Field(strict=False)]
TimeOrNone = Annotated[Time | None, BeforeValidator(_time_or_none), _TIME_RULE]
UserId = Annotated[UUID, Field(strict=False), AfterValidator(_version_7)]
IdOrInteger = Annotated[ExternalId, BeforeValidator(_text_of_id)]
ShortText = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(refuse_invisible)]


class _Strict(BaseModel):
    model_config = ConfigDict(strict=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _empty_is_absent(cls, value: Any, info: ValidationInfo) -> Any:
        value = unwrapped(value)
        if value in (None, ""):
            field = cls.model_fields[info.field_name or ""]
            return value if field.is_required() else field.default  # a required field refuses the value itself
        return value


class LineOfConsent(_Strict):
    """A user's consent to a version of a document."""

    document: Annotated[ShortText, _SHORT_TEXT_RULE]
    version: Annotated[ShortText, _SHORT_TEXT_RULE]
    given_at: Annotated[Time, BeforeValidator(_time_or_none), _TIME_RULE]
    withdrawn_at: TimeOrNone = None
    app_id: Annotated[ShortText | None, _SHORT_TEXT_RULE] = None
    ip: Annotated[Annotated[str, AfterValidator(_address)] | None, _("must be an IP address or a network")] = None


class Line(_Strict):
    """An identity and its user. A field's `Text` is the rule that is shown if its value is wrong."""

    app_id: Annotated[
        Annotated[str, AfterValidator(_known_app)] | None, _("must be the app_id of a configured app")
    ] = None
    openid: Annotated[
        Openid | None,
        _("must be an openid from WeChat (6 to 128 characters from A-Z, a-z, 0-9, _ and -) and not a placeholder"),
    ] = None
    unionid: Annotated[
        Unionid | None,
        _(
            "must be a unionid from WeChat (24 to 36 characters from A-Z, a-z, 0-9, _ and -). If there is no "
            "unionid, leave the field empty instead of using a placeholder"
        ),
    ] = None
    user_id: Annotated[UserId | None, _("must be a UUIDv7")] = None
    external_id: Annotated[
        IdOrInteger | None,
        _(
            "must be text of 1 to 128 printable characters or an integer, not a placeholder such as 0 or a UUID of "
            "zeros"
        ),
    ] = None
    nickname: Annotated[Nickname | None, NoneIfBlank, _("must be up to {n} characters", n=MAX_NICKNAME)] = None
    avatar_url: Annotated[
        AvatarUrl | None, NoneIfBlank, _("must be an https URL of up to {n} characters", n=MAX_AVATAR_URL)
    ] = None
    phone: Annotated[
        Annotated[str, StringConstraints(pattern=E164)] | None,
        BeforeValidator(_e164),
        _("must be a phone number such as +8613800138000, or a number as it is dialed in WXAUTH_PHONE_REGION"),
    ] = None
    roles: Annotated[
        Roles | None,
        _(
            "must be up to 32 role names. Each name must be 1 to 32 characters (a-z, 0-9, _ and -) and "
            "begin with a letter"
        ),
    ] = None
    status: Annotated[
        UserStatus | None, _("must be active or disabled. To convert another value X, add --map status:X=disabled")
    ] = None
    ban_reason: Annotated[Reason | None, _("must be up to 500 characters, without control characters")] = None
    banned_until: TimeOrNone = None
    attributes: Annotated[AttributesPatch | None, WRONG_ATTRIBUTES.rule] = None
    """A JSON merge patch (RFC 7396)."""
    erase_at: TimeOrNone = None
    created_at: TimeOrNone = None
    identity_created_at: TimeOrNone = None
    last_login_at: TimeOrNone = None
    last_seen_at: TimeOrNone = None
    consents: Annotated[
        list[LineOfConsent], _("must be a JSON list of objects with document, version and given_at")
    ] = []
    former_ids: Annotated[list[Annotated[UUID, Field(strict=False)]], _("must be a list of UUIDs")] = []
    former_external_ids: Annotated[
        list[IdOrInteger], _("must be a list of texts, each with 1 to 128 printable characters")
    ] = []

    @classmethod
    def read(cls, text: bytes, parts: Mapping[type, Any]) -> Self | list[Fault]:
        """Return the line, or one fault for each wrong field, or one for a text that is not a JSON object in UTF-8.

        `parts` contains the `Apps`, the `Settings`, and the `ZoneInfo` for times without an offset, or None.

        Raises: StorageUnavailable, if the secrets of the line's app cannot be decrypted.
        """
        try:
            # The validator itself is faster than `model_validate_json`, and an import reads millions of lines.
            line: Self = cls.__pydantic_validator__.validate_json(text, context=parts)
        except ValidationError as exc:
            errors = exc.errors(include_url=False)
        else:
            faults = _missing_faults(vars(line)) or (_attributes_faults(text) if line.attributes else [])
            return faults or line
        if not errors[0]["loc"]:  # the error is about the text as a whole
            if text.decode(errors="ignore").encode() != text:
                return [NOT_UTF8]
            is_too_long = "number out of range" in str(errors[0].get("ctx"))
            return [_TOO_MANY_DIGITS if is_too_long else NOT_JSON]
        first_faults: dict[str, Fault] = {}
        # If JSON escapes the name, only the other faults are reported, and this one after they are corrected.
        of_attributes = _attributes_faults(text) if b"attributes" in text else []
        for fault in (*_missing_faults(from_json(text)), *map(_fault, errors), *of_attributes):
            first_faults.setdefault(fault.field, fault)
        return list(first_faults.values())

    @property
    def key(self) -> IdentityKey:
        """The key of the line's identity or, without an openid, of its unionid."""
        return IdentityKey(self.app_id or "", self.openid) if self.openid else IdentityKey("", self.unionid or "")


def _missing_faults(values: Mapping[str, object]) -> list[Fault]:
    if values.get("unionid") and not values.get("openid"):
        return []
    return [Fault(name, FIELD_RULES[name]) for name in ("app_id", "openid") if not values.get(name)]


def _attributes_faults(text: bytes) -> list[Fault]:
    values = i_json.parse(text.decode())
    try:
        i_json.check(values.get("attributes") if isinstance(values, dict) else values)
    except i_json.NotIJson as exc:
        return [Fault("attributes" if isinstance(values, dict) else "line", exc.text)]
    return []


def _fault(error: ErrorDetails) -> Fault:
    field = ".".join(part for part in error["loc"] if isinstance(part, str))
    if error["type"] == LOOKS_LIKE:
        return Fault(field, _("must be only the ID, but the value looks like {it}", it=error["ctx"]["it"]))
    if error["type"] == _NOT_DIGITS:
        return Fault(field, _NOT_DIGITS_RULE)
    # The reading of the file has replaced each lone surrogate with NUL, which JSON writes as \u0000. After an escaped
    # backslash, the letters u0000 are ordinary text, so escaped backslashes are removed before the search.
    has_nul = error["type"] != "missing" and b"\\u0000" in to_json(error["input"]).replace(rb"\\", b"")
    if has_nul:
        return Fault(field, NUL_OR_SURROGATE)
    cause = error.get("ctx", {}).get("error")
    return Fault(field, cause.text if isinstance(cause, i_json.NotIJson) else FIELD_RULES[field])


def without_fields(text: bytes, fields: Iterable[str]) -> bytes:
    """Return the line with null in these fields."""
    return to_json(from_json(text) | dict.fromkeys(fields))


def _rules_of(model: type[_Strict], prefix: str = "") -> Iterator[tuple[str, Text]]:
    for name, field in model.model_fields.items():
        [text] = (text for text in field.metadata if isinstance(text, Text))
        yield f"{prefix}{name}", text


FIELD_RULES: Final = dict(chain(_rules_of(Line), _rules_of(LineOfConsent, "consents.")))  # also of `consents.document`
