"""The statements for grants and their authorization codes. Each grant is redeemed once, whichever door made it.

Everything about a grant is decided while its user is locked: it is made, gets a code and is redeemed there, and there
all sessions of a user are ended, as bans, merges and erasures do. Locks are taken in this order, so that nobody waits
in a circle: user, browser's login, client, site's request, and what belongs to the request; then the grant.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database, Row, Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.core.users import MAY_LOG_IN, USER, UserInSession
from wxauth.server.websites.doors import Door
from wxauth.server.websites.durations import AUTHORIZATION_CODE_LASTS, OUTCOME_KEPT
from wxauth.server.websites.models import GrantFields, RequestBinding

_ATTEMPTS: Final = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class LockedGrant:
    """A grant whose user is locked."""

    id: UUID
    user_id: UUID
    app_id: str
    openid: str
    scope: str
    nonce: str | None
    door: str
    authenticated_at: datetime
    authenticated_by: str
    session_id: UUID | None
    browser_login_id: UUID | None
    expires_at: datetime
    """Until when it can be redeemed in this way."""
    is_upheld: bool
    """Whether the session that approved is still open, and the browser's login there; without either, true."""


class AnotherPerson(Exception):
    """The site has named a person by `id_token_hint`, and the grant is another one's."""

    answer: Final = {
        "error": "login_required",
        "error_description": "another person than the hint's has logged in",
    }
    """What the site is told."""


# False if the client has been removed. Its row stays until the end, because a removal deletes all its grants.
_ADD: Final = Statement[Nothing]("""
INSERT INTO grants (id, client_id, scope, door, app_id, openid, approving_session_id, authenticated_at,
                    authenticated_by, browser_ip, browser_user_agent, expires_at, browser_login_id)
SELECT :id, name, :scope, :door, :app_id, :openid, :approving_session_id, :authenticated_at, :authenticated_by,
       :browser_ip::text::inet, :browser_user_agent, :expires_at, :browser_login_id
  FROM clients WHERE name = :client_id FOR KEY SHARE
""")
# A grant has one authorization code at a time. An inserted row, unlike an updated one, has no `xmax`.
_PUT_CODE: Final = Statement[bool]("""
INSERT INTO authorization_codes (grant_id, code_hash, redirect_uri, code_challenge, nonce, expires_at)
VALUES (:grant_id, :code_hash, :redirect_uri, :code_challenge, :nonce, :expires_at)
ON CONFLICT (grant_id) DO UPDATE SET code_hash = excluded.code_hash, expires_at = excluded.expires_at
RETURNING xmax = 0 AS is_first
""")
_IS_OF: Final = Statement[bool]("""
SELECT EXISTS (SELECT FROM grants g JOIN identities i ON (i.app_id, i.openid) = (g.app_id, g.openid)
                WHERE g.id = :grant_id
                  AND (i.user_id = :user_id OR i.user_id = (SELECT user_id FROM former_users WHERE id = :user_id)))
""")
_NAME_LOGIN: Final = Statement[Nothing]("UPDATE grants SET browser_login_id = :browser_login_id WHERE id = :grant_id")


def _grant_part(nonce: str, expires_at: str) -> str:
    return f"""
SELECT g.id, i.user_id, g.app_id, g.openid, g.scope, {nonce} AS nonce, g.door, g.authenticated_at, g.authenticated_by,
       g.session_id, g.browser_login_id, {expires_at} AS expires_at,
       (g.approving_session_id IS NULL OR EXISTS (
           SELECT FROM sessions s
            WHERE s.id = g.approving_session_id AND s.revoked_at IS NULL AND s.expires_at > :now))
       AND (g.browser_login_id IS NULL OR EXISTS (
           SELECT FROM browser_logins l WHERE l.id = g.browser_login_id)) AS is_upheld
  FROM grants g JOIN identities i ON (i.app_id, i.openid) = (g.app_id, g.openid)"""  # noqa: S608 - put together from constants


_USER_PART: Final = """
SELECT users.id
  FROM grants g JOIN identities i ON (i.app_id, i.openid) = (g.app_id, g.openid) JOIN users ON users.id = i.user_id"""
_CODE_PART: Final = """
  JOIN authorization_codes c ON c.grant_id = g.id
 WHERE c.code_hash = :code_hash AND c.redirect_uri = :redirect_uri
   AND c.code_challenge IS NOT DISTINCT FROM :code_challenge
   AND g.client_id = :client_id"""
