"""The statements for scans and for mini-programs' answers. Each of them has one claim, one verdict and one session.

A statement that decides something about a scan first locks its row, so that the second of two at once sees what the
first has done. A statement that opens a session also locks the user, as bans, merges and erasures do.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, Literal, TypedDict
from uuid import UUID

import asyncpg

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.ip_addresses import NEARBY
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.core.users import USER, UserInSession
from wxauth.server.websites.doors import Door
from wxauth.server.wechat.api import CodePicture

SCAN_LASTS: Final = timedelta(seconds=180)
"""How long a scan can be used."""
OUTCOME_KEPT: Final = timedelta(hours=1)
"""How long a scan is kept after its end. Until then a late poll gets `expired_token`, and reuse of a code is detected.
Neither applies to a scan on our own page that no phone has claimed. It is deleted when it expires, because anybody can
open any number."""
AUTHORIZATION_CODE_LASTS: Final = timedelta(seconds=60)
"""How long an authorization code is valid."""
MINUTE: Final = timedelta(minutes=1)

_ATTEMPTS: Final = 3


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


@dataclass(frozen=True, slots=True, kw_only=True)
class NewScan:
    """A scan to be stored."""

    id: UUID
    client_id: str
    scope: str
    scene_hash: bytes | None = None
    user_code_hash: bytes | None = None
    device_code_hash: bytes | None = None
    request_hash: bytes | None = None
    browser_hash: bytes | None = None
    redirect_uri: str | None = None
    state: str | None = None
    nonce: str | None = None
    code_challenge: str | None = None
    browser_ip: str | None
    browser_user_agent: str | None


class ShownScan(TypedDict):
    """A scan whose picture is requested."""

    id: UUID
    app_id: str | None
    """The app of the scan's client."""
    content: bytes | None
    """The picture; None if it has not been made yet."""
    content_type: Literal["image/jpeg", "image/png"] | None


class PageScan(TypedDict):
    """A scan as visible to the browser that shows it."""

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


class ClaimedScan(TypedDict):
    """A scan that a session has claimed, and no other session has taken over."""

    verdict: str | None


class DecidedScan(TypedDict):
    """A scan with a session's verdict."""

    user_id: UUID
    door: str
    client_id: str | None
    """None if the same verdict had been stored before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NewAnswer:
    """A mini-program's answer to a site's request, to be stored: a code, and the parameters that it is bound to."""

    id: UUID
    client_id: str
    scope: str
    redirect_uri: str
    nonce: str | None
    code_challenge: str
    code_hash: bytes
    session_id: UUID
    """The phone's session, which answers."""
    authenticated_at: datetime
    ip: str | None
    user_agent: str | None


class OpenScan(TypedDict):
    """A scan about to be claimed by a phone, and its client. Its row is locked."""

    id: UUID
    client_id: str
    title: str
    redirect_uris: list[str]
    scopes: list[str]
    near: bool
    user_code: bool
    is_page: bool
    browser_ip: str | None
    browser_user_agent: str | None
    same_network: bool | None
    """Whether browser and phone are in the same network; None if an address is unknown."""
    claimed_session_id: UUID | None
    claimed_at: datetime | None
    created_at: datetime
    expires_at: datetime


class RedeemedScan(TypedDict):
    """A scan whose session a site requests. Its row is locked."""

    id: UUID
    nonce: str | None
    scope: str
    verdict: str | None
    decided_at: datetime | None
    door: str | None
    claimed_session_id: UUID | None
    app_id: str | None
    openid: str | None
    session_id: UUID | None
    poll_interval: int
    polled_at: datetime | None
    code_expires_at: datetime | None
    expires_at: datetime


class _Tries(TypedDict):
    number: int
    since: datetime


class _StoredPicture(TypedDict):
    content_type: Literal["image/jpeg", "image/png"]
    content: bytes


