"""The logins of browsers, which sites added with `--sso` share.

A proof makes or renews one. Another person's proof in the same browser ends it, and so does logging out there.
"""

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final
from urllib.parse import urlencode
from uuid import UUID

from wxauth.server.core.clock import new_id
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.logs import get_logger
from wxauth.server.core.settings import Settings
from wxauth.server.core.trail import Actor
from wxauth.server.sessions.rows import end_sessions_of_browser_login
from wxauth.server.websites.browser_login_rows import (
    BrowserPerson,
    Proof,
    StoredLogin,
    delete_browser_login,
    find_browser_person,
    lock_browser_person,
    store_proof,
)
from wxauth.server.websites.doors import MAKES_BROWSER_LOGIN, Door
from wxauth.server.websites.secrets import hash_of, login_of

_IN_MINI_PROGRAM: Final = "miniProgram"

log = get_logger()


@dataclass(frozen=True, slots=True)
class BrowserCookies:
    """The cookies of a browser: the one that identifies it, and that of its login. None: not sent."""

    browser: str | None = field(repr=False)
    login: str | None = field(repr=False)
    keeps_login: bool = True
    """False for a web-view of a mini-program."""


@dataclass(frozen=True, slots=True)
class WayBack:
    """What a browser takes back to a site."""

    redirect_uri: str
    answer: dict[str, str] = field(repr=False)
    is_form: bool
    """Whether as a form that it posts, in place of a query."""

    @property
    def url(self) -> str:
        """The site's URI with the answer as its query."""
        joint = "&" if "?" in self.redirect_uri else "?"
        return f"{self.redirect_uri}{joint}{urlencode(self.answer)}"


@dataclass(frozen=True, slots=True)
class Onward:
    """Where a browser goes next, and the value of its login's cookie if a proof has made or renewed the login."""

    to: WayBack | str = field(repr=False)
    """The site, or the URL of a page."""
    login: str | None = field(default=None, repr=False)


def onward_to(to: WayBack | str, cookies: BrowserCookies, proof_id: UUID | None) -> Onward:
    """Where a browser goes next, with the value of its login that this proof has made, if there is one."""
    if proof_id is None or cookies.browser is None:
        return Onward(to)
    return Onward(to, login_of(cookies.browser, proof_id))


def is_web_view(user_agent: str) -> bool:
    """Whether the browser is a mini-program's web-view, which has no login."""
    return _IN_MINI_PROGRAM in user_agent


def proved_after(settings: Settings, now: datetime) -> datetime:
    """Logins whose proof is not later than this time have ended."""
    return now - timedelta(seconds=settings.sso_ttl)


def proves_login(settings: Settings, door: Door, cookies: BrowserCookies, *, is_shared: bool) -> bool:
    """Whether a grant by this door proves a login of the browser. `is_shared`: the site was added with `--sso`."""
    is_kept = is_shared and settings.sso_ttl > 0 and cookies.keeps_login and cookies.browser is not None
    return is_kept and door in MAKES_BROWSER_LOGIN


async def record_proof(
    transaction: Transaction, settings: Settings, proof: Proof, cookies: BrowserCookies, *, now: datetime
) -> StoredLogin | None:
    """Renew the login of this person in this browser, or make one. The user is locked.

    None if the site has been removed.
    """
    assert cookies.browser is not None
    return await store_proof(
        transaction,
        proof,
        login_id=new_id(now),
        browser_hash=hash_of(cookies.browser),
        cookie_hash=None if cookies.login is None else hash_of(cookies.login),
        new_hash=hash_of(login_of(cookies.browser, proof.id)),
        proved_after=proved_after(settings, now),
    )


async def end_login_of_another(
    database: Database, settings: Settings, cookies: BrowserCookies, user_id: UUID, *, now: datetime
) -> None:
    """End the login of this browser if it is another user's: this user has just proved to use the browser."""
    await _end(database, settings, cookies, now=now, other_than=user_id)


async def end_login(
    database: Database, settings: Settings, cookies: BrowserCookies, user_id: UUID, *, now: datetime
) -> None:
    """End the login of this browser and its sites' sessions, if it is this user's."""
    await _end(database, settings, cookies, now=now, of=user_id)


async def person_in(
    database: Database, settings: Settings, cookies: BrowserCookies, *, client_id: str = "", now: datetime
) -> BrowserPerson | None:
    """The person whose login this browser has; None without one."""
    if cookies.login is None or settings.sso_ttl == 0:
        return None
    after = proved_after(settings, now)
    return await find_browser_person(database, hash_of(cookies.login), client_id=client_id, proved_after=after)


async def _end(
    database: Database,
    settings: Settings,
    cookies: BrowserCookies,
    *,
    now: datetime,
    of: UUID | None = None,
    other_than: UUID | None = None,
) -> None:
    if cookies.login is None or settings.sso_ttl == 0:
        return
    async with database.begin() as transaction:
        person = await lock_browser_person(
            transaction, hash_of(cookies.login), client_id="", proved_after=proved_after(settings, now)
        )
        if person is None or person.id == other_than or of not in (None, person.id):
            return
        await delete_browser_login(transaction, person.login_id)
        await end_sessions_of_browser_login(
            transaction, person.login_id, user_id=person.id, by=Actor(str(person.id)), now=now
        )
    log.info("browser_login_ended", user_id=person.id)
