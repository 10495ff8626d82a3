"""The statements that read the users and times of sessions, end sessions, and delete ended sessions."""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Final, LiteralString
from uuid import UUID

from pydantic import BaseModel

from wxauth.core.clock import new_id
from wxauth.core.database import ChangedMeanwhile, Database, Transaction, retrying
from wxauth.core.statements import Batched, Nothing, Statement, fragment, pair_range
from wxauth.core.trail import SYSTEM, Actor, EventType, event, record_events
from wxauth.core.users import USER, UserInSession

MAX_SESSIONS_IN_EVENT: Final = 1000
CONSOLE: Final = "wxauth-admin"  # no other client can have this client_id
TOO_MANY_CHANGES: Final = "too many concurrent changes to this session"
_ALL_IDENTITIES: Final[Mapping[str, object]] = {"app_ids": None, "openids": None}


class EndReason(StrEnum):
    SIGNED_OUT = "signed_out"
    SIGNED_OUT_ELSEWHERE = "signed_out_elsewhere"
    BANNED = "banned"
    REUSED = "reused"  # its authorization code or refresh token, which might have been stolen
    ERASED = "erased"
    LEAVING = "leaving"
    ADMINISTRATOR = "administrator"
    REPLACED = "replaced"  # beyond the limit of open sessions of an identity, or of a browser's login at a website
    MERGED = "merged"  # a website's session whose user was merged into another


class EndedSession(BaseModel):
    id: UUID
    user_id: UUID
    was_open: bool  # false if the session had expired before


class LastRow(BaseModel):
    """The last row of a page of a table that is sorted by id."""

    id: UUID
    # All rows with larger ids were created in the same millisecond, or later. For a consent, the time is the epoch,
    # because imported consents may be older than their ids.
    since: datetime


# Each request reads the user, because since the token was signed, the user might have been banned, erased or merged,
# the session might have ended, or its website might have been removed.
READ_USER_IN_SESSION: Final = Batched[UserInSession](
    "user_of_session",
    f"""
SELECT s.app_id, s.openid, {USER}
  FROM sessions s JOIN users ON users.id = s.user_id
 WHERE s.id = :session_id AND s.user_id = :user_id
   AND s.revoked_at IS NULL AND s.expires_at > :now AND users.status = 'active'
   -- the sessions of a removed website end later, page by page
   AND (s.client_id IS NULL OR NOT EXISTS (SELECT FROM clients WHERE name = s.client_id AND removed_by IS NOT NULL))
""",
    session_id="uuid",
    user_id="uuid",
    now="timestamptz",
)
ARE_OF_ONE_USER: Final = Statement[bool]("""
SELECT EXISTS (SELECT FROM sessions one JOIN sessions other USING (user_id)
                WHERE one.id = :one_id AND other.id = :other_id)
""")
USER_OF_SESSION: Final = Statement[UUID]("SELECT user_id FROM sessions WHERE id = :session_id")
OPENED_AT: Final = Statement[datetime]("SELECT created_at FROM sessions WHERE id = :session_id")
# Open and ended sessions count, of a website or of a client with a metadata document.
HAS_SESSIONS: Final = Statement[bool]("SELECT EXISTS (SELECT FROM website_sessions WHERE client_id = :client_id)")
# There is no row if the page is not full.
LAST_OF_PAGE: Final = Statement[LastRow](
    "SELECT id, created_at AS since FROM sessions WHERE id > :after ORDER BY id OFFSET :skipped LIMIT 1"
)


