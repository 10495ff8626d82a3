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

ROLES_SCOPE: Final = "roles"
"""The scope that allows a website to read a user's roles."""
PROFILE_FIELDS: Final = ("nickname", "avatar_url")
"""The fields of a user's profile.

The event `user.profile_changed` also reports changes of other fields, for example of `external_id`.
"""
MERGEABLE_FIELDS: Final[tuple[LiteralString, ...]] = (*PROFILE_FIELDS, "phone", "external_id")
"""The fields that a merge copies to the remaining user, if the remaining user has no value in them.

`clear_fields` in `users/user_queries.py` can clear only these fields, for example for an administrator or in a split.
"""


class UserStatus(StrEnum):
    """The status of a user: active, or disabled, which means banned."""

    ACTIVE = "active"
    DISABLED = "disabled"


class UserFields(SQLModel):
    """The fields of a user. The other columns, which few statements need, are fields of `User` in `users/models.py`."""

    id: UUID = Field(primary_key=True)
    unionid: str | None = Field(sa_type=Text)
    """One of the user's unionids; null if there is none. The table `unionids` contains all of them."""
    nickname: str | None = Field(sa_type=Text)
    avatar_url: str | None = Field(sa_type=Text)
    phone: str | None = Field(sa_type=Text)
    roles: list[str] = Field(sa_type=ARRAY(Text))
    # A row from the database is not validated, so the value is a string instead of a UserStatus.
    status: Literal["active", "disabled"] = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=TIME)
    last_login_at: datetime | None = Field(sa_type=TIME)
    """The time of the last login; null for an imported user whose last login is unknown."""
    # Unlike a CHECK constraint, a length limit costs nothing if the column is not written.
    external_id: str | None = Field(max_length=128)
    """The user's id in the operator's own or previous system."""
    phone_verified_at: datetime | None = Field(sa_type=TIME)
    """The time when the number was last verified with the phone button.

    Null if there is no number, or if it was only imported.
    """
    consents: dict[str, str] | None = Field(sa_type=JSONB)
    """The present consents, as the version of each document. Null means that there are none.

    The consents are stored in this table so that a login does not read another table.
    """
    attributes: dict[str, Any] | None = Field(sa_type=JSONB)
    """The operator's facts about the user. Null means that there are none. See `users/attributes.py`."""
    erase_at: datetime | None = Field(sa_type=TIME)
    """The time when housekeeping erases the user at the user's request; null if there is no request.

    A user who is banned at this time is erased only after the ban has ended. Until the erasure, the user has no
    open session, and cannot be split. Most merges with the user are refused, too. See `users/erasure_queries.py`.
    """

    @property
    def phone_verified(self) -> bool | None:
        """Whether the number was verified with the phone button; None if there is no number."""
        return None if self.phone is None else self.phone_verified_at is not None


class UserInSession(UserFields):
    """A user, with the identity of one of the user's sessions."""

    app_id: str
    openid: str


MAY_LOG_IN: Final = "users.status = 'active' AND users.erase_at IS NULL"
"""The SQL condition that is true if a user is neither banned nor about to be erased."""
IS_ADMINISTRATOR: Final = f"'admin' = ANY (users.roles) AND {MAY_LOG_IN}"
"""The SQL condition that is true if a user is an administrator who can log in.

The role is a literal, because PostgreSQL uses the partial index of administrators only for a literal.
"""
USER: Final = ", ".join(f"users.{name}" for name in columns_of(UserFields))
"""The columns of `UserFields`, for a statement's SELECT or RETURNING."""
USER_IN_SESSION: Final = f"{USER}, :app_id::text AS app_id, :openid::text AS openid"
"""The columns of `UserInSession`, for a statement about an identity of the user.

The statement needs the parameters `app_id` and `openid`.
"""
