"""What a login writes: the user found or made, the identity, and the session, in one round trip."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from wxauth.core.database import Database
from wxauth.core.tables import USER, UserRow
from wxauth.errors import StorageUnavailable
from wxauth.people.merging import link_unionid

_ATTEMPTS: Final = 5
_ATTEMPTS_BEFORE_LINKING: Final = 2

# Another request came between; asked again, the statement finds what that one left.
_CONFLICTS = (asyncpg.UniqueViolationError, asyncpg.ForeignKeyViolationError, asyncpg.DeadlockDetectedError)

# A known identity: its user is touched, its session opened. An unknown one: the user is made, or found by
# the unionid that another app gave, and the unique constraints decide the race. A banned user comes
# back unchanged and without a session. The ids are given, so that the same login, written twice, is one.
#
# $1 app_id  $2 openid  $3 unionid  $4 now  $5 nickname  $6 avatar_url  $7 session id  $8 session_key
# $9 ip  $10 user_agent  $11 seconds to live  $12 id for a new user  $13 whether a new user is to be judged
_LOG_IN: Final = f"""
WITH person AS (
    UPDATE users
       SET last_login_at = CASE users.status WHEN 'active' THEN $4 ELSE users.last_login_at END,
           nickname = CASE users.status WHEN 'active' THEN COALESCE($5, users.nickname) ELSE users.nickname END,
           avatar_url = CASE users.status WHEN 'active' THEN COALESCE($6, users.avatar_url) ELSE users.avatar_url END
      FROM identities i
     WHERE i.app_id = $1 AND i.openid = $2 AND users.id = i.user_id AND ($3::text IS NULL OR users.unionid = $3)
    RETURNING {USER}, users.unjudged_since
), created AS (
    INSERT INTO users (id, unionid, nickname, avatar_url, created_at, last_login_at, unjudged_since)
    SELECT $12, $3, $5, $6, $4, $4, CASE WHEN $13 THEN $4::timestamptz END WHERE NOT EXISTS (SELECT FROM person)
    ON CONFLICT (unionid) DO UPDATE
       SET last_login_at = CASE users.status WHEN 'active' THEN $4 ELSE users.last_login_at END,
           nickname = CASE users.status WHEN 'active' THEN COALESCE($5, users.nickname) ELSE users.nickname END,
           avatar_url = CASE users.status WHEN 'active' THEN COALESCE($6, users.avatar_url) ELSE users.avatar_url END
    RETURNING {USER}, users.unjudged_since
), identity AS (
    INSERT INTO identities (app_id, openid, user_id, created_at) SELECT $1, $2, id, $4 FROM created
), opened AS (
    INSERT INTO sessions
           (id, user_id, app_id, openid, session_key, ip, user_agent, created_at, last_used_at, expires_at)
    SELECT $7, id, $1, $2, $8, $9::text::inet, $10, $4, $4, $4 + make_interval(secs => $11)
      FROM (SELECT * FROM person UNION ALL SELECT * FROM created) p WHERE status = 'active'
    ON CONFLICT (id) DO NOTHING
)
SELECT * FROM person UNION ALL SELECT * FROM created
"""  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A login as it is to be stored."""

    app_id: str
    openid: str
    unionid: str | None
    nickname: str | None
    avatar_url: str | None
    session_key: bytes
    """Sealed."""
    ip: str | None
    user_agent: str | None
    expires_in: int
    """Seconds until the session ends if it is not used."""
    is_judged: bool
    """Whether WeChat is to be asked about the risk of a newcomer."""


@dataclass(frozen=True, slots=True)
class LoggedIn:
    """A stored login."""

    session_id: UUID
    is_new: bool
    is_unjudged: bool
    """Whether WeChat has not said the risk of this newcomer yet, to this or any other login of theirs."""
    user: UserRow

    @property
    def is_disabled(self) -> bool:
        """Whether the user is banned; then no session was opened."""
        return self.user["status"] == "disabled"


async def record_login(database: Database, login: Login, *, now: datetime) -> LoggedIn:
    """Find or make the user and open a session, in one statement.

    Of simultaneous first logins the unique constraints let one win; the others are undone whole, ask
    again, and find its user. A unionid that a known identity did not have goes the slow way.

    Raises: StorageUnavailable.
    """
    ids = _Ids(session=uuid7(), new_user=uuid7())
    conflict: BaseException | None = None
    for attempt in range(_ATTEMPTS):
        try:
            if attempt >= _ATTEMPTS_BEFORE_LINKING and login.unionid is not None:
                async with database.begin() as transaction:
                    await link_unionid(transaction, login.app_id, login.openid, login.unionid, now=now)
            return await _log_in(database, login, ids, now=now)
        except _CONFLICTS as exc:
            conflict = exc
    raise StorageUnavailable("too many changes to this user at once") from conflict


class _Ids(NamedTuple):
    session: UUID
    new_user: UUID


async def _log_in(database: Database, login: Login, ids: _Ids, *, now: datetime) -> LoggedIn:
    row = await database.fetchrow(
        _LOG_IN,
        login.app_id,
        login.openid,
        login.unionid,
        now,
        login.nickname,
        login.avatar_url,
        ids.session,
        login.session_key,
        login.ip,
        login.user_agent,
        login.expires_in,
        ids.new_user,
        login.is_judged,
    )
    assert row is not None, "the statement touches a user or makes one"
    return LoggedIn(ids.session, row["id"] == ids.new_user, row["unjudged_since"] is not None, row)