# There is no row if the session does not exist, has ended, or is not of the website `client_id`, and null if another
# transaction ends it or moves it to another user while this one waits for the lock.
_END_AND_RECORD: Final = Statement[tuple[UUID | None]](f"""
WITH not_ended AS (
    SELECT id, user_id FROM sessions
     WHERE id = :session_id AND revoked_at IS NULL AND (:client_id::text IS NULL OR client_id = :client_id)
), locked_user AS (
    -- first, as each statement does that records an event about a user
    SELECT users.id FROM users JOIN not_ended ON users.id = not_ended.user_id FOR NO KEY UPDATE OF users
), ended AS (
    UPDATE sessions SET revoked_at = :now, revoked_reason = :reason, session_key = NULL, site_knows = :site_knows
      FROM locked_user
     WHERE sessions.id = :session_id AND sessions.user_id = locked_user.id AND revoked_at IS NULL
    RETURNING sessions.id, user_id, app_id, expires_at > :now AS was_open
), recorded_event AS (
    INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
    SELECT :event_id, '{fragment(EventType.SESSION_ENDED.value)}', :now, COALESCE(:actor, user_id::text), user_id,
           app_id, :ip::text::inet, jsonb_build_object('session_ids', jsonb_build_array(id), 'reason', :reason::text)
      FROM ended
     -- no event for an expired session
     WHERE was_open
), ended_browser_login AS (
    -- so that the browser must log in again
    DELETE FROM browser_logins USING website_sessions w, ended
     WHERE was_open AND :reason = '{fragment(EndReason.SIGNED_OUT_ELSEWHERE)}'
       AND w.session_id = ended.id AND browser_logins.id = w.browser_login_id
)
SELECT ended.user_id FROM not_ended LEFT JOIN ended ON true
""")
_END_BROWSER_LOGIN_OF_SESSION: Final = Statement[Nothing]("""
DELETE FROM browser_logins USING website_sessions w
 WHERE w.session_id = :session_id AND browser_logins.id = w.browser_login_id
""")
_USERS_OF_SESSIONS_FRAGMENT: Final = """
SELECT id FROM users WHERE id = ANY (ARRAY(SELECT user_id FROM sessions WHERE id = ANY (:session_ids::uuid[])))"""
# The statement locks users in the order of their ids, as each transaction that records events about several users does.
_LOCK_USERS: Final = Statement[UUID](f"{_USERS_OF_SESSIONS_FRAGMENT} ORDER BY id FOR NO KEY UPDATE")
# For a page of a removed website's sessions, the statement skips users whom another transaction has locked. It needs no
# order of locks, because it never waits. Merges and splits end such sessions, and do not move them, so the sessions
# still belong to these users when the users are locked.
_LOCK_FREE_USERS: Final = Statement[UUID](f"{_USERS_OF_SESSIONS_FRAGMENT} FOR NO KEY UPDATE SKIP LOCKED")
_PAGE_OF_CLIENT: Final = Statement[UUID](
    "SELECT session_id FROM website_sessions WHERE client_id = :client_id ORDER BY session_id LIMIT :size"
)
_TAKE_ENDED_OFF_LIST: Final = Statement[Nothing]("""
DELETE FROM website_sessions WHERE client_id = :client_id AND session_id = ANY (ARRAY(
    SELECT session_id FROM website_sessions
     WHERE client_id = :client_id AND session_id = ANY (:session_ids::uuid[])
       -- sessions that have ended, or were deleted
       AND session_id <> ALL (ARRAY(
           SELECT id FROM sessions WHERE id = ANY (:session_ids::uuid[]) AND revoked_at IS NULL))
       -- the next page contains the locked rows again
       FOR UPDATE SKIP LOCKED))
""")


def _identity_fragment(table: LiteralString) -> LiteralString:
    return f"""(:app_ids::text[] IS NULL
            OR ({table}.app_id, {table}.openid) IN (SELECT * FROM unnest(:app_ids::text[], :openids::text[])))"""


# Website logins that have not opened a session yet lose the users' identities, or only the given ones, so that nobody
# can redeem these logins. The caller has locked the users, as each transaction that approves or redeems a login does.
_END_LOGINS_TO_SITES: Final = Statement[Nothing](f"""
UPDATE site_logins SET app_id = NULL, openid = NULL, browser_ip = NULL, browser_user_agent = NULL, requested_ip = NULL
 WHERE id = ANY (ARRAY(
    SELECT l.id FROM identities i JOIN site_logins l ON (l.app_id, l.openid) = (i.app_id, i.openid)
     WHERE i.user_id = ANY (:user_ids::uuid[]) AND l.session_id IS NULL
       AND {_identity_fragment("i")}
     -- all rows are locked in this order before one is changed, to avoid deadlocks
     ORDER BY l.id FOR UPDATE OF l))
""")
# A login that a phone has scanned or denied contains the phone's session, but no identity. When the user is erased,
# this statement clears the addresses and the User-Agent in such logins.
_CLEAR_CLAIMED_LOGINS: Final = Statement[Nothing](f"""
UPDATE site_logins SET browser_ip = NULL, browser_user_agent = NULL, requested_ip = NULL
 WHERE id = ANY (ARRAY(
    SELECT l.id FROM sessions s JOIN site_logins l ON l.claimed_session_id = s.id
     WHERE s.user_id = ANY (:user_ids::uuid[]) AND l.openid IS NULL AND {_identity_fragment("s")}
     ORDER BY l.id FOR UPDATE OF l))
""")
_END_BROWSER_LOGINS: Final = Statement[Nothing](f"""
DELETE FROM browser_logins USING identities i
 WHERE i.user_id = ANY (:user_ids::uuid[]) AND browser_logins.app_id = i.app_id AND browser_logins.openid = i.openid
   AND {_identity_fragment("i")}
""")


