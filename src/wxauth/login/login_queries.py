"""A login in the database, which finds or creates the user and the identity, and opens a session.

The login of a returning user takes one statement, and so does that of a new one. All others (another name or picture, a
unionid that was unknown or has changed, another identity of a known user, an app with `max_sessions`) lock the user,
decide in Python, and write with small statements.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final, LiteralString
from uuid import UUID

from pydantic_core import to_json

from wxauth.core.batching import Batched
from wxauth.core.clock import new_id
from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.metrics import Histogram
from wxauth.core.outages import CONFLICTS, NothingCommitted, is_refusal, reason_of
from wxauth.core.retrying import ChangedMeanwhile, retrying
from wxauth.core.statements import Nothing, Statement, fragment
from wxauth.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.core.users import MAY_LOG_IN, USER, USER_IN_SESSION, UserInSession
from wxauth.errors import RateLimited, SignUpClosed, SnapshotUser
from wxauth.merging.merging import correct_imported, link_unionid
from wxauth.merging.merging_queries import ARE_SPLIT, HOLD_UNIONID, PEOPLE, People
from wxauth.sessions.queries import END_OLDEST, EndReason, end_by
from wxauth.users.erasure_queries import stay
from wxauth.users.user_queries import change_profile_of

DATABASE_SECONDS: Final = Histogram(
    "wxauth_database_seconds",
    "Duration of storing a login in the database.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)

log = get_logger()


class EnteredUser(UserInSession):
    """A user who has logged in, or whose login was refused."""

    banned_until: datetime | None


_OF_LOGINS: Final = "users.banned_until"
_ENTERED: Final = f"{USER_IN_SESSION}, {_OF_LOGINS}"
_MAY_ENTER: Final = "status = 'active' AND erase_at IS NULL"
"""The condition `MAY_LOG_IN`, for the columns that a statement returns."""
_OPEN_FRAGMENT: Final = """
    INSERT INTO sessions
           (id, user_id, app_id, openid, session_key, ip, user_agent, created_at, last_used_at, expires_at)
    SELECT :session_id, id, :app_id, :openid, :session_key, :ip::text::inet, :user_agent,
           :now::timestamptz, :now, :now + make_interval(secs => :expires_in)"""
_TYPES: Final[Mapping[str, LiteralString]] = {
    "app_id": "text",
    "openid": "text",
    "unionid": "text",
    "nickname": "text",
    "avatar_url": "text",
    "ip": "text",
    "user_agent": "text",
    "session_id": "uuid",
    "session_key": "bytea",
    "expires_in": "int",
    "now": "timestamptz",
}
# This is true if an imported identity of the app has the person's unionid in place of an openid.
_IS_MISNAMED: Final = """EXISTS (SELECT FROM identities misnamed
                      WHERE misnamed.app_id = :app_id AND misnamed.openid = :unionid AND misnamed.awaits_login)"""
_IS_KNOWN: Final = "EXISTS (SELECT FROM identities i WHERE i.app_id = :app_id AND i.openid = :openid)"
_IS_RETURNING: Final = """i.app_id = :app_id AND i.openid = :openid AND users.id = i.user_id AND NOT i.awaits_login
       AND (:unionid::text IS NULL OR i.unionid = :unionid OR (i.unionid IS NULL AND users.unionid = :unionid))
       AND (users.status <> 'active' OR users.erase_at IS NOT NULL
            OR (:nickname::text IS NULL OR users.nickname = :nickname)
               AND (:avatar_url::text IS NULL OR users.avatar_url = :avatar_url))
       AND users.identity_lost_at IS NULL"""


def _returning_fragment(source: LiteralString, number: LiteralString = "", asked: LiteralString = "") -> LiteralString:
    return f"""person AS (
    UPDATE users
       SET last_login_at = CASE WHEN {MAY_LOG_IN} THEN :now ELSE users.last_login_at END
      FROM {source}
    RETURNING {number}{_ENTERED}
), opened AS ({_OPEN_FRAGMENT}
      FROM person{asked} WHERE {_MAY_ENTER} AND :session_id::uuid IS NOT NULL
    ON CONFLICT (id) DO NOTHING
)"""


# This statement is for a known identity whose unionid, nickname and picture are those already stored. Most
# mini-programs send name and picture with each login. It records the login in the user's row, and opens a session. It
# does not find an imported identity that has never logged in. It returns a user who is banned or about to be erased
# unchanged, and opens no session.
#
# The caller creates the session's id, so that a statement that is sent twice opens one session. Only the user's row is
# locked, because a lock on the identity's row would write another page. After waiting for that lock, the statement
# still sees the identity's row as it was before the wait. `identity_lost_at` is in the locked row and cannot be stale.
# If it is set, the statement finds nothing, so the user is locked first. No statement runs for an hour, so a login
# after that clears the column.
#
# Several logins in a batch wait for nobody's lock. Of several logins of one user, UPDATE takes one. The others are left
# out, and so are users whom another transaction has locked. A login with an unknown identity gets a row of nulls.
_RETURN: Final = Batched[EnteredUser](
    "returning_login",
    f"WITH {_returning_fragment(f'identities i WHERE {_IS_RETURNING}')} SELECT * FROM person",
    f""", locked AS (
    SELECT asked.*, users.id AS user_id FROM asked, identities i, users
     WHERE {_IS_RETURNING} FOR NO KEY UPDATE OF users SKIP LOCKED
), {_returning_fragment("locked AS asked WHERE users.id = asked.user_id", "asked.n, ", " JOIN asked USING (n)")}
SELECT * FROM person RIGHT JOIN (
    SELECT n FROM asked WHERE n IN (SELECT n FROM person)
        OR NOT {_IS_KNOWN}) AS answered USING (n)
