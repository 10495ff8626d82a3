"""Scans as they are stored. A scan has one claim, one verdict and one session, each decided by one statement.

Each statement locks the scan's row first: of two at once, the second sees what the first has done. The statement that
opens a session also locks the user, as bans, merges and erasures do.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final, Literal, TypedDict
from uuid import UUID

import asyncpg

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.trail import SYSTEM, EventType
from wxauth.server.core.users import USER, UserInSession
from wxauth.server.sessions.rows import EndReason
from wxauth.server.wechat.api import Picture

LIFETIME: Final = timedelta(seconds=180)
"""How long a scan lives."""
KEPT: Final = timedelta(hours=1)
"""How long a scan is kept after its end. Until then a late poll gets `expired_token`, and a reused code is noticed.
Neither can happen to a page that nobody has scanned: it goes when it expires, because anybody can open any number."""
CLAIM_LASTS: Final = timedelta(seconds=60)
"""After this time without a decision, another user may take the claim over."""
CODE_LASTS: Final = timedelta(seconds=60)
"""How long an authorization code lives."""
TOO_FAST: Final = 5
"""Seconds by which a poll that comes too early lengthens the interval."""
MINUTE: Final = timedelta(minutes=1)

_ATTEMPTS: Final = 3

# $1 id  $2 client  $3 scope  $4 to $8 hashes: scene, user code, device code, request, browser  $9 redirect_uri
# $10 state  $11 nonce  $12 code_challenge  $13 ip  $14 user_agent  $15 now  $16 end
_ADD: Final = """
INSERT INTO scans (id, client_id, scope, scene_hash, user_code_hash, device_code_hash, request_hash, browser_hash,
                   redirect_uri, state, nonce, code_challenge, browser_ip, browser_user_agent, created_at, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::text::inet, $14, $15, $16)
ON CONFLICT DO NOTHING
RETURNING id
"""
_OPEN: Final = """
SELECT s.id, c.app_id, p.content, p.content_type
  FROM scans s JOIN clients c ON c.name = s.client_id LEFT JOIN scan_pictures p ON p.scan_id = s.id
 WHERE s.scene_hash = $1 AND s.verdict IS NULL AND s.expires_at > $2
"""

# Settles the race of two processes that make one picture: both get the one that was stored first.
# $1 scan  $2 content_type  $3 content
_KEEP_PICTURE: Final = """
INSERT INTO scan_pictures (scan_id, content_type, content) SELECT id, $2, $3 FROM scans WHERE id = $1
ON CONFLICT (scan_id) DO UPDATE SET scan_id = excluded.scan_id
RETURNING content_type, content
"""


def _network_part(address: str) -> str:
    return f"network(set_masklen({address}, CASE family({address}) WHEN 4 THEN 24 ELSE 56 END))"


_SAME_NETWORK_PART: Final = f"{_network_part('s.browser_ip')} = {_network_part('$6::text::inet')}"
_IS_FORWARDED_PART: Final = """
CASE WHEN $1::bytea IS NULL THEN NOT (c.user_code OR s.request_hash IS NOT NULL) ELSE NOT $8::boolean END"""
_IS_TOO_FAR_PART: Final = f"((c.near OR $7::boolean) AND ({_SAME_NETWORK_PART}) IS NOT TRUE)"
_IS_TOO_OLD_PART: Final = "c.scopes && $10::text[]"
# A scan is free if its claim is too old, is of the same user, or is of a session that has been erased.
_IS_FREE_PART: Final = """
(s.claimed_session_id IS NULL OR s.claimed_at <= $9
 OR COALESCE((SELECT holder.user_id = $4 FROM sessions holder WHERE holder.id = s.claimed_session_id), true))"""
_MAY_PART: Final = (
    f"(NOT ({_IS_FORWARDED_PART}) AND NOT {_IS_TOO_FAR_PART} AND NOT {_IS_TOO_OLD_PART} AND {_IS_FREE_PART})"
)
# Settles the race of two phones: the second waits here, and then finds the scan claimed.
# $1 hash of the scene, or NULL  $2 hashes that the user code may have  $3 session  $4 user  $5 now  $6 ip
# $7 whether this user must be near  $8 whether a camera saw the picture  $9 claims before this time do not count
# $10 scopes that the session is too old for
_CLAIM: Final = f"""
UPDATE scans s
   SET claimed_session_id = CASE WHEN {_MAY_PART} THEN $3 ELSE s.claimed_session_id END,
       claimed_at = CASE WHEN {_MAY_PART} THEN $5 ELSE s.claimed_at END,
       is_typed = CASE WHEN {_MAY_PART} THEN $1::bytea IS NULL ELSE s.is_typed END
  FROM clients c
 WHERE c.name = s.client_id AND (s.scene_hash = $1 OR s.user_code_hash = ANY ($2::bytea[]))
   AND s.verdict IS NULL AND s.expires_at > $5
