"""The statements for visits to WeChat's own page. Each visit is a row of `scans`, with a copy of the site's request.

The first callback takes the visit, by one statement. Later callbacks read its outcome.
"""

from collections.abc import Collection
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, TypedDict
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Statement
from wxauth.server.core.users import USER, UserInSession
from wxauth.server.websites.doors import Door
from wxauth.server.websites.scan_rows import AUTHORIZATION_CODE_LASTS, Verdict, lock_found

VISIT_LASTS: Final = timedelta(seconds=600)
"""How long a visit may take, and how long its request can be used for another one."""
MAX_VISITS_PER_REQUEST: Final = 10
"""How often a browser may go to WeChat's page for one request."""


class VisitOutcome(StrEnum):
    """The outcome of a visit to WeChat's page."""

    LOGGED_IN = "logged_in"
    """The site has got a code."""
    ACCESS_DENIED = "access_denied"
    TEMPORARILY_UNAVAILABLE = "temporarily_unavailable"
    SERVER_ERROR = "server_error"
    SNAPSHOT = "snapshot"
    """WeChat has shown a snapshot; the person may try again."""
    AGAIN = "again"
    """WeChat refused the code; the person may try again."""


class PressedPage(TypedDict):
    """A login page in a browser, with its client's app ids."""

    has_scene: bool
    client_id: str
    near: bool
    account_app_id: str | None
    website_app_id: str | None
    redirect_uri: str
    state: str | None


class Visit(TypedDict):
    """A visit to WeChat's page, and its client."""

    id: UUID
    page_id: UUID
    door: str
    app_id: str
    client_id: str
    near: bool
    redirect_uri: str
    state: str | None
    wechat_code_hash: bytes | None
    outcome: str | None
    code_expires_at: datetime | None
    is_redeemed: bool


_PAGE: Final = Statement[PressedPage]("""
SELECT s.scene_hash IS NOT NULL AS has_scene, s.client_id, c.near, c.account_app_id, c.website_app_id, s.redirect_uri,
       s.state
  FROM scans s JOIN clients c ON c.name = s.client_id
 WHERE s.request_hash = :request_hash AND s.browser_hash = :browser_hash
   AND (s.expires_at > :now OR s.pressed_until > :now)
""")
# Counts and stores the visit in one statement, so that of many simultaneous presses only ten pass.
_ADD: Final = Statement[UUID]("""
WITH page AS (
    UPDATE scans SET presses = presses + 1, pressed_until = :expires_at
     WHERE request_hash = :request_hash AND browser_hash = :browser_hash AND presses < :at_most
       AND (expires_at > :now OR pressed_until > :now)
    RETURNING *
)
INSERT INTO scans (id, page_id, client_id, scope, browser_hash, redirect_uri, state, nonce, code_challenge, browser_ip,
                   browser_user_agent, door, app_id, wechat_state_hash, created_at, expires_at)
SELECT :id, id, client_id, scope, browser_hash, redirect_uri, state, nonce, code_challenge, :ip::text::inet,
       :user_agent, :door, :app_id, :state_hash, :now, :expires_at
  FROM page
RETURNING id
""")


def _visit_part(whose: str) -> str:
    return f"""
SELECT v.id, v.page_id, v.door, v.app_id, v.client_id, c.near, v.redirect_uri, v.state, v.wechat_code_hash, v.outcome,
       v.code_expires_at, v.session_id IS NOT NULL AS is_redeemed
  FROM {whose} v JOIN clients c ON c.name = v.client_id"""  # noqa: S608 - put together from constants


