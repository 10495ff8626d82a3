"""The models of logins to sites, and their tables.

A site's request is one row of `site_logins`, whose `stage` is its progress: a page of ours or a device shows it, a
phone claims and approves it, the site gets a code for it, or polls, and redeems it for a session. What differs by door
is in a few columns of their own. A press of a page's button is a row of its own, a copy of the page's. Each has its
own secret, which is valid once, independently of the page and its other presses. An answer that needs no page, of a
mini-program or of a browser's login, is a row, too.

Apart are the picture of a code (`scan_pictures`), up to 2 MiB, which few reads need; and the logins of browsers
(`browser_logins`), which the sites added with `--sso` share and which outlive a login to one: once a person has proved
who uses a browser, the other sites get a code at the press of a button. `browser_login_sites` has the sites that have
got one.

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
from wxauth.site_logins.doors import MAX_WRONG_NUMBERS, SCAN_LASTS, Door


class Stage(StrEnum):
    """The progress of a login to a site.

    A phone claims and decides in `scans`, the browser's way through WeChat in `visits`; a page that was pressed anew
    refuses the former link in `links`; `granting` approves and gives the code, for all doors; `site_tokens` redeems.
    """

    ASKED = "asked"
    CLAIMED = "claimed"
    """A phone asks its person; or the browser has returned from WeChat's page, and its code is being exchanged."""
    APPROVED = "approved"
    REFUSED = "refused"
    CODED = "coded"
    """The browser has a code for the site."""
    REDEEMED = "redeemed"
    """The site has opened its session."""


OPEN: Final = (Stage.ASKED, Stage.CLAIMED)
"""The stages in which the person has not decided yet."""


class RequestFields(SQLModel):
    """What a site asks for, and where and how it is answered."""

    scope: str = Field(sa_type=Text)
    """The scopes to grant, separated by spaces."""
    redirect_uri: str = Field(default="", sa_type=Text)
    """Empty for a device, which polls."""
    state: str | None = Field(default=None, sa_type=Text)
    response_mode: str = Field(default="query", sa_type=Text)
    """How a browser takes the answer back: in the `query`, or by `form_post`."""
    nonce: str | None = Field(default=None, sa_type=Text)
    """What the id_token repeats."""
    code_challenge: str | None = Field(default=None, sa_type=Text)
    """Null if the site uses no PKCE (RFC 7636)."""
    hinted_user_id: UUID | None = Field(default=None)
    """The person in the site's `id_token_hint`, the only one who gets a code. Null without a hint."""
    resource: str | None = Field(default=None, sa_type=Text)
    """The resource that the token is for, as the settings spell it; null if it is for all services of the operator."""
    client_name: str | None = Field(default=None, sa_type=Text)
    """What a client that nobody has registered calls itself; null for a registered one."""

    @property
    def asked(self) -> dict[str, Any]:
        """These fields alone, for another row with the same request."""
        return {name: getattr(self, name) for name in RequestFields.model_fields}


