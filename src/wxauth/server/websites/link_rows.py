"""The statements for links to WeChat. A page has one link at a time, which has one claim and one verdict.

As for scans, a statement that decides something first locks the row. The order of locks is that of `grant_rows.py`.
"""

from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.websites.durations import OUTCOME_KEPT
from wxauth.server.websites.models import CodeBinding, SitePage
from wxauth.server.websites.scan_rows import OpenScan, Verdict

MAX_LINKS_PER_REQUEST: Final = 10
MAX_WRONG_NUMBERS: Final = 3


class LinkPage(SitePage):
    """A request with a link, as its own browser sees it."""

    request_id: UUID
    title: str
    redirect_uris: list[str]
    app_id: str | None
    link: bool


class TypedNumber(LinkPage):
    """A request in whose browser a number was typed, with its link. Its page is locked."""

    scope: str
    browser_ip: str | None
    browser_user_agent: str | None
    wrong_numbers: int
    link_id: UUID | None
    """None if there is no link."""
    claimed_session_id: UUID | None
    verdict: str | None
    decided_at: datetime | None
    number: bytes | None
    is_granted: bool | None


class HeldLink(CodeBinding):
    """A link that a session has claimed, and its verdict. Its row is locked."""

    id: UUID
    client_id: str
    browser_ip: str | None
    verdict: str | None
    decided_at: datetime | None
    login_code_hash: bytes | None
    number: bytes | None
    expires_at: datetime


_PAGE_PART: Final = """
SELECT p.request_id, r.client_id, c.title, c.redirect_uris, c.app_id, c.link, c.sso, p.redirect_uri, p.state,
       p.response_mode, p.nonce, p.code_challenge, p.hinted_user_id"""
_OF_BROWSER: Final = f"""
 WHERE p.page_hash = :page_hash AND p.browser_hash = :browser_hash AND r.expires_at > :now
   AND p.wrong_numbers < {MAX_WRONG_NUMBERS}"""
_PAGE: Final = Statement[LinkPage](f"""{_PAGE_PART}
  FROM login_pages p JOIN site_requests r ON r.id = p.request_id JOIN clients c ON c.name = r.client_id
 {_OF_BROWSER}
""")
# Counts the press and replaces the link in one statement, so that of many simultaneous presses only ten pass.
_PUT: Final = Statement[UUID]("""
WITH page AS (
    UPDATE login_pages SET link_presses = link_presses + 1
     WHERE request_id = :request_id AND link_presses < :at_most
    RETURNING request_id
)
INSERT INTO links (id, request_id, scene_hash, expires_at)
SELECT :id, request_id, :scene_hash, :expires_at FROM page
ON CONFLICT (request_id) DO UPDATE
   SET id = excluded.id, scene_hash = excluded.scene_hash, expires_at = excluded.expires_at, claimed_session_id = NULL,
       claimed_at = NULL, verdict = NULL, decided_at = NULL, login_code_hash = NULL, number = NULL
RETURNING id
""")
# As a scan, which has the same claim.
_LOCK_OPEN: Final = Statement[OpenScan]("""
SELECT l.id, r.client_id, c.title, c.redirect_uris, c.scopes, c.near, c.sso, c.user_code, true AS is_page,
       host(r.browser_ip) AS browser_ip, r.browser_user_agent, NULL::boolean AS same_network,
       l.claimed_session_id, l.claimed_at, r.created_at, l.expires_at
  FROM links l JOIN site_requests r ON r.id = l.request_id JOIN clients c ON c.name = r.client_id
 WHERE l.scene_hash = :scene_hash AND l.verdict IS NULL AND l.expires_at > :now AND r.expires_at > :now
   FOR NO KEY UPDATE OF r FOR UPDATE OF l
""")
_CLAIM: Final = Statement[Nothing]("""
WITH claimed AS (
    UPDATE links SET claimed_session_id = :session_id, claimed_at = :now WHERE id = :link_id RETURNING request_id
)
UPDATE site_requests SET kept_until = GREATEST(kept_until, expires_at + :kept::interval)
  FROM claimed WHERE id = claimed.request_id
""")
_HELD_PART: Final = """
SELECT l.id, r.client_id, host(r.browser_ip) AS browser_ip, l.verdict, l.decided_at, l.login_code_hash, l.number,
       l.expires_at, p.redirect_uri, p.nonce, p.code_challenge
  FROM links l JOIN site_requests r ON r.id = l.request_id JOIN login_pages p ON p.request_id = l.request_id
 WHERE l.id = :link_id AND l.claimed_session_id = :session_id AND r.expires_at > :now"""
