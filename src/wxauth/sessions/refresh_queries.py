"""The statements that rotate refresh tokens, which means that they replace a used token with its successor.

A refresh token is reused if it is used again after its grace period, or after its successor was used. The session then
ends.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, LiteralString, TypeVar
from uuid import UUID

from wxauth.core.database import ChangedMeanwhile, Database, retrying
from wxauth.core.statements import Batched, Statement, fragment
from wxauth.core.trail import SYSTEM, Actor
from wxauth.core.users import USER, UserInSession
from wxauth.sessions.list_queries import NO_ADDRESS
from wxauth.sessions.queries import TOO_MANY_CHANGES, EndReason, end_session
from wxauth.sessions.refresh_tokens import Lifetimes, RefreshToken


class RefreshRefusal(StrEnum):
    """Why wxauth refuses a genuine refresh token."""

    UNKNOWN = "unknown"  # or another client's session, because only the website's own client can refresh its sessions
    DISABLED = "disabled"
    REVOKED = "revoked"
    EXPIRED = "expired"
    REUSED = "reused"
    REPLACED = "replaced"
    # The website may have none of the granted scopes any more, or none of the requested ones.
    OUT_OF_SCOPE = "out_of_scope"
    BEYOND_GRANT = "beyond_grant"
    OTHER_RESOURCE = "other_resource"  # the session and the request name different resources, or only one names any


@dataclass(frozen=True, slots=True)
class RefreshRefused:
    why: str  # a `RefreshRefusal`, as the text that `_WHY_NOT` returns
    # These values are None if the session is unknown. If the token was reused, only `user_id` is set.
    user_id: UUID | None = None
    banned_until: datetime | None = None
    app_id: str | None = None
    resource: str | None = None


class RotatedSession(UserInSession):
    """A session after the use of its refresh token, and its user."""

    generation: int
    expires_at: datetime
    is_reused: bool  # if so, the statement has changed nothing, and `_rotate` ends the session


Rotated = TypeVar("Rotated", bound=RotatedSession)


class RotatedSessionOfWebsite(RotatedSession):
    scope: str
    authenticated_at: datetime
    authenticated_by: str


# After the database was restored from an older backup, a token can be newer than the stored generation.
_IS_NEWEST: Final = ":generation >= s.generation"
# The newest token is good. The token just before the newest is also good, until its grace period ends. `rotated_at` is
# in the future if a clock was ahead when wxauth stored this time. If `rotated_at` is more than a grace period in the
# future, the token has no grace period.
_IS_GOOD: Final = f"""({_IS_NEWEST} OR (:generation = s.generation - 1
    AND s.rotated_at BETWEEN :grace_began_at AND :now::timestamptz + (:now::timestamptz - :grace_began_at)))"""
# If a clock was ahead when the session was opened, the age of the session begins now, because a session must not end
# before it begins.
_BEGAN_AT: Final = "LEAST(s.created_at, :now)"
# A refresh stores the address and the User-Agent of its device. If one of them has changed, the refresh also keeps the
# value with which the session was opened: see `OPENED` in `list_queries`. If that value is unknown, `NO_ADDRESS` or an
# empty text stands for it.
_SET_DEVICE_FRAGMENT: Final = f""",
       opened_ip = CASE WHEN {_IS_GOOD} AND s.ip IS DISTINCT FROM :ip::text::inet
                        THEN COALESCE(s.opened_ip, s.ip, {NO_ADDRESS}) ELSE s.opened_ip END,
       opened_user_agent = CASE WHEN {_IS_GOOD} AND s.user_agent IS DISTINCT FROM :user_agent
                                THEN COALESCE(s.opened_user_agent, s.user_agent, '') ELSE s.opened_user_agent END,
       ip = CASE WHEN {_IS_GOOD} THEN :ip::text::inet ELSE s.ip END,
       user_agent = CASE WHEN {_IS_GOOD} THEN :user_agent ELSE s.user_agent END"""
# The scopes of a website's session as an SQL array, and the conditions on the session's resource and scopes.
_GRANTED: Final = "string_to_array(s.scope, ' ')"
_IS_FOR_RESOURCE: Final = "s.resource IS NOT DISTINCT FROM :resource::text"
_IS_IN_SCOPE: Final = f"{_GRANTED} && :usable_scopes::text[] AND {_GRANTED} @> :requested_scopes::text[]"

# The condition for an open session whose user is active.
_IS_OPEN: Final = """s.id = :session_id AND users.id = s.user_id
   AND s.revoked_at IS NULL AND s.expires_at > :now AND s.created_at + make_interval(secs => :max_age) > :now
   AND users.status = 'active'"""
_IS_OPEN_IN_APP: Final = f"{_IS_OPEN} AND s.client_id IS NULL"


def _rotating_fragment(
    source: LiteralString,
    *,
    set_further: LiteralString = "",
    return_first: LiteralString = "",
    return_further: LiteralString = "",
) -> LiteralString:
    """Return the statement that rotates the tokens of the sessions in `source`.

    The statement replaces the newest token with its successor. During the grace period, it returns the newest
    token in exchange for the token just before it. Any other token was used twice, perhaps by the user and by a
    thief. For such a token, it changes nothing, and `_rotate` ends the session with a statement that locks the
    user first.

    If two requests use one token at the same time, the second waits for the row, and then reads the first one's
    generation.
    """
    return f"""