def _ending(selection: LiteralString) -> Statement[EndedSession]:
    """Return a statement that ends the sessions whose ids `selection` returns. The caller must lock their users."""
    return Statement[EndedSession](f"""
UPDATE sessions SET revoked_at = :now, revoked_reason = :reason, session_key = NULL
 WHERE id = ANY (ARRAY({selection})) AND revoked_at IS NULL
RETURNING id, user_id, expires_at > :now AS was_open
""")


_END_ONE: Final = _ending("SELECT :session_id::uuid")
_END_SESSIONS_OF_USERS: Final = _ending(f"""
    SELECT id FROM sessions
     WHERE user_id = ANY (:user_ids::uuid[]) AND id IS DISTINCT FROM :except_id AND {_identity_fragment("sessions")}""")
END_CONSOLES: Final = _ending(
    f"SELECT id FROM sessions WHERE user_id = ANY (:user_ids::uuid[]) AND client_id = '{CONSOLE}'"
)
_END_WEBSITE_SESSIONS: Final = _ending(f"""
    SELECT id FROM sessions
     WHERE user_id = ANY (:user_ids::uuid[]) AND client_id IS NOT NULL
       AND NOT (:spares_console AND client_id = '{CONSOLE}')""")
END_SESSIONS_OF_BROWSER_LOGIN: Final = _ending("""
    SELECT s.id FROM website_sessions w JOIN sessions s ON s.id = w.session_id
     WHERE w.browser_login_id = :browser_login_id AND s.user_id = :user_id""")
# The older sessions that a browser's login has opened at the website of `session_id` end.
END_OLDER_SESSIONS_OF_BROWSER_LOGIN: Final = _ending("""
    SELECT s.id FROM website_sessions w JOIN sessions s ON s.id = w.session_id
     WHERE w.browser_login_id = :browser_login_id AND s.revoked_at IS NULL AND s.expires_at > :now
       AND w.client_id = (SELECT client_id FROM website_sessions WHERE session_id = :session_id)
     ORDER BY s.id DESC OFFSET :at_most""")
# The identity's sessions at websites are left out. `at_most` sessions stay open, including `opened`.
END_OLDER_SESSIONS_OF_IDENTITY: Final = _ending("""
    SELECT id FROM sessions
     WHERE (user_id, app_id, openid) = (:user_id, :app_id, :openid) AND client_id IS NULL AND id <> :opened
       AND revoked_at IS NULL AND expires_at > :now
     ORDER BY id DESC OFFSET :at_most - 1""")
# The users are those whom the caller has locked. The sessions of all other users must stay unchanged.
_END_THESE: Final = _ending("""
    SELECT id FROM sessions WHERE id = ANY (:session_ids::uuid[]) AND user_id = ANY (:user_ids::uuid[])""")


# Nearly always, nobody has more sessions than `at_most`, and the statements below need not run. One login in 32 is
# drawn by the random end of its id, because counting every user's sessions cost PostgreSQL a fifth of what a login
# costs.
CROWDED_USERS: Final = Statement[UUID](f"""
SELECT recent.user_id
  -- without its order, PostgreSQL would read all users' ids from the index by `user_id`
  FROM (SELECT DISTINCT user_id
          FROM (SELECT user_id FROM sessions
                 WHERE id > :after AND id <= :until AND get_byte(uuid_send(id), 15) < 8 ORDER BY id) AS page) AS recent
 WHERE EXISTS (SELECT FROM sessions s WHERE {pair_range("s.user_id", "recent.user_id")}
                -- the order names the constant `user_id` so that PostgreSQL uses the index: see `pair_range`
                ORDER BY s.user_id, s.id OFFSET :at_most)
""")


