"""The statements of a login, which find or create the user and the identity, and open a session.

The login of most returning users takes one statement, `RETURNING_LOGIN`, and that of a new user a second one,
`SIGN_UP`. Each has a form for several logins at once (see `core.statements`). All other logins lock the user,
decide in Python, and write with small statements.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from time import perf_counter
from typing import Any, Final, LiteralString
from uuid import UUID

from pydantic_core import to_json

from wxauth.core.clock import new_id
from wxauth.core.database import ChangedMeanwhile, Database, Transaction, retrying
from wxauth.core.logs import get_logger
from wxauth.core.metrics import Histogram
from wxauth.core.outages import CONFLICTS, NothingCommitted, is_refusal, reason_of
from wxauth.core.statements import Batched, Nothing, Statement, fragment
from wxauth.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.core.users import MAY_LOG_IN, USER, USER_IN_SESSION, UserInSession
from wxauth.errors import RateLimited, SignUpClosed, SnapshotUser
from wxauth.merging.merging import correct_imported_identity, link_unionid
from wxauth.merging.unionid_queries import ADD_UNIONID, PEOPLE, OfAnotherOpenid, People, UnionidConflict, check_unionid
from wxauth.sessions.queries import END_OLDER_SESSIONS_OF_IDENTITY, EndReason, end_selected
from wxauth.users.erasure_queries import cancel_erasure_at_login
from wxauth.users.user_queries import change_profile_of

DATABASE_SECONDS: Final = Histogram(
    "wxauth_database_seconds",
    "Duration of storing a login in the database.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)

log = get_logger()


class UserAtLogin(UserInSession):
    """The user of a login, who may be banned or about to be erased."""

    banned_until: datetime | None


_BAN_COLUMN: Final = "users.banned_until"
_USER_AT_LOGIN: Final = f"{USER_IN_SESSION}, {_BAN_COLUMN}"
_FOUND_USER_MAY_LOG_IN: Final = MAY_LOG_IN.replace("users.", "found_user.")
# The fragment ends before FROM, because each statement selects the user's row differently.
_OPEN_FRAGMENT: Final = """
    INSERT INTO sessions
           (id, user_id, app_id, openid, session_key, ip, user_agent, created_at, last_used_at, expires_at)
    SELECT :session_id, id, :app_id, :openid, :session_key, :ip::text::inet, :user_agent,
           :now::timestamptz, :now, :now + make_interval(secs => :expires_in)"""
# Addresses and JSON are text that PostgreSQL casts. Otherwise, asyncpg would parse each address, and the codec for
# jsonb in `core/connecting.py` would serialize JSON again.
_COMMON_TYPES: Final[Mapping[str, LiteralString]] = {
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
# The condition is true if an imported identity of the app has the person's unionid in place of an openid.
# `awaits_login` means that nobody has logged in with the identity since the import.
_IS_MISNAMED: Final = """EXISTS (SELECT FROM identities misnamed
                      WHERE misnamed.app_id = :app_id AND misnamed.openid = :unionid AND misnamed.awaits_login)"""
_IS_KNOWN: Final = "EXISTS (SELECT FROM identities i WHERE i.app_id = :app_id AND i.openid = :openid)"
# The condition selects the user of a login that `RETURNING_LOGIN` serves.
_IS_RETURNING: Final = f"""i.app_id = :app_id AND i.openid = :openid AND users.id = i.user_id AND NOT i.awaits_login
       AND (:unionid::text IS NULL OR i.unionid = :unionid
            -- only one identity of the app can store the unionid
            OR (i.unionid IS NULL AND users.unionid = :unionid
                AND EXISTS (SELECT FROM identities other WHERE other.app_id = :app_id AND other.unionid = :unionid)))
       -- unchanged logins only: most mini-programs send the stored profile with each login
       AND (NOT ({MAY_LOG_IN})
            OR ((:nickname::text IS NULL OR users.nickname = :nickname)
                AND (:avatar_url::text IS NULL OR users.avatar_url = :avatar_url)))
       -- read again after waiting for a lock
       AND users.identity_lost_at IS NULL"""


def _returning_fragment(
    source: LiteralString, number: LiteralString = "", join_asked: LiteralString = ""
) -> LiteralString:
    """For several logins, `source` contains the table `asked`, and `number` is the column `n` and a comma."""
    return f"""found_user AS (
    UPDATE users
       SET last_login_at = CASE WHEN {MAY_LOG_IN} THEN :now ELSE users.last_login_at END
      FROM {source}
    RETURNING {number}{_USER_AT_LOGIN}
), opened AS ({_OPEN_FRAGMENT}
      FROM found_user{join_asked} WHERE {_FOUND_USER_MAY_LOG_IN} AND :session_id::uuid IS NOT NULL
    -- the statement may be sent twice
    ON CONFLICT (id) DO NOTHING
)"""


# The statement serves a known identity with unchanged data. A lock on the identity's row would write another page, so
# only the user's row is locked. A waiting statement can't see that its identity was taken away meanwhile, or that an
# import requires a check of the next login. Both set `identity_lost_at`, and then `_log_in_stepwise` serves the user's
# logins.
RETURNING_LOGIN: Final = Batched[UserAtLogin](
    "returning_login",
    f"WITH {_returning_fragment(f'identities i WHERE {_IS_RETURNING}')} SELECT * FROM found_user",
    f""", locked AS (
    SELECT asked.*, users.id AS user_id FROM asked, identities i, users
     -- a login whose user another transaction has locked runs alone, and so do all but one of several logins of a user
     WHERE {_IS_RETURNING} FOR NO KEY UPDATE OF users SKIP LOCKED
), {_returning_fragment("locked AS asked WHERE users.id = asked.user_id", "asked.n, ", " JOIN asked USING (n)")}
SELECT * FROM found_user RIGHT JOIN (
    SELECT n FROM asked WHERE n IN (SELECT n FROM found_user)
        -- a row of nulls, which counts as no row
        OR NOT {_IS_KNOWN}) AS answered USING (n)