""",
    **_TYPES,
)


def _signing_up_fragment(source: LiteralString = "", asked: LiteralString = "") -> LiteralString:
    return f"""holder AS (
    INSERT INTO unionids (unionid, user_id)
    SELECT :unionid, :new_user_id{source}
     WHERE :unionid::text IS NOT NULL AND NOT {_IS_KNOWN} AND NOT {_IS_MISNAMED}
    ON CONFLICT DO NOTHING
    RETURNING user_id
), person AS (
    INSERT INTO users (id, unionid, nickname, avatar_url, roles, created_at, last_login_at, external_id, attributes)
    SELECT :new_user_id::uuid, :unionid::text, :nickname::text, :avatar_url::text,
           string_to_array(:roles::text, ' '), :now::timestamptz, :now,
           CASE WHEN NOT EXISTS (SELECT FROM users WHERE external_id = :external_id)
                     AND NOT EXISTS (SELECT FROM former_external_ids WHERE external_id = :external_id)
                THEN :external_id::text END,
           :attributes::text::jsonb{source}
     WHERE CASE WHEN :unionid::text IS NULL THEN NOT {_IS_KNOWN}
                ELSE EXISTS (SELECT FROM holder WHERE user_id = :new_user_id) END
    RETURNING {USER}, {_OF_LOGINS}
), identity AS (
    INSERT INTO identities (app_id, openid, user_id, created_at, unionid)
    SELECT :app_id, :openid, id, :now, :unionid FROM person{asked}
), event AS (
    INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
    SELECT :event_id, '{fragment(EventType.USER_CREATED.value)}', :now, id::text, id, :app_id, :ip::text::inet,
           :created_data::text::jsonb
      FROM person{asked}
), opened AS ({_OPEN_FRAGMENT}
      FROM person{asked} WHERE :session_id::uuid IS NOT NULL
)"""


_SIGNED_UP: Final = "person.*, :app_id::text AS app_id, :openid::text AS openid"
# This statement is for an unknown identity with an unknown unionid, or none. It creates a user. The row of the unionid
# is written first, and decides the race of two such logins: the second one waits for the first one's row, and creates
# no user. Without a unionid, the second one violates the identity's primary key. An external id that another user has,
# or had, is left out. If two new users get the same one at once, the unique index lets one succeed.
#
# Several logins in a batch wait for such a row for 20 ms, and are then all run alone. Of several logins of one
# identity, the first one counts. A login with a unionid that another user has gets a row of nulls.
_SIGN_UP: Final = Batched[EnteredUser](
    "sign_up",
    f"WITH {_signing_up_fragment()} SELECT {_SIGNED_UP} FROM person",
    f""", fresh AS (
    SELECT DISTINCT ON (app_id, openid) asked.*
      FROM asked, (SELECT set_config('lock_timeout', '20ms', true)) AS impatient ORDER BY app_id, openid, n
), {_signing_up_fragment(" FROM fresh AS asked", " JOIN asked ON :new_user_id = id")}
SELECT asked.n, {_SIGNED_UP} FROM asked LEFT JOIN person ON :new_user_id = id
 WHERE id IS NOT NULL OR EXISTS (SELECT FROM unionids WHERE unionids.unionid = :unionid)