def _older_fragment(*, counted: LiteralString, returned: LiteralString) -> LiteralString:
    """Return the query for up to `size` sessions that are older than the `at_most` newest sessions of their identity.

    `counted` says which sessions count towards `at_most`, and `returned` which of the older ones are returned. The
    query covers only identities of `user_ids` that have a session with an id after `after` and up to `until`.
    """
    return f"""
    SELECT beyond.id
      FROM (SELECT DISTINCT user_id, app_id, openid FROM sessions
             WHERE id > :after AND id <= :until AND user_id = ANY (:user_ids::uuid[])) AS recent,
   LATERAL (SELECT id FROM (SELECT id, revoked_at FROM sessions s
                             WHERE {pair_range("s.user_id", "recent.user_id")}
                                   AND (s.app_id, s.openid) = (recent.app_id, recent.openid) AND {counted}
                             -- as in `CROWDED_USERS`
                             ORDER BY s.user_id DESC, s.id DESC OFFSET :at_most) AS older
             WHERE {returned}) AS beyond
     LIMIT :size"""


_OLDER_SESSIONS: Final = Statement[UUID](_older_fragment(counted="s.revoked_at IS NULL", returned="true"))
DELETE_ENDED_SESSIONS: Final = Statement[Nothing](f"""
DELETE FROM sessions WHERE id = ANY (ARRAY(
    SELECT id FROM sessions
     WHERE id = ANY (ARRAY({_older_fragment(counted="true", returned="revoked_at IS NOT NULL")}))
       AND revoked_at IS NOT NULL
       -- the next run deletes the locked rows
       FOR UPDATE SKIP LOCKED))
""")


@retrying(detail=TOO_MANY_CHANGES)
async def end_session(
    database: Database,
    *,
    session_id: UUID,
    reason: EndReason,
    by: Actor | None = None,
    client_id: str | None = None,
    site_knows: bool = False,
    now: datetime,
) -> UUID | None:
    """End a session, and return its user's id; None if it has ended already, or is not of the website `client_id`.

    Without `by`, the session's user is the actor. With the reason `SIGNED_OUT_ELSEWHERE`, the login of the browser
    that opened the session ends, too. With `site_knows`, the website gets no logout token.
    """
    actor, ip = (None, None) if by is None else (by.name, by.ip)
    row = await database.row(
        _END_AND_RECORD,
        session_id=session_id,
        client_id=client_id,
        reason=reason,
        actor=actor,
        ip=ip,
        site_knows=site_knows,
        event_id=new_id(now),
        now=now,
    )
    if row is None:
        return None
    (user_id,) = row
    if user_id is None:  # another transaction has just moved or ended the session
        raise ChangedMeanwhile
    return user_id


async def end_sessions(
    transaction: Transaction,
    *user_ids: UUID,
    reason: EndReason,
    by: Actor,
    now: datetime,
    except_id: UUID | None = None,
    identities: Collection[tuple[str, str]] | None = None,
) -> None:
    """End all sessions of locked users except `except_id`, and their logins to sites that have no session yet.

    The logins of browsers end, too. `identities` are pairs of app_id and openid, and None stands for all. An erasure
    calls this function before it deletes the sessions, so that websites get logout tokens.
    """
    selected_identities = _ALL_IDENTITIES if identities is None else identity_parameters(identities)
    parameters = {"user_ids": user_ids, **selected_identities}
    await transaction.run(_END_LOGINS_TO_SITES, **parameters)
    await transaction.run(_END_BROWSER_LOGINS, **parameters)
    if reason is EndReason.ERASED:
        await transaction.run(_CLEAR_CLAIMED_LOGINS, **parameters)
    parameters["except_id"] = except_id
    await end_selected(transaction, _END_SESSIONS_OF_USERS, parameters, reason=reason, by=by, now=now)


async def end_session_of_locked_user(
    transaction: Transaction, user_id: UUID, session_id: UUID, *, reason: EndReason, by: Actor, now: datetime
) -> bool:
    """End a session, and return whether it belongs to the user, even if it has ended before."""
    if await transaction.value(USER_OF_SESSION, session_id=session_id) != user_id:
        return False
    ended = await end_selected(transaction, _END_ONE, {"session_id": session_id}, reason=reason, by=by, now=now)
    if reason is EndReason.ADMINISTRATOR and any(row.was_open for row in ended):
        await transaction.run(_END_BROWSER_LOGIN_OF_SESSION, session_id=session_id)
    return True


