"""The models of logins to sites, and their tables: what a site asks for, how a person is found, what is granted.

A site's request is shown on a page of ours (`login_pages`) or by a device (`device_codes`). A phone scans its code
(`scans`), or the page's browser goes to WeChat's page (`visits`); a mini-program that shows the site answers without
either. Whichever door the person takes, it makes a grant (`grants`), which the site exchanges for a session: by its
device code, or by an authorization code (`authorization_codes`).

Sites added with `--sso` share the login of a browser (`browser_logins`): once a person has proved who uses it, the
other sites get a grant at the press of a button. `browser_login_sites` has the sites that have got one.

All secrets are stored as hashes, except an app's URL Link (`url_links`), which is sealed.
"""

from collections.abc import Iterable
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
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, INET
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME, after_create
from wxauth.server.websites.doors import BY_WECHATS_PAGE, WITH_GRANT, Door

_WITHOUT_PHONE = (*sorted(BY_WECHATS_PAGE), Door.SSO)
"""The doors at which no session of a phone approves."""


def _one_of(column: str, doors: Iterable[Door]) -> str:
    return f"{column} IN ({', '.join(repr(door.value) for door in doors)})"


class SiteRequestFields(SQLModel):
    """A site's request to log a person in, which a page or a device shows."""

    id: UUID = Field(primary_key=True)
    client_id: str = Field(sa_type=Text)
    scope: str = Field(sa_type=Text)
    """The scopes to grant, separated by spaces."""
    browser_ip: str | None = Field(sa_type=INET)
    browser_user_agent: str | None = Field(sa_type=Text)
    created_at: datetime = Field(sa_type=TIME)
    expires_at: datetime = Field(sa_type=TIME)
    kept_until: datetime = Field(sa_type=TIME)
    """When it is deleted, with all that belongs to it."""


class StoredSiteRequest(SiteRequestFields, table=True):
    """A site's request."""

    __tablename__ = "site_requests"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["clients.name"], ondelete="CASCADE"),
        CheckConstraint("expires_at > created_at", name="expires_at"),
        CheckConstraint("kept_until >= expires_at", name="kept_until"),
        Index(None, "client_id"),
        Index(None, "kept_until"),
    )


class CodeBinding(SQLModel):
    """What an authorization code is bound to (RFC 6749, RFC 7636), and what its id_token repeats."""

    redirect_uri: str = Field(sa_type=Text)
    code_challenge: str | None = Field(sa_type=Text)
    """Null if the site uses no PKCE."""
    nonce: str | None = Field(sa_type=Text)


class RequestBinding(CodeBinding):
    """What the code that answers a request is bound to."""

    hinted_user_id: UUID | None = Field(default=None)
    """The person whom the site's `id_token_hint` names: nobody else gets a code. Null without a hint."""


class SitePage(RequestBinding):
    """A request as its own browser shows it, and the site that has made it."""

    client_id: str
    sso: bool
    state: str | None
    response_mode: str


class LoginPageFields(RequestBinding):
    """The page on which a browser shows a request, and what the browser takes back to the site."""

    request_id: UUID = Field(primary_key=True)
    page_hash: bytes = Field(sa_type=BYTEA)
    """The hash of the id in the page's URLs, which work together with the cookie of its browser."""
    browser_hash: bytes = Field(sa_type=BYTEA)
    """The hash of that cookie."""
    state: str | None = Field(sa_type=Text)
    response_mode: str = Field(sa_type=Text)
    """How the browser takes it back: in the `query`, or by `form_post`."""


class LoginPage(LoginPageFields, table=True):
    """The page of a request."""

    __tablename__ = "login_pages"
    __table_args__ = (
        ForeignKeyConstraint(["request_id"], ["site_requests.id"], ondelete="CASCADE"),
        UniqueConstraint("page_hash"),
        CheckConstraint("(browser_login_id IS NULL) = (query IS NULL)", name="query"),
        CheckConstraint("response_mode IN ('query', 'form_post')", name="response_mode"),
    )

    presses: int = Field(sa_column_kwargs={"server_default": text("0")})
    """How often the browser has gone to WeChat's page."""
    link_presses: int = Field(sa_column_kwargs={"server_default": text("0")})
    """How often the browser has been given a link to WeChat."""
    wrong_numbers: int = Field(sa_column_kwargs={"server_default": text("0")})
    """How many wrong numbers have been typed in the browser."""
    browser_login_id: UUID | None
    """The browser's login whose person the page shows; null on a page that shows nobody."""
    query: str | None = Field(sa_type=Text)
    """The parameters of the request on such a page: the press checks them again."""


class DeviceCode(SQLModel, table=True):
    """The code with which a device polls for the outcome of its request (RFC 8628)."""

    __tablename__ = "device_codes"
    __table_args__ = (
        ForeignKeyConstraint(["request_id"], ["site_requests.id"], ondelete="CASCADE"),
        UniqueConstraint("code_hash"),
    )

    request_id: UUID = Field(primary_key=True)
    code_hash: bytes = Field(sa_type=BYTEA)
    poll_interval: int = Field(sa_column_kwargs={"server_default": text("2")})
    """Seconds between two polls."""
    polled_at: datetime | None = Field(sa_type=TIME)
    """Null before the first poll."""


