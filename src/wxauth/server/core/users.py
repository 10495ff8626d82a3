"""The model of a user: the fields that every room reads; and the operator's own claims about one in tokens.

The claims are a template, compiled once, which each token fills with facts about its user.
"""

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, LiteralString, Self
from uuid import UUID

from pydantic_core import to_json
from sqlalchemy import Text, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel
from typing_extensions import TypedDict

from wxauth.server.core.logs import get_logger
from wxauth.server.core.models import TIME
from wxauth.server.core.statements import columns_of, model_of, part
from wxauth.texts import has_too_many_containers

ROLE = "[a-z][a-z0-9_-]{0,31}"
MAX_ROLES: Final = 32
STAFF_ROLES: Final = frozenset({"admin", "support"})
"""The roles that allow access to other people's data. Only an administrator or a command can assign them."""
ATTRIBUTE_NAME: Final = re.compile("[a-z][a-z0-9_]{0,31}")
ROLES_SCOPE: Final = "roles"
"""The scope that lets a website see a person's roles."""
PROFILE: Final = ("nickname", "avatar_url")
"""The columns whose changes are events, `user.profile_changed`."""


class UserStatus(StrEnum):
    """Whether a user may log in."""

    ACTIVE = "active"
    DISABLED = "disabled"


class UserFields(SQLModel):
    """A user: all columns of the table except those that only logins, merges and staff need."""

    id: UUID = Field(primary_key=True)
    unionid: str | None = Field(sa_type=Text)
    nickname: str | None = Field(sa_type=Text)
    avatar_url: str | None = Field(sa_type=Text)
    phone: str | None = Field(sa_type=Text)
    roles: list[str] = Field(sa_type=ARRAY(Text), sa_column_kwargs={"server_default": text("'{}'")})
    status: Literal["active", "disabled"] = Field(sa_type=Text, sa_column_kwargs={"server_default": text("'active'")})
    created_at: datetime = Field(sa_type=TIME)
    last_login_at: datetime | None = Field(sa_type=TIME)
    """Null until an imported user first logs in."""
    external_id: str | None = Field(max_length=128)  # unlike a CHECK, costs nothing if the column is not written
    """The user's id in the operator's other services, from before wxauth."""
    phone_verified_at: datetime | None = Field(sa_type=TIME)
    """When the number was last verified with the phone button; null if it was only imported."""
    consents: dict[str, str] | None = Field(sa_type=JSONB)
    """The present consents, document → version; null means the same as empty. They are stored here so that a login
    reads no other table."""
    attributes: dict[str, Any] | None = Field(sa_type=JSONB)
    """The operator's own facts about the user; null means the same as empty: see `users/attributes.py`."""
    erase_at: datetime | None = Field(sa_type=TIME)
    """When housekeeping erases the user, who has asked for it; null for everybody else. Until then the user has no
    session, and nobody merges or splits them: see `users/erasure_rows.py`."""

    @property
    def phone_verified(self) -> bool | None:
        """Whether the number was verified with the phone button; None without a number."""
        return None if self.phone is None else self.phone_verified_at is not None


class EarlierBan(TypedDict):
    """A ban that somebody had before a merge."""

    reason: str | None
    until: str | None
    """In ISO 8601."""


class Origins(SQLModel):
    """From whom each fact of a user came that a merge may have filled: see `merging/origin_rows.py`.

    Null for the user's own part; the user's own id if it is not known which of the merged users it belongs to.
    """

    nickname_from: UUID | None
    avatar_url_from: UUID | None
    phone_from: UUID | None
    external_id_from: UUID | None


MERGED: Final[tuple[LiteralString, ...]] = tuple(part(name.removesuffix("_from")) for name in Origins.model_fields)
"""The fields of a user that a merge may have filled."""


class UserInSession(UserFields):
    """A user, with the identity of one of their sessions."""

    app_id: str
    openid: str

    @classmethod
    def of(cls, user: UserFields, *, app_id: str, openid: str) -> Self:
        """The user in a session of this identity."""
        columns = vars(user)
        values = {name: columns[name] for name in _COLUMNS}
        values["app_id"], values["openid"] = app_id, openid
        return model_of(cls, values)


MAY_LOG_IN: Final = "users.status = 'active' AND users.erase_at IS NULL"
"""SQL: whether a user is neither banned nor leaving."""
IS_ADMINISTRATOR: Final = f"'admin' = ANY (users.roles) AND {MAY_LOG_IN}"
"""SQL: whether a user is an administrator who can log in. A literal, so that the partial index is used."""
_COLUMNS: Final = columns_of(UserFields)
USER: Final = ", ".join(f"users.{name}" for name in _COLUMNS)
"""The columns of `UserFields`, for a statement's SELECT or RETURNING."""
ORIGIN: Final = """COALESCE(
           (SELECT came_from FROM identities WHERE app_id = :app_id AND openid = :openid),
           (SELECT unionids.came_from FROM identities JOIN unionids USING (unionid)
             WHERE app_id = :app_id AND openid = :openid))"""
"""SQL for the origin of what an identity does now, for `merging/origin_rows.py`: the former id with which it, or else
its unionid, came to the user by a merge. Null if it is the user's own."""