class SiteLoginFields(RequestFields):
    """A login to a site.

    Once it is approved, it belongs to the user of its identity, so a merge is followed. What ends all sessions of a
    user takes the identity away again, if no session has been opened: then nobody can redeem it.

    A claim names a session instead of a user: after a merge, the session belongs to the remaining user.
    """

    id: UUID = Field(primary_key=True)
    client_id: str = Field(sa_type=Text)
    stage: str = Field(default=Stage.ASKED, sa_type=Text)
    door: str | None = Field(default=None, sa_type=Text)
    """A `Door`; null until somebody has taken one."""
    browser_ip: str | None = Field(default=None, sa_type=INET)
    browser_user_agent: str | None = Field(default=None, sa_type=Text)
    created_at: datetime = Field(sa_type=TIME)
    expires_at: datetime = Field(sa_type=TIME)
    """Until when it can be used. A code to scan is over earlier: see `scan_ends_at`."""
    kept_until: datetime = Field(sa_type=TIME)
    """When it is deleted; a press not before its page."""

    # The page of a browser.
    page_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the id in the page's URLs, which work together with the cookie of its browser."""
    browser_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of that cookie; of a press, too."""
    query: str | None = Field(default=None, sa_type=Text)
    """The parameters of the request on a page that shows a person: the press checks them again."""
    presses: int = 0
    """How often the browser has opened WeChat's page; of a link, its number among those of its page."""
    wrong_numbers: int = 0
    """How many wrong numbers have been typed in the browser."""
    pressed_on: UUID | None = Field(default=None)
    """The row of the page whose button was pressed; null if this is no press."""

    # A device (RFC 8628).
    device_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    poll_interval: int = 2
    """Seconds between two polls."""
    polled_at: datetime | None = Field(default=None, sa_type=TIME)
    """Null before the first poll."""

    # The phone, which scans or types the code, or follows a link.
    scene_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the scene, which the picture or the link contains."""
    user_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    claimed_session_id: UUID | None = Field(default=None)
    """The phone's session that has claimed it, and so may decide; of an answer of a mini-program, its session."""
    claimed_at: datetime | None = Field(default=None, sa_type=TIME)
    login_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the `wx.login` code that proved the approval of a link: who repeats it reads the number again."""
    number: bytes | None = Field(default=None, sa_type=BYTEA)
    """The number that the phone then shows and the person types in the browser, sealed."""

    # A visit to WeChat's own page.
    state_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the `state` with which WeChat's page redirects the browser back."""
    wechat_code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    """The hash of the WeChat code of the first callback; null before it."""
    outcome: str | None = Field(default=None, sa_type=Text)
    """A `VisitOutcome`; null until WeChat has answered."""

    # Who has logged in.
    app_id: str | None = Field(default=None, sa_type=Text)
    """The app of the identity; of a visit, the app whose page is visited."""
    openid: str | None = Field(default=None, sa_type=Text)
    """Null until somebody has approved, and once the identity has been taken away."""
    authenticated_at: datetime | None = Field(default=None, sa_type=TIME)
    authenticated_by: str | None = Field(default=None, sa_type=Text)
    """How the person has proved who they are, as a value of `amr` (RFC 8176)."""
    granted_until: datetime | None = Field(default=None, sa_type=TIME)
    """Until when it can be redeemed, or a code be made for it."""
    browser_login_id: UUID | None = Field(default=None)
    """The browser's login by which it was made, or that it has proved: it ends with that login. Of a page with a
    `query`, the login whose person it shows."""

    # What the site has got.
    code_hash: bytes | None = Field(default=None, sa_type=BYTEA)
    code_expires_at: datetime | None = Field(default=None, sa_type=TIME)
    session_id: UUID | None = Field(default=None)

    @property
    def scan_ends_at(self) -> datetime:
        """Until when its code can be scanned and approved."""
        return min(self.created_at + SCAN_LASTS, self.expires_at)

    def is_page_open(self, now: datetime) -> bool:
        """Whether its browser may still continue from its page."""
        return self.expires_at > now and self.wrong_numbers < MAX_WRONG_NUMBERS

    @property
    def taken_door(self) -> Door:
        """The door that somebody has taken."""
        assert self.door is not None
        return Door(self.door)

    @property
    def is_page(self) -> bool:
        """Whether a page of ours shows it, and no device."""
        return self.browser_hash is not None


class StoredSiteLogin(SiteLoginFields, table=True):
    """A login to a site, by any door."""

    __tablename__ = "site_logins"

    site: str | None = Field(sa_type=Text)
    """The client, if it is registered, which PostgreSQL fills in: its removal deletes the row."""


class ScanPicture(SQLModel, table=True):
    """The picture of a code to scan, made on first request."""

    __tablename__ = "scan_pictures"

    login_id: UUID = Field(primary_key=True)
    content_type: str = Field(sa_type=Text)
    content: bytes = Field(sa_type=BYTEA)


class BrowserLogin(SQLModel, table=True):
    """The login of a browser, which sites share. Ending it deletes it.

    It belongs to the user of its identity. What ends all sessions of a user also deletes the logins of their browsers.
    """

    __tablename__ = "browser_logins"

    id: UUID = Field(primary_key=True)
    browser_hash: bytes = Field(sa_type=BYTEA)
    """The hash of the cookie that identifies the browser."""
    cookie_hash: bytes = Field(sa_type=BYTEA, repr=False)
    """The hash of the login's own cookie."""
    proof_id: UUID
    """The login to a site whose proof has made the cookie's value, a new one at each proof of a browser that sends the
    former."""
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    authenticated_at: datetime = Field(sa_type=TIME)
    """When the person last proved who they are."""
    authenticated_by: str = Field(sa_type=Text)
    """How they did, as a value of `amr` (RFC 8176)."""
    codes_at: list[datetime] = Field(sa_type=ARRAY(TIME))
    """When the codes of the last minute were made without a proof."""


class BrowserLoginSite(SQLModel, table=True):
    """A site that a browser's login has given a code: the person knows that it learns their name."""

    __tablename__ = "browser_login_sites"

    browser_login_id: UUID = Field(primary_key=True)
    client_id: str = Field(sa_type=Text, primary_key=True)