""",
    **_COMMON_TYPES,
)


def _signing_up_fragment(source: LiteralString = "", join_asked: LiteralString = "") -> LiteralString:
    """For several logins, `source` and `join_asked` name the table `asked`."""
    return f"""holder AS (
    -- first, so that a second login with this unionid waits for the row, and then creates no user
    INSERT INTO unionids (unionid, user_id)
    SELECT :unionid, :new_user_id{source}
     WHERE :unionid::text IS NOT NULL AND NOT {_IS_KNOWN}
       -- `_log_in_stepwise` corrects an imported identity that has the unionid in place of an openid
       AND NOT {_IS_MISNAMED}
    ON CONFLICT DO NOTHING
    RETURNING user_id
), new_user AS (
    INSERT INTO users (id, unionid, nickname, avatar_url, roles, created_at, last_login_at, external_id, attributes)
    SELECT :new_user_id::uuid, :unionid::text, :nickname::text, :avatar_url::text,
           string_to_array(:roles::text, ' '), :now::timestamptz, :now,
           -- if two new users get it at the same time, the unique index lets only one login succeed
           CASE WHEN NOT EXISTS (SELECT FROM users WHERE external_id = :external_id)
                     AND NOT EXISTS (SELECT FROM former_external_ids WHERE external_id = :external_id)
                THEN :external_id::text END,
           :attributes::text::jsonb{source}
     WHERE CASE WHEN :unionid::text IS NULL THEN NOT {_IS_KNOWN}
                ELSE EXISTS (SELECT FROM holder WHERE user_id = :new_user_id) END
    RETURNING {USER}, {_BAN_COLUMN}
), identity AS (
    INSERT INTO identities (app_id, openid, user_id, created_at, unionid)
    SELECT :app_id, :openid, id, :now, :unionid FROM new_user{join_asked}
), event AS (
    INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
    SELECT :event_id, '{fragment(EventType.USER_CREATED.value)}', :now, id::text, id, :app_id, :ip::text::inet,
           :created_data::text::jsonb
      FROM new_user{join_asked}
), opened AS ({_OPEN_FRAGMENT}
      FROM new_user{join_asked} WHERE :session_id::uuid IS NOT NULL
)"""


_NEW_USER_COLUMNS: Final = "new_user.*, :app_id::text AS app_id, :openid::text AS openid"
# The statement serves an unknown identity with an unknown unionid, or without one. If two logins of one identity
# without a unionid run at the same time, the second violates the primary key of identities.
SIGN_UP: Final = Batched[UserAtLogin](
    "sign_up",
    f"WITH {_signing_up_fragment()} SELECT {_NEW_USER_COLUMNS} FROM new_user",
    f""", one_of_each_identity AS (
    -- the other logins of an identity run alone. So do all logins of a batch that waits for another transaction for
    -- 20 ms, which most logins don't take, and which delays the rest of the batch only a little
    SELECT DISTINCT ON (app_id, openid) asked.*
      FROM asked, (SELECT set_config('lock_timeout', '20ms', true)) AS impatient ORDER BY app_id, openid, n
), {_signing_up_fragment(" FROM one_of_each_identity AS asked", " JOIN asked ON :new_user_id = id")}
SELECT asked.n, {_NEW_USER_COLUMNS} FROM asked LEFT JOIN new_user ON :new_user_id = id
 -- a row of nulls, which counts as no row, if the unionid belongs to another user
 WHERE id IS NOT NULL OR EXISTS (SELECT FROM unionids WHERE unionids.unionid = :unionid)
