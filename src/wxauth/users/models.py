"""The tables of users, identities and unionids, of merged users, and of unfinished erasures."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Text
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME
from wxauth.core.users import UserFields


class User(UserFields, table=True):
    """A person, known by identities, or until their first login by nothing but an imported unionid."""

    __tablename__ = "users"

    ban_reason: str | None = Field(sa_type=Text)
    """The reason for the ban, for staff only."""
    banned_until: datetime | None = Field(sa_type=TIME)
    """When housekeeping lifts the ban; null for a ban without an end."""
    identity_lost_at: datetime | None = Field(sa_type=TIME)
    """When an identity last left this user, or an import may have given another user one of this person's; null again
    at a login an hour later. Only logins read it: see `_RETURN` in `login/login_queries.py`."""


class Identity(SQLModel, table=True):
    """One openid in one app."""

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
    """Whether an import has made it, and nobody has logged in with it since: its openid may then be something else."""


class StoredUnionid(SQLModel, table=True):
    """A present or former unionid of a person. Each Open Platform account has its own, and apps move between them."""

    __tablename__ = "unionids"

    unionid: str = Field(sa_type=Text, primary_key=True)
    user_id: UUID


class FormerUser(SQLModel, table=True):
    """The id of a user who was merged into another one. Other services may still know the person by it."""

    __tablename__ = "former_users"

    id: UUID = Field(primary_key=True)
    user_id: UUID
    """The user that remains after all later merges."""
    merged_at: datetime = Field(sa_type=TIME)


class FormerExternalId(SQLModel, table=True):
    """The external id of a user who was merged into one with another external id. Other services may still know it."""

    __tablename__ = "former_external_ids"

    external_id: str = Field(max_length=128, primary_key=True)
    user_id: UUID
    """The user that remains after all later merges."""


class Erasure(SQLModel, table=True):
    """An id of an erased person whose events, consents or refused logins are not all erased yet."""

    __tablename__ = "erasures"

    user_id: UUID = Field(primary_key=True)
    about_after: UUID
    """The last event about the person whose data has been removed."""
    acted_after: UUID
    """The last event by the person from which their address has been removed."""