_HELD: Final = Statement[HeldLink](_HELD_PART)
_LOCK_HELD: Final = Statement[HeldLink](f"{_HELD_PART} FOR UPDATE OF l")
_DECIDE: Final = Statement[Nothing]("""
UPDATE links SET verdict = :verdict, decided_at = :now, login_code_hash = :login_code_hash, number = :number
 WHERE id = :link_id
""")
# Read before the request is locked, because the phone's user is locked first.
_APPROVER: Final = Statement[UUID]("""
SELECT l.claimed_session_id
  FROM links l JOIN login_pages p ON p.request_id = l.request_id JOIN site_requests r ON r.id = l.request_id
 WHERE p.page_hash = :page_hash AND p.browser_hash = :browser_hash AND r.expires_at > :now AND l.verdict = 'approved'
""")
_LOCK_PAGE: Final = Statement[UUID](f"""
SELECT p.request_id FROM login_pages p JOIN site_requests r ON r.id = p.request_id {_OF_BROWSER} FOR UPDATE OF p
""")  # noqa: S608 - put together from constants
_TYPED: Final = Statement[TypedNumber](f"""{_PAGE_PART}, r.scope, host(r.browser_ip) AS browser_ip,
       r.browser_user_agent, p.wrong_numbers, l.id AS link_id, l.claimed_session_id, l.verdict, l.decided_at, l.number,
       EXISTS (SELECT FROM grants g WHERE g.id = l.id) AS is_granted
  FROM login_pages p JOIN site_requests r ON r.id = p.request_id JOIN clients c ON c.name = r.client_id
  LEFT JOIN links l ON l.request_id = p.request_id
 WHERE p.request_id = :request_id
""")  # noqa: S608 - put together from constants
_COUNT: Final = Statement[Nothing]("""
UPDATE login_pages SET wrong_numbers = wrong_numbers + :more WHERE request_id = :request_id
""")
_END: Final = Statement[Nothing]("""
WITH ended AS (
    UPDATE site_requests SET expires_at = GREATEST(:now, created_at + interval '1 microsecond') WHERE id = :request_id
    RETURNING id
), link AS (
    DELETE FROM links USING ended WHERE request_id = ended.id
)
UPDATE scans SET expires_at = LEAST(expires_at, :now) FROM ended WHERE request_id = ended.id AND verdict IS NULL
""")


async def link_page(database: Database, *, page_hash: bytes, browser_hash: bytes, now: datetime) -> LinkPage | None:
    """The page that a browser shows; None if it is another browser's, or over."""
    return await database.row(_PAGE, page_hash=page_hash, browser_hash=browser_hash, now=now)


async def put_link(
    database: Database, link_id: UUID, *, request_id: UUID, scene_hash: bytes, expires_at: datetime
) -> bool:
    """Give a page a new link, which ends the one before. False if the page has used up its links."""
    put = await database.value(
        _PUT,
        id=link_id,
        request_id=request_id,
        scene_hash=scene_hash,
        expires_at=expires_at,
        at_most=MAX_LINKS_PER_REQUEST,
    )
    return put is not None


async def lock_open_link(transaction: Transaction, scene_hash: bytes, *, now: datetime) -> OpenScan | None:
    """Lock the link of this scene; None if there is none that can still be decided."""
    return await transaction.row(_LOCK_OPEN, scene_hash=scene_hash, now=now)


async def claim_link(transaction: Transaction, link_id: UUID, *, session_id: UUID, now: datetime) -> None:
    """Store that this session has claimed a locked link."""
    await transaction.run(_CLAIM, link_id=link_id, session_id=session_id, kept=OUTCOME_KEPT, now=now)


async def held_link(database: Database, link_id: UUID, *, session_id: UUID, now: datetime) -> HeldLink | None:
    """The link, if this session has claimed it, decided or not."""
    return await database.row(_HELD, link_id=link_id, session_id=session_id, now=now)


async def lock_held_link(
    transaction: Transaction, link_id: UUID, *, session_id: UUID, now: datetime
) -> HeldLink | None:
    """Lock the link, if this session has claimed it, decided or not."""
    return await transaction.row(_LOCK_HELD, link_id=link_id, session_id=session_id, now=now)


async def decide_link(
    transaction: Transaction,
    link_id: UUID,
    verdict: Verdict,
    *,
    login_code_hash: bytes | None = None,
    number: bytes | None = None,
    now: datetime,
) -> None:
    """Store the verdict on a locked link; an approval with its sealed number."""
    await transaction.run(
        _DECIDE, link_id=link_id, verdict=verdict, login_code_hash=login_code_hash, number=number, now=now
    )


async def approving_session(
    transaction: Transaction, *, page_hash: bytes, browser_hash: bytes, now: datetime
) -> UUID | None:
    """The session that has approved the link of this browser's page; None if none has."""
    return await transaction.value(_APPROVER, page_hash=page_hash, browser_hash=browser_hash, now=now)


async def lock_typed_number(
    transaction: Transaction, *, page_hash: bytes, browser_hash: bytes, now: datetime
) -> TypedNumber | None:
    """Lock the page in which a number was typed; None if it is another browser's, or over."""
    # Each press locks the page, too, so what is read now stays.
    request_id = await transaction.value(_LOCK_PAGE, page_hash=page_hash, browser_hash=browser_hash, now=now)
    return None if request_id is None else await transaction.row(_TYPED, request_id=request_id)


async def count_number(transaction: Transaction, request_id: UUID, more: int = 1) -> None:
    """Count a number typed in a locked page, or uncount a right one by -1."""
    await transaction.run(_COUNT, request_id=request_id, more=more)


async def end_request(transaction: Transaction, request_id: UUID, *, now: datetime) -> None:
    """End a request with all that belongs to it, because too many wrong numbers were typed."""
    await transaction.run(_END, request_id=request_id, now=now)