@dataclass(frozen=True, slots=True)
class Person:
    """A user together with one of their identities."""

    user_id: UUID
    app_id: str
    openid: str


RESERVED_CLAIMS: Final = frozenset(
    {
        *("iss", "sub", "aud", "exp", "nbf", "iat", "jti", "sid", "client_id", "app_id", "openid", "scope", "roles"),
        *("external_id", "auth_time", "nonce", "at_hash", "c_hash", "s_hash", "acr", "amr", "azp", "cnf", "act"),
        *("may_act", "events", "name", "picture", "updated_at", "email", "email_verified", "phone_number"),
        "phone_number_verified",
    }
)
"""The claims with a meaning of their own, which no template may have."""
MAX_TEMPLATE: Final = 1024
"""Bytes of a template as compact JSON."""
MAX_ADDED: Final = 3 * 1024
"""Bytes that a template may add to one token, as compact JSON: guards accept tokens of 8,192 bytes."""
MAX_CONTAINERS: Final = 56
"""Objects and lists in that JSON: guards accept 64, of which a token has some itself."""

_ATTRIBUTE: Final = "attributes."

log = get_logger()

Template = Mapping[str, Any]
Fill = Callable[[UserInSession, bool], object]
"""The value for a user, and for whether the token may have roles. None: no value."""


def check_claims(template: Template) -> None:
    """Check a template. Raises: ValueError, with its rule."""
    if reserved := sorted(RESERVED_CLAIMS & template.keys()):
        raise ValueError(f"must not have the claim {reserved[0]}, which has a meaning of its own")
    if "" in template:
        raise ValueError("must be without an empty name")
    text = _json(template)
    if b"\\u0000" in text.replace(b"\\\\", b""):  # PostgreSQL cannot store it
        raise ValueError("must be without U+0000")
    if len(text) > MAX_TEMPLATE:
        raise ValueError(f"must be at most {MAX_TEMPLATE} bytes")
    if has_too_many_containers(text.decode(), MAX_CONTAINERS):
        raise ValueError(f"must have at most {MAX_CONTAINERS} lists and objects")
    compile_claims(template)


class ClaimsTemplate:
    """A compiled template of claims."""

    def __init__(self, fills: Mapping[str, Fill]) -> None:
        self._fills = tuple(fills.items())

    def filled(self, user: UserInSession, *, sees_roles: bool) -> dict[str, object]:
        """The claims for a user's token; none if they are too much for one, so that no guard refuses it."""
        claims = {name: value for name, fill in self._fills if (value := fill(user, sees_roles)) is not None}
        text = to_json(claims)
        if len(text) > MAX_ADDED or has_too_many_containers(text.decode(), MAX_CONTAINERS):
            log.error("claims_left_out", user_id=user.id, app_id=user.app_id, reason="too much for one token")
            return {}
        return claims


def compile_claims(template: Template) -> ClaimsTemplate:
    """Compile a template. Raises: ValueError, for a fact that is not known."""
    return ClaimsTemplate({name: _compiled(value) for name, value in template.items()})


def _compiled(value: object) -> Fill:
    match value:
        case str() if value.startswith("$$"):
            return _constant(value[1:])
        case str() if value.startswith("$"):
            return _fact(value[1:])
        case Mapping():
            return _object({name: _compiled(part) for name, part in value.items()})
        case list():
            return _list([_compiled(part) for part in value])
        case int() | float() if abs(value) > sys.float_info.max or value != value:
            raise ValueError("must have no number beyond a double's range")
        case _:
            return _constant(value)


def _constant(value: object) -> Fill:
    return lambda _user, _sees_roles: value


def _object(members: Mapping[str, Fill]) -> Fill:
    fills = tuple(members.items())
    return lambda user, sees_roles: {
        name: value for name, fill in fills if (value := fill(user, sees_roles)) is not None
    }


def _list(items: Sequence[Fill]) -> Fill:
    # An empty list is no value.
    return lambda user, sees_roles: [value for fill in items if (value := fill(user, sees_roles)) is not None] or None


def _fact(name: str) -> Fill:
    if name in _FACTS:
        return _FACTS[name]
    attribute = name.removeprefix(_ATTRIBUTE)
    if attribute != name and ATTRIBUTE_NAME.fullmatch(attribute):
        return lambda user, _: _no_value_if_empty((user.attributes or {}).get(attribute))
    raise ValueError(f"must have no other facts than {', '.join(f'${fact}' for fact in _FACTS)}, $attributes.NAME")


def _no_value_if_empty(value: object) -> object:
    return None if value == [] else value


_FACTS: Final[Mapping[str, Fill]] = {
    "user.id": lambda user, _: str(user.id),
    "user.roles": lambda user, sees_roles: (user.roles if sees_roles else None) or None,
    "user.external_id": lambda user, _: user.external_id,
    "user.unionid": lambda user, _: user.unionid,
    "app_id": lambda user, _: user.app_id,
    "openid": lambda user, _: user.openid,
}


def _json(value: object) -> bytes:
    try:
        return to_json(value, inf_nan_mode="strings")
    except (ValueError, UnicodeError):
        raise ValueError("must be JSON") from None
