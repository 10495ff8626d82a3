"""The tables of sessions, and of the links that open the console."""

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
    # The encrypted key is from this login, or from a later code of the identity (`STORE_KEY`), until the session ends.
    session_key: bytes | None = Field(sa_type=BYTEA)
    generation: int  # of the newest refresh token
    rotated_at: datetime | None = Field(sa_type=TIME)
    # The device's address at the login or the last refresh, and `user_agent` from the same request. A website's session
    # has those of the browser at the login, because the website's server sends the refreshes. With
    # `ADDRESSES_KEPT_DAYS`, housekeeping later truncates `ip` and `opened_ip` to their networks.
    ip: str | None = Field(sa_type=INET)
    user_agent: str | None = Field(sa_type=Text)
    opened_ip: str | None = Field(sa_type=INET)  # null as long as `ip` is still this address: see `list_queries.OPENED`
    opened_user_agent: str | None = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=TIME)
    last_used_at: datetime = Field(sa_type=TIME)
    expires_at: datetime = Field(sa_type=TIME)
    revoked_at: datetime | None = Field(sa_type=TIME)
    revoked_reason: str | None = Field(sa_type=Text)
    # The columns below matter only for the sessions of websites.
    client_id: str | None = Field(sa_type=Text)
    scope: str | None = Field(sa_type=Text)
    authenticated_at: datetime | None = Field(sa_type=TIME)
    authenticated_by: str | None = Field(sa_type=Text)  # the `amr` value (RFC 8176)
    # The website itself has ended the session, so it gets no logout token. Null counts as false.
    site_knows: bool | None
    resource: str | None = Field(sa_type=Text)  # null if all services of the operator accept the tokens
    client_name: str | None = Field(sa_type=Text)
    resource_title: str | None = Field(sa_type=Text)


class WebsiteSession(SQLModel, table=True):
    """The sessions of each website. An index on `sessions` instead would slow down every login of a phone."""

    __tablename__ = "website_sessions"

    client_id: str = Field(sa_type=Text, primary_key=True)
    session_id: UUID = Field(primary_key=True)
    browser_login_id: UUID | None


class AdminLink(SQLModel, table=True):
    """Links that open the console. Each works once."""

    __tablename__ = "admin_links"

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)  # SHA-256 of the link's secret, which is not stored
    user_id: UUID
    expires_at: datetime = Field(sa_type=TIME)
