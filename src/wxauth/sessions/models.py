"""The tables of sessions, and of the links that open the console."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA, INET
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME


class Session(SQLModel, table=True):
    """The table of sessions. Each session is one login on one device."""

    __tablename__ = "sessions"

    id: UUID = Field(primary_key=True)
    user_id: UUID
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    session_key: bytes | None = Field(sa_type=BYTEA)
    """WeChat's session_key, encrypted; null if there is none.

    It comes from this login, or from a later `wx.login` code of the same identity (see `STORE_KEY`). wxauth deletes the
    session_key when the session ends.
    """
    generation: int
    """The number of times that the refresh token has been rotated."""
    rotated_at: datetime | None = Field(sa_type=TIME)
    """The time of the last rotation; null before the first one."""
    ip: str | None = Field(sa_type=INET)
    """The device's address at the login or the last refresh. `user_agent` is from the same request.

    For a website's session, it is the browser's address at the login, because the website's server sends the refreshes.
    With `ADDRESSES_KEPT_DAYS`, housekeeping later truncates `ip` and `opened_ip` to their networks.
    """
    user_agent: str | None = Field(sa_type=Text)
    opened_ip: str | None = Field(sa_type=INET)
    """The address from which the session was opened; null as long as `ip` is still this address.

    `opened_user_agent` is stored in the same way: see `OPENED` in `list_queries`.
    """
    opened_user_agent: str | None = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=TIME)
    last_used_at: datetime = Field(sa_type=TIME)
    expires_at: datetime = Field(sa_type=TIME)
    revoked_at: datetime | None = Field(sa_type=TIME)
    """The time at which the session ended; null if it is open, or has expired without being ended."""
    revoked_reason: str | None = Field(sa_type=Text)
    """The `EndReason`; null if `revoked_at` is null."""
    # The columns below matter only for the sessions of websites.
    client_id: str | None = Field(sa_type=Text)
    """The client_id of the website."""
    scope: str | None = Field(sa_type=Text)
    """The granted scopes, separated by spaces."""
    authenticated_at: datetime | None = Field(sa_type=TIME)
    """The time at which the user proved who they are, for example by approving the login on the phone."""
    authenticated_by: str | None = Field(sa_type=Text)
    """The `amr` value (RFC 8176) for the way in which the user logged in."""
    site_knows: bool | None
    """Whether the website itself has ended the session, so that wxauth sends the website no logout token.

    Null counts as false.
    """
    resource: str | None = Field(sa_type=Text)
    """The resource for which the session's tokens are valid; null if all services of the operator accept them."""
    client_name: str | None = Field(sa_type=Text)
    """The title that the client had at the login; null if `resource` is null."""
    resource_title: str | None = Field(sa_type=Text)
    """The title that the resource had at the login; null if `resource` is null."""


class WebsiteSession(SQLModel, table=True):
    """The table that lists the sessions of each website.

    An index on `sessions` would serve the same purpose, but would slow down every login of a phone.
    """

    __tablename__ = "website_sessions"

    client_id: str = Field(sa_type=Text, primary_key=True)
    session_id: UUID = Field(primary_key=True)
    browser_login_id: UUID | None
    """The browser's login from which the session was opened, even if that login has ended; null if there was none."""


class AdminLink(SQLModel, table=True):
    """The table of links that open the console for an administrator or a support user. Each link works once."""

    __tablename__ = "admin_links"

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    """The SHA-256 hash of the link's secret. wxauth does not store the secret itself."""
    user_id: UUID
    expires_at: datetime = Field(sa_type=TIME)
