"""The statements for sites' requests, and for the pages and devices that show them."""

from dataclasses import asdict, dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

import asyncpg

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Statement
from wxauth.server.websites.models import LoginPageFields, SitePage, SiteRequestFields
from wxauth.server.websites.scan_rows import SCANS, ScanOutcome


class Adding(StrEnum):
    """Whether a request has been stored, and why not."""

    ADDED = "added"
    CODE_TAKEN = "code_taken"
    """Another scan has its user code."""
    CLIENT_REMOVED = "client_removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class NewScan:
    """The scan of a request to be stored."""

    scan_id: UUID
    scene_hash: bytes
    user_code_hash: bytes
    scan_expires_at: datetime


class ShownPage(SitePage):
    """A request with a scan, as visible to the browser that shows it."""

    scan_id: UUID
    verdict: str | None
    is_claimed: bool
    is_redeemed: bool
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class PolledDevice:
    """A request for whose outcome a device polls."""

    request_id: UUID
    scan_id: UUID
    verdict: str | None
    is_granted: bool
    """Whether there is a grant. What ends the user's sessions deletes it."""
    expires_at: datetime


_REQUEST_PART: Final = """
INSERT INTO site_requests (id, client_id, scope, browser_ip, browser_user_agent, created_at, expires_at, kept_until)
SELECT :id, :client_id, :scope, :browser_ip::text::inet, :browser_user_agent, :created_at, :expires_at, :kept_until"""


def _page_part(more: str = "", values: str = "") -> str:
    return f"""
INSERT INTO login_pages (request_id, page_hash, browser_hash, redirect_uri, state, response_mode, nonce,
                         code_challenge, hinted_user_id{more})
SELECT :request_id, :page_hash, :browser_hash, :redirect_uri, :state, :response_mode, :nonce, :code_challenge,
       :hinted_user_id{values} FROM request
RETURNING request_id
"""  # noqa: S608 - put together from constants


# The scan first: if its user code is taken, nothing is stored. Foreign keys are checked after the whole statement.
_SCANNED_PART: Final = f"""
WITH scan AS (
    INSERT INTO scans (id, request_id, scene_hash, user_code_hash, expires_at)
    VALUES (:scan_id, :id, :scene_hash, :user_code_hash, :scan_expires_at)
    ON CONFLICT DO NOTHING
    RETURNING id
), request AS ({_REQUEST_PART} FROM scan RETURNING id)"""  # noqa: S608 - put together from constants
_ADD_PAGE: Final = Statement[UUID](f"{_SCANNED_PART}{_page_part()}")
_ADD_PAGE_WITHOUT_SCAN: Final = Statement[UUID](
    f"WITH request AS ({_REQUEST_PART} ON CONFLICT DO NOTHING RETURNING id)"
    f"{_page_part(', browser_login_id, query', ', :browser_login_id, :query')}"
)
_ADD_DEVICE: Final = Statement[UUID](f"""{_SCANNED_PART}
INSERT INTO device_codes (request_id, code_hash) SELECT id, :device_code_hash FROM request RETURNING request_id
""")  # noqa: S608 - put together from constants
_PAGE: Final = Statement[ShownPage]("""
SELECT s.id AS scan_id, s.verdict, s.claimed_at IS NOT NULL AS is_claimed, g.session_id IS NOT NULL AS is_redeemed,
       s.expires_at, p.redirect_uri, p.state, p.response_mode, p.nonce, p.code_challenge, p.hinted_user_id,
       r.client_id, c.sso
  FROM login_pages p JOIN scans s ON s.request_id = p.request_id JOIN site_requests r ON r.id = p.request_id
  JOIN clients c ON c.name = r.client_id LEFT JOIN grants g ON g.id = s.id
 WHERE p.page_hash = :page_hash AND p.browser_hash = :browser_hash
""")
_DEVICE: Final = Statement[PolledDevice]("""
SELECT d.request_id, s.id AS scan_id, s.verdict, g.id IS NOT NULL AS is_granted, s.expires_at
  FROM device_codes d JOIN site_requests r ON r.id = d.request_id JOIN scans s ON s.request_id = r.id
  LEFT JOIN grants g ON g.id = s.id
 WHERE d.code_hash = :code_hash AND r.client_id = :client_id
""")
# Settles the race of two polls: the second waits here, and then sees when the first one came.
_POLL: Final = Statement[bool]("""
WITH before AS (
    SELECT request_id, polled_at + make_interval(secs => poll_interval) > :now AS is_too_early
      FROM device_codes WHERE request_id = :request_id FOR UPDATE
)
UPDATE device_codes
   SET polled_at = :now, poll_interval = poll_interval + CASE WHEN before.is_too_early THEN :more ELSE 0 END
  FROM before WHERE device_codes.request_id = before.request_id
RETURNING COALESCE(before.is_too_early, false)
""")
_SWEEP: Final = Statement[bool]("""
DELETE FROM site_requests WHERE id = ANY (ARRAY(
    SELECT id FROM site_requests WHERE kept_until < :now LIMIT :size FOR UPDATE SKIP LOCKED))
RETURNING EXISTS (SELECT FROM scans WHERE scans.request_id = site_requests.id AND verdict IS NULL) AS has_expired
""")


async def add_page(database: Database, request: SiteRequestFields, page: LoginPageFields, scan: NewScan) -> Adding:
    """Store the request of a page that shows a code."""
    return await _add(database, _ADD_PAGE, **request.model_dump(), **page.model_dump(), **asdict(scan))


async def add_page_without_scan(
    database: Database,
    request: SiteRequestFields,
    page: LoginPageFields,
    *,
    browser_login_id: UUID | None,
    query: str | None,
) -> Adding:
    """Store the request of a page that shows no code, but perhaps a person."""
    values = {**request.model_dump(), **page.model_dump(), "browser_login_id": browser_login_id, "query": query}
    return await _add(database, _ADD_PAGE_WITHOUT_SCAN, **values)


async def add_device(
    database: Database, request: SiteRequestFields, scan: NewScan, *, device_code_hash: bytes
) -> Adding:
    """Store the request of a device that shows a code."""
    return await _add(database, _ADD_DEVICE, **request.model_dump(), **asdict(scan), device_code_hash=device_code_hash)


async def _add(database: Database, statement: Statement[UUID], **values: object) -> Adding:
    try:
        added = await database.value(statement, **values)
    except asyncpg.ForeignKeyViolationError:
        return Adding.CLIENT_REMOVED
    return Adding.CODE_TAKEN if added is None else Adding.ADDED


async def shown_page(database: Database, *, page_hash: bytes, browser_hash: bytes) -> ShownPage | None:
    """The request that a browser shows with a scan; None if it is not this browser's."""
    return await database.row(_PAGE, page_hash=page_hash, browser_hash=browser_hash)


async def polled_device(transaction: Transaction, code_hash: bytes, *, client_id: str) -> PolledDevice | None:
    """The request of a device code; None if this client has none."""
    return await transaction.row(_DEVICE, code_hash=code_hash, client_id=client_id)


async def poll_is_too_early(transaction: Transaction, request_id: UUID, *, more: int, now: datetime) -> bool:
    """Store the time of a device's poll. If it comes too early, the interval is `more` seconds longer from now on."""
    return bool(await transaction.value(_POLL, request_id=request_id, more=more, now=now))


async def sweep_site_requests(database: Database, *, size: int, now: datetime) -> int:
    """Delete requests whose time is over, at most `size`. Returns how many."""
    swept = await database.values(_SWEEP, now=now, size=size)
    SCANS.count(ScanOutcome.EXPIRED, number=sum(swept))
    return len(swept)