""",
    **_TYPES,
    new_user_id="uuid",
    roles="text",
    external_id="text",
    attributes="text",
    event_id="uuid",
    created_data="text",
)

# The user is locked before the unionid and the identity, as in a merge and an erasure, to avoid deadlocks.
_LOCK: Final = Statement[EnteredUser](f"SELECT {_ENTERED} FROM users WHERE id = :user_id FOR NO KEY UPDATE")
_ADD_IDENTITY: Final = Statement[Nothing]("""
INSERT INTO identities (app_id, openid, user_id, created_at, unionid)
VALUES (:app_id, :openid, :user_id, :now, :unionid)
""")
# If nothing is new, nothing is written.
_USE_IDENTITY: Final = Statement[Nothing]("""
UPDATE identities SET unionid = COALESCE(:unionid, unionid), awaits_login = false
 WHERE app_id = :app_id AND openid = :openid AND (awaits_login OR unionid IS DISTINCT FROM COALESCE(:unionid, unionid))
""")
_RECORD: Final = Statement[EnteredUser](f"""
UPDATE users
   SET last_login_at = CASE WHEN {MAY_LOG_IN} THEN :now ELSE last_login_at END, unionid = COALESCE(:unionid, unionid),
       identity_lost_at = CASE WHEN identity_lost_at > now() - interval '1 hour' THEN identity_lost_at END
 WHERE id = :user_id
RETURNING {_ENTERED}
""")
_OPEN: Final = Statement[Nothing](f"{_OPEN_FRAGMENT} FROM users WHERE id = :user_id ON CONFLICT (id) DO NOTHING")


# This is true if an identity belongs to another of the user's WeChat accounts than :unionid does. WeChat has one openid
# for each account and app, so this identity must have another unionid, or none that is known. In the latter case,
# neither of the two openids may be a snapshot's. Also, :unionid must not be an earlier unionid of the same account: the
# user was merged from several, or has it in another app.
_IS_OF_ANOTHER_ACCOUNT: Final = """
       (other.unionid <> :unionid OR other.unionid IS NULL AND NOT :may_be_snapshot)
   AND (EXISTS (SELECT FROM former_users WHERE former_users.user_id = other.user_id)
        OR other.unionid IS NOT NULL
           AND EXISTS (SELECT FROM identities it WHERE it.user_id = other.user_id AND it.unionid = :unionid))"""
# This finds a row if another openid of the app has the unionid, which a unique index forbids, or if the unionid belongs
# to another user who has another openid of the app, unless that openid belongs to another account.
_IS_ANOTHERS: Final = Statement[int](f"""
SELECT 1 FROM identities WHERE app_id = :app_id AND openid <> :openid AND unionid = :unionid
 UNION ALL
