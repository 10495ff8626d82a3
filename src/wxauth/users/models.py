"""The tables of users, identities and unionids, of the former ids of users, and of unfinished erasures."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Text
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME
from wxauth.core.users import UserFields


class User(UserFields, table=True):
    """The table of users. Until the first login, an imported user may have a unionid but no identity."""

    __tablename__ = "users"

    ban_reason: str | None = Field(sa_type=Text)  # for staff only
    banned_until: datetime | None = Field(sa_type=TIME)
    identity_lost_at: datetime | None = Field(sa_type=TIME)
    """When the user last lost an identity, or an import last required a check of the user's next login.

    A trigger on the identities notes that one was lost. While this is set, `RETURNING_LOGIN` serves no login, because
    it might wait for a lock and still see the identity as it was before. A login at least an hour later sets the column
    to null.
    """


class Identity(SQLModel, table=True):
    """The table of identities. An identity is one openid in one app."""

    __tablename__ = "identities"

    app_id: str = Field(sa_type=Text, primary_key=True)
    openid: str = Field(sa_type=Text, primary_key=True)
    user_id: UUID
    created_at: datetime = Field(sa_type=TIME)
    unionid: str | None = Field(sa_type=Text)  # what WeChat last returned, or an import has stored
    phone_proved_at: datetime | None = Field(sa_type=TIME)
    """When this identity last proved the user's present number with the phone button."""
    awaits_login: bool
    """Whether the identity was imported, and nobody has used it yet. Its openid might be wrong.

    See `correct_imported_identity`.
    """


class StoredUnionid(SQLModel, table=True):
    """The table of present and former unionids. An app may have moved from one Open Platform account to another."""

    __tablename__ = "unionids"

    unionid: str = Field(sa_type=Text, primary_key=True)
    user_id: UUID


class FormerUser(SQLModel, table=True):
    """The table of the ids of users who were merged into another, which other services might still use."""

    __tablename__ = "former_users"

    id: UUID = Field(primary_key=True)
    user_id: UUID
    merged_at: datetime = Field(sa_type=TIME)


class FormerExternalId(SQLModel, table=True):
    """The table of external ids that a merge of two users with one each, or an import, has replaced."""

    __tablename__ = "former_external_ids"

    external_id: str = Field(max_length=128, primary_key=True)
    user_id: UUID


class Erasure(SQLModel, table=True):
    """The table of the ids of erased users whose events, consents and refused logins are not all erased."""

    __tablename__ = "erasures"

    user_id: UUID = Field(primary_key=True)  # a present or former id
    about_after: UUID
    """The last event about the user that was cleared of data; `FIRST_ID` at the beginning."""
    acted_after: UUID
    """The last event by the user that was cleared of the address; `FIRST_ID` at the beginning."""