RETURNING s.id, s.client_id, c.title, c.redirect_uris, s.request_hash IS NOT NULL AS is_page,
          host(s.browser_ip) AS browser_ip, s.browser_user_agent, {_SAME_NETWORK_PART} AS same_network, s.is_typed,
          s.created_at, s.expires_at, {_IS_FORWARDED_PART} AS is_forwarded, {_IS_TOO_FAR_PART} AS is_too_far,
          {_IS_TOO_OLD_PART} AS is_too_old, s.claimed_session_id = $3 AS is_claimed
"""  # noqa: S608 - put together from constants
# $1 id  $2 session  $3 now
_HELD: Final = "SELECT verdict FROM scans WHERE id = $1 AND claimed_session_id = $2 AND expires_at > $3"
# Stores the verdict and its event together. The same verdict again, by the same session, changes nothing. The session
# stays until then: an erasure, which deletes it, waits, and so finds the event and its addresses. The user is the one
# whose session it is by now.
# $1 id  $2 session  $3 now  $4 verdict  $5 id of the event  $6 ip
_DECIDE: Final = f"""
WITH scan AS (
    SELECT scans.id, scans.verdict, sessions.user_id, sessions.app_id
      FROM scans JOIN sessions ON sessions.id = scans.claimed_session_id JOIN users ON users.id = sessions.user_id
     WHERE scans.id = $1 AND claimed_session_id = $2 AND scans.expires_at > $3 AND (verdict IS NULL OR verdict = $4)
       AND sessions.revoked_at IS NULL AND sessions.expires_at > $3 AND users.status = 'active'
       FOR UPDATE OF scans FOR KEY SHARE OF sessions
), decided AS (
    UPDATE scans SET verdict = $4, decided_at = $3 FROM scan
     WHERE scans.id = scan.id AND scan.verdict IS NULL
    RETURNING scans.client_id, scans.browser_ip, scan.user_id, scan.app_id
), noted AS (
    INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
    SELECT $5, '{EventType.SCAN_APPROVED}', $3, user_id::text, user_id, app_id, $6::text::inet,
           jsonb_build_object('scan_id', $1::uuid, 'client_id', client_id, 'browser_ip', host(browser_ip))
      FROM decided WHERE $4 = 'approved'
    ON CONFLICT DO NOTHING
)
SELECT scan.user_id, decided.client_id FROM scan LEFT JOIN decided ON true
"""  # noqa: S608 - put together from constants

# The user who said yes, by the session that said it. Neither may be banned or ended since. Bans, merges and erasures of
# the user wait for this statement.
# In the statements below: $1 hash of the code  $2 client  $3 now  $4 id of the new session  $5 seconds to live
_PERSON_PART: Final = f"""
    SELECT {USER}, approving.app_id, approving.openid
      FROM scan
      JOIN sessions approving ON approving.id = scan.claimed_session_id
      JOIN users ON users.id = approving.user_id
     WHERE scan.verdict = 'approved' AND (scan.session_id IS NULL OR scan.session_id = $4)
       AND approving.revoked_at IS NULL AND approving.expires_at > $3 AND users.status = 'active'"""  # noqa: S608
_HOW_PART: Final = "CASE WHEN scan.is_typed THEN 'wechat_code' ELSE 'wechat_scan' END"
_OPENED_PART: Final = f"""
    INSERT INTO sessions (id, user_id, app_id, openid, ip, user_agent, created_at, last_used_at, expires_at,
                          client_id, scope, authenticated_at, authenticated_by)
    SELECT $4, person.id, person.app_id, person.openid, scan.browser_ip, scan.browser_user_agent, $3, $3,
           $3 + make_interval(secs => $5), scan.client_id, scan.scope, scan.decided_at,
           {_HOW_PART}
      FROM person, scan
    ON CONFLICT (id) DO NOTHING"""  # noqa: S608 - put together from constants
_LISTED_PART: Final = """
    INSERT INTO website_sessions (client_id, session_id) SELECT scan.client_id, $4 FROM person, scan
    ON CONFLICT DO NOTHING"""
_REDEEMED_PART: Final = """
    UPDATE scans SET session_id = $4 FROM scan, person WHERE scans.id = scan.id"""
_GRANTED_PART: Final = f"""
SELECT scan.scope, scan.nonce, scan.decided_at AS authenticated_at,
       {_HOW_PART} AS authenticated_by,
       scan.verdict, scan.session_id <> $4 AS is_spent, person.*"""
# Settles the race of two polls: the second waits for the scan's row, and then finds it spent.
_REDEEM_DEVICE: Final = f"""
WITH scan AS (
    SELECT * FROM scans WHERE device_code_hash = $1 AND client_id = $2 FOR UPDATE
), person AS ({_PERSON_PART} AND scan.expires_at > $3
       FOR NO KEY UPDATE OF users
), opened AS ({_OPENED_PART}
), listed AS ({_LISTED_PART}
), redeemed AS ({_REDEEMED_PART}
), polled AS (
    UPDATE scans
       SET polled_at = $3,
           poll_interval = scans.poll_interval
                           + CASE WHEN $3 < scan.polled_at + make_interval(secs => scan.poll_interval)
                                  THEN {TOO_FAST} ELSE 0 END
      FROM scan
     WHERE scans.id = scan.id AND scan.verdict IS NULL AND scan.expires_at > $3
)
{_GRANTED_PART}, scan.expires_at <= $3 AS is_over,
       $3 < scan.polled_at + make_interval(secs => scan.poll_interval) AS is_too_fast
  FROM scan LEFT JOIN person ON true