SELECT 1 FROM unionids JOIN identities other USING (user_id)
 WHERE unionids.unionid = :unionid AND other.app_id = :app_id AND other.openid <> :openid
   AND ({_IS_OF_ANOTHER_ACCOUNT}) IS NOT TRUE
   AND NOT EXISTS (SELECT FROM identities own
                    WHERE own.app_id = :app_id AND own.openid = :openid AND own.user_id = other.user_id)
 LIMIT 1
""")
_BANNED_HOLDER: Final = Statement[EnteredUser](f"""
SELECT {_ENTERED}
  FROM unionids JOIN users ON users.id = unionids.user_id
 WHERE unionids.unionid = :unionid AND users.status = 'disabled'
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialFields:
    """The initial fields of a new user, in addition to those from WeChat and the settings."""

    external_id: str | None = None
    """The external id, which is left out if another user has it, or had it."""
    roles: Sequence[str] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    nickname: str | None = None
    """The nickname, which is only used if the request has none."""
    is_unasked: bool = False
    """Whether the user signs up although the operator's service was not asked."""


@dataclass(kw_only=True)  # it has no slots because `vars` is used, and frozen it would take 1.3 µs more
class Login:
    """A login to store. Its fields are parameters of the statements."""

    app_id: str
    openid: str
    unionid: str | None = None
    nickname: str | None = None
    avatar_url: str | None = None
    session_key: bytes | None = None
    """WeChat's session_key, sealed; None if the app is not a mini-program."""
    ip: str | None = None
    user_agent: str | None = None
    expires_in: int | None
    """The seconds until the session expires if it is not used. None means that no session is opened."""
    may_sign_up: bool
    roles: Sequence[str] = ()
    """The roles of a new user."""
    initial: InitialFields = InitialFields()
    """The other initial fields of a new user."""
    max_sessions: int | None = None
    """The number of the identity's sessions that stay open, including the new one; None for no limit."""
    stays: bool = False
    """Whether the login cancels the user's request for erasure."""
    may_be_snapshot: bool = False
    """Whether WeChat may return the user of a snapshot here.

    In that case, a unionid that belongs to another openid is a sign of one.
    """

    @property
    def profile(self) -> dict[str, str]:
        """The nickname and picture that the request gives."""
        given = {"nickname": self.nickname, "avatar_url": self.avatar_url}
        return {name: value for name, value in given.items() if value is not None}

    @property
    def identity(self) -> dict[str, Any]:
        """The identity and its unionid."""
        return {"app_id": self.app_id, "openid": self.openid, "unionid": self.unionid}


@dataclass(slots=True, kw_only=True)
class LoggedIn:
    """A stored login. If its user is banned or about to be erased, no session was opened."""

    session_id: UUID
    """The id of the session, unless none was requested."""
    is_new: bool
    user: EnteredUser
    ignored_fields: Sequence[str]
    """The profile fields that were not stored, because the user has changed the profile too often.
    """
    milliseconds: float
    """The time that storing the login took, in milliseconds."""


async def record_login(database: Database, login: Login, *, now: datetime) -> LoggedIn:
    """Find or create the user, and open a session. A returning user takes one statement.

    Of concurrent first logins, one succeeds by the unique constraints. The others are rolled back or find no row, try
    again, and find the user of the first. If the unionid belongs to another user, the two users are merged first.
    Nothing is stored about an unknown person who may not sign up.

    WeChat has one openid for each account and app. Therefore the unionid is ignored if it would join the identity to a
    user who has another openid of this app, because they are different people. If one of the two may be invented by
    WeChat, nothing is stored. Two accounts of one person, whose users were merged, may have an openid each. The unionid
    is also ignored if its user was split from this one. But if its user is banned, the login counts as that user's, and
    is refused.

    If an imported identity has the unionid in place of an openid, it is corrected first.

    Raises: SignUpClosed, SnapshotUser, AccountDisabled, AccountLeaving.
    """
    ids = _Ids(now)
    with DATABASE_SECONDS.time() as storing:
        try:
            user = await _log_in(database, login, ids)
        except _UnionidConflict as exc:
            user = await _log_in_without_unionid(database, login, ids, exc)
    return LoggedIn(
        session_id=ids.session,
        is_new=user.id == ids.new_user,
        user=user,
        ignored_fields=[name for name, value in login.profile.items() if value != getattr(user, name)],
        milliseconds=storing.milliseconds,
    )


