"""What a person has granted a site, by whichever door: who it is, whether it still holds, and the code for it.

A proof of who uses a browser makes or renews the browser's login, which sites added with `--sso` share. Another
person's proof in the same browser ends it, and so does logging out there.
"""

from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from wxauth.errors import NotFound
from wxauth.server.core.clock import Clock, new_id
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.logs import get_logger
from wxauth.server.core.settings import Settings
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.core.users import UserInSession
from wxauth.server.limits.turns import Turns
from wxauth.server.sessions.devices import Device
from wxauth.server.sessions.rows import end_sessions_of_browser_login
from wxauth.server.users.merging_rows import remaining_user
from wxauth.server.websites import rows
from wxauth.server.websites.authorize import (
    BrowserCookies,
    Mistake,
    SentBack,
    SiteRequest,
    Unanswerable,
    WayBack,
    new_login,
    sent_back,
)
from wxauth.server.websites.doors import AUTHORIZATION_CODE_LASTS, MAKES_BROWSER_LOGIN, OUTCOME_KEPT, Door
from wxauth.server.websites.models import RequestFields, SiteLoginFields, Stage
from wxauth.server.websites.rows import Adding, LockedLogin, SiteLogin, login_on_page
from wxauth.server.websites.secrets import NO_SUCH_PAGE, login_of, page_hashes
from wxauth.texts import hash_of, new_secret

log = get_logger()


ANOTHER_PERSON: Final = "another person than the hint's has logged in"
"""What a site is told that has named a person by `id_token_hint`."""


def approve(
    login: SiteLoginFields,
    person: UserInSession,
    *,
    authenticated_at: datetime,
    authenticated_by: str,
    until: datetime,
) -> None:
    """Note in a locked login who has approved it, and until when it can be redeemed."""
    login.stage = Stage.APPROVED
    login.app_id, login.openid = person.app_id, person.openid
    login.authenticated_at, login.authenticated_by = authenticated_at, authenticated_by
    login.granted_until = until


def turn_of(turns: Turns, login: SiteLogin) -> AbstractAsyncContextManager[None]:
    """A turn of a login, and of the person who has approved it, if somebody has, whatever tabs and codes they have.

    Raises: RateLimited.
    """
    return turns.turn(login.id) if login.user_id is None else turns.of_session(login.id, login.user_id)


async def lock_with_person(
    transaction: Transaction, login: SiteLogin, *, now: datetime
) -> tuple[LockedLogin | None, UserInSession | None]:
    """Lock the person of an approved login, even during a merge, and the login.

    No login: it was deleted. No person: the user cannot log in, or the login has been taken away from the user.
    """
    person = None
    if login.app_id is not None and login.openid is not None:
        person = await rows.lock_person(transaction, app_id=login.app_id, openid=login.openid)
    locked = await rows.lock(transaction, login.id, now=now)
    return locked, person if locked is not None and locked.openid is not None else None


def is_good(login: LockedLogin, until: datetime | None, *, now: datetime) -> bool:
    """Whether a locked login may still be redeemed, if its person may log in.

    The session that approved it and the browser's login must not have ended.
    """
    is_upheld = (login.claimed_session_id is None or login.is_phone_in) and (
        login.browser_login_id is None or login.proof_id is not None
    )
    return login.stage in (Stage.APPROVED, Stage.CODED) and until is not None and until > now and is_upheld


