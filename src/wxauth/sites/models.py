"""The models of logins to sites, and the tables in which they are stored.

A site's sign-in request is a row of `site_logins`. Each use of a page's button that leads to WeChat, called a press,
is a row of its own, which copies the request from the page's row. A login that needs no page is also a row.

wxauth stores all secrets as hashes, except that it seals the number to type, and that a picture contains the scene.
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
from wxauth.sites.door import MAX_WRONG_NUMBERS, POLL_INTERVAL_SECONDS, SCAN_LASTS, Door


class Stage(StrEnum):
    ASKED = "asked"
    CLAIMED = "claimed"  # A phone asks its user or, after a visit to WeChat's page, wxauth exchanges WeChat's code.
    APPROVED = "approved"
    REFUSED = "refused"  # by the user or wxauth; also a visit that has failed, or a link that was replaced or has ended
    CODED = "coded"  # The browser has an authorization code for the site.
    REDEEMED = "redeemed"


UNDECIDED: Final = (Stage.ASKED, Stage.CLAIMED)


class RequestFields(SQLModel):
    """The parameters of a site's sign-in request, including those that lead the browser back to the site."""

    scope: str = Field(sa_type=Text)  # separated by spaces
    redirect_uri: str = Field(default="", sa_type=Text)  # empty for a device, which polls
    state: str | None = Field(default=None, sa_type=Text)
    response_mode: str = Field(default="query", sa_type=Text)
    nonce: str | None = Field(default=None, sa_type=Text)
    code_challenge: str | None = Field(default=None, sa_type=Text)  # null without PKCE (RFC 7636)
    # Only this user of the `id_token_hint` or, after a merge, the remaining user gets a code.
    hinted_user_id: UUID | None = Field(default=None)
    # The resource is spelled as in the settings. Null stands for all services of the operator.
    resource: str | None = Field(default=None, sa_type=Text)
    # An unregistered client gives itself this name. It is null for a registered client.
    client_name: str | None = Field(default=None, sa_type=Text)

    @property
    def request_values(self) -> dict[str, Any]:
        """The values of these fields by name, for another row with the same request."""
        return {name: getattr(self, name) for name in RequestFields.model_fields}


class LoginFields(SQLModel):
    """The columns of every login."""

    id: UUID = Field(primary_key=True)
    client_id: str = Field(sa_type=Text)  # for an unregistered client, the URL of its metadata document
    stage: str = Field(default=Stage.ASKED, sa_type=Text)
    door: str | None = Field(default=None, sa_type=Text)  # a `Door`; null until it is known
    browser_ip: str | None = Field(default=None, sa_type=INET)
    browser_user_agent: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(sa_type=TIME)
    expires_at: datetime = Field(sa_type=TIME)  # A code to scan can expire earlier (see `scan_ends_at`).
    kept_until: datetime = Field(sa_type=TIME)  # A press is kept for at least as long as its page.


class PageFields(SQLModel):
    """The columns about wxauth's page in a browser, and about the links and presses of this page."""

    # The page's URLs contain the hashed id, and work only with the browser's cookie.
    page_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    # The browser's cookie is hashed. The row of a press has the hash, too.
    browser_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    # The row of a page that shows a user has the request's parameters, which are checked again after the press.
    query: str | None = Field(default=None, sa_type=Text)
    # For a page, this is how often `visits` has opened WeChat's page. For a link, it is its number on the page, from 1.
    presses: int = 0
    wrong_numbers: int = 0
    pressed_on: UUID | None = Field(default=None)  # the id of the page's row, in the row of a press


class DeviceFields(SQLModel):
    """The columns about a device (RFC 8628)."""

    device_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    # wxauth has seen this address itself. `browser_ip` is what the device says.
    requested_ip: str | None = Field(default=None, sa_type=INET)
    poll_interval: int = POLL_INTERVAL_SECONDS  # in seconds; it grows if the device polls too fast
    polled_at: datetime | None = Field(default=None, sa_type=TIME)


class PhoneFields(SQLModel):
    """The columns about the phone on which the user scans a code, types a code or follows a link.

    A claim names a session instead of a user, because after a merge, the session belongs to the remaining user.
    """

    scene_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    user_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    # The phone with this session may decide or, for a web-view, has answered.
    claimed_session_id: UUID | None = Field(default=None)
    claimed_at: datetime | None = Field(default=None, sa_type=TIME)
    # Only the `wx.login` code that approved a link gets the number again.
    login_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    number: bytes | None = Field(default=None, sa_type=BYTEA)  # of a link, sealed