_ADD: Final = Statement[UUID]("""
INSERT INTO scans (id, client_id, scope, scene_hash, user_code_hash, device_code_hash, request_hash, browser_hash,
                   redirect_uri, state, nonce, code_challenge, browser_ip, browser_user_agent, created_at, expires_at)
VALUES (:id, :client_id, :scope, :scene_hash, :user_code_hash, :device_code_hash, :request_hash, :browser_hash,
        :redirect_uri, :state, :nonce, :code_challenge, :browser_ip::text::inet, :browser_user_agent, :now, :expires_at)
ON CONFLICT DO NOTHING
RETURNING id
""")
_SHOWN: Final = Statement[ShownScan]("""
SELECT s.id, c.app_id, p.content, p.content_type
  FROM scans s JOIN clients c ON c.name = s.client_id LEFT JOIN scan_pictures p ON p.scan_id = s.id
 WHERE s.scene_hash = :scene_hash AND s.verdict IS NULL AND s.expires_at > :now
""")
# Settles the race of two processes that make the same picture: both get the one that was stored first.
_KEEP_PICTURE: Final = Statement[_StoredPicture]("""
INSERT INTO scan_pictures (scan_id, content_type, content)
SELECT id, :content_type, :content FROM scans WHERE id = :scan_id
ON CONFLICT (scan_id) DO UPDATE SET scan_id = excluded.scan_id
RETURNING content_type, content
""")


# Settles the race of two phones: the second waits here, and then sees that the scan is claimed.
_LOCK_OPEN: Final = Statement[OpenScan](f"""
SELECT s.id, s.client_id, c.title, c.redirect_uris, c.scopes, c.near, c.user_code,
       s.request_hash IS NOT NULL AS is_page, host(s.browser_ip) AS browser_ip, s.browser_user_agent,
       {NEARBY.network_in_sql("s.browser_ip")} = {NEARBY.network_in_sql(":ip::text::inet")} AS same_network,
       s.claimed_session_id, s.claimed_at, s.created_at, s.expires_at
  FROM scans s JOIN clients c ON c.name = s.client_id
 WHERE (s.scene_hash = :scene_hash OR s.user_code_hash = ANY (:user_code_hashes::bytea[]))
   AND s.verdict IS NULL AND s.expires_at > :now
   FOR UPDATE OF s
""")  # noqa: S608 - put together from constants
_CLAIM: Final = Statement[Nothing]("""
UPDATE scans SET claimed_session_id = :session_id, claimed_at = :now, door = :door WHERE id = :scan_id
""")
_CLAIMED: Final = Statement[ClaimedScan]("""
SELECT verdict FROM scans WHERE id = :scan_id AND claimed_session_id = :session_id AND expires_at > :now
""")
# Stores the verdict and its event together. The same verdict again, by the same session, changes nothing. The session
# is locked until then, so an erasure, which deletes it, waits and then finds the event and its addresses. The event
# names the user who has the session at that moment.
_DECIDE: Final = Statement[DecidedScan](f"""
WITH scan AS (
    SELECT scans.id, scans.verdict, scans.door, sessions.user_id, sessions.app_id
      FROM scans JOIN sessions ON sessions.id = scans.claimed_session_id JOIN users ON users.id = sessions.user_id
     WHERE scans.id = :scan_id AND claimed_session_id = :session_id AND scans.expires_at > :now
       AND (verdict IS NULL OR verdict = :verdict)
       AND sessions.revoked_at IS NULL AND sessions.expires_at > :now AND users.status = 'active'
       FOR UPDATE OF scans FOR KEY SHARE OF sessions
), decided AS (
    UPDATE scans SET verdict = :verdict, decided_at = :now FROM scan
     WHERE scans.id = scan.id AND scan.verdict IS NULL
    RETURNING scans.client_id, scans.browser_ip, scan.user_id, scan.app_id
), noted AS (
    INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
    SELECT :event_id, '{EventType.SCAN_APPROVED}', :now, user_id::text, user_id, app_id, :ip::text::inet,
           jsonb_build_object('scan_id', :scan_id::uuid, 'client_id', client_id, 'browser_ip', host(browser_ip))
      FROM decided WHERE :verdict = 'approved'
    ON CONFLICT DO NOTHING
)
SELECT scan.user_id, scan.door, decided.client_id FROM scan LEFT JOIN decided ON true
""")  # noqa: S608 - put together from constants

_REDEEMED_PART: Final = """
SELECT id, nonce, scope, verdict, decided_at, door, claimed_session_id, app_id, openid, session_id, poll_interval,
       polled_at, code_expires_at, expires_at
  FROM scans WHERE client_id = :client_id"""