# Settles the race of two that redeem one grant: the second waits here, and then sees that the grant is redeemed.
_LOCK_USER_OF_GRANT: Final = Statement[UUID](f"{_USER_PART} WHERE g.id = :grant_id FOR NO KEY UPDATE OF users")
_GRANT: Final = Statement[LockedGrant](f"{_grant_part('NULL', 'g.expires_at')} WHERE g.id = :grant_id")
_LOCK_USER_OF_CODE: Final = Statement[UUID](f"{_USER_PART}{_CODE_PART} FOR NO KEY UPDATE OF users")
_GRANT_OF_CODE: Final = Statement[LockedGrant](f"{_grant_part('c.nonce', 'c.expires_at')}{_CODE_PART}")

_LOCK_USER_OF_SESSION: Final = Statement[UUID]("""
SELECT users.id FROM sessions JOIN users ON users.id = sessions.user_id WHERE sessions.id = :session_id
   FOR NO KEY UPDATE OF users
""")
_PERSON: Final = Statement[UserInSession](f"""
SELECT {USER}, approving.app_id, approving.openid
  FROM sessions approving JOIN users ON users.id = approving.user_id
 WHERE approving.id = :session_id AND approving.revoked_at IS NULL AND approving.expires_at > :now
   AND {MAY_LOG_IN}
""")  # noqa: S608 - put together from constants
_LOCK_USER_OF_IDENTITY: Final = Statement[UUID]("""
SELECT users.id FROM identities i JOIN users ON users.id = i.user_id WHERE i.app_id = :app_id AND i.openid = :openid
   FOR NO KEY UPDATE OF users
""")
_VISITOR: Final = Statement[UserInSession](f"""
SELECT {USER}, i.app_id, i.openid
  FROM identities i JOIN users ON users.id = i.user_id
 WHERE i.app_id = :app_id AND i.openid = :openid AND {MAY_LOG_IN}
""")  # noqa: S608 - put together from constants
# Finds no grant if its client has just been removed. A removal that comes later waits, and then ends the session.
_OPEN_SESSION: Final = Statement[Nothing]("""
WITH redeemed AS (
    UPDATE grants SET session_id = :session_id WHERE id = :grant_id
    RETURNING client_id, scope, app_id, openid, browser_ip, browser_user_agent, authenticated_at, authenticated_by,
              browser_login_id
), opened AS (
    INSERT INTO sessions (id, user_id, app_id, openid, ip, user_agent, created_at, last_used_at, expires_at,
                          client_id, scope, authenticated_at, authenticated_by)
    SELECT :session_id, :user_id, app_id, openid, browser_ip, browser_user_agent, :now, :now, :expires_at, client_id,
           scope, authenticated_at, authenticated_by
      FROM redeemed
)
INSERT INTO website_sessions (client_id, session_id, browser_login_id)
SELECT client_id, :session_id, browser_login_id FROM redeemed
""")
_SWEEP: Final = Statement[UUID]("""
DELETE FROM grants WHERE id = ANY (ARRAY(
    SELECT id FROM grants WHERE expires_at < :before LIMIT :size FOR UPDATE SKIP LOCKED))
RETURNING id
""")


async def lock_person(transaction: Transaction, session_id: UUID, *, now: datetime) -> UserInSession | None:
    """Lock the user of a session, even during a merge; None if user or session can no longer log in."""
    wanted = {"session_id": session_id}
    return await lock_with_user(transaction, _LOCK_USER_OF_SESSION, _PERSON, wanted, attrgetter("id"), now=now)


async def lock_visitor(transaction: Transaction, *, app_id: str, openid: str) -> UserInSession | None:
    """Lock the user of an identity, even during a merge; None if the user cannot log in."""
    wanted = {"app_id": app_id, "openid": openid}
    return await lock_with_user(transaction, _LOCK_USER_OF_IDENTITY, _VISITOR, wanted, attrgetter("id"))


async def lock_grant(transaction: Transaction, grant_id: UUID, *, now: datetime) -> LockedGrant | None:
    """Lock the user of a grant, even during a merge; None if there is no such grant any more."""
    wanted = {"grant_id": grant_id}
    return await lock_with_user(transaction, _LOCK_USER_OF_GRANT, _GRANT, wanted, attrgetter("user_id"), now=now)


