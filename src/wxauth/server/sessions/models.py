"""The tables of sessions."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, INET
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME, after_create


class Session(SQLModel, table=True):
    """One login on one device."""

    __tablename__ = "sessions"
    __table_args__ = (
        # A session belongs to its identity's user. A trigger on `identities` ensures that.
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        Index(None, "user_id", "id"),
        # By default autovacuum waits until a fifth of the rows are dead: 20 million, if there are 100 million sessions.
        {
            "postgresql_with": {
                "autovacuum_vacuum_scale_factor": 0.02,
                "autovacuum_vacuum_insert_scale_factor": 0.02,
            }
        },
    )

    id: UUID = Field(primary_key=True)
    user_id: UUID
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    session_key: bytes | None = Field(sa_type=BYTEA)
    """WeChat's key for this login, sealed. It is deleted when the session ends."""
    generation: int = Field(sa_column_kwargs={"server_default": text("0")})
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


after_create(
    Session,
    # A trigger in place of a CHECK, as for users: it costs a login a third of what the CHECK did. It runs after the
    # write, because PostgreSQL locks a row for every trigger that runs before its update.
    """
        CREATE FUNCTION check_session() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NOT (NEW.generation >= 0 AND NEW.expires_at >= NEW.created_at
                    AND (NEW.revoked_at IS NULL) = (NEW.revoked_reason IS NULL)
                    AND (NEW.revoked_at IS NULL OR NEW.session_key IS NULL)) THEN
                RAISE EXCEPTION 'a session breaks its rules'
                      USING ERRCODE = 'check_violation', TABLE = 'sessions', CONSTRAINT = 'sessions_state_check';
            END IF;
            RETURN NULL;
        END
        $$
    """,
    """
        CREATE TRIGGER sessions_check
            AFTER INSERT OR UPDATE
                OF generation, created_at, expires_at, revoked_at, revoked_reason, session_key ON sessions
            FOR EACH ROW EXECUTE FUNCTION check_session()
    """,
    # A trigger, so that no statement that ends a session can omit its site. A session that had only expired has ended
    # by time.
    """
        CREATE FUNCTION queue_backchannel_logout() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF NEW.client_id IS NOT NULL AND OLD.revoked_at IS NULL AND NEW.expires_at > NEW.revoked_at
               AND NEW.site_knows IS NOT TRUE THEN
                INSERT INTO deliveries (receiver_id, event_id, id, type, user_id, priority, next_at, at)
                SELECT id, NEW.id, NEW.id, 'logout', NEW.user_id,
                       CASE WHEN NEW.revoked_reason IN ('banned', 'administrator') THEN -2 ELSE -1 END,
                       NEW.revoked_at, NEW.revoked_at
                  FROM clients
                 WHERE name = NEW.client_id AND removed_by IS NULL AND backchannel_logout_uri IS NOT NULL;
            END IF;
            RETURN NULL;
        END
        $$
    """,
    """
        CREATE TRIGGER sessions_queue_backchannel_logout AFTER UPDATE OF revoked_at ON sessions
            FOR EACH ROW EXECUTE FUNCTION queue_backchannel_logout()
    """,
    # In place of a foreign key, for which PostgreSQL would look there for each of millions of phones' sessions that are
    # deleted. Who adds a row there adds its session in the same statement.
    """
        CREATE FUNCTION delete_website_sessions() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM website_sessions USING gone WHERE gone.client_id IS NOT NULL AND session_id = gone.id;
            RETURN NULL;
        END
        $$
    """,
    """
        CREATE TRIGGER sessions_delete_website_sessions AFTER DELETE ON sessions REFERENCING OLD TABLE AS gone
            FOR EACH STATEMENT EXECUTE FUNCTION delete_website_sessions()
    """,
)


class WebsiteSession(SQLModel, table=True):
    """The sessions of websites by site. An index on `sessions` instead of this table would slow every phone's login."""

    __tablename__ = "website_sessions"
    __table_args__ = (
        Index(None, "session_id"),
        Index(None, "browser_login_id", postgresql_where=text("browser_login_id IS NOT NULL")),
    )

    client_id: str = Field(sa_type=Text, primary_key=True)
    session_id: UUID = Field(primary_key=True)
    browser_login_id: UUID | None
    """The browser's login that opened it, which may have ended; null if none did."""


class AdminLink(SQLModel, table=True):
    """A link that opens the console for an administrator once."""

    __tablename__ = "admin_links"
    __table_args__ = (
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        Index(None, "user_id"),
    )

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of the link's secret. The secret itself is not stored."""
    user_id: UUID
    expires_at: datetime = Field(sa_type=TIME)
