"""The statements for visits to WeChat's own page.

The first callback takes the visit, by one statement. Later callbacks read its outcome.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.websites.doors import Door
from wxauth.server.websites.durations import OUTCOME_KEPT, VISIT_LASTS
from wxauth.server.websites.models import RequestBinding

MAX_VISITS_PER_REQUEST: Final = 10
"""How often a browser may go to WeChat's page for one request."""


class VisitOutcome(StrEnum):
    """The outcome of a visit to WeChat's page."""

    LOGGED_IN = "logged_in"
    """The site has got a code."""
    ACCESS_DENIED = "access_denied"
    LOGIN_REQUIRED = "login_required"
    """Another person than the site's `id_token_hint` names has logged in."""
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"
    SERVER_ERROR = "server_error"
    SNAPSHOT = "snapshot"
    """WeChat has shown a snapshot; the person may try again."""
    AGAIN = "again"
    """WeChat refused the code; the person may try again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PressedPage:
    """A login page in a browser, with its client's app ids."""

    has_scene: bool
    client_id: str
    near: bool
    account_app_id: str | None
    website_app_id: str | None
    redirect_uri: str
    state: str | None
    response_mode: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Visit:
    """A visit to WeChat's page, with its request and client."""

    id: UUID
    request_id: UUID
    door: str
    app_id: str
    client_id: str
    near: bool
    redirect_uri: str
    state: str | None
    response_mode: str
    wechat_code_hash: bytes | None
    outcome: str | None
    proof_id: UUID | None
    """The grant of which the value of the browser's login is made; None if the visit proves none."""
    code_expires_at: datetime | None
    """None if the visitor has no grant, or no longer."""
    is_redeemed: bool


class LockedVisit(RequestBinding):
    """A visit without an outcome, with what its site requests. Its row is locked."""

    id: UUID
    client_id: str
    scope: str
    sso: bool
    created_at: datetime
    expires_at: datetime


_PAGE: Final = Statement[PressedPage]("""
SELECT EXISTS (SELECT FROM scans s WHERE s.request_id = r.id) AS has_scene, r.client_id, c.near, c.account_app_id,
       c.website_app_id, p.redirect_uri, p.state, p.response_mode
  FROM login_pages p JOIN site_requests r ON r.id = p.request_id JOIN clients c ON c.name = r.client_id
 WHERE p.page_hash = :page_hash AND p.browser_hash = :browser_hash AND r.expires_at > :now
""")
# Counts and stores the visit in one statement, so that of many simultaneous presses only ten pass.
_ADD: Final = Statement[UUID]("""
WITH request AS (
    UPDATE site_requests
       SET expires_at = GREATEST(expires_at, :expires_at), kept_until = GREATEST(kept_until, :expires_at)
      FROM login_pages
     WHERE id = request_id AND page_hash = :page_hash AND browser_hash = :browser_hash AND presses < :at_most
       AND expires_at > :now
    RETURNING id
), page AS (
    UPDATE login_pages SET presses = presses + 1 FROM request WHERE request_id = request.id AND presses < :at_most
    RETURNING request_id
)
INSERT INTO visits (id, request_id, door, app_id, state_hash, created_at, expires_at)
SELECT :id, request_id, :door, :app_id, :state_hash, :now, :expires_at FROM page
RETURNING id
""")


def _visit_part(whose: str) -> str:
    return f"""
SELECT v.id, v.request_id, v.door, v.app_id, r.client_id, c.near, p.redirect_uri, p.state, p.response_mode,
       v.wechat_code_hash, v.outcome, l.proof_id, a.expires_at AS code_expires_at,
       g.session_id IS NOT NULL AS is_redeemed
  FROM {whose} v JOIN login_pages p ON p.request_id = v.request_id JOIN site_requests r ON r.id = v.request_id
  JOIN clients c ON c.name = r.client_id
  LEFT JOIN grants g ON g.id = v.id LEFT JOIN authorization_codes a ON a.grant_id = g.id
  LEFT JOIN browser_logins l ON l.id = g.browser_login_id"""  # noqa: S608 - put together from constants