# Settles the race of two polls: the second waits here, and then sees that the scan is spent.
_LOCK_DEVICE: Final = Statement[RedeemedScan](f"{_REDEEMED_PART} AND device_code_hash = :code_hash FOR UPDATE")
# Settles the race of two exchanges of one code in the same way.
_LOCK_CODE: Final = Statement[RedeemedScan](f"""{_REDEEMED_PART}
   AND code_hash = :code_hash AND redirect_uri = :redirect_uri AND code_challenge = :code_challenge FOR UPDATE
""")
_POLLED: Final = Statement[Nothing]("""
UPDATE scans SET polled_at = :now, poll_interval = :poll_interval WHERE id = :scan_id
""")
_USER_OF: Final = Statement[UUID]("SELECT user_id FROM sessions WHERE id = :session_id")
# From here on, bans, merges and erasures of the user wait.
_LOCK_USER: Final = Statement[UUID]("""
SELECT users.id FROM sessions JOIN users ON users.id = sessions.user_id WHERE sessions.id = :session_id
   FOR NO KEY UPDATE OF users
""")
_PERSON: Final = Statement[UserInSession](f"""
SELECT {USER}, approving.app_id, approving.openid
  FROM sessions approving JOIN users ON users.id = approving.user_id
 WHERE approving.id = :session_id AND approving.revoked_at IS NULL AND approving.expires_at > :now
   AND users.status = 'active'
""")  # noqa: S608 - put together from constants
_OPEN_SESSION: Final = Statement[Nothing]("""
WITH redeemed AS (
    UPDATE scans SET session_id = :session_id WHERE id = :scan_id
    RETURNING client_id, scope, browser_ip, browser_user_agent, decided_at
), opened AS (
    INSERT INTO sessions (id, user_id, app_id, openid, ip, user_agent, created_at, last_used_at, expires_at,
                          client_id, scope, authenticated_at, authenticated_by)
    SELECT :session_id, :user_id, :app_id, :openid, browser_ip, browser_user_agent, :now, :now, :expires_at,
           client_id, scope, decided_at, :authenticated_by
      FROM redeemed
)
INSERT INTO website_sessions (client_id, session_id) SELECT client_id, :session_id FROM redeemed
""")
# A scan as visible to the browser that shows it.
_PAGE: Final = Statement[PageScan]("""
SELECT verdict, claimed_at IS NOT NULL AS is_claimed, session_id IS NOT NULL AS is_spent, expires_at, client_id, scope,
       redirect_uri, state, nonce, code_challenge
  FROM scans WHERE request_hash = :request_hash AND browser_hash = :browser_hash
""")
# A scan has one authorization code at a time, and no more codes once its session is open.
_MAKE_CODE: Final = Statement[UUID]("""
UPDATE scans SET code_hash = :code_hash, code_expires_at = :code_expires_at
  FROM sessions approving JOIN users ON users.id = approving.user_id
 WHERE request_hash = :request_hash AND browser_hash = :browser_hash AND verdict = 'approved'
   AND scans.expires_at > :now AND scans.session_id IS NULL
   AND approving.id = scans.claimed_session_id AND approving.revoked_at IS NULL AND approving.expires_at > :now
   AND users.status = 'active'
RETURNING scans.id
""")
# Stored as already claimed and approved by the phone, because the phone makes the request itself.
_ADD_ANSWER: Final = Statement[Nothing](f"""
INSERT INTO scans (id, client_id, scope, redirect_uri, nonce, code_challenge, code_hash, code_expires_at, browser_ip,
                   browser_user_agent, claimed_session_id, claimed_at, door, verdict, decided_at, created_at,
                   expires_at)
SELECT :id, name, :scope, :redirect_uri, :nonce, :code_challenge, :code_hash, :expires_at, :ip::text::inet,
       :user_agent, :session_id, :now, '{Door.MINI_PROGRAM}', '{Verdict.APPROVED}', :authenticated_at, :now,
       :expires_at
  FROM clients WHERE name = :client_id FOR KEY SHARE
""")  # noqa: S608 - put together from constants

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
_SWEPT_PART: Final = "RETURNING verdict IS NULL AND num_nonnulls(scene_hash, device_code_hash) > 0"
_SWEEP: Final = Statement[bool](f"""
DELETE FROM scans WHERE id = ANY (ARRAY(
    SELECT id FROM scans WHERE expires_at < :before LIMIT :size FOR UPDATE SKIP LOCKED))
{_SWEPT_PART}
""")  # noqa: S608 - put together from constants
_SWEEP_PAGES: Final = Statement[bool](f"""
DELETE FROM scans WHERE id = ANY (ARRAY(
    SELECT id FROM scans WHERE expires_at < :now AND browser_hash IS NOT NULL AND claimed_at IS NULL
       AND (pressed_until IS NULL OR pressed_until < :now)
     LIMIT :size FOR UPDATE SKIP LOCKED))
{_SWEPT_PART}
""")  # noqa: S608 - put together from constants
_SWEEP_TRIES: Final = Statement[UUID]("""
DELETE FROM wrong_user_codes WHERE user_id = ANY (ARRAY(
    SELECT user_id FROM wrong_user_codes WHERE since < :before LIMIT :size FOR UPDATE SKIP LOCKED))
RETURNING user_id
""")


