"""The tables of users, identities and unionids, of merged users, and of unfinished erasures."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Text
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME
from wxauth.core.users import UserFields


class User(UserFields, table=True):
    """The table of users, each known by identities. Until the first login, an import may only have stored a unionid."""

    __tablename__ = "users"

    ban_reason: str | None = Field(sa_type=Text)
    """The reason for the ban, for staff only."""
    banned_until: datetime | None = Field(sa_type=TIME)
    """When housekeeping lifts the ban; null for a ban without an end."""
    identity_lost_at: datetime | None = Field(sa_type=TIME)
    """When an identity last left this user, or an import may have given one of this user's identities to another user.

    It is null again after a login an hour later. Only logins read it: see `_RETURN` in `login/login_queries.py`.
    """


class Identity(SQLModel, table=True):
    """The table of identities, each of which is one openid in one app."""

    __tablename__ = "identities"

    app_id: str = Field(sa_type=Text, primary_key=True)
    openid: str = Field(sa_type=Text, primary_key=True)
    user_id: UUID
    created_at: datetime = Field(sa_type=TIME)
    unionid: str | None = Field(sa_type=Text)
    """The unionid that WeChat last gave for this identity."""
    phone_proved_at: datetime | None = Field(sa_type=TIME)
    """When this identity last proved the user's present number with the phone button."""
    awaits_login: bool
    """Whether an import has created the identity, and nobody has logged in with it since.

    Until then, its openid may be wrong.
    """


class StoredUnionid(SQLModel, table=True):
    """The table of users' present and former unionids.

    Each Open Platform account has unionids of its own, and apps move between the accounts.
    """

    __tablename__ = "unionids"

    unionid: str = Field(sa_type=Text, primary_key=True)
    user_id: UUID


class FormerUser(SQLModel, table=True):
    """The table of the ids of users who were merged into another one.

    Other services may still know the user by such an id.
    """

    __tablename__ = "former_users"

    id: UUID = Field(primary_key=True)
    user_id: UUID
    """The user that remains after all later merges."""
    merged_at: datetime = Field(sa_type=TIME)


class FormerExternalId(SQLModel, table=True):
    """The table of former external ids.

    A user who was merged into one with another external id had such an id. Other services may still know it.
    """

    __tablename__ = "former_external_ids"

    external_id: str = Field(max_length=128, primary_key=True)
    user_id: UUID
    """The user that remains after all later merges."""


class Erasure(SQLModel, table=True):
    """The table of erased users whose events, consents or refused logins are not all erased yet, by id."""

    __tablename__ = "erasures"

    user_id: UUID = Field(primary_key=True)
    about_after: UUID
    """The last event about the user whose data has been removed."""
    acted_after: UUID
    """The last event by the user from which the user's address has been removed."""
