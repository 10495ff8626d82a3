"""Redeems an approved login for a session, by a device code or an authorization code."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Transaction
from wxauth.server.core.trail import SYSTEM
from wxauth.server.core.users import UserInSession
from wxauth.server.login.numbers import Numbers
from wxauth.server.sessions.rows import EndReason, end_session_of, end_sessions_beyond, session_opened_at
from wxauth.server.websites import rows
from wxauth.server.websites.doors import BY_WECHATS_PAGE, DOORS, REPEATED_WITHIN, SCANS, Door, DoorOutcome, ScanOutcome
from wxauth.server.websites.granting import is_good, lock_with_person
from wxauth.server.websites.models import Stage
from wxauth.server.websites.rows import LockedLogin

TOO_FAST: Final = 5
"""Seconds added to the interval by a poll that comes too early."""
SESSIONS_OF_BROWSER_LOGIN: Final = 20
"""Open sessions of one site kept per browser's login."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What a site gets for its code."""

    user: UserInSession
    scope: str
    nonce: str | None
    authenticated_at: datetime
    authenticated_by: str
    door: Door


class NotGranted(StrEnum):
    """Why a site gets no session."""

    UNKNOWN = "unknown"
    SPENT = "spent"
    PENDING = "pending"
    TOO_FAST = "too_fast"
    DENIED = "denied"
    OVER = "over"


async def redeem_device_code(
    transaction: Transaction,
    code_hash: bytes,
    *,
    client_id: str,
    session_id: UUID,
    expires_at: datetime,
    now: datetime,
) -> Granted | NotGranted:
    """Open the session that a device polls for, if it has been approved."""
    device = await rows.login_of_device(transaction, code_hash)
    if device is None or device.client_id != client_id:
        return NotGranted.UNKNOWN
    if device.stage == Stage.APPROVED:
        login, person = await lock_with_person(transaction, device, now=now)
        until = None if login is None else login.granted_until
        return await _open_session(
            transaction, login, person, until=until, session_id=session_id, expires_at=expires_at, now=now
        )
    if device.stage == Stage.REDEEMED:
        return NotGranted.SPENT
    if device.stage == Stage.REFUSED:
        return NotGranted.DENIED
    if device.scan_ends_at <= now:
        return NotGranted.OVER
    is_too_early = await rows.poll_is_too_early(transaction, device.id, more=TOO_FAST, now=now)
    return NotGranted.TOO_FAST if is_too_early else NotGranted.PENDING


async def redeem_code(
    transaction: Transaction,
    code_hash: bytes,
    *,
    client_id: str,
    redirect_uri: str,
    code_challenge: str | None,
    session_id: UUID,
    expires_at: datetime,
    now: datetime,
) -> Granted | NotGranted:
    """Open the session of an authorization code.

    If the code has been used before, that session ends, because somebody else has the code and the verifier.
    """
    found = await rows.login_of_code(transaction, code_hash)
    if found is None or (client_id, redirect_uri, code_challenge) != (
        found.client_id,
        found.redirect_uri,
        found.code_challenge,
    ):
        return NotGranted.UNKNOWN
    login, person = await lock_with_person(transaction, found, now=now)
    if login is None or login.code_hash != code_hash:  # a newer code has just replaced it
        return NotGranted.UNKNOWN
    outcome = await _open_session(
        transaction, login, person, until=login.code_expires_at, session_id=session_id, expires_at=expires_at, now=now
    )
    if outcome is not NotGranted.SPENT or login.user_id is None or login.session_id is None:
        return outcome
    if await _may_be_repeated(transaction, login, login.session_id, now=now):
        return NotGranted.UNKNOWN
    # It is of the login's identity, so its user is locked.
    await end_session_of(transaction, login.user_id, login.session_id, reason=EndReason.REUSED, by=SYSTEM, now=now)
    return NotGranted.SPENT


async def _may_be_repeated(transaction: Transaction, login: LockedLogin, session_id: UUID, *, now: datetime) -> bool:
    """Whether WeChat may have delivered this code twice: its browsers repeat some callbacks."""
    if login.door not in BY_WECHATS_PAGE:
        return False
    opened_at = await session_opened_at(transaction, session_id)
    return opened_at is not None and now < opened_at + REPEATED_WITHIN


async def _open_session(
    transaction: Transaction,
    login: LockedLogin | None,
    person: UserInSession | None,
    *,
    until: datetime | None,
    session_id: UUID,
    expires_at: datetime,
    now: datetime,
) -> Granted | NotGranted:
    """Open the session of a locked login, if its locked person is still entitled to it."""
    if login is None:
        return NotGranted.UNKNOWN
    if login.stage == Stage.REDEEMED:
        return NotGranted.SPENT
    if person is None or not is_good(login, until, now=now):
        return NotGranted.DENIED
    assert login.authenticated_at is not None
    assert login.authenticated_by is not None
    login.stage, login.session_id = Stage.REDEEMED, session_id
    await rows.save(transaction, login)
    await rows.open_session(transaction, login, session_id, expires_at=expires_at, now=now)
    if login.browser_login_id is not None:
        await end_sessions_beyond(
            transaction,
            session_id,
            browser_login_id=login.browser_login_id,
            at_most=SESSIONS_OF_BROWSER_LOGIN,
            by=SYSTEM,
            now=now,
        )
    return Granted(person, login.scope, login.nonce, login.authenticated_at, login.authenticated_by, login.taken_door)


def count_redeemed(numbers: Numbers, door: Door, *, now: datetime) -> None:
    """Count a login to a site, and the scan that led to it."""
    if door in (Door.SCAN, Door.TYPED):
        SCANS.count(ScanOutcome.REDEEMED)
    DOORS.count(door, DoorOutcome.LOGGED_IN)
    if door not in BY_WECHATS_PAGE:  # else counted when the browser came back, with new users
        numbers.count_login(is_new=False, at=now)