UPDATE sessions s
   SET generation = CASE WHEN {_IS_NEWEST} THEN :generation + 1 ELSE s.generation END,
       rotated_at = CASE WHEN {_IS_NEWEST} THEN :now ELSE s.rotated_at END,
       expires_at = CASE WHEN {_IS_NEWEST}
                         THEN LEAST(:now + make_interval(secs => :max_unused),
                                    {_BEGAN_AT} + make_interval(secs => :max_age))
                         ELSE s.expires_at END,
       created_at = CASE WHEN {_IS_NEWEST} THEN {_BEGAN_AT} ELSE s.created_at END,
       last_used_at = CASE WHEN {_IS_GOOD} THEN :now ELSE s.last_used_at END{set_further}
  FROM {source}
-- RETURNING reads the row after the update. A token that was just rotated is then the one before the newest. It is good
-- even without a grace period, because rotated_at is :now, and BETWEEN includes its bounds.
RETURNING {return_first}s.generation, s.expires_at, NOT {_IS_GOOD} AS is_reused, s.app_id, s.openid{return_further},
          {USER}
"""


# The form for several refreshes leaves out sessions that another transaction has locked, and all but one refresh of the
# same session. `Batched` then runs separately each refresh that was left out.
_ROTATE: Final = Batched[RotatedSession](
    "refresh",
    _rotating_fragment(f"users WHERE {_IS_OPEN_IN_APP}", set_further=_SET_DEVICE_FRAGMENT),
    f""", locked AS (
    SELECT asked.* FROM asked, sessions s, users WHERE {_IS_OPEN_IN_APP} FOR NO KEY UPDATE OF s SKIP LOCKED
), rotated AS ({
        _rotating_fragment(
            "locked AS asked, users WHERE s.id = :session_id AND users.id = s.user_id",
            set_further=_SET_DEVICE_FRAGMENT,
            return_first="asked.n, ",
        )
    }) SELECT * FROM rotated""",
    session_id="uuid",
    generation="int",
    now="timestamptz",
    grace_began_at="timestamptz",
    max_unused="int",
    max_age="int",
    ip="text",
    user_agent="text",
)
# Usually, a website's server sends the refresh, so the address of the request is not the user's, and the statement does
# not change the stored address of the browser. If the user has not granted all requested scopes, the statement finds
# no row, and does not use up the token.
_ROTATE_OF_WEBSITE: Final = Statement[RotatedSessionOfWebsite](
    _rotating_fragment(
        f"users WHERE {_IS_OPEN} AND s.client_id = :client_id AND {_IS_FOR_RESOURCE} AND {_IS_IN_SCOPE}",
        return_further=", s.scope, s.authenticated_at, s.authenticated_by",
    )
)

# This query returns the reason why a rotation statement has found no row. It compares the resource before the age,
# because `max_age` applies only to a session for the requested resource. It returns no row if the token could be
# used now, for example because a ban was just lifted.
_WHY_NOT: Final = Statement[RefreshRefused](f"""
SELECT * FROM (
    SELECT CASE WHEN s.id IS NULL THEN '{fragment(RefreshRefusal.UNKNOWN)}'
                WHEN status = 'disabled' THEN '{fragment(RefreshRefusal.DISABLED)}'
                WHEN revoked_reason = '{fragment(EndReason.REPLACED)}' THEN '{fragment(RefreshRefusal.REPLACED)}'
                WHEN revoked_at IS NOT NULL THEN '{fragment(RefreshRefusal.REVOKED)}'
                WHEN NOT ({_IS_FOR_RESOURCE}) THEN '{fragment(RefreshRefusal.OTHER_RESOURCE)}'
                WHEN LEAST(expires_at, s.created_at + make_interval(secs => :max_age)) <= :now
                    THEN '{fragment(RefreshRefusal.EXPIRED)}'
                WHEN NOT {_GRANTED} @> :requested_scopes::text[] THEN '{fragment(RefreshRefusal.BEYOND_GRANT)}'
                WHEN s.client_id IS NOT NULL AND NOT ({_IS_IN_SCOPE})
                    THEN '{fragment(RefreshRefusal.OUT_OF_SCOPE)}' END AS why,
           users.id AS user_id, banned_until, s.app_id, s.resource
      FROM (VALUES (:session_id::uuid)) AS asked (id)
      LEFT JOIN (sessions s JOIN users ON users.id = s.user_id)
                ON s.id = asked.id AND s.client_id IS NOT DISTINCT FROM :client_id) AS refused
 WHERE why IS NOT NULL
