"""What a person has granted a site, by whichever door: who it is, whether it still holds, and the code for it."""

from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from wxauth.server.core.clock import new_id
from wxauth.server.core.database import Transaction
from wxauth.server.core.settings import Settings
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.core.users import UserInSession
from wxauth.server.sessions.devices import Device
from wxauth.server.users.merging_rows import remaining_user
from wxauth.server.websites import rows
from wxauth.server.websites.browser_login_rows import Proof
from wxauth.server.websites.browser_logins import BrowserCookies, proves_login, record_proof
from wxauth.server.websites.doors import AUTHORIZATION_CODE_LASTS, OUTCOME_KEPT, Door
from wxauth.server.websites.models import SiteLoginFields, Stage
from wxauth.server.websites.rows import Adding, LockedLogin, SiteLogin
from wxauth.server.websites.secrets import hash_of
from wxauth.server.websites.site_requests import SiteRequest


class AnotherPerson(Exception):
    """The site has named a person by `id_token_hint`, and another one has logged in."""

    answer: Final = {
        "error": "login_required",
        "error_description": "another person than the hint's has logged in",
    }
    """What the site is told."""


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

    Raises: AnotherPerson, before anything is stored.
    """
    assert login.authenticated_at is not None
    assert login.authenticated_by is not None
    door, proof_id = login.taken_door, None
    await _check_hint(transaction, login, person)
    if proves_login(settings, door, cookies, is_shared=login.sso):
        proof = Proof(
            id=login.id,
            client_id=login.client_id,
            user_id=person.id,
            app_id=person.app_id,
            openid=person.openid,
            authenticated_at=login.authenticated_at,
            authenticated_by=login.authenticated_by,
        )
        stored = await record_proof(transaction, settings, proof, cookies, now=now)
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
) -> bool:
    """Store a login that needs no page, with its code. The user is locked. False if its client has been removed.

    Raises: AnotherPerson.
    """
    await _check_hint(transaction, asked, person)
    login = SiteLoginFields(
        **asked.asked,
        id=new_id(now),
        client_id=asked.client.name,
        door=door,
        browser_ip=device.ip,
        browser_user_agent=device.user_agent,
        created_at=now,
        expires_at=now + lasts,
        kept_until=now + lasts + OUTCOME_KEPT,
        claimed_session_id=claimed_session_id,
        browser_login_id=browser_login_id,
        code_hash=hash_of(code),
        code_expires_at=now + lasts,
    )
    approve(login, person, authenticated_at=authenticated_at, authenticated_by=authenticated_by, until=now + lasts)
    login.stage = Stage.CODED
    if await rows.add(transaction, login) is not Adding.ADDED:
        return False
    await record_authorized(transaction, person, client_id=login.client_id, door=door, ip=device.ip, now=now)
    return True


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


async def _check_hint(transaction: Transaction, asked: SiteLogin | SiteRequest, person: UserInSession) -> None:
    """Check that nobody else is named by the site's `id_token_hint`. Raises: AnotherPerson."""
    hinted = asked.hinted_user_id
    if hinted in (None, person.id):
        return
    assert hinted is not None
    if await remaining_user(transaction, hinted) != person.id:
        raise AnotherPerson
