"""The models of logins to sites, and their tables.

A site's sign-in request is one row of `site_logins`, whose `stage` is its progress. A page of wxauth or a device shows
it, a phone claims (reserves) and approves it, the site gets a code for it, or polls, and redeems the code for a
session. Each door (way to log in) has a few columns of its own. Each use of a page's button, called a press, is a
separate row, which copies the page's. Each press has its own secret, which is valid once, independently of the page and
its other presses. A response that needs no page, from a mini-program or a browser's login, is a row, too.

Other tables contain the picture of a code (`scan_pictures`), of up to 2 MiB, which few reads need, and the logins of
browsers (`browser_logins`). Sites added with `--sso` share a browser's login, and it outlives a login to one site. Once
a user has proved who uses a browser, the other sites get a code when the user presses a button. `browser_login_sites`
contains the sites that have received a code.

All secrets are stored as hashes, except a number to type, which is sealed.
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
from wxauth.site_logins.doors import MAX_WRONG_NUMBERS, SCAN_LASTS, Door


class Stage(StrEnum):
    """The stage of a login to a site.

    `requests` checks a site's request, and `asking` stores it. The user approves it through a door: on a phone
    (`scans`, `links`, `mini_program_logins`), by WeChat's page (`visits`), or in a browser with a login
    (`single_sign_on`). `authorization_codes` gives the browser a code, and `redeeming` opens the site's session.
    """

    ASKED = "asked"
    CLAIMED = "claimed"
    """A phone asks its user, or the browser has returned from WeChat's page, and its code is being exchanged."""
    APPROVED = "approved"
    REFUSED = "refused"
    CODED = "coded"
    """The browser has a code for the site."""
    REDEEMED = "redeemed"
    """The site has opened its session."""


OPEN: Final = (Stage.ASKED, Stage.CLAIMED)
"""The stages in which the user has not decided yet."""


class RequestFields(SQLModel):
    """The parameters of a site's sign-in request, with the way back to the site."""

    scope: str = Field(sa_type=Text)
    """The scopes to grant, separated by spaces."""
    redirect_uri: str = Field(default="", sa_type=Text)
    """The redirect URI; empty for a device, which polls."""
    state: str | None = Field(default=None, sa_type=Text)
    response_mode: str = Field(default="query", sa_type=Text)
    """The way in which a browser takes the response back, `query` or `form_post`."""
    nonce: str | None = Field(default=None, sa_type=Text)
    """The value that the id_token repeats."""
    code_challenge: str | None = Field(default=None, sa_type=Text)
    """The code challenge; null if the site does not use PKCE (RFC 7636)."""
    hinted_user_id: UUID | None = Field(default=None)
    """The user in the site's `id_token_hint`, who is the only one to get a code. It is null without a hint."""
    resource: str | None = Field(default=None, sa_type=Text)
    """The resource that the token is for, spelled as in the settings; null for all services of the operator."""
    client_name: str | None = Field(default=None, sa_type=Text)
    """The name that an unregistered client gives itself; null for a registered client."""

    @property
    def asked(self) -> dict[str, Any]:
        """The values of these fields, for another row with the same request."""
        return {name: getattr(self, name) for name in RequestFields.model_fields}


class LoginFields(SQLModel):
    """The columns of every login."""

    id: UUID = Field(primary_key=True)
    client_id: str = Field(sa_type=Text)
    stage: str = Field(default=Stage.ASKED, sa_type=Text)
    door: str | None = Field(default=None, sa_type=Text)
    """The `Door`; null until the user has taken one."""
    browser_ip: str | None = Field(default=None, sa_type=INET)
    browser_user_agent: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(sa_type=TIME)
    expires_at: datetime = Field(sa_type=TIME)
    """The time until which it can be used. A code to scan expires earlier, see `scan_ends_at`."""
    kept_until: datetime = Field(sa_type=TIME)
    """The time at which it is deleted. A press is not deleted before its page."""