""",
    **_COMMON_TYPES,
    new_user_id="uuid",
    roles="text",
    external_id="text",
    attributes="text",
    event_id="uuid",
    created_data="text",
)
# To avoid deadlocks, a login locks the user before it writes the unionid and the identity, as merges and erasures do.
_LOCK: Final = Statement[UserAtLogin](f"SELECT {_USER_AT_LOGIN} FROM users WHERE id = :user_id FOR NO KEY UPDATE")
_ADD_IDENTITY: Final = Statement[Nothing]("""
INSERT INTO identities (app_id, openid, user_id, created_at, unionid)
VALUES (:app_id, :openid, :user_id, :now, :unionid)
""")
# The statement stores the unionid, unless WeChat has returned none. It also clears `awaits_login`, which marks an
# imported identity that has not been used yet. If nothing changes, it writes no new version of the row.
_USE_IDENTITY: Final = Statement[Nothing]("""
UPDATE identities SET unionid = COALESCE(:unionid, unionid), awaits_login = false
 WHERE app_id = :app_id AND openid = :openid AND (awaits_login OR unionid IS DISTINCT FROM COALESCE(:unionid, unionid))
""")
_RECORD_LOGIN: Final = Statement[UserAtLogin](f"""
UPDATE users
   SET last_login_at = CASE WHEN {MAY_LOG_IN} THEN :now ELSE last_login_at END, unionid = COALESCE(:unionid, unionid),
       -- an hour later, no older `RETURNING_LOGIN` still waits
       identity_lost_at = CASE WHEN identity_lost_at > now() - interval '1 hour' THEN identity_lost_at END
 WHERE id = :user_id
RETURNING {_USER_AT_LOGIN}
""")
# The statement opens only one session, even if wxauth sends the statement twice.
_OPEN_SESSION: Final = Statement[Nothing](
    f"{_OPEN_FRAGMENT} FROM users WHERE id = :user_id ON CONFLICT (id) DO NOTHING"
)
# The query returns the unionid's user if that user is banned.
_BANNED_HOLDER: Final = Statement[UserAtLogin](f"""
SELECT {_USER_AT_LOGIN}
  FROM unionids JOIN users ON users.id = unionids.user_id
 WHERE unionids.unionid = :unionid AND users.status = 'disabled'
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialFields:
    external_id: str | None = None  # left out if another user has it now, or had it before
    roles: Sequence[str] = ()  # read only from `Login.roles`, to which `log_in_identity` adds them
    attributes: Mapping[str, Any] = field(default_factory=dict)
    nickname: str | None = None  # unless the request contains one
    # The hook has returned no usable response, and the user may sign up nevertheless.
    is_undecided: bool = False


@dataclass(slots=True, kw_only=True)  # not frozen, which saves 1.3 µs
class Login:
    """A login to store. The fields from `may_sign_up` on are the rules of the app, which `log_in_identity` sets."""

    app_id: str
    openid: str
    unionid: str | None = None
    nickname: str | None = None
    avatar_url: str | None = None
    # The session_key is sealed. It is None if WeChat has returned none, as for an app that is not a mini-program.
    session_key: bytes | None = None
    ip: str | None = None
    user_agent: str | None = None
    expires_in: int | None  # seconds; None to open no session
    cancels_erasure: bool = False
    may_sign_up: bool = False
    roles: Sequence[str] = ()  # of a new user, including those from the sign-up hook
    initial: InitialFields = InitialFields()
    max_sessions: int | None = None  # of the identity, including the new one
    may_be_snapshot: bool = False  # if the unionid already belongs to another openid of the app

    @property
    def profile(self) -> dict[str, str]:
        """The nickname and the picture's URL, if the request contains them."""
        fields = {"nickname": self.nickname, "avatar_url": self.avatar_url}
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def identity(self) -> dict[str, Any]:
        """The identity and its unionid, as the parameters of statements."""
        return {"app_id": self.app_id, "openid": self.openid, "unionid": self.unionid}