class Scan(SQLModel, table=True):
    """The code of a request, for a phone to scan or a person to type.

    A claim names a session instead of a user: after a merge, the session belongs to the remaining user.
    """

    __tablename__ = "scans"
    __table_args__ = (
        ForeignKeyConstraint(["request_id"], ["site_requests.id"], ondelete="CASCADE"),
        UniqueConstraint("request_id"),
        UniqueConstraint("scene_hash"),
        UniqueConstraint("user_code_hash"),
        CheckConstraint("num_nulls(claimed_session_id, claimed_at, door) IN (0, 3)", name="claim"),
        CheckConstraint(_one_of("door", (Door.SCAN, Door.TYPED)), name="door"),
        CheckConstraint(
            "verdict IS NULL OR (verdict IN ('approved', 'denied') AND claimed_at IS NOT NULL)", name="verdict"
        ),
    )

    id: UUID = Field(primary_key=True)
    request_id: UUID
    scene_hash: bytes = Field(sa_type=BYTEA)
    """The hash of the scene, which the picture contains."""
    user_code_hash: bytes = Field(sa_type=BYTEA)
    claimed_session_id: UUID | None
    """The phone's session that has claimed the scan; null until one has."""
    claimed_at: datetime | None = Field(sa_type=TIME)
    door: str | None = Field(sa_type=Text)
    """Whether the claim scanned or typed the code: a `Door`."""
    verdict: str | None = Field(sa_type=Text)
    """The person's decision; null until there is one."""
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


class StoredVisit(SQLModel, table=True):
    """A visit of a page's browser to WeChat's own page."""

    __tablename__ = "visits"
    __table_args__ = (
        ForeignKeyConstraint(["request_id"], ["login_pages.request_id"], ondelete="CASCADE"),
        UniqueConstraint("state_hash"),
        CheckConstraint(_one_of("door", sorted(BY_WECHATS_PAGE)), name="door"),
        CheckConstraint("outcome IS NULL OR wechat_code_hash IS NOT NULL", name="outcome"),
        CheckConstraint("expires_at > created_at", name="expires_at"),
        Index(None, "request_id"),
    )

    id: UUID = Field(primary_key=True)
    request_id: UUID
    door: str = Field(sa_type=Text)
    app_id: str = Field(sa_type=Text)
    """The app whose page is visited."""
    state_hash: bytes = Field(sa_type=BYTEA)
    """The hash of the `state` with which WeChat's page redirects the browser back."""
    wechat_code_hash: bytes | None = Field(sa_type=BYTEA)
    """The hash of the WeChat code of the first callback; null before it."""
    outcome: str | None = Field(sa_type=Text)
    """A `VisitOutcome`; null until WeChat has answered."""
    created_at: datetime = Field(sa_type=TIME)
    expires_at: datetime = Field(sa_type=TIME)


class StoredLink(SQLModel, table=True):
    """A link to WeChat that a page's browser, on a phone, has been given. A page has one at a time.

    Like a scan's, its claim names a session.
    """

    __tablename__ = "links"
    __table_args__ = (
        ForeignKeyConstraint(["request_id"], ["login_pages.request_id"], ondelete="CASCADE"),
        UniqueConstraint("request_id"),
        UniqueConstraint("scene_hash"),
        CheckConstraint("num_nulls(claimed_session_id, claimed_at) IN (0, 2)", name="claim"),
        CheckConstraint(
            "num_nulls(verdict, decided_at) IN (0, 2)"
            " AND (verdict IS NULL OR (verdict IN ('approved', 'denied') AND claimed_at IS NOT NULL))",
            name="verdict",
        ),
        CheckConstraint(
            "num_nonnulls(login_code_hash, number) = CASE WHEN verdict = 'approved' THEN 2 ELSE 0 END", name="number"
        ),
    )

    id: UUID = Field(primary_key=True)
    request_id: UUID
    scene_hash: bytes = Field(sa_type=BYTEA)
    """The hash of the scene that the link contains."""
    claimed_session_id: UUID | None
    claimed_at: datetime | None = Field(sa_type=TIME)
    verdict: str | None = Field(sa_type=Text)
    decided_at: datetime | None = Field(sa_type=TIME)
    login_code_hash: bytes | None = Field(sa_type=BYTEA)
    """The hash of the `wx.login` code that proved the approval: only who repeats it reads the number again."""
    number: bytes | None = Field(sa_type=BYTEA)
    """The number that the phone shows and the person types in the browser, sealed."""
    expires_at: datetime = Field(sa_type=TIME)