async def give_code(
    transaction: Transaction,
    settings: Settings,
    login: LockedLogin,
    person: UserInSession,
    code: str,
    cookies: BrowserCookies,
    *,
    ip: str | None,
    now: datetime,
) -> UUID | None:
    """Save a login with a code for its site, in place of a former one, and the login of the browser that it proves.

    Returns the proof of which the value of the browser's login is made, if there is one.

    Raises: SentBack, before anything is stored, if the site has named another person.
    """
    door, proof_id = login.taken_door, None
    await _check_hint(transaction, settings, login, person)
    is_shared = login.sso and settings.sso_ttl > 0 and cookies.keeps_login
    if is_shared and door in MAKES_BROWSER_LOGIN and cookies.browser is not None:
        stored = await rows.store_proof(
            transaction,
            login,
            person,
            login_id=new_id(now),
            browser_hash=hash_of(cookies.browser),
            cookie_hash=None if cookies.login is None else hash_of(cookies.login),
            new_hash=hash_of(login_of(cookies.browser, login.id)),
            proved_after=proved_after(settings, now),
        )
        if stored is not None:
            login.browser_login_id, proof_id = stored.id, stored.proof_id
    is_first = login.code_hash is None
    login.stage, login.code_hash, login.code_expires_at = Stage.CODED, hash_of(code), now + AUTHORIZATION_CODE_LASTS
    await rows.save(transaction, login)
    if is_first:
        await record_authorized(transaction, person, client_id=login.client_id, door=door, ip=ip, now=now)
    return proof_id


async def add_with_code(
    transaction: Transaction,
    settings: Settings,
    asked: SiteRequest,
    person: UserInSession,
    code: str,
    *,
    door: Door,
    authenticated_at: datetime,
    authenticated_by: str,
    device: Device,
    lasts: timedelta = AUTHORIZATION_CODE_LASTS,
    claimed_session_id: UUID | None = None,
    browser_login_id: UUID | None = None,
    now: datetime,
) -> None:
    """Store a login that needs no page, with its code. The user is locked.

    Raises: SentBack, if the site has named another person; Unanswerable, if its client has been removed.
    """
    await _check_hint(transaction, settings, asked, person)
    login = new_login(
        asked,
        asked.client.name,
        device,
        lasts=lasts,
        kept=OUTCOME_KEPT,
        now=now,
        door=door,
        claimed_session_id=claimed_session_id,
        browser_login_id=browser_login_id,
        code_hash=hash_of(code),
        code_expires_at=now + lasts,
    )
    approve(login, person, authenticated_at=authenticated_at, authenticated_by=authenticated_by, until=now + lasts)
    login.stage = Stage.CODED
    if await rows.add(transaction, login) is not Adding.ADDED:
        raise Unanswerable(Mistake.CLIENT)
    await record_authorized(transaction, person, client_id=login.client_id, door=door, ip=device.ip, now=now)


async def record_authorized(
    transaction: Transaction, person: UserInSession, *, client_id: str, door: Door, ip: str | None, now: datetime
) -> None:
    """Record that a site may log in a person: a code has been made."""
    await record_event(
        transaction,
        EventType.SITE_AUTHORIZED,
        by=Actor(str(person.id), ip),
        at=now,
        user_id=person.id,
        app_id=person.app_id,
        data={"client_id": client_id, "door": door},
    )


async def _check_hint(
    transaction: Transaction, settings: Settings, asked: RequestFields, person: UserInSession
) -> None:
    """Check that nobody else is named by the site's `id_token_hint`. Raises: SentBack."""
    hinted = asked.hinted_user_id
    if hinted is not None and hinted != person.id and await remaining_user(transaction, hinted) != person.id:
        raise SentBack(sent_back(settings, asked, error="login_required", error_description=ANOTHER_PERSON))


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


def proved_after(settings: Settings, now: datetime) -> datetime:
    """Logins whose proof is not later than this time have ended."""
    return now - timedelta(seconds=settings.sso_ttl)


async def end_login(
    database: Database,
    settings: Settings,
    cookies: BrowserCookies,
    *,
    of: UUID | None = None,
    other_than: UUID | None = None,
    now: datetime,
) -> None:
    """End the login of this browser and its sites' sessions, if it is `of` this user, or of any `other_than` this."""
    if cookies.login is None or settings.sso_ttl == 0:
        return
    async with database.begin() as transaction:
        person = await rows.lock_browser_person(
            transaction, hash_of(cookies.login), client_id="", proved_after=proved_after(settings, now)
        )
        if person is None or person.id == other_than or of not in (None, person.id):
            return
        await rows.delete_browser_login(transaction, person.login_id)
        await end_sessions_of_browser_login(
            transaction, person.login_id, user_id=person.id, by=Actor(str(person.id)), now=now
        )
    log.info("browser_login_ended", user_id=person.id)


