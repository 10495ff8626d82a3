"""The statements for scans. Each of them has one claim at a time, and one verdict.

A statement that decides something about a scan first locks its row, so that the second of two at once sees what the
first has done. The order of locks is that of `grant_rows.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal
from uuid import UUID

import asyncpg

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.ip_addresses import NEARBY
from wxauth.server.core.metrics import Counter
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.websites.doors import Door
from wxauth.server.websites.durations import OUTCOME_KEPT
from wxauth.server.wechat.api import CodePicture

MINUTE: Final = timedelta(minutes=1)


class Verdict(StrEnum):
    """The person's decision."""

    APPROVED = "approved"
    DENIED = "denied"


class ScanOutcome(StrEnum):
    """How far a scan has progressed."""

    STARTED = "started"
    CLAIMED = "claimed"
    APPROVED = Verdict.APPROVED
    DENIED = Verdict.DENIED
    REDEEMED = "redeemed"
    """The site has opened its session."""
    EXPIRED = "expired"
    """Nobody decided in time."""


SCANS: Final = Counter(
    "wxauth_scans",
    "Scans for logins to websites, by the stage that they reached; expired ones are counted an hour later.",
    "outcome",
    first=ScanOutcome,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownScan:
    """A scan whose picture is requested."""

    id: UUID
    app_id: str | None
    """The app of the scan's client."""
    content: bytes | None
    """The picture; None if it has not been made yet."""
    content_type: Literal["image/jpeg", "image/png"] | None


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenScan:
    """A scan about to be claimed by a phone, and its client. Its row is locked."""

    id: UUID
    client_id: str
    title: str
    redirect_uris: list[str]
    scopes: list[str]
    near: bool
    user_code: bool
    sso: bool
    is_page: bool
    browser_ip: str | None
    browser_user_agent: str | None
    same_network: bool | None
    """Whether browser and phone are in the same network; None if an address is unknown."""
    claimed_session_id: UUID | None
    claimed_at: datetime | None
    created_at: datetime
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimedScan:
    """A claimed scan about to be decided, with what its site requests. Its row is locked."""

    id: UUID
    client_id: str
    scope: str
    door: str
    verdict: str | None
    browser_ip: str | None
    browser_user_agent: str | None
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class HeldClaim:
    """A scan that a session has claimed, and no other session has taken over."""

    verdict: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tries:
    number: int
    since: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class _StoredPicture:
    content_type: Literal["image/jpeg", "image/png"]
    content: bytes


_SHOWN: Final = Statement[ShownScan]("""
SELECT s.id, c.app_id, p.content, p.content_type
  FROM scans s JOIN site_requests r ON r.id = s.request_id JOIN clients c ON c.name = r.client_id
  LEFT JOIN scan_pictures p ON p.scan_id = s.id
 WHERE s.scene_hash = :scene_hash AND s.verdict IS NULL AND s.expires_at > :now
""")
# Settles the race of two processes that make the same picture: both get the one that was stored first.
_KEEP_PICTURE: Final = Statement[_StoredPicture]("""
INSERT INTO scan_pictures (scan_id, content_type, content)
SELECT id, :content_type, :content FROM scans WHERE id = :scan_id
ON CONFLICT (scan_id) DO UPDATE SET scan_id = excluded.scan_id
RETURNING content_type, content
""")


# Settles the race of two phones: the second waits here, and then sees that the scan is claimed. The request is locked
# for `_CLAIM`.
_LOCK_OPEN: Final = Statement[OpenScan](f"""
SELECT s.id, r.client_id, c.title, c.redirect_uris, c.scopes, c.near, c.user_code, c.sso,
       p.request_id IS NOT NULL AS is_page,
       host(r.browser_ip) AS browser_ip, r.browser_user_agent,
       {NEARBY.network_in_sql("r.browser_ip")} = {NEARBY.network_in_sql(":ip::text::inet")} AS same_network,
       s.claimed_session_id, s.claimed_at, r.created_at, s.expires_at
  FROM scans s JOIN site_requests r ON r.id = s.request_id JOIN clients c ON c.name = r.client_id
  LEFT JOIN login_pages p ON p.request_id = r.id
 WHERE (s.scene_hash = :scene_hash OR s.user_code_hash = ANY (:user_code_hashes::bytea[]))
   AND s.verdict IS NULL AND s.expires_at > :now
   FOR NO KEY UPDATE OF r FOR UPDATE OF s
""")  # noqa: S608 - put together from constants
# From now on the request is kept for longer than if nobody had answered it.
_CLAIM: Final = Statement[Nothing]("""
WITH claimed AS (
    UPDATE scans SET claimed_session_id = :session_id, claimed_at = :now, door = :door WHERE id = :scan_id
    RETURNING request_id
)
UPDATE site_requests SET kept_until = GREATEST(kept_until, :kept_until) FROM claimed WHERE id = claimed.request_id
""")
_CLAIMED: Final = Statement[HeldClaim]("""
SELECT verdict FROM scans WHERE id = :scan_id AND claimed_session_id = :session_id AND expires_at > :now
""")
# Settles the race of two verdicts: the second waits here, and then sees the first one. The client is locked for the
# grant.
_LOCK_CLAIMED: Final = Statement[ClaimedScan]("""
SELECT s.id, r.client_id, r.scope, s.door, s.verdict, host(r.browser_ip) AS browser_ip, r.browser_user_agent,
       s.expires_at
  FROM scans s JOIN site_requests r ON r.id = s.request_id JOIN clients c ON c.name = r.client_id
 WHERE s.id = :scan_id AND s.claimed_session_id = :session_id AND s.expires_at > :now
   FOR KEY SHARE OF c FOR UPDATE OF s
""")
_DECIDE: Final = Statement[Nothing]("UPDATE scans SET verdict = :verdict WHERE id = :scan_id")

# An attempt is counted before the code is looked up, and uncounted if the code was right, so that of many at once only
# five pass. A minute that began before `:minute_ago` is over.
_COUNT_TRY: Final = Statement[_Tries]("""
INSERT INTO wrong_user_codes AS tries (user_id, since, number) VALUES (:user_id, :now, 1)
ON CONFLICT (user_id) DO UPDATE
   SET since = CASE WHEN tries.since <= :minute_ago THEN :now ELSE tries.since END,
       number = CASE WHEN tries.since <= :minute_ago THEN 1 ELSE tries.number + 1 END
RETURNING number, since
""")
_GIVE_TRY_BACK: Final = Statement[Nothing]("""
UPDATE wrong_user_codes SET number = number - 1 WHERE user_id = :user_id
""")
_SWEEP_TRIES: Final = Statement[UUID]("""
DELETE FROM wrong_user_codes WHERE user_id = ANY (ARRAY(
    SELECT user_id FROM wrong_user_codes WHERE since < :before LIMIT :size FOR UPDATE SKIP LOCKED))
RETURNING user_id
""")


async def shown_scan(database: Database, scene_hash: bytes, *, now: datetime) -> ShownScan | None:
    """The scan of this scene, until it is decided."""
    return await database.row(_SHOWN, scene_hash=scene_hash, now=now)


async def keep_picture(database: Database, scan_id: UUID, picture: CodePicture) -> CodePicture:
    """Store a scan's picture. Returns the stored one: this picture, unless another was stored first."""
    try:
        stored = await database.row(
            _KEEP_PICTURE, scan_id=scan_id, content_type=picture.content_type, content=picture.content
        )
    except asyncpg.ForeignKeyViolationError:  # the scan has just been deleted
        return picture
    return picture if stored is None else CodePicture(stored.content, stored.content_type)


async def lock_open_scan(
    transaction: Transaction,
    *,
    scene_hash: bytes | None,
    user_code_hashes: Sequence[bytes],
    ip: str | None,
    now: datetime,
) -> OpenScan | None:
    """Lock the scan of this scene, or of a user code with one of these hashes.

    None if there is none that can still be decided.
    """
    return await transaction.row(_LOCK_OPEN, scene_hash=scene_hash, user_code_hashes=user_code_hashes, ip=ip, now=now)


async def store_claim(transaction: Transaction, scan: OpenScan, *, session_id: UUID, door: Door, now: datetime) -> None:
    """Store that this session has claimed a locked scan, and by which door."""
    kept_until = scan.expires_at + OUTCOME_KEPT
    await transaction.run(_CLAIM, scan_id=scan.id, session_id=session_id, door=door, now=now, kept_until=kept_until)


async def held_claim(database: Database, scan_id: UUID, *, session_id: UUID, now: datetime) -> HeldClaim | None:
    """The claim of a scan, if this session holds the claim and it has not expired."""
    return await database.row(_CLAIMED, scan_id=scan_id, session_id=session_id, now=now)


async def lock_claimed_scan(
    transaction: Transaction, scan_id: UUID, *, session_id: UUID, now: datetime
) -> ClaimedScan | None:
    """Lock the scan, if this session holds the claim and it has not expired."""
    return await transaction.row(_LOCK_CLAIMED, scan_id=scan_id, session_id=session_id, now=now)


async def store_verdict(transaction: Transaction, scan_id: UUID, verdict: Verdict) -> None:
    """Store the verdict on a locked scan."""
    await transaction.run(_DECIDE, scan_id=scan_id, verdict=verdict)


async def count_try(database: Database, user_id: UUID, *, now: datetime) -> tuple[int, datetime]:
    """Count an attempt to type a user code. Returns its number within the minute, and when the minute is over."""
    tries = await database.row(_COUNT_TRY, user_id=user_id, now=now, minute_ago=now - MINUTE)
    assert tries is not None
    return tries.number, tries.since + MINUTE


async def give_try_back(database: Database, user_id: UUID) -> None:
    """Uncount an attempt whose code was right."""
    await database.run(_GIVE_TRY_BACK, user_id=user_id)


async def sweep_tries(database: Database, *, size: int, now: datetime) -> int:
    """Delete the attempt counts whose minute is over, at most `size`. Returns how many."""
    return len(await database.values(_SWEEP_TRIES, before=now - MINUTE, size=size))
