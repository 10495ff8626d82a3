"""The statements for links that open the console, and for the sessions that they open."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.core.users import IS_ADMINISTRATOR, MAY_LOG_IN, STAFF_ROLES, USER, UserInSession

_ADMINISTRATORS: Final = Statement[UUID](f"""
SELECT id FROM users WHERE {IS_ADMINISTRATOR} ORDER BY id LIMIT 2
""")
_IS_STAFF: Final = Statement[int](
    f"SELECT 1 FROM users WHERE id = :user_id AND roles && :staff::text[] AND {MAY_LOG_IN}"
)
# Storing a link also deletes the expired ones.
_STORE_LINK: Final = Statement[Nothing]("""
WITH over AS (
    DELETE FROM admin_links WHERE expires_at <= :now
)
INSERT INTO admin_links (digest, user_id, expires_at) VALUES (:digest, :user_id, :expires_at)
""")
# Settles the race of two uses of one link: the second no longer finds it.
_SPEND_LINK: Final = Statement[tuple[UUID, bool]](
    "DELETE FROM admin_links WHERE digest = :digest RETURNING user_id, expires_at > :now AS is_good"
)
# The lock waits for a change of roles that is under way: `settle` holds the user's lock, and ends the sessions that
# are open by then. Without that wait, a session could outlive the role. The identity is locked too, so that it still
# belongs to the user afterwards.
_OPEN: Final = Statement[UserInSession](f"""
WITH person AS (
    SELECT {USER} FROM users WHERE id = :user_id AND {MAY_LOG_IN} AND roles && :staff::text[]
       FOR NO KEY UPDATE
), identity AS (
    SELECT i.app_id, i.openid, i.user_id FROM identities i JOIN person ON i.user_id = person.id
     ORDER BY i.created_at DESC, i.app_id, i.openid LIMIT 1 FOR SHARE OF i
), opened AS (
    INSERT INTO sessions (id, user_id, app_id, openid, ip, user_agent, created_at, last_used_at, expires_at,
                          client_id, scope)
    SELECT :session_id, user_id, app_id, openid, :ip::text::inet, :user_agent, :now, :now, :expires_at,
           :client_id, :scope
      FROM identity
)
SELECT person.*, identity.app_id, identity.openid FROM person JOIN identity ON identity.user_id = person.id
""")


async def some_administrators(database: Database) -> Sequence[UUID]:
    """Up to two of the active administrators."""
    return await database.values(_ADMINISTRATORS)


async def is_staff(database: Database, user_id: UUID) -> bool:
    """Whether this user has a staff role, and may log in."""
    return await database.value(_IS_STAFF, user_id=user_id, staff=list(STAFF_ROLES)) is not None


async def store_link(
    transaction: Transaction, digest: bytes, user_id: UUID, *, expires_at: datetime, now: datetime
) -> None:
    """Store a link's digest until the link is used or expires."""
    await transaction.run(_STORE_LINK, digest=digest, user_id=user_id, expires_at=expires_at, now=now)


async def spend_link(transaction: Transaction, digest: bytes, *, now: datetime) -> UUID | None:
    """Spend a link, and return its user; None if there is no valid link."""
    user_id, is_good = await transaction.row(_SPEND_LINK, digest=digest, now=now) or (None, False)
    return user_id if is_good else None


async def open_console_session(
    transaction: Transaction,
    user_id: UUID,
    session_id: UUID,
    *,
    client_id: str,
    scope: str,
    ip: str | None,
    user_agent: str | None,
    expires_at: datetime,
    now: datetime,
) -> UserInSession | None:
    """Open a console session with the user's newest identity; None if the user is not staff."""
    return await transaction.row(
        _OPEN,
        user_id=user_id,
        session_id=session_id,
        now=now,
        expires_at=expires_at,
        ip=ip,
        user_agent=user_agent,
        client_id=client_id,
        scope=scope,
        staff=list(STAFF_ROLES),
    )
