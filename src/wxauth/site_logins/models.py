"""The models of logins to sites, and the tables in which they are stored.

A site's sign-in request is a row of `site_logins`, whose `stage` is its progress. A page of wxauth or a device shows
the request, and the user approves it, for example on a phone that has claimed (reserved) it. Then the site gets an
authorization code, or the device polls, and wxauth opens a session. Some columns belong to only one door (way to log
in). Each use of a page's button that leads to WeChat, called a press, is a separate row, which copies the request from
the page's row, and has its own secret. A login that needs no page, through a mini-program or a browser's login, is also
a row.

`scan_pictures` contains the pictures of codes, in a separate table because pictures are large and few statements need
them. `browser_logins` contains the logins of browsers, which sites added with `--sso` share, and which outlive the
login to one site. Once a user has proved who uses a browser, other sites get an authorization code when the user
presses a button. `browser_login_sites` contains the sites that have received an authorization code from a browser's
login.

wxauth stores all secrets as hashes, with two exceptions: it seals the number to type, and a picture in `scan_pictures`
contains the scene.
"""

from datetime import datetime
from enum import StrEnum
from typing import Any, Final
from uuid import UUID

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import ARRAY, BYTEA, INET
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME
from wxauth.core.users import UserInSession
from wxauth.site_logins.doors import MAX_WRONG_NUMBERS, POLL_INTERVAL_SECONDS, SCAN_LASTS, Door


class Stage(StrEnum):
    """The stage of a login to a site.

    The modules of this package take a login from stage to stage: `requests` checks a site's request, and `asking`
    stores it. The user approves it through a door: on a phone (`scans`, `links`, `mini_program_logins`), by WeChat's
    page (`visits`), or in a browser with a login (`single_sign_on`). `authorization_codes` gives the browser a code,
    and `redeeming` opens the site's session.
    """

    ASKED = "asked"
    CLAIMED = "claimed"
    """A phone asks its user for a decision or, after a visit to WeChat's page, wxauth exchanges WeChat's code."""
    APPROVED = "approved"
    REFUSED = "refused"
    """The user or wxauth has refused, a visit to WeChat's page has failed, or a link has been replaced or ended."""
    CODED = "coded"
    """The browser has an authorization code for the site."""
    REDEEMED = "redeemed"
    """The site has opened its session."""


UNDECIDED: Final = (Stage.ASKED, Stage.CLAIMED)
"""The stages in which the user has not decided yet."""


class RequestFields(SQLModel):
    """The parameters of a site's sign-in request, including those that lead the browser back to the site."""

    scope: str = Field(sa_type=Text)
    """The scopes to grant, separated by spaces."""
    redirect_uri: str = Field(default="", sa_type=Text)
    """The redirect URI; empty for a device, which polls."""
    state: str | None = Field(default=None, sa_type=Text)
    response_mode: str = Field(default="query", sa_type=Text)
    """The way the browser sends the response to the site: `query` or `form_post`."""
    nonce: str | None = Field(default=None, sa_type=Text)
    """The value that the id_token contains unchanged; null if the site has sent none."""
    code_challenge: str | None = Field(default=None, sa_type=Text)
    """The code challenge; null if the site does not use PKCE (RFC 7636)."""
    hinted_user_id: UUID | None = Field(default=None)
    """The user in the site's `id_token_hint`; null without a hint.

    wxauth issues an authorization code only for this user or, after a merge, for the remaining user.
    """
    resource: str | None = Field(default=None, sa_type=Text)
    """The resource that the token is for, spelled as in the settings; null for all services of the operator."""
    client_name: str | None = Field(default=None, sa_type=Text)
    """The name that an unregistered client gives itself; null for a registered client."""

    @property
    def request_values(self) -> dict[str, Any]:
        """The values of these fields by name, for another row with the same request."""
        return {name: getattr(self, name) for name in RequestFields.model_fields}