# Settles the race of two callbacks with one state: the second waits here, and then sees that the visit is taken.
_TAKE: Final = Statement[Visit](f"""
WITH taken AS (
    UPDATE visits SET wechat_code_hash = :code_hash
      FROM login_pages
     WHERE visits.request_id = login_pages.request_id AND state_hash = :state_hash AND browser_hash = :browser_hash
       AND wechat_code_hash IS NULL AND expires_at > :now
    RETURNING visits.*
){_visit_part("taken")}
""")  # noqa: S608 - put together from constants
_FIND: Final = Statement[Visit](f"""{_visit_part("visits")}
 WHERE v.state_hash = :state_hash AND p.browser_hash = :browser_hash
""")
_LOCK: Final = Statement[LockedVisit]("""
SELECT v.id, r.client_id, r.scope, c.sso, p.redirect_uri, p.nonce, p.code_challenge, p.hinted_user_id, v.created_at,
       v.expires_at
  FROM visits v JOIN login_pages p ON p.request_id = v.request_id JOIN site_requests r ON r.id = v.request_id
  JOIN clients c ON c.name = r.client_id
 WHERE v.id = :id AND v.outcome IS NULL
   FOR KEY SHARE OF c FOR NO KEY UPDATE OF r FOR UPDATE OF v
""")
_SETTLE: Final = Statement[UUID]("""
UPDATE visits SET outcome = :outcome WHERE id = :id AND outcome IS NULL RETURNING id
""")
# From now on the request is kept for longer than if nobody had answered it.
_APPROVE: Final = Statement[Nothing](f"""
WITH approved AS (
    UPDATE visits SET outcome = '{VisitOutcome.LOGGED_IN}' WHERE id = :id RETURNING request_id
)
UPDATE site_requests SET kept_until = GREATEST(kept_until, :kept_until) FROM approved WHERE id = approved.request_id
""")  # noqa: S608 - put together from constants
_HAS_ANY_ROLE: Final = Statement[bool]("""
SELECT EXISTS (
    SELECT FROM users
     WHERE roles && :roles::text[]
       AND id IN (SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid
                   UNION ALL SELECT user_id FROM unionids WHERE unionid = :unionid))
""")


async def page_to_press(
    database: Database, *, page_hash: bytes, browser_hash: bytes, now: datetime
) -> PressedPage | None:
    """The page that a browser shows; None if it is another browser's, or over."""
    return await database.row(_PAGE, page_hash=page_hash, browser_hash=browser_hash, now=now)


async def add_visit(
    database: Database,
    visit_id: UUID,
    *,
    page_hash: bytes,
    browser_hash: bytes,
    state_hash: bytes,
    door: Door,
    app_id: str,
    now: datetime,
) -> bool:
    """Store a visit that begins now. False if its page has used up its visits, or is over."""
    added = await database.value(
        _ADD,
        id=visit_id,
        page_hash=page_hash,
        browser_hash=browser_hash,
        state_hash=state_hash,
        door=door,
        app_id=app_id,
        at_most=MAX_VISITS_PER_REQUEST,
        now=now,
        expires_at=now + VISIT_LASTS,
    )
    return added is not None


async def take_visit(
    database: Database, *, state_hash: bytes, browser_hash: bytes, code_hash: bytes, now: datetime
) -> Visit | None:
    """Take a visit. Returns it for the first callback, None for all others."""
    return await database.row(_TAKE, state_hash=state_hash, browser_hash=browser_hash, code_hash=code_hash, now=now)


async def find_visit(database: Database, *, state_hash: bytes, browser_hash: bytes) -> Visit | None:
    """The visit of this state; None if it is another browser's."""
    return await database.row(_FIND, state_hash=state_hash, browser_hash=browser_hash)


async def settle_visit(database: Database, visit_id: UUID, outcome: VisitOutcome) -> None:
    """Store the outcome of a visit, unless it has one already."""
    await database.value(_SETTLE, id=visit_id, outcome=outcome)


async def lock_visit(transaction: Transaction, visit_id: UUID) -> LockedVisit | None:
    """Lock a visit; None if it has an outcome already, or was deleted with its client."""
    return await transaction.row(_LOCK, id=visit_id)


async def approve_visit(transaction: Transaction, visit: LockedVisit) -> None:
    """Store that WeChat has identified the visitor of a locked visit."""
    await transaction.run(_APPROVE, id=visit.id, kept_until=visit.expires_at + OUTCOME_KEPT)


async def has_any_role(
    database: Database, roles: Collection[str], *, app_id: str, openid: str, unionid: str | None
) -> bool:
    """Whether the user of this identity, or of this unionid, has one of these roles."""
    ids = {"app_id": app_id, "openid": openid, "unionid": unionid}
    return bool(await database.value(_HAS_ANY_ROLE, roles=sorted(roles), **ids))