class GrantFields(SQLModel):
    """What a person has granted a site, by any door: a session, once.

    It belongs to the user of its identity, so a merge is followed, and an erased user leaves none behind. What ends all
    sessions of a user also deletes the user's grants that no session has been opened for.
    """

    id: UUID = Field(primary_key=True)
    """The id of the scan or visit that made it; an answer of a mini-program has one of its own."""
    client_id: str = Field(sa_type=Text)
    scope: str = Field(sa_type=Text)
    door: str = Field(sa_type=Text)
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    approving_session_id: UUID | None
    """The phone's session that approved; null if WeChat's page or the browser's login has identified the person."""
    authenticated_at: datetime = Field(sa_type=TIME)
    authenticated_by: str = Field(sa_type=Text)
    """How the person has proved who they are, as a value of `amr` (RFC 8176)."""
    browser_ip: str | None = Field(sa_type=INET)
    browser_user_agent: str | None = Field(sa_type=Text)
    expires_at: datetime = Field(sa_type=TIME)
    """Until when it can be redeemed, or a code be made for it."""
    browser_login_id: UUID | None = None
    """The browser's login by which it was made, or that it has proved: it ends with that login. Null: none."""


class Grant(GrantFields, table=True):
    """A grant, redeemed or not."""

    __tablename__ = "grants"
    __table_args__ = (
        ForeignKeyConstraint(["client_id"], ["clients.name"], ondelete="CASCADE"),
        ForeignKeyConstraint(
            ["app_id", "openid"],
            ["identities.app_id", "identities.openid"],
            ondelete="CASCADE",
            onupdate="CASCADE",
        ),
        CheckConstraint(_one_of("door", WITH_GRANT), name="door"),
        # By every other door, a session of the phone approves, and the grant ends with it.
        CheckConstraint(
            f"({_one_of('door', _WITHOUT_PHONE)}) = (approving_session_id IS NULL)",
            name="approving_session_id",
        ),
        CheckConstraint(f"door <> '{Door.SSO}' OR browser_login_id IS NOT NULL", name="browser_login_id"),
        Index(None, "client_id"),
        Index(None, "app_id", "openid"),
        Index(None, "expires_at"),
    )

    session_id: UUID | None
    """The session that was opened for the site; null until then."""


class AuthorizationCode(CodeBinding, table=True):
    """The code by which a site redeems a grant."""

    __tablename__ = "authorization_codes"
    __table_args__ = (
        ForeignKeyConstraint(["grant_id"], ["grants.id"], ondelete="CASCADE"),
        UniqueConstraint("code_hash"),
    )

    grant_id: UUID = Field(primary_key=True)
    code_hash: bytes = Field(sa_type=BYTEA)
    expires_at: datetime = Field(sa_type=TIME)


class BrowserLogin(SQLModel, table=True):
    """The login of a browser, which sites share. Ending it deletes it.

    It belongs to the user of its identity. What ends all sessions of a user also deletes the logins of their browsers.
    """

    __tablename__ = "browser_logins"
    __table_args__ = (
        ForeignKeyConstraint(
            ["app_id", "openid"],
            ["identities.app_id", "identities.openid"],
            ondelete="CASCADE",
            onupdate="CASCADE",
        ),
        UniqueConstraint("cookie_hash"),
        CheckConstraint("octet_length(cookie_hash) = 32", name="cookie_hash"),
        Index(None, "app_id", "openid"),
        Index(None, "authenticated_at"),
        Index(None, "browser_hash"),
    )

    id: UUID = Field(primary_key=True)
    browser_hash: bytes = Field(sa_type=BYTEA)
    """The hash of the cookie that identifies the browser."""
    cookie_hash: bytes = Field(sa_type=BYTEA, repr=False)
    """The hash of the login's own cookie."""
    proof_id: UUID
    """The grant whose proof has made the cookie's value, a new one at each proof of a browser that sends the former."""
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    authenticated_at: datetime = Field(sa_type=TIME)
    """When the person last proved who they are."""
    authenticated_by: str = Field(sa_type=Text)
    """How they did, as a value of `amr` (RFC 8176)."""
    codes_at: list[datetime] = Field(sa_type=ARRAY(TIME), sa_column_kwargs={"server_default": text("'{}'")})
    """When the codes of the last minute were made without a proof."""


class BrowserLoginSite(SQLModel, table=True):
    """A site that a browser's login has given a code: the person knows that it learns their name."""

    __tablename__ = "browser_login_sites"
    __table_args__ = (
        ForeignKeyConstraint(["browser_login_id"], ["browser_logins.id"], ondelete="CASCADE"),
        ForeignKeyConstraint(["client_id"], ["clients.name"], ondelete="CASCADE"),
        Index(None, "client_id"),
    )

    browser_login_id: UUID = Field(primary_key=True)
    client_id: str = Field(sa_type=Text, primary_key=True)


class SealedUrlLink(SQLModel):
    """WeChat's URL Link that opens an app's page for scans. All logins share it."""

    app_id: str = Field(sa_type=Text, primary_key=True)
    opens: str = Field(sa_type=Text)
    """The version and the page that it opens."""
    sealed: bytes = Field(sa_type=BYTEA, repr=False)
    made_at: datetime = Field(sa_type=TIME)
    renew_at: datetime = Field(sa_type=TIME)
    """When housekeeping asks for a new one."""


class UrlLink(SealedUrlLink, table=True):
    """WeChat's URL Link of an app."""

    __tablename__ = "url_links"