class LoginFields(SQLModel):
    """The columns of every login."""

    id: UUID = Field(primary_key=True)
    client_id: str = Field(sa_type=Text)
    """The name of the site's client or, if the client is unregistered, the URL of its metadata document."""
    stage: str = Field(default=Stage.ASKED, sa_type=Text)
    door: str | None = Field(default=None, sa_type=Text)
    """The `Door` that the user logs in through; null until the door is known."""
    browser_ip: str | None = Field(default=None, sa_type=INET)
    browser_user_agent: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(sa_type=TIME)
    expires_at: datetime = Field(sa_type=TIME)
    """The time until which the login can be used. A code to scan can expire earlier (see `scan_ends_at`)."""
    kept_until: datetime = Field(sa_type=TIME)
    """The time after which the sweep (the deletion of expired rows) deletes the row.

    The sweep deletes the row of a press only if the `kept_until` of the page has also passed.
    """


class PageFields(SQLModel):
    """The columns about wxauth's page in a browser, and about the links and presses of this page."""

    page_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the id in the page's URLs. These URLs work only with the cookie of the page's browser."""
    browser_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the cookie of the page's browser. The row of a press contains this hash, too."""
    query: str | None = Field(default=None, sa_type=Text)
    """The parameters of the request, if the page shows a user; otherwise null.

    wxauth checks the parameters again after the press.
    """
    presses: int = 0
    """In a page's row, the number of times that the browser has opened WeChat's page, which `visits` counts.

    In the row of a link, which `links` adds, it is the number of the link. The links of one page are numbered from 1.
    Both numbers have the limit `MAX_PRESSES`. In all other rows, the value is 0.
    """
    wrong_numbers: int = 0
    """The number of wrong numbers that the user has typed in the browser."""
    pressed_on: UUID | None = Field(default=None)
    """The id of the page's row, in the row of a press; null in other rows."""


class DeviceFields(SQLModel):
    """The columns about a device (RFC 8628)."""

    device_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    poll_interval: int = POLL_INTERVAL_SECONDS
    """The minimum number of seconds between two polls. It grows if the device polls too fast."""
    polled_at: datetime | None = Field(default=None, sa_type=TIME)
    """The time of the last poll; null before the first one."""


class PhoneFields(SQLModel):
    """The columns about the phone on which the user scans a code, types a code or follows a link.

    A claim names a session instead of a user, because after a merge, the session belongs to the remaining user.
    """

    scene_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the scene, which is the secret in the QR code or the link."""
    user_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    claimed_session_id: UUID | None = Field(default=None)
    """The session of the phone that has claimed the login, and may decide.

    For a web-view, it is the session of the phone that has answered.
    """
    claimed_at: datetime | None = Field(default=None, sa_type=TIME)
    login_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the `wx.login` code that proved the approval of a link.

    A repeated request with this code gets the number again.
    """
    number: bytes | None = Field(default=None, sa_type=BYTEA)
    """The sealed number of a link.

    The phone shows the number after the approval, and the user types it in the browser.
    """


class VisitFields(SQLModel):
    """The columns about a visit to WeChat's own page."""

    state_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the `state` with which WeChat's page redirects the browser back."""
    wechat_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the WeChat code of the first callback; null before the callback."""
    outcome: str | None = Field(default=None, sa_type=Text)
    """The `VisitOutcome`; null until the visit has ended."""


class ApprovalFields(SQLModel):
    """The columns about the user who has logged in.

    An approved login belongs to the user of its identity, so that after a merge, it belongs to the remaining user. A
    change that ends all sessions of a user also removes the identity from each login that has no session yet. A login
    without an identity cannot be redeemed.
    """

    app_id: str | None = Field(default=None, sa_type=Text)
    """The app of the identity or, for a visit, the app whose page is visited."""
    openid: str | None = Field(default=None, sa_type=Text)
    """The openid; null until the user has approved the login, and after the identity has been removed."""
    authenticated_at: datetime | None = Field(default=None, sa_type=TIME)
    authenticated_by: str | None = Field(default=None, sa_type=Text)
    """The `amr` value (RFC 8176) of the user's method of authentication."""
    granted_until: datetime | None = Field(default=None, sa_type=TIME)
    """The time until which wxauth can make an authorization code for the login; null until the user has approved it.

    For a device, it is the time until which the login can be redeemed.
    """
    browser_login_id: UUID | None = Field(default=None)
    """For a page with a `query`, the browser's login whose user the page shows.

    For any other login, it is the browser's login that this login was made from, or that this login has proved. In
    these two cases, this login ends when the browser's login ends.
    """