"""  # noqa: S608 - put together from constants
# A scan as its own browser may see it. $1 request  $2 browser
_PAGE: Final = """
SELECT verdict, claimed_at IS NOT NULL AS is_claimed, session_id IS NOT NULL AS is_spent, expires_at, client_id, scope,
       redirect_uri, state, nonce, code_challenge
  FROM scans WHERE request_hash = $1 AND browser_hash = $2
"""
# A scan has one authorization code at a time, and gets none once its session is open.
# $1 request  $2 browser  $3 now  $4 hash of the code  $5 its end
_MAKE_CODE: Final = """
UPDATE scans SET code_hash = $4, code_expires_at = $5
  FROM sessions approving JOIN users ON users.id = approving.user_id
 WHERE request_hash = $1 AND browser_hash = $2 AND verdict = 'approved' AND scans.expires_at > $3
   AND scans.session_id IS NULL
   AND approving.id = scans.claimed_session_id AND approving.revoked_at IS NULL AND approving.expires_at > $3
   AND users.status = 'active'
RETURNING scans.id
"""
# Settles the race of two exchanges of one code: the second waits for the scan's row, and ends the session that the
# first has opened, because somebody else has the code and the verifier.
# $6 redirect_uri  $7 code_challenge  $8 id of the event
_REDEEM_CODE: Final = f"""
WITH scan AS (
    SELECT * FROM scans
     WHERE code_hash = $1 AND client_id = $2 AND redirect_uri = $6 AND code_challenge = $7
       FOR UPDATE
), person AS ({_PERSON_PART} AND scan.code_expires_at > $3
       FOR NO KEY UPDATE OF users
), opened AS ({_OPENED_PART}
), listed AS ({_LISTED_PART}
), redeemed AS ({_REDEEMED_PART}
), ended AS (
    UPDATE sessions SET revoked_at = $3, revoked_reason = '{EndReason.REUSED}', session_key = NULL
      FROM scan
     WHERE sessions.id = scan.session_id AND scan.session_id <> $4 AND sessions.revoked_at IS NULL
    RETURNING sessions.id, sessions.user_id, sessions.app_id
), noted AS (
    INSERT INTO events (id, type, at, actor, user_id, app_id, data)
    SELECT $8, '{EventType.SESSION_ENDED.value}', $3, '{SYSTEM.name}', user_id, app_id,
           jsonb_build_object('session_ids', jsonb_build_array(id), 'reason', '{EndReason.REUSED}')
      FROM ended
    ON CONFLICT DO NOTHING
)
{_GRANTED_PART}, EXISTS (SELECT FROM ended) AS is_reused
  FROM scan LEFT JOIN person ON true