# Settles the race of two callbacks with one state: the second waits here, and then sees that the visit is taken.
_TAKE: Final = Statement[Visit](f"""
WITH taken AS (
    UPDATE scans SET wechat_code_hash = :code_hash
     WHERE wechat_state_hash = :state_hash AND browser_hash = :browser_hash AND wechat_code_hash IS NULL
       AND expires_at > :now
    RETURNING *
){_visit_part("taken")}
""")  # noqa: S608 - put together from constants
_FIND: Final = Statement[Visit](f"""{_visit_part("scans")}
 WHERE v.wechat_state_hash = :state_hash AND v.browser_hash = :browser_hash
""")
_SETTLE: Final = Statement[UUID]("""
UPDATE scans SET outcome = :outcome WHERE id = :id AND outcome IS NULL RETURNING id
""")
# Pressing the button counts as the approval.
_APPROVE: Final = Statement[UUID](f"""
UPDATE scans
   SET outcome = '{VisitOutcome.LOGGED_IN}', openid = :openid, claimed_at = :now, verdict = '{Verdict.APPROVED}',
       decided_at = created_at, code_hash = :code_hash, code_expires_at = :code_expires_at
 WHERE id = :id AND outcome IS NULL
RETURNING id
""")  # noqa: S608 - put together from constants
_HAS_ANY_ROLE: Final = Statement[bool]("""
SELECT EXISTS (
    SELECT FROM users
     WHERE roles && :roles::text[]
       AND id IN (SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid
                   UNION ALL SELECT user_id FROM unionids WHERE unionid = :unionid))
""")
# From here on, bans, merges and erasures of the user wait.
_LOCK_USER: Final = Statement[UUID]("""
SELECT users.id FROM identities i JOIN users ON users.id = i.user_id WHERE i.app_id = :app_id AND i.openid = :openid
   FOR NO KEY UPDATE OF users
""")
_VISITOR: Final = Statement[UserInSession](f"""
SELECT {USER}, i.app_id, i.openid
  FROM identities i JOIN users ON users.id = i.user_id
 WHERE i.app_id = :app_id AND i.openid = :openid AND users.status = 'active'
""")  # noqa: S608 - put together from constants


async def page_to_press(
    database: Database, *, request_hash: bytes, browser_hash: bytes, now: datetime
) -> PressedPage | None:
    """The page that a browser shows; None if it is another browser's, or over. Raises: StorageUnavailable."""
    return await database.row(_PAGE, request_hash=request_hash, browser_hash=browser_hash, now=now)


async def add_visit(
    database: Database,
    visit_id: UUID,
    *,
    request_hash: bytes,
    browser_hash: bytes,
    state_hash: bytes,
    door: Door,
    app_id: str,
    ip: str | None,
    user_agent: str | None,
    now: datetime,
) -> bool:
    """Store a visit that begins now. False if its page has used up its visits, or is over.

    Raises: StorageUnavailable.
    """
    added = await database.value(
        _ADD,
        id=visit_id,
        request_hash=request_hash,
        browser_hash=browser_hash,
        state_hash=state_hash,
        door=door,
        app_id=app_id,
        ip=ip,
        user_agent=user_agent,
        at_most=MAX_VISITS_PER_REQUEST,
        now=now,
        expires_at=now + VISIT_LASTS,
    )
    return added is not None


async def take_visit(
    database: Database, *, state_hash: bytes, browser_hash: bytes, code_hash: bytes, now: datetime
) -> Visit | None:
    """Take a visit. Returns it for the first callback, None for all others. Raises: StorageUnavailable."""
    return await database.row(_TAKE, state_hash=state_hash, browser_hash=browser_hash, code_hash=code_hash, now=now)


async def find_visit(database: Database, *, state_hash: bytes, browser_hash: bytes) -> Visit | None:
    """The visit of this state; None if it is another browser's. Raises: StorageUnavailable."""
    return await database.row(_FIND, state_hash=state_hash, browser_hash=browser_hash)


async def settle_visit(database: Database, visit_id: UUID, outcome: VisitOutcome) -> None:
    """Store the outcome of a visit, unless it has one already. Raises: StorageUnavailable."""
    await database.value(_SETTLE, id=visit_id, outcome=outcome)


async def approve_visit(
    transaction: Transaction, visit_id: UUID, *, openid: str, code_hash: bytes, now: datetime
) -> bool:
    """Store the visitor's identity, and the site's code, valid from now on.

    False if the visit has an outcome already, or was deleted with its client.
    """
    approved = await transaction.value(
        _APPROVE,
        id=visit_id,
        openid=openid,
        code_hash=code_hash,
        code_expires_at=now + AUTHORIZATION_CODE_LASTS,
        now=now,
    )
    return approved is not None


async def has_any_role(
    database: Database, roles: Collection[str], *, app_id: str, openid: str, unionid: str | None
) -> bool:
    """Whether the user of this identity, or of this unionid, has one of these roles.

    Raises: StorageUnavailable.
    """
    ids = {"app_id": app_id, "openid": openid, "unionid": unionid}
    return bool(await database.value(_HAS_ANY_ROLE, roles=sorted(roles), **ids))


async def lock_visitor(transaction: Transaction, *, app_id: str, openid: str) -> UserInSession | None:
    """Lock the user of an identity, even during a merge; None if the user cannot log in."""
    return await lock_found(transaction, _LOCK_USER, _VISITOR, {"app_id": app_id, "openid": openid})
