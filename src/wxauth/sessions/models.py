"""The tables of sessions."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA, INET
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME


class Session(SQLModel, table=True):
    """One login on one device."""

    __tablename__ = "sessions"

    id: UUID = Field(primary_key=True)
    user_id: UUID
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    session_key: bytes | None = Field(sa_type=BYTEA)
    """WeChat's key for this login, sealed. It is deleted when the session ends."""
    generation: int
    """How often the refresh token has been rotated."""
    rotated_at: datetime | None = Field(sa_type=TIME)
    ip: str | None = Field(sa_type=INET)
    """The address of the last use, and so on."""
    user_agent: str | None = Field(sa_type=Text)
    opened_ip: str | None = Field(sa_type=INET)
    """The address from which the session was opened, if the last use had another one: see `OPENED`."""
    opened_user_agent: str | None = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=TIME)
    last_used_at: datetime = Field(sa_type=TIME)
    expires_at: datetime = Field(sa_type=TIME)
    revoked_at: datetime | None = Field(sa_type=TIME)
    revoked_reason: str | None = Field(sa_type=Text)
    # The columns below are for the sessions of websites.
    client_id: str | None = Field(sa_type=Text)
    """The website."""
    scope: str | None = Field(sa_type=Text)
    """The granted scopes, separated by spaces."""
    authenticated_at: datetime | None = Field(sa_type=TIME)
    """When the person approved the login."""
    authenticated_by: str | None = Field(sa_type=Text)
    """How the person logged in, as a value of `amr` (RFC 8176)."""
    site_knows: bool | None
    """Whether the site asked for the end itself. Then it gets no logout token."""
    resource: str | None = Field(sa_type=Text)
    """The resource that its tokens are for; null if they are for all services of the operator."""
    client_name: str | None = Field(sa_type=Text)
    """The titles of the client and of the resource, as the person has approved them."""
    resource_title: str | None = Field(sa_type=Text)


class WebsiteSession(SQLModel, table=True):
    """The sessions of websites by site. An index on `sessions` instead of this table would slow every phone's login."""

    __tablename__ = "website_sessions"

    client_id: str = Field(sa_type=Text, primary_key=True)
    session_id: UUID = Field(primary_key=True)
    browser_login_id: UUID | None
    """The browser's login that opened it, which may have ended; null if none did."""


class AdminLink(SQLModel, table=True):
    """A link that opens the console for an administrator once."""

    __tablename__ = "admin_links"

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of the link's secret. The secret itself is not stored."""
    user_id: UUID
    expires_at: datetime = Field(sa_type=TIME)
