"""Exchanges an approval for a session, by a device code or an authorization code."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Transaction
from wxauth.server.core.trail import SYSTEM
from wxauth.server.core.users import UserInSession
from wxauth.server.sessions.rows import EndReason, end_session_of, session_opened_at
from wxauth.server.websites import scan_rows
from wxauth.server.websites.doors import AMR, BY_WECHATS_PAGE, Door
from wxauth.server.websites.scan_rows import RedeemedScan, Verdict
from wxauth.server.websites.visit_rows import lock_visitor

TOO_FAST: Final = 5
"""Seconds added to the interval by a poll that comes too early."""
REPEATED_WITHIN: Final = timedelta(seconds=15)
"""How long after its use a code from WeChat's browser may come again without ending the session."""


@dataclass(frozen=True, slots=True)
class Granted:
    """What a site gets for its code."""

    user: UserInSession
    scope: str
    nonce: str | None
    authenticated_at: datetime
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
    scan = await scan_rows.lock_by_device_code(transaction, code_hash, client_id=client_id)
    if scan is None:
        return NotGranted.UNKNOWN
    if scan["session_id"] is not None:
        return NotGranted.SPENT
    is_over = scan["expires_at"] <= now
    if scan["verdict"] is None:
        return NotGranted.OVER if is_over else await _store_poll(transaction, scan, now=now)
    if is_over:
        return NotGranted.DENIED
    return await _open_session(transaction, scan, session_id=session_id, expires_at=expires_at, now=now)


async def _store_poll(transaction: Transaction, scan: RedeemedScan, *, now: datetime) -> NotGranted:
    interval, before = scan["poll_interval"], scan["polled_at"]
    is_too_fast = before is not None and now < before + timedelta(seconds=interval)
    if is_too_fast:
        interval += TOO_FAST
    await scan_rows.store_poll(transaction, scan["id"], poll_interval=interval, now=now)
    return NotGranted.TOO_FAST if is_too_fast else NotGranted.PENDING


async def redeem_code(
    transaction: Transaction,
    code_hash: bytes,
    *,
    client_id: str,
    redirect_uri: str,
    code_challenge: str,
    session_id: UUID,
    expires_at: datetime,
    now: datetime,
) -> Granted | NotGranted:
    """Open the session of an authorization code.

    If the code has been used before, that session ends, because somebody else has the code and the verifier.
    """
    scan = await scan_rows.lock_by_code(
        transaction, code_hash, client_id=client_id, redirect_uri=redirect_uri, code_challenge=code_challenge
    )
    if scan is None:
        return NotGranted.UNKNOWN
    if scan["session_id"] is not None:
        if not await _may_be_repeated(transaction, scan, now=now):
            await _end_reused(transaction, scan["session_id"], now=now)
            return NotGranted.SPENT
        return NotGranted.UNKNOWN
    if scan["code_expires_at"] is None or scan["code_expires_at"] <= now:
        return NotGranted.DENIED
    return await _open_session(transaction, scan, session_id=session_id, expires_at=expires_at, now=now)


async def _may_be_repeated(transaction: Transaction, scan: RedeemedScan, *, now: datetime) -> bool:
    """Whether WeChat may have delivered this code twice: its browsers repeat some callbacks."""
    if scan["door"] not in BY_WECHATS_PAGE or scan["session_id"] is None:
        return False
    opened_at = await session_opened_at(transaction, scan["session_id"])
    return opened_at is not None and now < opened_at + REPEATED_WITHIN


async def _end_reused(transaction: Transaction, session_id: UUID, *, now: datetime) -> None:
    user_id = await scan_rows.user_of_session(transaction, session_id)
    if user_id is not None:
        await end_session_of(transaction, user_id, session_id, reason=EndReason.REUSED, by=SYSTEM, now=now)


async def _open_session(
    transaction: Transaction, scan: RedeemedScan, *, session_id: UUID, expires_at: datetime, now: datetime
) -> Granted | NotGranted:
    """Open the session, if the person approved, and neither the person nor the approving session has ended since."""
    decided_at, door = scan["decided_at"], scan["door"]
    person = await _person_of(transaction, scan, now=now) if scan["verdict"] == Verdict.APPROVED else None
    if person is None or decided_at is None or door is None:
        return NotGranted.DENIED
    await scan_rows.open_session(
        transaction,
        scan["id"],
        person,
        session_id=session_id,
        authenticated_by=AMR[Door(door)],
        expires_at=expires_at,
        now=now,
    )
    return Granted(person, scan["scope"], scan["nonce"], decided_at, Door(door))


async def _person_of(transaction: Transaction, scan: RedeemedScan, *, now: datetime) -> UserInSession | None:
    """Lock the user who approved: that of the phone's session, or of the identity that WeChat's page returned."""
    if scan["claimed_session_id"] is not None:
        return await scan_rows.lock_person(transaction, scan["claimed_session_id"], now=now)
    if scan["app_id"] is not None and scan["openid"] is not None:
        return await lock_visitor(transaction, app_id=scan["app_id"], openid=scan["openid"])
    return None
