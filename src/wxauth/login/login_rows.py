"""What a login writes: the user found or made, the identity, and the session."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final, NamedTuple
from uuid import UUID

import asyncpg
from uuid_utils.compat import uuid7

from wxauth.core.database import Database
from wxauth.core.tables import USER, UserRow
from wxauth.errors import SignUpClosed, StorageUnavailable
from wxauth.people.merging import link_unionid
from wxauth.people.merging_rows import People, people_of

_ATTEMPTS: Final = 5

# Another request came between; asked again, the statement finds what that one left.
_CONFLICTS: Final = (
    asyncpg.UniqueViolationError,
    asyncpg.ForeignKeyViolationError,
    asyncpg.DeadlockDetectedError,
)

# $1 app_id  $2 openid  $3 unionid  $4 now  $5 session id  $6 session_key  $7 ip  $8 user_agent  $9 seconds to live
_OPEN_PART: Final = """
    INSERT INTO sessions
           (id, user_id, app_id, openid, session_key, ip, user_agent, created_at, last_used_at, expires_at)
    SELECT $5, id, $1, $2, $6, $7::text::inet, $8, $4, $4, $4 + make_interval(secs => $9)"""
_SEEN_PART: Final = """
       SET last_login_at = CASE users.status WHEN 'active' THEN $4 ELSE users.last_login_at END"""
# $10 nickname  $11 avatar_url
_PROFILE_PART: Final = """,
       nickname = CASE users.status WHEN 'active' THEN COALESCE($10, users.nickname) ELSE users.nickname END,
       avatar_url = CASE users.status WHEN 'active' THEN COALESCE($11, users.avatar_url) ELSE users.avatar_url END"""


def _returning_part(set_part: str) -> str:
    # A known identity, whose unionid is as it was: its user is touched, its session opened. A banned user comes back
    # unchanged and without a session. The session's id is given, so that the same login, written twice, is one.
    return f"""
WITH person AS (
    UPDATE users{set_part}
      FROM identities i
     WHERE i.app_id = $1 AND i.openid = $2 AND users.id = i.user_id
       AND ($3::text IS NULL OR i.unionid = $3 OR (i.unionid IS NULL AND users.unionid = $3))
    RETURNING {USER}, users.unjudged_since
), opened AS ({_OPEN_PART}
      FROM person WHERE status = 'active'
    ON CONFLICT (id) DO NOTHING
)
SELECT * FROM person
"""  # noqa: S608 - put together from constants


_RETURN: Final = _returning_part(_SEEN_PART)
_RETURN_WITH_PROFILE: Final = _returning_part(_SEEN_PART + _PROFILE_PART)
# All others, $12 being the id for a new user, $13 whether they are to be judged, $14 whether there may be one. The row
# of the unionid decides whose it is: whoever comes second waits for it. An unknown identity joins that user, or a new
# one. A known one gets the unionid, unless another user has it: then nothing comes back, and nothing has been done.
_ENTER: Final = f"""
WITH known AS (
    SELECT user_id FROM identities WHERE app_id = $1 AND openid = $2
), holder AS (
    INSERT INTO unionids (unionid, user_id)
    SELECT $3::text, COALESCE((SELECT user_id FROM known), $12)
     WHERE $3::text IS NOT NULL
       AND ($14 OR EXISTS (SELECT FROM known) OR EXISTS (SELECT FROM unionids WHERE unionid = $3))
    ON CONFLICT (unionid) DO UPDATE SET unionid = excluded.unionid
    RETURNING user_id
), named AS (
    UPDATE identities SET unionid = $3 FROM known, holder
     WHERE app_id = $1 AND openid = $2 AND holder.user_id = known.user_id
), joined AS (
    UPDATE users{_SEEN_PART}{_PROFILE_PART},
           unionid = COALESCE($3, users.unionid)
      FROM holder
     WHERE users.id = holder.user_id AND holder.user_id <> $12
       AND NOT EXISTS (SELECT FROM known WHERE known.user_id <> holder.user_id)
    RETURNING {USER}, users.unjudged_since
), created AS (
    INSERT INTO users (id, unionid, nickname, avatar_url, created_at, last_login_at, unjudged_since)
    SELECT $12, $3, $10, $11, $4, $4, CASE WHEN $13 THEN $4::timestamptz END
     WHERE $14 AND NOT EXISTS (SELECT FROM known) AND NOT EXISTS (SELECT FROM holder WHERE user_id <> $12)
    RETURNING {USER}, users.unjudged_since
), person AS (
    SELECT * FROM joined UNION ALL SELECT * FROM created
), identity AS (
    INSERT INTO identities (app_id, openid, user_id, created_at, unionid)
    SELECT $1, $2, id, $4, $3 FROM person WHERE NOT EXISTS (SELECT FROM known)
), opened AS ({_OPEN_PART}
      FROM person WHERE status = 'active'
    ON CONFLICT (id) DO NOTHING
)
SELECT * FROM person
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
    may_sign_up: bool
    """Whether somebody unknown may come in."""


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
    """Find or make the user and open a session; for who comes back, in one statement.

    Of simultaneous first logins the unique constraints let one win; the others are undone whole, ask
    again, and find its user. Where the unionid is another user's, both are made one first. Nothing is stored of
    somebody unknown who may not come in.

    Raises: SignUpClosed, StorageUnavailable.
    """
    ids = _Ids(session=uuid7(), new_user=uuid7())
    conflict: BaseException | None = None
    for _ in range(_ATTEMPTS):
        try:
            if (user := await _returning(database, login, ids, now=now)) is not None:
                return _logged_in(user, ids)
            if (user := await _entering(database, login, ids, now=now)) is not None:
                return _logged_in(user, ids)
            if not login.may_sign_up and not await _is_known(database, login):
                raise SignUpClosed("nobody unknown may come in by this app")
            if login.unionid is not None:
                await link_unionid(database, app_id=login.app_id, openid=login.openid, unionid=login.unionid, now=now)
        except _CONFLICTS as exc:
            conflict = exc
    raise StorageUnavailable("too many changes to this user at once") from conflict


class _Ids(NamedTuple):
    session: UUID
    new_user: UUID


async def _is_known(database: Database, login: Login) -> bool:
    people = await people_of(database, app_id=login.app_id, openid=login.openid, unionid=login.unionid)
    return people != People(None, None)


async def _returning(database: Database, login: Login, ids: _Ids, *, now: datetime) -> asyncpg.Record | None:
    opening = _opening(login, ids, now)
    if login.nickname is None and login.avatar_url is None:
        return await database.fetchrow(_RETURN, *opening)
    return await database.fetchrow(_RETURN_WITH_PROFILE, *opening, login.nickname, login.avatar_url)


async def _entering(database: Database, login: Login, ids: _Ids, *, now: datetime) -> asyncpg.Record | None:
    return await database.fetchrow(
        _ENTER,
        *_opening(login, ids, now),
        login.nickname,
        login.avatar_url,
        ids.new_user,
        login.is_judged,
        login.may_sign_up,
    )


def _logged_in(user: asyncpg.Record, ids: _Ids) -> LoggedIn:
    return LoggedIn(ids.session, user["id"] == ids.new_user, user["unjudged_since"] is not None, user)


def _opening(login: Login, ids: _Ids, now: datetime) -> tuple[object, ...]:
    return (
        login.app_id,
        login.openid,
        login.unionid,
        now,
        ids.session,
        login.session_key,
        login.ip,
        login.user_agent,
        login.expires_in,
    )
