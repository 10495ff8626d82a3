"""The tables of logins to sites: requests and their pictures."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, INET
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME, after_create
from wxauth.server.websites.doors import Door


class Scan(SQLModel, table=True):
    """A site's request to log a person in, usually by a code to scan. All its secrets are stored as hashes.

    If the mini-program itself answers a request, nothing is shown, and the row is stored as claimed and approved. Each
    visit of a browser to WeChat's page is a row of its own, with a copy of the site's request.

    A claim names a session instead of a user: after a merge, the session belongs to the remaining user.
    """

    __tablename__ = "scans"
    __table_args__ = (
        UniqueConstraint("scene_hash"),
        UniqueConstraint("user_code_hash"),
        UniqueConstraint("device_code_hash"),
        UniqueConstraint("request_hash"),
        UniqueConstraint("wechat_state_hash"),
        UniqueConstraint("code_hash"),
        ForeignKeyConstraint(["client_id"], ["clients.name"], ondelete="CASCADE"),
        # An erased user leaves no openid behind.
        ForeignKeyConstraint(
            ["app_id", "openid"],
            ["identities.app_id", "identities.openid"],
            ondelete="CASCADE",
            onupdate="CASCADE",
        ),
        # The secret of a device, of a browser on our own page, or of a browser on WeChat's page. A mini-program, which
        # shows nothing, has none.
        CheckConstraint(
            "num_nonnulls(device_code_hash, request_hash, wechat_state_hash)"
            " = CASE door WHEN 'mini_program' THEN 0 ELSE 1 END",
            name="kind",
        ),
        CheckConstraint("(scene_hash IS NULL) = (user_code_hash IS NULL)", name="user_code_hash"),
        CheckConstraint(f"door IN {tuple(door.value for door in Door)}", name="door"),
        CheckConstraint("door IS NULL OR num_nonnulls(claimed_at, wechat_state_hash) > 0", name="door_claimed"),
        CheckConstraint(
            "(num_nonnulls(request_hash, wechat_state_hash) = 0) = (browser_hash IS NULL)", name="browser_hash"
        ),
        CheckConstraint(
            "num_nonnulls(claimed_session_id, openid) = CASE WHEN claimed_at IS NULL THEN 0 ELSE 1 END",
            name="claimed_at",
        ),
        CheckConstraint(
            "num_nulls(wechat_state_hash, page_id, app_id) IN (0, 3)"
            " AND (wechat_state_hash IS NULL OR door IN ('account', 'website'))"
            " AND (wechat_state_hash IS NOT NULL OR num_nonnulls(openid, wechat_code_hash, outcome) = 0)",
            name="wechat_state_hash",
        ),
        CheckConstraint("(outcome = 'logged_in') = (openid IS NOT NULL)", name="outcome"),
        CheckConstraint(
            "verdict IS NULL OR (verdict IN ('approved', 'denied') AND claimed_at IS NOT NULL)", name="verdict"
        ),
        CheckConstraint("(verdict IS NULL) = (decided_at IS NULL)", name="decided_at"),
        CheckConstraint("(code_hash IS NULL) = (code_expires_at IS NULL)", name="code_expires_at"),
        CheckConstraint("expires_at > created_at", name="expires_at"),
        Index(None, "client_id"),
        Index(None, "expires_at"),
        Index("scans_openid_idx", "openid", "app_id", postgresql_where=text("openid IS NOT NULL")),
        Index(
            "scans_unclaimed_pages_idx",
            "expires_at",
            postgresql_where=text("browser_hash IS NOT NULL AND claimed_at IS NULL"),
        ),
    )

    id: UUID = Field(primary_key=True)
    client_id: str = Field(sa_type=Text)
    scope: str = Field(sa_type=Text)
    """The scopes to grant, separated by spaces."""
    scene_hash: bytes | None = Field(sa_type=BYTEA)
    """The hash of the scene, which the picture contains."""
    user_code_hash: bytes | None = Field(sa_type=BYTEA)
    device_code_hash: bytes | None = Field(sa_type=BYTEA)
    request_hash: bytes | None = Field(sa_type=BYTEA)
    """The hash of the id with which the page polls its state, together with the cookie of its browser."""
    browser_hash: bytes | None = Field(sa_type=BYTEA)
    presses: int = Field(sa_column_kwargs={"server_default": text("0")})
    """How often the browser has gone to WeChat's page for this request."""
    pressed_until: datetime | None = Field(sa_type=TIME)
    """Until when it may go there again; set by each visit."""
    page_id: UUID | None
    """In a visit to WeChat's page: the request that the visit is for."""
    wechat_state_hash: bytes | None = Field(sa_type=BYTEA)
    """The hash of the `state` with which WeChat's page redirects the browser back."""
    wechat_code_hash: bytes | None = Field(sa_type=BYTEA)
    """The hash of the WeChat code of the first callback."""
    app_id: str | None = Field(sa_type=Text)
    """The app whose WeChat page is visited."""
    openid: str | None = Field(sa_type=Text)
    """The person that WeChat's page identified."""
    outcome: str | None = Field(sa_type=Text)
    """The outcome of the visit: a `VisitOutcome`."""
    redirect_uri: str | None = Field(sa_type=Text)
    state: str | None = Field(sa_type=Text)
    nonce: str | None = Field(sa_type=Text)
    code_challenge: str | None = Field(sa_type=Text)
    browser_ip: str | None = Field(sa_type=INET)
    browser_user_agent: str | None = Field(sa_type=Text)
    poll_interval: int = Field(sa_column_kwargs={"server_default": text("2")})
    """Seconds between two polls of the device."""
    polled_at: datetime | None = Field(sa_type=TIME)
    claimed_session_id: UUID | None
    claimed_at: datetime | None = Field(sa_type=TIME)
    door: str | None = Field(sa_type=Text)
    """How the person logs in: a `Door`. Null until the scan is claimed."""
    verdict: str | None = Field(sa_type=Text)
    decided_at: datetime | None = Field(sa_type=TIME)
    code_hash: bytes | None = Field(sa_type=BYTEA)
    """The hash of the authorization code."""
    code_expires_at: datetime | None = Field(sa_type=TIME)
    session_id: UUID | None
    """The session that was opened for the scan."""
    created_at: datetime = Field(sa_type=TIME)
    expires_at: datetime = Field(sa_type=TIME)


class WrongUserCodes(SQLModel, table=True):
    """How many wrong user codes a user has typed recently."""

    __tablename__ = "wrong_user_codes"
    __table_args__ = (ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),)

    user_id: UUID = Field(primary_key=True)
    since: datetime = Field(sa_type=TIME)
    number: int


class ScanPicture(SQLModel, table=True):
    """The picture of a scan, made on first request."""

    __tablename__ = "scan_pictures"
    __table_args__ = (
        ForeignKeyConstraint(["scan_id"], ["scans.id"], ondelete="CASCADE"),
        CheckConstraint("content_type IN ('image/jpeg', 'image/png')", name="content_type"),
        CheckConstraint("octet_length(content) BETWEEN 1 AND 2097152", name="content"),
    )

    scan_id: UUID = Field(primary_key=True)
    content_type: str = Field(sa_type=Text)
    content: bytes = Field(sa_type=BYTEA)


after_create(ScanPicture, "ALTER TABLE scan_pictures ALTER COLUMN content SET STORAGE EXTERNAL")  # already compressed
