"""Links that open the console, and the sessions that they open."""

from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.users import USER, UserInSession

_ADMINISTRATORS: Final = """
SELECT id FROM users WHERE 'admin' = ANY (roles) AND status = 'active' ORDER BY id LIMIT 2
"""
_IS_ADMINISTRATOR: Final = "SELECT 1 FROM users WHERE id = $1 AND 'admin' = ANY (roles) AND status = 'active'"
# Storing a link also deletes the expired ones. $1 digest  $2 user id  $3 expires at  $4 now
_STORE_LINK: Final = """
WITH over AS (
    DELETE FROM admin_links WHERE expires_at <= $4
)
INSERT INTO admin_links (digest, user_id, expires_at) VALUES ($1, $2, $3)
"""
# Settles the race of two uses of one link: the second finds it gone. $1 digest  $2 now
_SPEND_LINK: Final = "DELETE FROM admin_links WHERE digest = $1 RETURNING user_id, expires_at > $2 AS is_good"
# FOR SHARE waits for a change of roles that is under way: `settle` holds the user's lock, and ends the sessions that
# are open by then. Without the wait, a session could outlive the role.
# $1 user id  $2 session id  $3 now  $4 expires at  $5 ip  $6 user_agent  $7 client_id  $8 scope
_OPEN: Final = f"""
WITH person AS (
    SELECT {USER} FROM users WHERE id = $1 AND status = 'active' AND 'admin' = ANY (roles) FOR SHARE
), identity AS (
    SELECT i.app_id, i.openid, i.user_id FROM identities i JOIN person ON i.user_id = person.id
     ORDER BY i.created_at DESC, i.app_id, i.openid LIMIT 1
), opened AS (
    INSERT INTO sessions (id, user_id, app_id, openid, ip, user_agent, created_at, last_used_at, expires_at,
                          client_id, scope)
    SELECT $2, user_id, app_id, openid, $5::text::inet, $6, $3, $3, $4, $7, $8 FROM identity
), marked AS (
    INSERT INTO console_sessions (session_id) SELECT $2 FROM identity
)
SELECT person.*, identity.app_id, identity.openid FROM person JOIN identity ON identity.user_id = person.id
"""  # noqa: S608 - put together from constants
_MARK: Final = "INSERT INTO console_sessions (session_id) VALUES ($1)"


async def some_administrators(database: Database) -> list[UUID]:
    """Up to two of the active administrators. Raises: StorageUnavailable."""
    return [row["id"] for row in await database.fetch(_ADMINISTRATORS)]


async def is_administrator(database: Database, user_id: UUID) -> bool:
    """Whether this user is an administrator now. Raises: StorageUnavailable."""
    return await database.fetchrow(_IS_ADMINISTRATOR, user_id) is not None


async def store_link(
    transaction: Transaction, digest: bytes, user_id: UUID, *, expires_at: datetime, now: datetime
) -> None:
    """Store a link's digest until the link is used or expires."""
    await transaction.execute(_STORE_LINK, digest, user_id, expires_at, now)


async def spend_link(transaction: Transaction, digest: bytes, *, now: datetime) -> UUID | None:
    """Spend a link; its user, or None if there is no valid link."""
    row = await transaction.fetchrow(_SPEND_LINK, digest, now)
    return row["user_id"] if row is not None and row["is_good"] else None


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
    """Open a console session with the user's newest identity; None if the user is no administrator."""
    user: UserInSession | None = await transaction.fetchrow(
        _OPEN, user_id, session_id, now, expires_at, ip, user_agent, client_id, scope
    )
    return user


async def mark_console_session(transaction: Transaction, session_id: UUID) -> None:
    """Mark a session as the console's: it then ends when the user loses the role."""
    await transaction.execute(_MARK, session_id)
