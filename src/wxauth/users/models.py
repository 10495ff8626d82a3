"""The tables of users, identities and unionids, of merged users, and of unfinished erasures."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Text
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME
from wxauth.core.users import UserFields


class User(UserFields, table=True):
    """The table of users, each of whom is known by identities.

    A user whom an import has created may only have a unionid until the first login.
    """

    __tablename__ = "users"

    ban_reason: str | None = Field(sa_type=Text)
    """The reason for the ban, for staff only."""
    banned_until: datetime | None = Field(sa_type=TIME)
    """When the ban is lifted automatically; null for a ban without an end."""
    identity_lost_at: datetime | None = Field(sa_type=TIME)
    """When this user last lost an identity, or an import may have given one of this user's identities to another user.

    A login at least an hour later sets it to null. Only logins read it: see `RETURN` in `login/batched_queries.py`.
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

    Each Open Platform account has its own unionids, and an app may move from one account to another.
    """

    __tablename__ = "unionids"

    unionid: str = Field(sa_type=Text, primary_key=True)
    user_id: UUID


class FormerUser(SQLModel, table=True):
    """The table of ids of users who were merged into another user.

    Other services may still know the user by such an id.
    """

    __tablename__ = "former_users"

    id: UUID = Field(primary_key=True)
    user_id: UUID
    """The user that remains after all merges."""
    merged_at: datetime = Field(sa_type=TIME)


class FormerExternalId(SQLModel, table=True):
    """The table of former external ids.

    A merged user had such an id if the remaining user has a different one. Other services may still know it.
    """

    __tablename__ = "former_external_ids"

    external_id: str = Field(max_length=128, primary_key=True)
    user_id: UUID
    """The user that remains after all merges."""


class Erasure(SQLModel, table=True):
    """The table of erased users whose events, consents or refused logins have not all been erased yet, by user id."""

    __tablename__ = "erasures"

    user_id: UUID = Field(primary_key=True)
    about_after: UUID
    """The last event about the user from which data has been removed."""
    acted_after: UUID
    """The last event caused by the user from which the user's address has been removed."""