async def end_replaced_sessions(
    transaction: Transaction,
    user_ids: Sequence[UUID],
    *,
    after: UUID,
    until: UUID,
    at_most: int,
    size: int,
    now: datetime,
) -> int:
    """End the sessions of each identity except its `at_most` newest ones. Return their number.

    Ended sessions do not count towards `at_most`, but expired ones do. At most `size` sessions end, of the users'
    identities that have a session with an id after `after` and up to `until`.
    """
    replaced = await transaction.values(
        _OLDER_SESSIONS, user_ids=user_ids, after=after, until=until, at_most=at_most, size=size
    )
    locked_users = await transaction.values(_LOCK_USERS, session_ids=replaced)
    parameters = {"session_ids": replaced, "user_ids": locked_users}
    ended = await end_selected(transaction, _END_THESE, parameters, reason=EndReason.REPLACED, by=SYSTEM, now=now)
    return len(ended)


async def end_page_of_client(transaction: Transaction, client_id: str, *, size: int, by: Actor, now: datetime) -> int:
    """End a page of a removed website's sessions. Return the number of sessions that were taken off its list."""
    page = await transaction.values(_PAGE_OF_CLIENT, client_id=client_id, size=size)
    locked_users = await transaction.values(_LOCK_FREE_USERS, session_ids=page)
    parameters = {"session_ids": page, "user_ids": locked_users}
    await end_selected(transaction, _END_THESE, parameters, reason=EndReason.ADMINISTRATOR, by=by, now=now)
    return await transaction.run(_TAKE_ENDED_OFF_LIST, client_id=client_id, session_ids=page)


async def end_logins_in_browsers(
    transaction: Transaction, *user_ids: UUID, becomes_staff: bool, reason: EndReason, by: Actor, now: datetime
) -> None:
    """End the browsers' logins and the website sessions of locked users.

    A user who is about to be `MERGED` must log in to websites again, because a website must see the same user id
    as long as a session lasts. If a user becomes staff, approved website logins without a session end, too,
    because a browser in which staff log in must be on the same network as the phone. The console's sessions stay,
    because staff had to open them in such a browser, unless the users are merged.
    """
    if becomes_staff:
        await transaction.run(_END_LOGINS_TO_SITES, user_ids=user_ids, **_ALL_IDENTITIES)
    await transaction.run(_END_BROWSER_LOGINS, user_ids=user_ids, **_ALL_IDENTITIES)
    parameters = {"user_ids": user_ids, "spares_console": reason is not EndReason.MERGED}
    await end_selected(transaction, _END_WEBSITE_SESSIONS, parameters, reason=reason, by=by, now=now)


def identity_parameters(identities: Collection[tuple[str, str]]) -> Mapping[str, object]:
    """Return the parameters of `_identity_fragment`, two parallel arrays."""
    return {"app_ids": [app_id for app_id, _ in identities], "openids": [openid for _, openid in identities]}


async def end_selected(
    transaction: Transaction,
    statement: Statement[EndedSession],
    parameters: Mapping[str, object],
    *,
    reason: EndReason,
    by: Actor,
    app_id: str | None = None,
    now: datetime,
) -> Sequence[EndedSession]:
    """End sessions of locked users, and record the ends of those that were open. Return all of them.

    `statement` was made by `_ending`, and `parameters` are those of its selection. `app_id` is the app that the
    events name.
    """
    ended = await transaction.rows(statement, **parameters, reason=reason, now=now)
    were_open: defaultdict[UUID, list[UUID]] = defaultdict(list)
    for row in ended:
        if row.was_open:
            were_open[row.user_id].append(row.id)
    events = []
    for user_id, session_ids in were_open.items():
        session_ids.sort()  # PostgreSQL returns updated rows in any order
        for start in range(0, len(session_ids), MAX_SESSIONS_IN_EVENT):
            data = {"session_ids": session_ids[start : start + MAX_SESSIONS_IN_EVENT], "reason": reason}
            events.append(event(EventType.SESSION_ENDED, by=by, at=now, user_id=user_id, app_id=app_id, data=data))
    await record_events(transaction, events)
    return ended