class VisitFields(SQLModel):
    """The columns about a visit to WeChat's page."""

    state_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    wechat_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)  # of the first callback
    outcome: str | None = Field(default=None, sa_type=Text)  # the `VisitOutcome`; null until the visit has ended


class ApprovalFields(SQLModel):
    """The columns about the user who has logged in.

    An approved login belongs to the user of its identity, so that after a merge, it belongs to the remaining user. A
    change that ends all sessions of a user also removes the identity from each login that has no session yet, so that
    it cannot be redeemed.
    """

    app_id: str | None = Field(default=None, sa_type=Text)  # of the identity; for a visit, known before the approval
    # The openid is null until the user has approved the login, and after the identity has been removed.
    openid: str | None = Field(default=None, sa_type=Text)
    authenticated_at: datetime | None = Field(default=None, sa_type=TIME)
    authenticated_by: str | None = Field(default=None, sa_type=Text)  # the `amr` value (RFC 8176)
    # After the approval, the browser must get its authorization code by this time, or a device must redeem the login.
    granted_until: datetime | None = Field(default=None, sa_type=TIME)
    # A page with a `query` shows the user of this browser's login. Any other login was made from the browser's login,
    # or has proved it, and ends with it.
    browser_login_id: UUID | None = Field(default=None)


class CodeFields(SQLModel):
    """The columns about the authorization code, and about the session of the site."""

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
        """The door that the user logs in through, which must be known."""
        assert self.door is not None
        return Door(self.door)

    @property
    def has_page(self) -> bool:
        """Whether this is the row of a page or of a press. If not, a device shows the login, or it needs no page."""
        return self.browser_hash is not None

    def is_page_open(self, now: datetime) -> bool:
        """Return whether the browser may still continue from the page of this login."""
        return self.expires_at > now and self.wrong_numbers < MAX_WRONG_NUMBERS

    def approve(
        self, user: UserInSession, *, authenticated_at: datetime, authenticated_by: str, until: datetime
    ) -> None:
        """Set the user and the approval. The caller has locked the row, and must store it."""
        self.stage = Stage.APPROVED
        self.app_id, self.openid = user.app_id, user.openid
        self.authenticated_at, self.authenticated_by = authenticated_at, authenticated_by
        self.granted_until = until


class StoredSiteLogin(SiteLoginFields, table=True):
    """A login to a site, through any door, with the column that PostgreSQL computes."""

    __tablename__ = "site_logins"

    # If this registered client is deleted, so is the row. The column is null for an unregistered client.
    site: str | None = Field(sa_type=Text)


class ScanPicture(SQLModel, table=True):
    """The picture of a code to scan, in a table of its own, because few statements need the large pictures."""

    __tablename__ = "scan_pictures"

    login_id: UUID = Field(primary_key=True)
    content_type: str = Field(sa_type=Text)
    content: bytes = Field(sa_type=BYTEA)


class BrowserLogin(SQLModel, table=True):
    """The login of a browser, which sites share, and which outlives the login to one site.

    The login belongs to the user of its identity. The row is deleted when the login ends, and when all sessions of the
    user end.
    """

    __tablename__ = "browser_logins"

    id: UUID = Field(primary_key=True)
    browser_hash: bytes = Field(sa_type=BYTEA)  # of the cookie that identifies the browser
    cookie_hash: bytes = Field(sa_type=BYTEA)  # of the login's own cookie
    proof_id: UUID  # the login that proved who uses the browser; the cookie is derived from it
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    authenticated_at: datetime = Field(sa_type=TIME)  # the latest proof
    authenticated_by: str = Field(sa_type=Text)  # the `amr` value (RFC 8176)
    # The times of the codes that sites got without a new proof, in the minute up to the last of them.
    codes_at: list[datetime] = Field(sa_type=ARRAY(TIME))


class BrowserLoginSite(SQLModel, table=True):
    """A site that has received an authorization code from a browser's login.

    The user knows that this site learns their name, so the site can also get codes without a page (`prompt=none`).
    """

    __tablename__ = "browser_login_sites"

    browser_login_id: UUID = Field(primary_key=True)
    client_id: str = Field(sa_type=Text, primary_key=True)