class CodeFields(SQLModel):
    """The columns about the site's authorization code and its session."""

    code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    code_expires_at: datetime | None = Field(default=None, sa_type=TIME)
    session_id: UUID | None = Field(default=None)


# SQLModel puts the fields of the last base class first, so that the columns have the order of this file.
class SiteLoginFields(
    CodeFields, ApprovalFields, VisitFields, PhoneFields, DeviceFields, PageFields, LoginFields, RequestFields
):
    """A login to a site, with all columns that wxauth writes."""

    @property
    def scan_ends_at(self) -> datetime:
        """The time until which a phone can scan the code of the login, and approve the login."""
        return min(self.created_at + SCAN_LASTS, self.expires_at)

    @property
    def taken_door(self) -> Door:
        """The door that the user logs in through. Raises: AssertionError, if the door is not known yet."""
        assert self.door is not None
        return Door(self.door)

    @property
    def has_page(self) -> bool:
        """Whether this is the row of a page or of a press.

        If not, a device shows the login, or the login needs no page.
        """
        return self.browser_hash is not None

    def is_page_open(self, now: datetime) -> bool:
        """Return whether the browser may still continue from the page of this login."""
        return self.expires_at > now and self.wrong_numbers < MAX_WRONG_NUMBERS

    def approve(
        self, user: UserInSession, *, authenticated_at: datetime, authenticated_by: str, until: datetime
    ) -> None:
        """Set the stage `APPROVED`, the user, and the time and method of the user's authentication.

        The approval is valid until `until`. The caller must store the login and, if it is stored already, must have
        locked its row.
        """
        self.stage = Stage.APPROVED
        self.app_id, self.openid = user.app_id, user.openid
        self.authenticated_at, self.authenticated_by = authenticated_at, authenticated_by
        self.granted_until = until


class StoredSiteLogin(SiteLoginFields, table=True):
    """A login to a site, through any door, with the column that PostgreSQL computes."""

    __tablename__ = "site_logins"

    site: str | None = Field(sa_type=Text)
    """The name of the registered client; null for an unregistered client.

    PostgreSQL computes this column from `client_id` and `client_name`. When the client's row is deleted, PostgreSQL
    also deletes this row.
    """


class ScanPicture(SQLModel, table=True):
    """The picture of a code to scan, which wxauth makes when the picture is first requested."""

    __tablename__ = "scan_pictures"

    login_id: UUID = Field(primary_key=True)
    content_type: str = Field(sa_type=Text)
    content: bytes = Field(sa_type=BYTEA)


class BrowserLogin(SQLModel, table=True):
    """The login of a browser, which sites share.

    wxauth deletes the row when the login ends, for example because the user logs out. The sweep deletes expired logins.

    The login belongs to the user of its identity. A change that ends all sessions of a user also deletes the logins of
    the user's browsers.
    """

    __tablename__ = "browser_logins"

    id: UUID = Field(primary_key=True)
    browser_hash: bytes = Field(sa_type=BYTEA)
    """The hash of the cookie that identifies the browser."""
    cookie_hash: bytes = Field(sa_type=BYTEA)
    """The hash of the login's own cookie."""
    proof_id: UUID
    """The id of the login in `site_logins` that has proved who uses the browser.

    The cookie's value is derived from this id. A further proof replaces the id, and thus the cookie, only if the
    browser sends the current cookie.
    """
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    authenticated_at: datetime = Field(sa_type=TIME)
    """The time at which the user last proved who they are."""
    authenticated_by: str = Field(sa_type=Text)
    """The `amr` value (RFC 8176) of the user's method of authentication at that time."""
    codes_at: list[datetime] = Field(sa_type=ARRAY(TIME))
    """The times at which a site got an authorization code without a new proof, in the minute up to the last code."""


class BrowserLoginSite(SQLModel, table=True):
    """A site that has received an authorization code from a browser's login.

    The user knows that this site learns their name, so the site can also get codes without a page (`prompt=none`).
    """

    __tablename__ = "browser_login_sites"

    browser_login_id: UUID = Field(primary_key=True)
    client_id: str = Field(sa_type=Text, primary_key=True)
