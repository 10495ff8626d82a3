"""The tables of users, identities and unionids, of the former ids of users, and of unfinished erasures."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Text
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME
from wxauth.core.users import UserFields


class User(UserFields, table=True):
    """The table of users, whom wxauth recognizes by their identities.

    Until the first login, an imported user may have a unionid but no identity.
    """

    __tablename__ = "users"

    ban_reason: str | None = Field(sa_type=Text)
    """The reason for the ban, for staff only; null if the ban has no reason, or if there is no ban."""
    banned_until: datetime | None = Field(sa_type=TIME)
    """The time at which wxauth lifts the ban; null if the ban has no end, or if there is no ban."""
    identity_lost_at: datetime | None = Field(sa_type=TIME)
    """The time at which the user last lost an identity, or might have lost an identity in an import.

    Only logins read the column. They need it, because a login that has waited for a lock might still see the identity
    as it was before the loss. See `RETURNING_LOGIN` in `login/batched_queries.py`. A login at least an hour later sets
    the column to null.
    """


class Identity(SQLModel, table=True):
    """The table of identities. An identity is one openid in one app."""

    __tablename__ = "identities"

    app_id: str = Field(sa_type=Text, primary_key=True)
    openid: str = Field(sa_type=Text, primary_key=True)
    user_id: UUID
    created_at: datetime = Field(sa_type=TIME)
    unionid: str | None = Field(sa_type=Text)
    """The unionid that WeChat last returned for this identity, or that an import has stored; null if there is none."""
    phone_proved_at: datetime | None = Field(sa_type=TIME)
    """The time at which this identity last proved the user's present number with the phone button.

    It is null if the identity has not proved this number.
    """
    awaits_login: bool
    """Whether an import has created the identity, and nobody has logged in with it yet.

    Until the first login, its openid might be wrong, for example a unionid. The column also becomes false if wxauth
    must leave such an identity unchanged: see `correct_imported_identity` in `merging/merging.py`.
    """


class StoredUnionid(SQLModel, table=True):
    """The table of users' present and former unionids.

    A user can have several unionids, for example after an app has moved from one Open Platform account to another,
    because each account has separate unionids.
    """

    __tablename__ = "unionids"

    unionid: str = Field(sa_type=Text, primary_key=True)
    user_id: UUID


class FormerUser(SQLModel, table=True):
    """The table of ids of users who were merged into another user.

    Other services might still use such an id for the user.
    """

    __tablename__ = "former_users"

    id: UUID = Field(primary_key=True)
    user_id: UUID
    """The user who remains after all merges."""
    merged_at: datetime = Field(sa_type=TIME)


class FormerExternalId(SQLModel, table=True):
    """The table of former external ids, which other services might still use for a user.

    If both users of a merge have an external id, the external id of the user who is merged into the other becomes a
    former external id. An import can also add former external ids.
    """

    __tablename__ = "former_external_ids"

    external_id: str = Field(max_length=128, primary_key=True)
    user_id: UUID
    """The user who remains after all merges."""


class Erasure(SQLModel, table=True):
    """The table of erased users whose events, consents and refused logins are not all erased yet.

    Each present or former id of a user has its own row.
    """

    __tablename__ = "erasures"

    user_id: UUID = Field(primary_key=True)
    about_after: UUID
    """The id of the last event about the user that wxauth has cleared of data; `FIRST_ID` at the beginning."""
    acted_after: UUID
    """Of the events that the user caused, the id of the last one from which wxauth has removed the user's address.

    At the beginning, it is `FIRST_ID`.
    """
