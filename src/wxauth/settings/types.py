"""The parsing and validation of settings, and the types of settings that have no module of their own.

Errors never contain a value, because the value may be a secret.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Final, Literal, TypeVar

from pydantic import AfterValidator, BeforeValidator, Field, SecretStr
from pydantic_core import PydanticUseDefault, from_json

from wxauth import i_json
from wxauth.i18n import Text, WrongValue, lazy_gettext as _
from wxauth.texts import is_title

T = TypeVar("T")

DEFAULT_SECRETS_DIR: Final = Path("/run/secrets")  # in which Docker mounts secrets
# If a Service is named "wxauth", Kubernetes sets WXAUTH_PORT to an address such as `tcp://10.0.0.1:80`.
SERVICE_LINK: Final = re.compile(r"(tcp|udp|sctp)://")
CENTURY_DAYS: Final = 36600
CENTURY_SECONDS: Final = CENTURY_DAYS * 86400
LAST_PORT: Final = 65535
_MIN_EVENTS_KEPT_DAYS: Final = 180  # the six months for which China's Cybersecurity Law requires network logs
# The first group names a document that users agree to, and the second is its version.
_DOCUMENT: Final = re.compile(r"([a-z][a-z0-9_-]{0,31}):([A-Za-z0-9._-]{1,64})")


def comma_separated(text: str) -> list[str]:
    return [item.strip() for item in text.split(",") if item.strip()]


def _split_at_commas(value: object) -> object:
    return comma_separated(value) if isinstance(value, str) else value


def _read_documents(value: object) -> object:
    if not isinstance(value, str):
        return value
    matches = [_DOCUMENT.fullmatch(item) for item in comma_separated(value)]
    documents = {match[1]: match[2] for match in matches if match}
    # The mapping has fewer entries than the list if an item has another form, or if a document occurs twice.
    if len(documents) != len(matches):
        raise WrongValue(
            _(
                "must be documents with their versions, such as privacy:2026-05,terms:3. Each document can occur "
                "only once"
            )
        )
    return documents


def json_like(example: str) -> BeforeValidator:
    """Return a validator that parses JSON of the same kind as the example: a list or an object.

    An empty text becomes an empty list or object. A value that is not a text stays unchanged.
    """
    kind = type(from_json(example))

    def read(value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            parsed = i_json.parse(value) if value else kind()
        except ValueError:
            parsed = None
        i_json.check(parsed)
        if not isinstance(parsed, kind):
            raise WrongValue(_("must be JSON such as {example}", example=example))
        return parsed

    return BeforeValidator(read)


def _refuse_unit(value: object) -> object:
    if isinstance(value, str) and re.fullmatch(r"\s*\d+\s*[A-Za-z]+\s*", value):
        raise WrongValue(_("must be a number of seconds, such as 900"))
    return value


def _check_events_kept_days(value: int) -> None:
    if 0 < value < _MIN_EVENTS_KEPT_DAYS:
        raise WrongValue(_("must be at least {n}, or 0 to keep data forever", n=_MIN_EVENTS_KEPT_DAYS))


def _check_region(value: str) -> str:
    # The import takes a tenth of a second, and few commands need it.
    from phonenumbers import SUPPORTED_REGIONS

    if value.upper() not in SUPPORTED_REGIONS:
        raise WrongValue(_("must be the two-letter code of a country or region, such as CN"))
    return value.upper()


def _check_secrets_folder(value: Path) -> None:
    if value != DEFAULT_SECRETS_DIR and not os.access(value, os.R_OK | os.X_OK):  # the default folder may be missing
        raise WrongValue(_("must be a readable folder"))


def check_title(value: str) -> None:
    if not is_title(value):
        raise WrongValue(_("must be 1 to 64 characters, without control characters, and not only spaces"))


def _ignore_service_link(value: object) -> object:
    if isinstance(value, str) and SERVICE_LINK.match(value):
        raise PydanticUseDefault
    return value


def checked(check: Callable[[T], object]) -> AfterValidator:
    """Return a validator that calls `check` with a value, and returns the value unchanged."""

    def validate(value: T) -> T:
        check(value)
        return value

    return AfterValidator(validate)


def must_match(pattern: str, refusal: Text) -> AfterValidator:
    """Return a validator that requires a text or a secret to match the pattern completely."""
    return checked(match_check(pattern, refusal))


def match_check(pattern: str, refusal: Text) -> Callable[[str | SecretStr], None]:
    """Return a function that raises WrongValue with `refusal` if a text or secret does not match the whole pattern."""

    def check(value: str | SecretStr) -> None:
        if not re.fullmatch(pattern, value if isinstance(value, str) else value.get_secret_value()):
            raise WrongValue(refusal)

    return check


# The following validators are used in types such as `Annotated[tuple[AppId, ...], CommaList]`.
CommaList = BeforeValidator(_split_at_commas)
Documents = BeforeValidator(_read_documents)  # such as `privacy:2026-05,terms:3`
Lower = BeforeValidator(lambda value: value.lower() if isinstance(value, str) else value)
OrNone = Annotated[T | None, BeforeValidator(lambda value: None if value == "" else value)]  # None for an empty text

AnySeconds = Annotated[int, Field(ge=0, le=CENTURY_SECONDS), BeforeValidator(_refuse_unit)]
Seconds = Annotated[int, Field(ge=1, le=CENTURY_SECONDS), BeforeValidator(_refuse_unit)]
Days = Annotated[int, Field(ge=0, le=CENTURY_DAYS)]
EventsKeptDays = Annotated[Days, checked(_check_events_kept_days)]  # 0 keeps events forever

Audience = Annotated[
    str,
    Field(min_length=1),
    # A guard that expects a URL is a resource's, and accepts the tokens of agents.
    must_match(
        r"(?is)(?!\s*[a-z][a-z0-9+.-]*://).*",
        _("must be a name such as wxauth, not a URL. List the URL of a service for agents in WXAUTH_RESOURCES"),
    ),
]
Title = Annotated[str, checked(check_title)]

PhonePolicy = Annotated[Literal["move", "refuse", "share", "link"], Lower]
Region = Annotated[str, AfterValidator(_check_region)]
RateText = Annotated[
    str,
    must_match(
        r"([1-9]\d{0,8}/(second|minute|hour|day))?",
        _("must be a rate such as 600/minute (or per second, hour or day), or empty for no limit"),
    ),
]
SecretsFolder = Annotated[Path, checked(_check_secrets_folder)]
Port = Annotated[int, Field(ge=1, le=LAST_PORT), BeforeValidator(_ignore_service_link)]