async def lock_grant_of_code(
    transaction: Transaction,
    code_hash: bytes,
    *,
    client_id: str,
    redirect_uri: str,
    code_challenge: str | None,
    now: datetime,
) -> LockedGrant | None:
    """Lock the user of the grant of an authorization code, even during a merge; None unless all of these match."""
    wanted = {
        "code_hash": code_hash,
        "client_id": client_id,
        "redirect_uri": redirect_uri,
        "code_challenge": code_challenge,
    }
    return await lock_with_user(transaction, _LOCK_USER_OF_CODE, _GRANT_OF_CODE, wanted, attrgetter("user_id"), now=now)


async def lock_with_user(
    transaction: Transaction,
    lock: Statement[UUID],
    read: Statement[Row],
    wanted: Mapping[str, object],
    owner: Callable[[Row], UUID],
    **more: object,
) -> Row | None:
    """Lock a user with `lock`, and read something of the same user with `read`; None if it finds nothing.

    `wanted` are the parameters of both, `more` those of `read` alone. `owner` returns the id of the row's user.
    """
    for _ in range(_ATTEMPTS):
        # None if a merge was under way: then session and identity belong to the remaining user.
        locked_id = await transaction.value(lock, **wanted)
        row = await transaction.row(read, **wanted, **more)
        if row is None or owner(row) == locked_id:  # else these have moved to another user meanwhile
            return row
    return None


async def person_of(transaction: Transaction, grant: LockedGrant) -> UserInSession | None:
    """The user of a locked grant; None if the user cannot log in."""
    return await transaction.row(_VISITOR, app_id=grant.app_id, openid=grant.openid)


async def add_grant(transaction: Transaction, grant: GrantFields) -> bool:
    """Store a grant of a locked user. False if its client has been removed."""
    return await transaction.run(_ADD, **grant.model_dump()) > 0


async def put_code(
    transaction: Transaction,
    grant_id: UUID,
    code_hash: bytes,
    binding: RequestBinding,
    *,
    lasts: timedelta = AUTHORIZATION_CODE_LASTS,
    now: datetime,
) -> bool:
    """Store the code of a grant whose user is locked, valid from now on. False if it replaces an earlier one.

    Every door makes its codes here. Raises: AnotherPerson, which undoes the transaction.
    """
    hinted = binding.hinted_user_id
    if hinted is not None and not await transaction.value(_IS_OF, grant_id=grant_id, user_id=hinted):
        raise AnotherPerson
    is_first = await transaction.value(
        _PUT_CODE,
        grant_id=grant_id,
        code_hash=code_hash,
        redirect_uri=binding.redirect_uri,
        code_challenge=binding.code_challenge,
        nonce=binding.nonce,
        expires_at=now + lasts,
    )
    return bool(is_first)


async def name_browser_login(transaction: Transaction, grant_id: UUID, browser_login_id: UUID) -> None:
    """Store which browser's login a locked grant has proved."""
    await transaction.run(_NAME_LOGIN, grant_id=grant_id, browser_login_id=browser_login_id)


async def record_approval(
    transaction: Transaction,
    person: UserInSession,
    *,
    scan_id: UUID,
    client_id: str,
    browser_ip: str | None,
    ip: str | None,
    now: datetime,
) -> None:
    """Record that a person has approved a scan or a link on the phone."""
    await record_event(
        transaction,
        EventType.SCAN_APPROVED,
        by=Actor(str(person.id), ip),
        at=now,
        user_id=person.id,
        app_id=person.app_id,
        data={"scan_id": scan_id, "client_id": client_id, "browser_ip": browser_ip},
    )


async def record_authorized(
    transaction: Transaction, person: UserInSession, *, client_id: str, door: Door, ip: str | None, now: datetime
) -> None:
    """Record that a site may log in a person: a code has been made."""
    await record_event(
        transaction,
        EventType.SITE_AUTHORIZED,
        by=Actor(str(person.id), ip),
        at=now,
        user_id=person.id,
        app_id=person.app_id,
        data={"client_id": client_id, "door": door},
    )


async def open_session(
    transaction: Transaction,
    grant: LockedGrant,
    *,
    session_id: UUID,
    expires_at: datetime,
    now: datetime,
) -> bool:
    """Open the site's session for a grant. False if its client has been removed."""
    opened = await transaction.run(
        _OPEN_SESSION,
        grant_id=grant.id,
        session_id=session_id,
        user_id=grant.user_id,
        expires_at=expires_at,
        now=now,
    )
    return opened > 0


async def sweep_grants(database: Database, *, size: int, now: datetime) -> int:
    """Delete grants whose time is over, at most `size`. Returns how many."""
    return len(await database.values(_SWEEP, before=now - OUTCOME_KEPT, size=size))