class PageState(StrEnum):
    """The state of a scan as its page shows it."""

    WAITING = "waiting"
    CLAIMED = "claimed"
    APPROVED = "approved"
    DENIED = "denied"
    OVER = "over"


async def scan_state(database: Database, clock: Clock, page_id: str, cookie: str | None) -> PageState:
    """The state of the scan that this browser shows. Raises: NotFound."""
    return _state(await _page(database, page_id, cookie), now=clock())


async def go_on_after_decision(
    settings: Settings,
    database: Database,
    clock: Clock,
    turns: Turns,
    page_id: str,
    cookies: BrowserCookies,
    *,
    device: Device,
) -> Onward:
    """Take the browser back to the site after the person's decision, with a code or an error.

    Raises: NotFound, before a decision and once the scan is over; SentBack, RateLimited.
    """
    page, now = await _page(database, page_id, cookies.browser), clock()
    match _state(page, now=now):
        case PageState.DENIED:
            return refused(settings, page, "the person has refused")
        case PageState.APPROVED:
            code = new_secret()
            async with turn_of(turns, page), database.begin() as transaction:
                login, person = await lock_with_person(transaction, page, now=now)
                if login is None or person is None or not is_good(login, login.granted_until, now=now):
                    return refused(settings, page, "the person may not log in any more")
                proof_id = await give_code(transaction, settings, login, person, code, cookies, ip=device.ip, now=now)
            return await gone_on(settings, database, login, person, code, cookies, proof_id, now=now)
    raise NotFound("there is no decision to go on with")


async def gone_on(
    settings: Settings,
    database: Database,
    login: SiteLogin,
    person: UserInSession,
    code: str,
    cookies: BrowserCookies,
    proof_id: UUID | None,
    *,
    now: datetime,
) -> Onward:
    """Take the browser back to the site with a code, after its person has proved to use it.

    `proof_id` is the proof of which the value of its login is made, if there is one.
    """
    if login.sso:
        await end_login(database, settings, cookies, other_than=person.id, now=now)
    return onward_to(sent_back(settings, login, code=code), cookies, proof_id)


async def cancel(settings: Settings, database: Database, clock: Clock, page_id: str, cookie: str | None) -> Onward:
    """Take the browser back to the site from a page on which the person does not log in.

    Raises: NotFound, if this browser has no such page.
    """
    return refused(settings, await open_page(database, clock, page_id, cookie), "the person has gone back")


async def open_page(database: Database, clock: Clock, page_id: str, cookie: str | None) -> SiteLogin:
    """The login that this browser shows, until it is over. Raises: NotFound."""
    page = await login_on_page(database, **page_hashes(page_id, cookie))
    if page is None or page.expires_at <= clock():
        raise NotFound(NO_SUCH_PAGE)
    return page


def refused(settings: Settings, asking: RequestFields, description: str) -> Onward:
    """Take the browser back to the site, which is told why nobody has logged in."""
    error = {"error": "access_denied", "error_description": description}
    return Onward(sent_back(settings, asking, **error))


async def _page(database: Database, page_id: str, cookie: str | None) -> SiteLogin:
    page = await login_on_page(database, **page_hashes(page_id, cookie))
    if page is None or page.scene_hash is None:
        raise NotFound("this browser shows no such code")
    return page


def _state(page: SiteLogin, *, now: datetime) -> PageState:
    if page.stage == Stage.REFUSED:
        return PageState.DENIED
    if page.stage == Stage.REDEEMED or page.scan_ends_at <= now:
        return PageState.OVER
    if page.stage in (Stage.APPROVED, Stage.CODED):
        return PageState.APPROVED
    return PageState.CLAIMED if page.stage == Stage.CLAIMED else PageState.WAITING