"""  # noqa: S608 - put together from constants

# A try is counted before the code is looked for, and given back if the code was right. So of many at once, five pass.
# $1 user  $2 now  $3 a minute before now: a minute that began by then is over
_COUNT_TRY: Final = """
INSERT INTO wrong_user_codes AS tries (user_id, since, number) VALUES ($1, $2, 1)
ON CONFLICT (user_id) DO UPDATE
   SET since = CASE WHEN tries.since <= $3 THEN $2 ELSE tries.since END,
       number = CASE WHEN tries.since <= $3 THEN 1 ELSE tries.number + 1 END
RETURNING number, since
"""
# $1 user
_GIVE_TRY_BACK: Final = "UPDATE wrong_user_codes SET number = number - 1 WHERE user_id = $1 RETURNING user_id"
_SWEEP: Final = """
DELETE FROM scans WHERE id IN (SELECT id FROM scans WHERE expires_at < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING verdict
"""
_SWEEP_PAGES: Final = """
DELETE FROM scans WHERE id IN (
    SELECT id FROM scans WHERE expires_at < $1 AND request_hash IS NOT NULL AND claimed_at IS NULL
     LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING verdict
"""
_SWEEP_TRIES: Final = """
DELETE FROM wrong_user_codes WHERE user_id IN (
    SELECT user_id FROM wrong_user_codes WHERE since < $1 LIMIT $2 FOR UPDATE SKIP LOCKED)
RETURNING user_id
"""


class Verdict(StrEnum):
    """The person's decision."""

    APPROVED = "approved"
    DENIED = "denied"


class ScanOutcome(StrEnum):
    """How far a scan has come."""

    STARTED = "started"
    CLAIMED = "claimed"
    APPROVED = Verdict.APPROVED
    DENIED = Verdict.DENIED
    REDEEMED = "redeemed"
    """The site has got its session."""
    EXPIRED = "expired"
    """Nobody has decided in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewScan:
    """A scan as it is to be stored."""

    id: UUID
    client_id: str
    scope: str
    scene_hash: bytes
    user_code_hash: bytes
    device_code_hash: bytes | None = None
    request_hash: bytes | None = None
    browser_hash: bytes | None = None
    redirect_uri: str | None = None
    state: str | None = None
    nonce: str | None = None
    code_challenge: str | None = None
    browser_ip: str | None
    browser_user_agent: str | None


class OpenScan(TypedDict):
    """A scan that may still be claimed or decided."""

    id: UUID
    app_id: str | None
    """The app of the scan's client."""
    content: bytes | None
    """The picture; None until it has been made."""
    content_type: Literal["image/jpeg", "image/png"] | None


class PageScan(TypedDict):
    """A scan as the browser that shows it may see it."""

    verdict: str | None
    is_claimed: bool
    is_spent: bool
    expires_at: datetime
    client_id: str
    scope: str
    redirect_uri: str
    state: str | None
    nonce: str | None
    code_challenge: str


class HeldScan(TypedDict):
    """A scan that a session has claimed and nobody has taken over."""

    verdict: str | None


class DecidedScan(TypedDict):
    """A scan upon which a session has decided."""

    user_id: UUID
    client_id: str | None
    """None if the same verdict was stored before."""


class ClaimedScan(TypedDict):
    """A scan that a phone has asked for, and whether that phone may claim it."""

    id: UUID
    client_id: str
    title: str
    redirect_uris: list[str]
    is_page: bool
    browser_ip: str | None
    browser_user_agent: str | None
    same_network: bool | None
    is_typed: bool
    created_at: datetime
    expires_at: datetime
    is_forwarded: bool
    is_too_far: bool
    is_too_old: bool
    is_claimed: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """An attempt to claim a scan: who claims it, and by which code."""

    scene_hash: bytes | None = None
    user_code_hashes: Sequence[bytes] = ()
    session_id: UUID
    user_id: UUID
    ip: str | None
    must_be_near: bool
    too_old_for: Sequence[str]
    """Scopes that want a session that was opened later than this one."""
    by_camera: bool


@dataclass(frozen=True, slots=True)
class Granted:
    """What a site gets for its code."""

    user: UserInSession
    scope: str
    nonce: str | None
    authenticated_at: datetime
    authenticated_by: str


class NotGranted(StrEnum):
    """Why a site gets no session."""

    UNKNOWN = "unknown"
    SPENT = "spent"
    PENDING = "pending"
    TOO_FAST = "too_fast"
    DENIED = "denied"
    OVER = "over"


async def add_scan(database: Database, scan: NewScan, *, now: datetime) -> bool | None:
    """Store a new scan. False if another scan has its user code; None if its client has been removed.

    Raises: StorageUnavailable.
    """
    try:
        row = await database.fetchrow(
            _ADD,
            scan.id,
            scan.client_id,
            scan.scope,
            scan.scene_hash,
            scan.user_code_hash,
            scan.device_code_hash,
            scan.request_hash,
            scan.browser_hash,
            scan.redirect_uri,
            scan.state,
            scan.nonce,
            scan.code_challenge,
            scan.browser_ip,
            scan.browser_user_agent,
            now,
            now + LIFETIME,
        )
    except asyncpg.ForeignKeyViolationError:
        return None
    return row is not None


async def open_scan(database: Database, scene_hash: bytes, *, now: datetime) -> OpenScan | None:
    """The scan of this scene, as long as nobody has decided upon it. Raises: StorageUnavailable."""
    row: OpenScan | None = await database.fetchrow(_OPEN, scene_hash, now)
    return row


async def keep_picture(database: Database, scan_id: UUID, picture: Picture) -> Picture:
    """Store a scan's picture. The result is the stored one: this picture, unless another was stored first.

    Raises: StorageUnavailable.
    """
    try:
        row = await database.fetchrow(_KEEP_PICTURE, scan_id, picture.content_type, picture.content)
    except asyncpg.ForeignKeyViolationError:  # the scan has just been swept away
        return picture
    return picture if row is None else Picture(row["content"], row["content_type"])


async def claim_scan(database: Database, claim: Claim, *, now: datetime) -> ClaimedScan | None:
    """Claim a scan if that is allowed. The result says whether it was; None if there is no open scan.

    Raises: StorageUnavailable.
    """
    row: ClaimedScan | None = await database.fetchrow(
        _CLAIM,
        claim.scene_hash,
        claim.user_code_hashes,
        claim.session_id,
        claim.user_id,
        now,
        claim.ip,
        claim.must_be_near,
        claim.by_camera,
        now - CLAIM_LASTS,
        claim.too_old_for,
    )
    return row


async def held_scan(database: Database, scan_id: UUID, *, session_id: UUID, now: datetime) -> HeldScan | None:
    """The scan, if this session holds the claim and it has not expired. Raises: StorageUnavailable."""
    row: HeldScan | None = await database.fetchrow(_HELD, scan_id, session_id, now)
    return row


async def decide_scan(
    database: Database,
    scan_id: UUID,
    verdict: Verdict,
    *,
    session_id: UUID,
    ip: str | None,
    event_id: UUID,
    now: datetime,
) -> DecidedScan | None:
    """Store the verdict on a scan that this session has claimed, and record an approval.

    None if the session has no such claim, or can no longer decide.

    Raises: StorageUnavailable.
    """
    row: DecidedScan | None = await database.fetchrow(_DECIDE, scan_id, session_id, now, verdict, event_id, ip)
    return row


async def redeem_device_code(
    database: Database, device_code_hash: bytes, *, client_id: str, session_id: UUID, expires_in: int, now: datetime
) -> Granted | NotGranted:
    """Open the session that a device waits for, if it is time. Raises: StorageUnavailable."""
    for _ in range(_ATTEMPTS):
        row = await database.fetchrow(_REDEEM_DEVICE, device_code_hash, client_id, now, session_id, expires_in)
        if row is None:
            return NotGranted.UNKNOWN
        if row["id"] is not None:
            return _granted(row)
        if row["is_spent"]:
            return NotGranted.SPENT
        if row["verdict"] is None:
            if row["is_over"]:
                return NotGranted.OVER
            return NotGranted.TOO_FAST if row["is_too_fast"] else NotGranted.PENDING
        if row["verdict"] == Verdict.DENIED or row["is_over"]:
            break
        # The person is banned or erased. Or a merge was under way when we looked: then the next look finds the person.
    return NotGranted.DENIED


async def redeem_code(
    database: Database | Transaction,
    code_hash: bytes,
    *,
    client_id: str,
    redirect_uri: str,
    code_challenge: str,
    session_id: UUID,
    expires_in: int,
    event_id: UUID,
    now: datetime,
) -> Granted | NotGranted:
    """Open the session that an authorization code stands for. If the code has been used before, end that session.

    Raises: StorageUnavailable.
    """
    for _ in range(_ATTEMPTS):
        row = await database.fetchrow(
            _REDEEM_CODE,
            code_hash,
            client_id,
            now,
            session_id,
            expires_in,
            redirect_uri,
            code_challenge,
            event_id,
        )
        if row is None:
            return NotGranted.UNKNOWN
        if row["id"] is not None:
            return _granted(row)
        if row["is_spent"]:
            return NotGranted.SPENT
    return NotGranted.DENIED


async def page_of(database: Database, *, request_hash: bytes, browser_hash: bytes) -> PageScan | None:
    """The scan that a browser shows; None if it is not this browser's. Raises: StorageUnavailable."""
    row: PageScan | None = await database.fetchrow(_PAGE, request_hash, browser_hash)
    return row


async def make_code(
    database: Database, *, request_hash: bytes, browser_hash: bytes, code_hash: bytes, now: datetime
) -> bool:
    """Store a browser's authorization code; whether the browser may have one. Raises: StorageUnavailable."""
    row = await database.fetchrow(_MAKE_CODE, request_hash, browser_hash, now, code_hash, now + CODE_LASTS)
    return row is not None


async def count_try(database: Database, user_id: UUID, *, now: datetime) -> tuple[int, datetime]:
    """Count a try to find a user code; its number within the minute, and when the minute is over.

    Raises: StorageUnavailable.
    """
    row = await database.fetchrow(_COUNT_TRY, user_id, now, now - MINUTE)
    assert row is not None
    return row["number"], row["since"] + MINUTE


async def give_try_back(database: Database, user_id: UUID) -> None:
    """Uncount a try, because its code was right. Raises: StorageUnavailable."""
    await database.fetchrow(_GIVE_TRY_BACK, user_id)


async def sweep_scans(
    database: Database, *, size: int, now: datetime, observe: Callable[[ScanOutcome, int], object]
) -> int:
    """Delete some scans and counts of tries that nobody needs any more; how many. Raises: StorageUnavailable."""
    pages = await database.fetch(_SWEEP_PAGES, now, size)
    swept = await database.fetch(_SWEEP, now - KEPT, size)
    observe(ScanOutcome.EXPIRED, sum(row["verdict"] is None for row in (*pages, *swept)))
    tries = await database.fetch(_SWEEP_TRIES, now - MINUTE, size)
    return max(len(pages), len(swept), len(tries))


def _granted(row: Any) -> Granted:
    return Granted(row, row["scope"], row["nonce"], row["authenticated_at"], row["authenticated_by"])