async def add_scan(database: Database, scan: NewScan, *, lasts: timedelta = SCAN_LASTS, now: datetime) -> bool | None:
    """Store a new scan. False if another scan has its user code; None if its client has been removed.

    Raises: StorageUnavailable.
    """
    try:
        added = await database.value(_ADD, **asdict(scan), now=now, expires_at=now + lasts)
    except asyncpg.ForeignKeyViolationError:
        return None
    return added is not None


async def shown_scan(database: Database, scene_hash: bytes, *, now: datetime) -> ShownScan | None:
    """The scan of this scene, until it is decided. Raises: StorageUnavailable."""
    return await database.row(_SHOWN, scene_hash=scene_hash, now=now)


async def keep_picture(database: Database, scan_id: UUID, picture: CodePicture) -> CodePicture:
    """Store a scan's picture. Returns the stored one: this picture, unless another was stored first.

    Raises: StorageUnavailable.
    """
    try:
        row = await database.row(
            _KEEP_PICTURE, scan_id=scan_id, content_type=picture.content_type, content=picture.content
        )
    except asyncpg.ForeignKeyViolationError:  # the scan has just been deleted
        return picture
    return picture if row is None else CodePicture(row["content"], row["content_type"])


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


async def user_of_session(transaction: Transaction, session_id: UUID) -> UUID | None:
    """The user of a session, open or not; None if it is gone."""
    return await transaction.value(_USER_OF, session_id=session_id)


async def store_claim(transaction: Transaction, scan_id: UUID, *, session_id: UUID, door: Door, now: datetime) -> None:
    """Store that this session has claimed a scan, and by which door."""
    await transaction.run(_CLAIM, scan_id=scan_id, session_id=session_id, door=door, now=now)


async def claimed_scan(database: Database, scan_id: UUID, *, session_id: UUID, now: datetime) -> ClaimedScan | None:
    """The scan, if this session holds the claim and it has not expired. Raises: StorageUnavailable."""
    return await database.row(_CLAIMED, scan_id=scan_id, session_id=session_id, now=now)


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
    return await database.row(
        _DECIDE, scan_id=scan_id, session_id=session_id, now=now, verdict=verdict, event_id=event_id, ip=ip
    )


async def lock_by_device_code(
    transaction: Transaction, device_code_hash: bytes, *, client_id: str
) -> RedeemedScan | None:
    """Lock the scan of a device code; None if this client has none."""
    return await transaction.row(_LOCK_DEVICE, code_hash=device_code_hash, client_id=client_id)


async def lock_by_code(
    transaction: Transaction, code_hash: bytes, *, client_id: str, redirect_uri: str, code_challenge: str
) -> RedeemedScan | None:
    """Lock the scan of an authorization code; None unless all of these match."""
    return await transaction.row(
        _LOCK_CODE,
        code_hash=code_hash,
        client_id=client_id,
        redirect_uri=redirect_uri,
        code_challenge=code_challenge,
    )


async def store_poll(transaction: Transaction, scan_id: UUID, *, poll_interval: int, now: datetime) -> None:
    """Store the time of a device's poll, and the interval that applies from now on."""
    await transaction.run(_POLLED, scan_id=scan_id, poll_interval=poll_interval, now=now)


async def lock_person(transaction: Transaction, session_id: UUID, *, now: datetime) -> UserInSession | None:
    """Lock the user of a session, even during a merge; None if user or session can no longer log in."""
    return await lock_found(transaction, _LOCK_USER, _PERSON, {"session_id": session_id}, now=now)


