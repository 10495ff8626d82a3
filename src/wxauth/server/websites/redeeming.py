"""An approval becomes a session: by the code of a device, or by an authorization code."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Transaction
from wxauth.server.core.trail import SYSTEM
from wxauth.server.core.users import UserInSession
from wxauth.server.sessions.rows import EndReason, end_session_of
from wxauth.server.websites import rows as scan_rows
from wxauth.server.websites.doors import AMR, Door
from wxauth.server.websites.rows import RedeemedScan, Verdict

TOO_FAST: Final = 5
"""Seconds by which a poll that comes too early lengthens the interval."""


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
    """Open the session that a device waits for, if it is time."""
    scan = await scan_rows.lock_by_device_code(transaction, code_hash, client_id=client_id)
    if scan is None:
        return NotGranted.UNKNOWN
    if scan["session_id"] is not None:
        return NotGranted.SPENT
    is_over = scan["expires_at"] <= now
    if scan["verdict"] is None:
        return NotGranted.OVER if is_over else await _polled(transaction, scan, now=now)
    if is_over:
        return NotGranted.DENIED
    return await _opened(transaction, scan, session_id=session_id, expires_at=expires_at, now=now)


async def _polled(transaction: Transaction, scan: RedeemedScan, *, now: datetime) -> NotGranted:
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
    """Open the session that an authorization code stands for.

    If the code has been used before, that session ends: somebody else has the code and the verifier.
    """
    scan = await scan_rows.lock_by_code(
        transaction, code_hash, client_id=client_id, redirect_uri=redirect_uri, code_challenge=code_challenge
    )
    if scan is None:
        return NotGranted.UNKNOWN
    if scan["session_id"] is not None:
        await _end_reused(transaction, scan["session_id"], now=now)
        return NotGranted.SPENT
    if scan["code_expires_at"] is None or scan["code_expires_at"] <= now:
        return NotGranted.DENIED
    return await _opened(transaction, scan, session_id=session_id, expires_at=expires_at, now=now)


async def _end_reused(transaction: Transaction, session_id: UUID, *, now: datetime) -> None:
    user_id = await scan_rows.user_of(transaction, session_id)
    if user_id is not None:
        await end_session_of(transaction, user_id, session_id, reason=EndReason.REUSED, by=SYSTEM, now=now)


async def _opened(
    transaction: Transaction, scan: RedeemedScan, *, session_id: UUID, expires_at: datetime, now: datetime
) -> Granted | NotGranted:
    """The session, if the person has said yes, and neither the person nor the session that said it has ended since."""
    decided_at, approving, door = scan["decided_at"], scan["claimed_session_id"], scan["door"]
    person = None
    if scan["verdict"] == Verdict.APPROVED and approving is not None:
        person = await scan_rows.lock_person(transaction, approving, now=now)
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
