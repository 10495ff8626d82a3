"""A user's row, as every room reads it."""

from datetime import datetime
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

from typing_extensions import TypedDict

ROLE = "[a-z][a-z0-9_-]{0,31}"
MAX_ROLES: Final = 32
STAFF_ROLES: Final = frozenset({"admin", "support"})
"""The roles that allow access to other people's data. Only an administrator or a command can assign them."""
PROFILE: Final = ("nickname", "avatar_url")
"""The columns whose changes are events, `user.profile_changed`."""


class UserStatus(StrEnum):
    """Whether a user may log in."""

    ACTIVE = "active"
    DISABLED = "disabled"


class UserRow(TypedDict):
    """A user, as read from the database: all columns except those that only logins and staff need."""

    id: UUID
    unionid: str | None
    nickname: str | None
    avatar_url: str | None
    phone: str | None
    roles: list[str]
    status: Literal["active", "disabled"]
    created_at: datetime
    last_login_at: datetime | None
    external_id: str | None
    phone_verified_at: datetime | None
    """When the number was last verified with the phone button; None if it was only imported."""
    consents: dict[str, str] | None
    """The present consents, document → version. None means the same as empty."""


class UserInSession(UserRow):
    """A user, with the identity of one of their sessions."""

    app_id: str
    openid: str


USER: Final = ", ".join(f"users.{name}" for name in UserRow.__annotations__)
"""The columns of `UserRow`, for a statement's SELECT or RETURNING."""
ORIGIN: Final = """COALESCE(
           (SELECT came_from FROM identities WHERE app_id = :app_id AND openid = :openid),
           (SELECT unionids.came_from FROM identities JOIN unionids USING (unionid)
             WHERE app_id = :app_id AND openid = :openid))"""
"""SQL for the origin of what an identity does now, for `users/origins.py`: the former id with which it, or else its
unionid, came to the user by a merge. Null if it is the user's own."""


def phone_verified(user: UserRow) -> bool | None:
    """Whether the number was verified with the phone button; None without a number."""
    return None if user["phone"] is None else user["phone_verified_at"] is not None