class PageFields(SQLModel):
    """The columns about the page of a browser."""

    page_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the id in the page's URLs, which work only with the cookie of its browser."""
    browser_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of that cookie, for a press, too."""
    query: str | None = Field(default=None, sa_type=Text)
    """The parameters of the request on a page that shows a user. The press checks them again."""
    presses: int = 0
    """The number of times that the browser has opened WeChat's page.

    For a link, it is its number among the page's links.
    """
    wrong_numbers: int = 0
    """The number of wrong numbers that were typed in the browser."""
    pressed_on: UUID | None = Field(default=None)
    """The row of the page whose button was pressed; null if this is not a press."""


class DeviceFields(SQLModel):
    """The columns about a device (RFC 8628)."""

    device_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    poll_interval: int = 2
    """The number of seconds between two polls."""
    polled_at: datetime | None = Field(default=None, sa_type=TIME)
    """The time of the last poll; null before the first one."""


class PhoneFields(SQLModel):
    """The columns about the phone, which scans or types the code, or follows a link.

    A claim names a session instead of a user, because after a merge, the session belongs to the remaining user.
    """

    scene_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the scene, which the picture or the link contains."""
    user_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    claimed_session_id: UUID | None = Field(default=None)
    """The phone's session that has claimed it, and so may decide. If a mini-program answers, it is its session."""
    claimed_at: datetime | None = Field(default=None, sa_type=TIME)
    login_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the `wx.login` code that proved the approval of a link.

    A repeated request with it gets the number again.
    """
    number: bytes | None = Field(default=None, sa_type=BYTEA)
    """The number that the phone then shows and the user types in the browser, sealed."""


class VisitFields(SQLModel):
    """The columns about a visit to WeChat's own page."""

    state_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the `state` with which WeChat's page redirects the browser back."""
    wechat_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the WeChat code of the first callback; null before the callback."""
    outcome: str | None = Field(default=None, sa_type=Text)
    """The `VisitOutcome`; null until WeChat has responded."""


class PersonFields(SQLModel):
    """The columns about the user who has logged in.

    An approved login belongs to the user of its identity, so that it follows a merge. Whatever ends all sessions of a
    user also takes the identity away, if no session has been opened, and then the login can no longer be redeemed.
    """

    app_id: str | None = Field(default=None, sa_type=Text)
    """The app of the identity or, for a visit, the app whose page is visited."""
    openid: str | None = Field(default=None, sa_type=Text)
    """The openid; null until the user has approved, and after the identity has been taken away."""
    authenticated_at: datetime | None = Field(default=None, sa_type=TIME)
    authenticated_by: str | None = Field(default=None, sa_type=Text)
    """The way in which the user has proved who they are, as a value of `amr` (RFC 8176)."""
    granted_until: datetime | None = Field(default=None, sa_type=TIME)
    """The time until which it can be redeemed, or a code be made for it."""
    browser_login_id: UUID | None = Field(default=None)
    """The browser's login that made it, or that it has proved. It ends with that login.

    For a page with a `query`, it is the login whose user the page shows.
    """


class CodeFields(SQLModel):
    """The columns about what the site has received."""

    code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    code_expires_at: datetime | None = Field(default=None, sa_type=TIME)
    session_id: UUID | None = Field(default=None)


# Python takes the columns of the last class first.
class SiteLoginFields(
    CodeFields, PersonFields, VisitFields, PhoneFields, DeviceFields, PageFields, LoginFields, RequestFields
):
    """A login to a site, with all its columns."""

    def approve(
        self, person: UserInSession, *, authenticated_at: datetime, authenticated_by: str, until: datetime
    ) -> None:
        """Record who has approved it, and the time until which it can be redeemed. Its row is locked."""
        self.stage = Stage.APPROVED
        self.app_id, self.openid = person.app_id, person.openid
        self.authenticated_at, self.authenticated_by = authenticated_at, authenticated_by
        self.granted_until = until

    @property
    def scan_ends_at(self) -> datetime:
        """The time until which its code can be scanned and approved."""
        return min(self.created_at + SCAN_LASTS, self.expires_at)

    def is_page_open(self, now: datetime) -> bool:
        """Return whether its browser may still continue from its page."""
        return self.expires_at > now and self.wrong_numbers < MAX_WRONG_NUMBERS

    @property
    def taken_door(self) -> Door:
        """The door that the user has taken."""
        assert self.door is not None
        return Door(self.door)

    @property
    def is_page(self) -> bool:
        """Whether a page of wxauth shows it, and not a device."""
        return self.browser_hash is not None


class StoredSiteLogin(SiteLoginFields, table=True):
    """A login to a site, through any door."""

    __tablename__ = "site_logins"

    site: str | None = Field(sa_type=Text)
    """The registered client, which PostgreSQL fills in. Removing the client deletes the row."""


class ScanPicture(SQLModel, table=True):
    """The picture of a code to scan, made on first request."""

    __tablename__ = "scan_pictures"

    login_id: UUID = Field(primary_key=True)
    content_type: str = Field(sa_type=Text)
    content: bytes = Field(sa_type=BYTEA)


class BrowserLogin(SQLModel, table=True):
    """The login of a browser, which sites share. It is deleted when it ends.

    It belongs to the user of its identity. Whatever ends all sessions of a user also deletes the logins of their
    browsers.
    """

    __tablename__ = "browser_logins"

    id: UUID = Field(primary_key=True)
    browser_hash: bytes = Field(sa_type=BYTEA)
    """The hash of the cookie that identifies the browser."""
    cookie_hash: bytes = Field(sa_type=BYTEA, repr=False)
    """The hash of the login's own cookie."""
    proof_id: UUID
    """The login to a site whose proof has made the cookie's value.

    The value is new with each proof of a browser that sends the previous value.
    """
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    authenticated_at: datetime = Field(sa_type=TIME)
    """The time at which the user last proved who they are."""
    authenticated_by: str = Field(sa_type=Text)
    """The way in which they did, as a value of `amr` (RFC 8176)."""
    codes_at: list[datetime] = Field(sa_type=ARRAY(TIME))
    """The times at which the codes of the last minute were made without a proof."""


class BrowserLoginSite(SQLModel, table=True):
    """A site that has received a code from a browser's login, so that the user knows that it learns their name."""

    __tablename__ = "browser_login_sites"

    browser_login_id: UUID = Field(primary_key=True)
    client_id: str = Field(sa_type=Text, primary_key=True)