async def lock_found(
    transaction: Transaction,
    lock: Statement[UUID],
    read: Statement[UserInSession],
    wanted: Mapping[str, object],
    **more: object,
) -> UserInSession | None:
    """Lock a user with `lock`, and read the same user with `read`, even during a merge; None if `read` finds nobody.

    `wanted` are the parameters of both, `more` those of `read` alone.
    """
    for _ in range(_ATTEMPTS):
        # None if a merge was under way: then session and identity belong to the remaining user.
        locked_id = await transaction.value(lock, **wanted)
        if locked_id is not None:
            person = await transaction.row(read, **wanted, **more)
            if person is None or person["id"] == locked_id:  # else these have moved to another user meanwhile
                return person
    return None


async def record_authorized(
    transaction: Transaction, person: UserInSession, *, client_id: str, ip: str | None, now: datetime
) -> None:
    """Record that a site may log in a person who has no scan to approve."""
    await record_event(
        transaction,
        EventType.SITE_AUTHORIZED,
        by=Actor(str(person["id"]), ip),
        at=now,
        user_id=person["id"],
        app_id=person["app_id"],
        data={"client_id": client_id},
    )


async def open_session(
    transaction: Transaction,
    scan_id: UUID,
    person: UserInSession,
    *,
    session_id: UUID,
    authenticated_by: str,
    expires_at: datetime,
    now: datetime,
) -> None:
    """Open the website's session for an approved scan."""
    await transaction.run(
        _OPEN_SESSION,
        scan_id=scan_id,
        session_id=session_id,
        user_id=person["id"],
        app_id=person["app_id"],
        openid=person["openid"],
        authenticated_by=authenticated_by,
        expires_at=expires_at,
        now=now,
    )


async def page_of(database: Database, *, request_hash: bytes, browser_hash: bytes) -> PageScan | None:
    """The scan that a browser shows; None if it is not this browser's. Raises: StorageUnavailable."""
    return await database.row(_PAGE, request_hash=request_hash, browser_hash=browser_hash)


async def make_code(
    database: Database, *, request_hash: bytes, browser_hash: bytes, code_hash: bytes, now: datetime
) -> bool:
    """Store a browser's authorization code. False if the browser may not have one. Raises: StorageUnavailable."""
    made = await database.value(
        _MAKE_CODE,
        request_hash=request_hash,
        browser_hash=browser_hash,
        code_hash=code_hash,
        code_expires_at=now + AUTHORIZATION_CODE_LASTS,
        now=now,
    )
    return made is not None


async def add_redeemable_answer(transaction: Transaction, answer: NewAnswer, *, now: datetime) -> bool:
    """Store a mini-program's answer, whose code is valid from now on. False if its client has been removed."""
    return await transaction.run(_ADD_ANSWER, **asdict(answer), expires_at=now + AUTHORIZATION_CODE_LASTS, now=now) > 0


async def count_try(database: Database, user_id: UUID, *, now: datetime) -> tuple[int, datetime]:
    """Count an attempt to type a user code. Returns its number within the minute, and when the minute is over.

    Raises: StorageUnavailable.
    """
    tries = await database.row(_COUNT_TRY, user_id=user_id, now=now, minute_ago=now - MINUTE)
    assert tries is not None
    return tries["number"], tries["since"] + MINUTE


async def give_try_back(database: Database, user_id: UUID) -> None:
    """Uncount an attempt whose code was right. Raises: StorageUnavailable."""
    await database.run(_GIVE_TRY_BACK, user_id=user_id)


async def sweep_scans(
    database: Database, *, size: int, now: datetime, observe: Callable[[ScanOutcome, int], object]
) -> int:
    """Delete expired scans and attempt counts, at most `size` of each. Raises: StorageUnavailable.

    Returns the largest of the three numbers: if it is `size`, there may be more.
    """
    pages = await database.values(_SWEEP_PAGES, now=now, size=size)
    swept = await database.values(_SWEEP, before=now - OUTCOME_KEPT, size=size)
    observe(ScanOutcome.EXPIRED, sum(pages) + sum(swept))
    tries = await database.values(_SWEEP_TRIES, before=now - MINUTE, size=size)
    return max(len(pages), len(swept), len(tries))