class _Undone(Exception):
    """The signal that rolls back a trial login."""


async def rehearse_login(database: Database, *, now: datetime) -> str | None:
    """Sign a test user up and log it in again, and roll both back, to see whether the database accepts logins.

    Returns the database's reason if it refuses them, and None if it does not.

    Raises: StorageUnavailable, for a failure that passes, such as a lock or a failover.
    """
    nobody = f"rehearsal-{new_id(now).hex}"
    login = Login(app_id="rehearsal", openid=nobody, unionid=nobody, expires_in=1, may_sign_up=True)
    try:
        async with database.begin() as transaction:
            await transaction.row(_SIGN_UP, **_values(_SIGN_UP, login, _Ids(now)))
            await transaction.row(_RETURN, **_values(_RETURN, login, _Ids(now)))
            raise _Undone
    except _Undone:
        return None
    except Exception as exc:
        if is_refusal(exc):
            return reason_of(exc)
        raise


class _Ids:
    """The time and the ids of a login's rows, which stay the same if the login is tried again.

    The ids of its events may differ.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.session = new_id(now)
        self.new_user: UUID | None = None
        """The id of the new user; None until a user is to be created."""


class _UnionidConflict(Exception):
    """The unionid cannot belong to this identity. The text is the reason."""


class _OfAnotherOpenid(_UnionidConflict):
    """Another openid of the app has the unionid, or one of the two openids belongs to a snapshot."""


@retrying(conflicts=(*CONFLICTS, NothingCommitted))
async def _log_in(database: Database, login: Login, ids: _Ids) -> EnteredUser:
    """Log in with the first statement that fits, and otherwise under the user's lock.

    Raises: SignUpClosed, AccountDisabled, AccountLeaving, _UnionidConflict.
    """
    user: EnteredUser | None = None
    if login.max_sessions is None:
        user = await database.row(_RETURN, **_values(_RETURN, login, ids))
    if user is None and login.may_sign_up:
        user = await database.row(_SIGN_UP, **_values(_SIGN_UP, login, ids))
    if user is None:
        user = await _log_in_under_lock(database, login, ids)
    if login.stays and user.status == "active" and user.erase_at is not None:
        await stay(database, user.id, now=ids.now)
        raise ChangedMeanwhile
    return user


async def _log_in_without_unionid(
    database: Database, login: Login, ids: _Ids, conflict: _UnionidConflict
) -> EnteredUser:
    """Log in to the identity alone, because its unionid cannot be right, unless the unionid's user is banned.

    Raises: SnapshotUser, SignUpClosed.
    """
    # An ignored unionid must not help a user to evade a ban.
    banned = await database.row(_BANNED_HOLDER, **_values(_BANNED_HOLDER, login, ids))
    if banned is not None:
        return banned
    if login.may_be_snapshot and isinstance(conflict, _OfAnotherOpenid):
        raise SnapshotUser("another openid of this app has the unionid") from None
    log.error("unionid_ignored", app_id=login.app_id, reason=str(conflict))
    return await _log_in(database, replace(login, unionid=None), ids)


async def _log_in_under_lock(database: Database, login: Login, ids: _Ids) -> EnteredUser:
    """Log in with small statements under the user's lock.

    Raises: SignUpClosed, AccountDisabled, AccountLeaving, _UnionidConflict; ChangedMeanwhile, also if it has merged two
    users or corrected the identity, so that another statement fits now.
    """
    people = await database.one(PEOPLE, **login.identity)
    if people.misnamed_id is not None:
        await correct_imported(database, **login.identity, stays=login.stays, now=ids.now)
        raise ChangedMeanwhile
    if people == People(None, None):
        if not login.may_sign_up:
            raise SignUpClosed("sign-up is closed for this app")
        # Another request has created or erased the user in the meantime.
        raise ChangedMeanwhile
    if people.two is not None:
        await _check_unionid(database, login, people)
        await link_unionid(database, **login.identity, stays=login.stays, now=ids.now)
        raise ChangedMeanwhile
    async with database.begin() as transaction:
        return await _enter(transaction, login, ids, people)


async def _enter(transaction: Transaction, login: Login, ids: _Ids, people: People) -> EnteredUser:
    """Log in to the user of a known identity, or of a known unionid, under the user's lock.

    An unknown identity is added to the unionid's user, unless that user is about to be erased.

    Raises: ChangedMeanwhile, if the identity or the unionid has another user now; _UnionidConflict. Nothing is written
    before.
    """
    now = ids.now
    user = await transaction.row(_LOCK, **_values(_LOCK, login, ids, people.user_id or people.holder_id))
    if user is None or await transaction.one(PEOPLE, **login.identity) != people:
        raise ChangedMeanwhile
    if login.unionid is not None:
        await _check_unionid(transaction, login, people)
        if people.holder_id is None:
            await transaction.run(HOLD_UNIONID, unionid=login.unionid, user_id=user.id)
    by = Actor(str(user.id), login.ip)
    if people.user_id is None and user.erase_at is None:
        await transaction.run(_ADD_IDENTITY, **login.identity, user_id=user.id, now=now)
        await record_event(transaction, EventType.IDENTITY_ADDED, by=by, at=now, user_id=user.id, app_id=login.app_id)
    else:
        await transaction.run(_USE_IDENTITY, **login.identity)
    may_enter = user.status == "active" and user.erase_at is None
    if may_enter:
        # A user who changes the profile too often logs in without the change.
        with suppress(RateLimited):
            await change_profile_of(transaction, user, login.profile, ip=login.ip, now=now)
    entered = await transaction.one(_RECORD, **_values(_RECORD, login, ids, user.id))
    if may_enter and login.expires_in is not None:
        await transaction.row(_OPEN, **_values(_OPEN, login, ids, user.id))
        if login.max_sessions is not None:
            own = {"user_id": user.id, "app_id": login.app_id, "openid": login.openid}
            which, reason = {**own, "opened": ids.session, "at_most": login.max_sessions}, EndReason.REPLACED
            await end_by(transaction, END_OLDEST, which, reason=reason, by=SYSTEM, app_id=login.app_id, now=now)
    return entered


async def _check_unionid(asked: Database | Transaction, login: Login, people: People) -> None:
    """Check that the unionid may belong to the identity. Raises: _UnionidConflict."""
    if await asked.value(_IS_ANOTHERS, **login.identity, may_be_snapshot=login.may_be_snapshot) is not None:
        raise _OfAnotherOpenid("another openid of this app has it")
    if people.two is not None:
        one_id, other_id = people.two
        if await asked.value(ARE_SPLIT, one_id=one_id, other_id=other_id):
            raise _UnionidConflict("an administrator has split its user and this one")


def _values(statement: Statement[Any], login: Login, ids: _Ids, user_id: UUID | None = None) -> dict[str, Any]:
    """Return the values that a statement needs for a login."""
    session_id = None if login.expires_in is None else ids.session
    values = {**vars(login), "user_id": user_id, "session_id": session_id, "now": ids.now}
    if statement is _SIGN_UP:
        initial = login.initial
        ids.new_user = ids.new_user or new_id(ids.now)
        data = {"roles": login.roles} if login.roles else {}
        values |= {
            "nickname": login.nickname or initial.nickname,
            "new_user_id": ids.new_user,
            "external_id": initial.external_id,
            "roles": " ".join(login.roles),
            "attributes": to_json(initial.attributes).decode() if initial.attributes else None,
            "event_id": new_id(ids.now),
            "created_data": to_json(data | ({"hook": "not_asked"} if initial.is_unasked else {})).decode(),
        }
    return {name: values[name] for name in statement.names}
