"""Redeems a grant for a session, by a device code or an authorization code."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Transaction
from wxauth.server.core.trail import SYSTEM
from wxauth.server.core.users import UserInSession
from wxauth.server.sessions.rows import EndReason, end_session_of, end_sessions_beyond, session_opened_at
from wxauth.server.websites import grant_rows
from wxauth.server.websites.doors import BY_WECHATS_PAGE, Door
from wxauth.server.websites.durations import REPEATED_WITHIN
from wxauth.server.websites.grant_rows import LockedGrant
from wxauth.server.websites.site_request_rows import poll_is_too_early, polled_device

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
    device = await polled_device(transaction, code_hash, client_id=client_id)
    if device is None:
        return NotGranted.UNKNOWN
    if device.is_granted:
        grant = await grant_rows.lock_grant(transaction, device.scan_id, now=now)
        if grant is not None and grant.session_id is not None:
            return NotGranted.SPENT
        return await _open_session(transaction, grant, session_id=session_id, expires_at=expires_at, now=now)
    if device.verdict is not None:
        return NotGranted.DENIED
    if device.expires_at <= now:
        return NotGranted.OVER
    is_too_early = await poll_is_too_early(transaction, device.request_id, more=TOO_FAST, now=now)
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
    grant = await grant_rows.lock_grant_of_code(
        transaction, code_hash, client_id=client_id, redirect_uri=redirect_uri, code_challenge=code_challenge, now=now
    )
    if grant is None:
        return NotGranted.UNKNOWN
    if grant.session_id is None:
        return await _open_session(transaction, grant, session_id=session_id, expires_at=expires_at, now=now)
    if await _may_be_repeated(transaction, grant, grant.session_id, now=now):
        return NotGranted.UNKNOWN
    # It is of the grant's identity, so its user is locked.
    await end_session_of(transaction, grant.user_id, grant.session_id, reason=EndReason.REUSED, by=SYSTEM, now=now)
    return NotGranted.SPENT


async def _may_be_repeated(transaction: Transaction, grant: LockedGrant, session_id: UUID, *, now: datetime) -> bool:
    """Whether WeChat may have delivered this code twice: its browsers repeat some callbacks."""
    if grant.door not in BY_WECHATS_PAGE:
        return False
    opened_at = await session_opened_at(transaction, session_id)
    return opened_at is not None and now < opened_at + REPEATED_WITHIN


async def _open_session(
    transaction: Transaction, grant: LockedGrant | None, *, session_id: UUID, expires_at: datetime, now: datetime
) -> Granted | NotGranted:
    """Open the session, if the person is still entitled to it."""
    person = None if grant is None else await entitled_person(transaction, grant, now=now)
    if grant is None or person is None:
        return NotGranted.DENIED
    if not await grant_rows.open_session(transaction, grant, session_id=session_id, expires_at=expires_at, now=now):
        return NotGranted.UNKNOWN
    if grant.browser_login_id is not None:
        await end_sessions_beyond(
            transaction,
            session_id,
            browser_login_id=grant.browser_login_id,
            at_most=SESSIONS_OF_BROWSER_LOGIN,
            by=SYSTEM,
            now=now,
        )
    return Granted(person, grant.scope, grant.nonce, grant.authenticated_at, grant.authenticated_by, Door(grant.door))


async def entitled_person(transaction: Transaction, grant: LockedGrant, *, now: datetime) -> UserInSession | None:
    """The user for whom a grant that is not redeemed may open a session now; None if it may not.

    The grant must not be over, the session that approved it and the browser's login not have ended, and the user not
    be banned.
    """
    if grant.session_id is not None or grant.expires_at <= now or not grant.is_upheld:
        return None
    return await grant_rows.person_of(transaction, grant)