""")
_NO_WEBSITE: Final[Mapping[str, object]] = {
    "client_id": None,
    "resource": None,
    "usable_scopes": (),
    "requested_scopes": (),
}


async def rotate_refresh_token(
    database: Database,
    token: RefreshToken,
    *,
    ip: str | None,
    user_agent: str | None,
    lifetimes: Lifetimes,
    now: datetime,
) -> RotatedSession | RefreshRefused:
    """Rotate the refresh token of a session in an app. If it was reused, the session ends."""
    device = {"ip": ip, "user_agent": user_agent}
    return await _rotate(database, _ROTATE, token, device, website=_NO_WEBSITE, ip=ip, lifetimes=lifetimes, now=now)


async def rotate_refresh_token_of_website(
    database: Database,
    token: RefreshToken,
    *,
    client_id: str,
    resource: str | None,
    usable_scopes: Sequence[str],
    requested_scopes: Sequence[str] = (),
    ip: str | None,
    lifetimes: Lifetimes,
    now: datetime,
) -> RotatedSessionOfWebsite | RefreshRefused:
    """Rotate the refresh token of a website's session. If it was reused, the session ends.

    The session must be for this resource or, if `resource` is None, for no resource. The user must have granted
    the website at least one of `usable_scopes`, and all of `requested_scopes`. `ip` is usually that of the
    website's server.
    """
    website = {
        "client_id": client_id,
        "resource": resource,
        "usable_scopes": usable_scopes,
        "requested_scopes": requested_scopes,
    }
    return await _rotate(
        database, _ROTATE_OF_WEBSITE, token, website, website=website, ip=ip, lifetimes=lifetimes, now=now
    )


@retrying(detail=TOO_MANY_CHANGES)
async def _rotate(
    database: Database,
    statement: Statement[Rotated],
    token: RefreshToken,
    further_values: Mapping[str, object],  # of `statement`
    *,
    website: Mapping[str, object],  # of `_WHY_NOT`, which asks for them even if the session belongs to no website
    ip: str | None,
    lifetimes: Lifetimes,
    now: datetime,
) -> Rotated | RefreshRefused:
    """If the statement finds no session, although the token could be used now, `_rotate` runs again."""
    row = await database.row(
        statement,
        session_id=token.session_id,
        generation=token.generation,
        now=now,
        grace_began_at=now - timedelta(seconds=lifetimes.reuse_grace),
        max_unused=lifetimes.max_unused,
        max_age=lifetimes.max_age,
        **further_values,
    )
    if row is None:
        refusal = await database.row(
            _WHY_NOT, session_id=token.session_id, **website, max_age=lifetimes.max_age, now=now
        )
        if refusal is None:
            raise ChangedMeanwhile
        return refusal
    if row.is_reused:
        by = Actor(SYSTEM.name, ip)
        await end_session(database, session_id=token.session_id, reason=EndReason.REUSED, by=by, now=now)
        return RefreshRefused(RefreshRefusal.REUSED, row.id)
    return row
