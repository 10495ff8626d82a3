"""The model of a user, with the fields that many packages read, and the SQL that selects these fields."""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final, Literal, LiteralString
from uuid import UUID

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME
from wxauth.core.statements import columns_of

ROLES_SCOPE: Final = "roles"  # allows a website to read a user's roles
# `user.profile_changed` also reports other fields, such as `external_id`.
PROFILE_FIELDS: Final = ("nickname", "avatar_url")
# A merge copies these fields to a user who lacks them. `clear_fields` can clear only these.
MERGEABLE_FIELDS: Final[tuple[LiteralString, ...]] = (*PROFILE_FIELDS, "phone", "external_id")


class UserStatus(StrEnum):
    """The status of a user. Disabled means banned."""

    ACTIVE = "active"
    DISABLED = "disabled"


class UserFields(SQLModel):
    """The fields of a user. The other columns, which few statements need, are fields of `User` in `users/models.py`."""

    id: UUID = Field(primary_key=True)
    unionid: str | None = Field(sa_type=Text)  # one of several, all of which are in the table `unionids`
    nickname: str | None = Field(sa_type=Text)
    avatar_url: str | None = Field(sa_type=Text)
    phone: str | None = Field(sa_type=Text)
    roles: list[str] = Field(sa_type=ARRAY(Text))
    # A row from the database is not validated, so the value is a string instead of a UserStatus.
    status: Literal["active", "disabled"] = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=TIME)
    last_login_at: datetime | None = Field(sa_type=TIME)  # null if it is unknown, for an imported user
    # Unlike a CHECK constraint, a length limit costs nothing if the column is not written.
    external_id: str | None = Field(max_length=128)  # in the operator's own or previous system
    phone_verified_at: datetime | None = Field(sa_type=TIME)  # with the phone button; null for an imported number
    consents: dict[str, str] | None = Field(sa_type=JSONB)
    """The version of each document. Null means that there are none.

    The consents are stored in this table so that a login does not read another table.
    """
    attributes: dict[str, Any] | None = Field(sa_type=JSONB)  # of the operator: see `users/attributes.py`
    erase_at: datetime | None = Field(sa_type=TIME)
    """Housekeeping erases the user at this time, at the user's request.

    A user who is banned at this time is erased only after the ban has ended. Until the erasure, the user has no open
    session, and cannot be split. Most merges with the user are refused, too. See `users/erasure_queries.py`.
    """
    last_refresh_at: datetime | None = Field(sa_type=TIME)
    """A refresh or redemption sets this time only on a later day in UTC than that of the last login and refresh."""

    @property
    def last_seen_at(self) -> datetime | None:
        """The time of the last login, refresh or redemption, correct to the day in UTC."""
        if self.last_login_at is None or self.last_refresh_at is None:
            return self.last_login_at or self.last_refresh_at
        return max(self.last_login_at, self.last_refresh_at)

    @property
    def phone_verified(self) -> bool | None:
        """Whether the number was verified with the phone button; None if there is no number."""
        return None if self.phone is None else self.phone_verified_at is not None


class UserInSession(UserFields):
    """A user, with the identity of one of the user's sessions."""

    app_id: str
    openid: str


MAY_LOG_IN: Final = "users.status = 'active' AND users.erase_at IS NULL"
# The role is a literal, because PostgreSQL uses the partial index of administrators only for a literal.
IS_ADMINISTRATOR: Final = f"'admin' = ANY (users.roles) AND {MAY_LOG_IN}"
LAST_SEEN_AT: Final = "GREATEST(users.last_login_at, users.last_refresh_at)"  # `UserFields.last_seen_at`
USER: Final = ", ".join(f"users.{name}" for name in columns_of(UserFields))
# These columns need the parameters `app_id` and `openid`.
USER_IN_SESSION: Final = f"{USER}, :app_id::text AS app_id, :openid::text AS openid"