@dataclass(slots=True, kw_only=True)
class LoggedIn:
    """A stored login. It has opened no session if the user may not log in, or if `Login.expires_in` is None."""

    session_id: UUID  # of no session, if none was opened
    is_new: bool
    user: UserAtLogin
    ignored_fields: Sequence[str]  # because the user has changed the profile too often, or may not log in
    milliseconds: float  # that storing the login took


@dataclass(slots=True)
class _Fixed:
    """All attempts of a login use these values, so that together they open one session and create one user."""

    now: datetime
    session_id: UUID
    new_user_id: UUID | None = None  # not drawn for a login that creates no user

    def drawn_user_id(self) -> UUID:
        if self.new_user_id is None:
            self.new_user_id = new_id(self.now)
        return self.new_user_id


async def record_login(database: Database, login: Login, *, now: datetime) -> LoggedIn:
    """Find or create the user of a login, and open a session unless the user is banned or about to be erased.

    Raises: SignUpClosed; SnapshotUser; AccountLeaving, if the login must merge two users, and one of them has asked to
        be erased; AccountDisabled, if one of these two is banned, too.
    """
    fixed = _Fixed(now, session_id=new_id(now))
    started = perf_counter()
    try:
        user = await _log_in(database, login, fixed)
    except UnionidConflict as exc:
        user = await _log_in_without_unionid(database, login, fixed, exc)
    finally:
        seconds = perf_counter() - started
        DATABASE_SECONDS.observe(seconds)
    return LoggedIn(
        session_id=fixed.session_id,
        is_new=user.id == fixed.new_user_id,
        user=user,
        ignored_fields=[
            name for name in ("nickname", "avatar_url") if getattr(login, name) not in (None, getattr(user, name))
        ],
        milliseconds=round(seconds * 1000, 1),
    )


class _Undone(Exception):
    """Rolls back the logins of `rehearse_login`."""


async def rehearse_login(database: Database, *, now: datetime) -> str | None:
    """Sign up a test user, log the user in again, and roll back both logins.

    Return the reason that the database gives if it refuses a statement.
    """
    unused_id = f"rehearsal-{new_id(now).hex}"
    login = Login(app_id="rehearsal", openid=unused_id, unionid=unused_id, expires_in=1, may_sign_up=True)
    try:
        async with database.begin() as transaction:
            await transaction.row(SIGN_UP, **_sign_up_values(login, _Fixed(now, session_id=new_id(now))))
            await transaction.row(RETURNING_LOGIN, **_values(login, _Fixed(now, session_id=new_id(now))))
            raise _Undone
    except _Undone:
        return None
    except Exception as exc:
        if is_refusal(exc):
            return reason_of(exc)
        raise


# Of several first logins of one person at the same time, the unique constraints let only one create the user. The
# others try again, and find that user.
@retrying(conflicts=(*CONFLICTS, NothingCommitted))
async def _log_in(database: Database, login: Login, fixed: _Fixed) -> UserAtLogin:
    user: UserAtLogin | None = None
    if login.max_sessions is None:  # `RETURNING_LOGIN` does not end older sessions
        user = await database.row(RETURNING_LOGIN, **_values(login, fixed))
    if user is None and login.may_sign_up:
        user = await database.row(SIGN_UP, **_sign_up_values(login, fixed))
    if user is None:
        user = await _log_in_stepwise(database, login, fixed)
    if login.cancels_erasure and user.status == "active" and user.erase_at is not None:
        await cancel_erasure_at_login(database, user.id, now=fixed.now)
        raise ChangedMeanwhile  # so that `retrying` logs the changed user in
    return user


async def _log_in_without_unionid(
    database: Database, login: Login, fixed: _Fixed, conflict: UnionidConflict
) -> UserAtLogin:
    # Without this check, a banned user could log in with a new identity whose unionid wxauth ignores.
    banned = await database.row(_BANNED_HOLDER, **login.identity)
    if banned is not None:
        return banned
    if login.may_be_snapshot and isinstance(conflict, OfAnotherOpenid):
        raise SnapshotUser("another openid of this app has the unionid") from None
    log.error("unionid_ignored", app_id=login.app_id, reason=str(conflict))
    return await _log_in(database, replace(login, unionid=None), fixed)


async def _log_in_stepwise(database: Database, login: Login, fixed: _Fixed) -> UserAtLogin:
    """If users must be merged or the identity corrected first, do only that, and raise ChangedMeanwhile."""
    people = await database.one(PEOPLE, **login.identity)
    if people.misnamed_user_id is not None:
        await correct_imported_identity(
            database, **login.identity, cancels_erasure=login.cancels_erasure, now=fixed.now
        )
        raise ChangedMeanwhile
    if people.user_id is None and people.holder_id is None:
        if not login.may_sign_up:
            raise SignUpClosed("sign-up is closed for this app")
        # Another request has created or erased the user in the meantime.
        raise ChangedMeanwhile
    if people.two_users is not None:
        await check_unionid(database, people, **login.identity, may_be_snapshot=login.may_be_snapshot)
        await link_unionid(database, **login.identity, cancels_erasure=login.cancels_erasure, now=fixed.now)
        raise ChangedMeanwhile
    async with database.begin() as transaction:
        return await _log_in_under_lock(transaction, login, fixed, people)


async def _log_in_under_lock(transaction: Transaction, login: Login, fixed: _Fixed, people: People) -> UserAtLogin:
    user = await transaction.row(
        _LOCK, app_id=login.app_id, openid=login.openid, user_id=people.user_id or people.holder_id
    )
    if user is None or await transaction.one(PEOPLE, **login.identity) != people:
        raise ChangedMeanwhile
    if login.unionid is not None:
        await check_unionid(transaction, people, **login.identity, may_be_snapshot=login.may_be_snapshot)
        if people.holder_id is None:
            await transaction.run(ADD_UNIONID, unionid=login.unionid, user_id=user.id)
    if people.user_id is None and user.erase_at is None:
        await _add_identity(transaction, login, user.id, now=fixed.now)
    else:
        # If the identity is unknown and the user is about to be erased, this statement finds no row.
        await transaction.run(_USE_IDENTITY, **login.identity)
    may_log_in = user.status == "active" and user.erase_at is None
    if may_log_in:
        # If the user changes the profile too often, log in without the change.
        with suppress(RateLimited):
            await change_profile_of(transaction, user, login.profile, ip=login.ip, now=fixed.now)
    updated = await transaction.one(_RECORD_LOGIN, **login.identity, user_id=user.id, now=fixed.now)
    if may_log_in and login.expires_in is not None:
        await _open_session(transaction, login, fixed, user.id)
    return updated


async def _add_identity(transaction: Transaction, login: Login, user_id: UUID, *, now: datetime) -> None:
    await transaction.run(_ADD_IDENTITY, **login.identity, user_id=user_id, now=now)
    by = Actor(str(user_id), login.ip)
    await record_event(transaction, EventType.IDENTITY_ADDED, by=by, at=now, user_id=user_id, app_id=login.app_id)


async def _open_session(transaction: Transaction, login: Login, fixed: _Fixed, user_id: UUID) -> None:
    values = {**_values(login, fixed), "user_id": user_id}
    await transaction.run(_OPEN_SESSION, **{name: values[name] for name in _OPEN_SESSION.names})
    if login.max_sessions is None:
        return
    selection = {
        "user_id": user_id,
        "app_id": login.app_id,
        "openid": login.openid,
        "opened": fixed.session_id,
        "at_most": login.max_sessions,
    }
    await end_selected(
        transaction,
        END_OLDER_SESSIONS_OF_IDENTITY,
        selection,
        reason=EndReason.REPLACED,
        by=SYSTEM,
        app_id=login.app_id,
        now=fixed.now,
    )


def _values(login: Login, fixed: _Fixed) -> dict[str, Any]:
    return {
        "app_id": login.app_id,
        "openid": login.openid,
        "unionid": login.unionid,
        "nickname": login.nickname,
        "avatar_url": login.avatar_url,
        "session_key": login.session_key,
        "ip": login.ip,
        "user_agent": login.user_agent,
        "expires_in": login.expires_in,
        "session_id": None if login.expires_in is None else fixed.session_id,
        "now": fixed.now,
    }


def _sign_up_values(login: Login, fixed: _Fixed) -> dict[str, Any]:
    initial = login.initial
    created_data: dict[str, object] = {"roles": login.roles} if login.roles else {}
    if initial.is_undecided:
        # This value is part of the published event, so it keeps its name, although the hook may have been asked.
        created_data["hook"] = "not_asked"
    return {
        **_values(login, fixed),
        "nickname": login.nickname or initial.nickname,
        "new_user_id": fixed.drawn_user_id(),
        "external_id": initial.external_id,
        "roles": " ".join(login.roles),
        "attributes": to_json(initial.attributes).decode() if initial.attributes else None,
        "event_id": new_id(fixed.now),
        "created_data": to_json(created_data).decode(),
    }
