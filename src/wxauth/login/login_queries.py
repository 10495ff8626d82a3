"""The statements of a login, which find or create the user and the identity, and open a session.

The login of most returning users takes one statement, `RETURNING_LOGIN`. The login of a new user takes a second one,
`SIGN_UP`. The module `batched_queries` contains both statements.

All other logins of known users lock the user, decide in Python, and write with small statements. Examples are
logins with a new nickname or picture, with a unionid that was unknown or has changed, with a new identity of a known
user, with an identity that was imported and has not been used since, or in an app with `max_sessions`.
"""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json

from wxauth.core.database import Database, Transaction
from wxauth.core.database_errors import CONFLICTS, NothingCommitted
from wxauth.core.ids import new_id
from wxauth.core.logs import get_logger
from wxauth.core.metrics import Histogram
from wxauth.core.outage_texts import reason_of
from wxauth.core.outages import is_refusal
from wxauth.core.retrying import ChangedMeanwhile, retrying
from wxauth.core.statements import Nothing, Statement
from wxauth.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.core.users import MAY_LOG_IN
from wxauth.errors import RateLimited, SignUpClosed, SnapshotUser
from wxauth.login import batched_queries
from wxauth.login.batched_queries import OPEN_FRAGMENT, USER_AT_LOGIN, UserAtLogin
from wxauth.merging.merging import correct_imported_identity, link_unionid
from wxauth.merging.unionid_queries import ADD_UNIONID, PEOPLE, OfAnotherOpenid, People, UnionidConflict, check_unionid
from wxauth.sessions.queries import END_BEYOND_IDENTITY, EndReason, end_selected
from wxauth.users.erasure_queries import cancel_erasure_at_login
from wxauth.users.user_queries import change_profile_of

DATABASE_SECONDS: Final = Histogram(
    "wxauth_database_seconds",
    "Duration of storing a login in the database.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10),
)

log = get_logger()

# To avoid deadlocks, a login locks the user before it writes the unionid and the identity, as merges and erasures do.
_LOCK: Final = Statement[UserAtLogin](f"SELECT {USER_AT_LOGIN} FROM users WHERE id = :user_id FOR NO KEY UPDATE")
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
# `identity_lost_at` is set when the user loses an identity, or when an import requires a check of the next login. While
# the column is set, `RETURNING_LOGIN` finds no row. At a login more than an hour later, this statement clears the
# column, so that `RETURNING_LOGIN` serves the next logins again.
_RECORD_LOGIN: Final = Statement[UserAtLogin](f"""
UPDATE users
   SET last_login_at = CASE WHEN {MAY_LOG_IN} THEN :now ELSE last_login_at END, unionid = COALESCE(:unionid, unionid),
       identity_lost_at = CASE WHEN identity_lost_at > now() - interval '1 hour' THEN identity_lost_at END
 WHERE id = :user_id
RETURNING {USER_AT_LOGIN}
""")
# The statement opens only one session, even if wxauth sends the statement twice.
_OPEN_SESSION: Final = Statement[Nothing](f"{OPEN_FRAGMENT} FROM users WHERE id = :user_id ON CONFLICT (id) DO NOTHING")
# The query returns the unionid's user if that user is banned.
_BANNED_HOLDER: Final = Statement[UserAtLogin](f"""
SELECT {USER_AT_LOGIN}
  FROM unionids JOIN users ON users.id = unionids.user_id
 WHERE unionids.unionid = :unionid AND users.status = 'disabled'
""")


@dataclass(frozen=True, slots=True, kw_only=True)
class InitialFields:
    """The initial fields that the sign-up hook has returned for a new user."""

    external_id: str | None = None
    """The external id. The sign-up leaves it out if another user has it now, or had it before."""
    roles: Sequence[str] = ()
    """The hook's roles. The sign-up reads only `Login.roles`, to which `CodeLogins` adds these roles."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    nickname: str | None = None
    """The nickname. The sign-up uses it only if the request contains no nickname."""
    is_undecided: bool = False
    """Whether the hook has returned no usable response, and the user may sign up nevertheless."""


@dataclass(kw_only=True)  # no slots, because `_values` calls `vars`; not frozen, which saves 1.3 µs
class Login:
    """A login to store. Many parameters of the statements have the names of its fields."""

    app_id: str
    openid: str
    unionid: str | None = None
    nickname: str | None = None
    avatar_url: str | None = None
    session_key: bytes | None = None
    """WeChat's session_key, sealed; None if WeChat has returned none, as for an app that is not a mini-program."""
    ip: str | None = None
    user_agent: str | None = None
    expires_in: int | None
    """The number of seconds after which an unused session expires; None to open no session."""
    may_sign_up: bool
    """Whether the login may create a user if the person is unknown."""
    roles: Sequence[str] = ()
    """All roles of a new user, including those from the sign-up hook."""
    initial: InitialFields = InitialFields()
    """The initial fields that the sign-up hook gives to a new user."""
    max_sessions: int | None = None
    """The largest number of open sessions of the identity, including the new one; None for no limit."""
    cancels_erasure: bool = False
    """Whether the login cancels the user's request for erasure."""
    may_be_snapshot: bool = False
    """Whether WeChat might return the made-up user of a snapshot for this app.

    If so, a unionid that already belongs to another openid is a sign of a snapshot.
    """

    @property
    def profile(self) -> dict[str, str]:
        """The nickname and the picture's URL, if the request contains them, by the names of the user's fields."""
        fields = {"nickname": self.nickname, "avatar_url": self.avatar_url}
        return {name: value for name, value in fields.items() if value is not None}

    @property
    def identity(self) -> dict[str, Any]:
        """The identity and its unionid, as the parameters of statements."""
        return {"app_id": self.app_id, "openid": self.openid, "unionid": self.unionid}


@dataclass(slots=True, kw_only=True)
class LoggedIn:
    """A stored login.

    It has opened no session if the user is banned or about to be erased, or if `Login.expires_in` is None.
    """

    session_id: UUID
    """The id of the session. If the login has opened no session, no session has this id."""
    is_new: bool
    """Whether the login has created the user."""
    user: UserAtLogin
    ignored_fields: Sequence[str]
    """The profile fields that the login has not stored.

    wxauth ignores them if the user has changed the profile too often, or is banned or about to be erased.
    """
    milliseconds: float
    """The time, in milliseconds, that it took to store the login."""


class _Fixed:
    """The time of a login, and the ids of its session and its new user.

    All attempts of the login use these values, so that together they open only one session and create only one user.
    """

    def __init__(self, now: datetime) -> None:
        self.now = now
        self.session_id = new_id(now)
        self.new_user_id: UUID | None = None
        """The id of the new user; None until a statement is about to create a user."""


async def record_login(database: Database, login: Login, *, now: datetime) -> LoggedIn:
    """Find or create the user of a login, and open a session.

    If several first logins of one person run at the same time, the unique constraints let only one login create the
    user. The other logins fail or find no row, try again, and find that user. If the unionid belongs to another user,
    this function first merges the two users. If an imported identity has the unionid in place of an openid, the
    function corrects the identity first. It stores nothing about an unknown person who may not sign up.

    The unionid cannot belong to the identity in two cases. In the first case, the unionid's user has another openid of
    this app, although a WeChat account has only one openid in each app. (Only a user who was merged from the users of
    several accounts can have several openids in an app.) In the second case, the unionid's user was split from the
    identity's user. In both cases, the first of these rules that applies decides:

    - If the unionid's user is banned, the function returns this user, so that the caller refuses the login.
    - In the first case, if WeChat might have made up one of the two openids, the function stores nothing, and raises
      SnapshotUser.
    - Otherwise, the function ignores the unionid, and logs in with the identity alone.

    If the user of the login is banned or about to be erased, the function returns this user, and opens no session.

    Raises: SignUpClosed, SnapshotUser; AccountDisabled, AccountLeaving, if the login requires a merge that a user's
        request for erasure prevents (see `link_unionid`); StorageUnavailable, including TooManyChanges.
    """
    fixed = _Fixed(now)
    with DATABASE_SECONDS.time() as storing:
        try:
            user = await _log_in(database, login, fixed)
        except UnionidConflict as exc:
            user = await _log_in_without_unionid(database, login, fixed, exc)
    return LoggedIn(
        session_id=fixed.session_id,
        is_new=user.id == fixed.new_user_id,
        user=user,
        ignored_fields=[name for name, value in login.profile.items() if value != getattr(user, name)],
        milliseconds=storing.milliseconds,
    )


class _Undone(Exception):
    """The exception that `rehearse_login` raises to roll back its logins."""


async def rehearse_login(database: Database, *, now: datetime) -> str | None:
    """Sign up a test user, log the user in again, and roll back both logins.

    `wxauth check` calls this function to find out whether the database accepts logins. Return the reason that the
    database gives if it refuses a statement; otherwise None.

    Raises: StorageUnavailable, after a temporary failure, such as a failover.
    """
    unused_id = f"rehearsal-{new_id(now).hex}"
    login = Login(app_id="rehearsal", openid=unused_id, unionid=unused_id, expires_in=1, may_sign_up=True)
    try:
        async with database.begin() as transaction:
            await transaction.row(batched_queries.SIGN_UP, **_sign_up_values(login, _Fixed(now)))
            await transaction.row(
                batched_queries.RETURNING_LOGIN, **_values(batched_queries.RETURNING_LOGIN, login, _Fixed(now))
            )
            raise _Undone
    except _Undone:
        return None
    except Exception as exc:
        if is_refusal(exc):
            return reason_of(exc)
        raise


@retrying(conflicts=(*CONFLICTS, NothingCommitted))
async def _log_in(database: Database, login: Login, fixed: _Fixed) -> UserAtLogin:
    """Log in with the statement `RETURNING_LOGIN` or `SIGN_UP`. If neither returns a user, log in stepwise.

    A login with `max_sessions` skips `RETURNING_LOGIN`, which cannot end older sessions. A login that may not sign up
    the person skips `SIGN_UP`. With `cancels_erasure`, cancel the user's request for erasure, and log in again.

    Raises: SignUpClosed, UnionidConflict; AccountDisabled, AccountLeaving, as `link_unionid` does; StorageUnavailable,
    including TooManyChanges.
    """
    user: UserAtLogin | None = None
    if login.max_sessions is None:
        user = await database.row(
            batched_queries.RETURNING_LOGIN, **_values(batched_queries.RETURNING_LOGIN, login, fixed)
        )
    if user is None and login.may_sign_up:
        user = await database.row(batched_queries.SIGN_UP, **_sign_up_values(login, fixed))
    if user is None:
        user = await _log_in_stepwise(database, login, fixed)
    if login.cancels_erasure and user.status == "active" and user.erase_at is not None:
        await cancel_erasure_at_login(database, user.id, now=fixed.now)
        raise ChangedMeanwhile  # the user has changed: log in again
    return user


async def _log_in_without_unionid(
    database: Database, login: Login, fixed: _Fixed, conflict: UnionidConflict
) -> UserAtLogin:
    """Log in with the identity alone, because its unionid cannot be right.

    If the unionid's user is banned, return that user, so that the caller refuses the login.

    Raises: SnapshotUser, if WeChat might have made up one of the openids; SignUpClosed; StorageUnavailable,
    including TooManyChanges.
    """
    # Without this check, a banned user could log in with a new identity whose unionid wxauth ignores.
    banned = await database.row(_BANNED_HOLDER, **_values(_BANNED_HOLDER, login, fixed))
    if banned is not None:
        return banned
    if login.may_be_snapshot and isinstance(conflict, OfAnotherOpenid):
        raise SnapshotUser("another openid of this app has the unionid") from None
    log.error("unionid_ignored", app_id=login.app_id, reason=str(conflict))
    return await _log_in(database, replace(login, unionid=None), fixed)


async def _log_in_stepwise(database: Database, login: Login, fixed: _Fixed) -> UserAtLogin:
    """Log in with small statements under the user's lock.

    If the users must be merged or the identity must be corrected first, do only that, and raise ChangedMeanwhile, so
    that the caller tries again.

    Raises: SignUpClosed, UnionidConflict; AccountDisabled, AccountLeaving, as `link_unionid` does; ChangedMeanwhile,
    also if another request has changed the users.
    """
    # `user_id` is the identity's user, `holder_id` is the unionid's user, and `misnamed_user_id` is the user of an
    # imported identity that has the unionid in place of an openid.
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
    """Log in the user of a known identity, or of a known unionid, under the user's lock.

    Add an unknown identity to the unionid's user, unless that user is about to be erased. If the user is banned or
    about to be erased, open no session.

    Raises: ChangedMeanwhile, if the identity or the unionid now belongs to another user, or if the user was erased;
        UnionidConflict.
    """
    user = await transaction.row(_LOCK, **_values(_LOCK, login, fixed, people.user_id or people.holder_id))
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
    updated = await transaction.one(_RECORD_LOGIN, **_values(_RECORD_LOGIN, login, fixed, user.id))
    if may_log_in and login.expires_in is not None:
        await _open_session(transaction, login, fixed, user.id)
    return updated


async def _add_identity(transaction: Transaction, login: Login, user_id: UUID, *, now: datetime) -> None:
    """Add the identity of a login to a locked user, and record this as an event."""
    await transaction.run(_ADD_IDENTITY, **login.identity, user_id=user_id, now=now)
    by = Actor(str(user_id), login.ip)
    await record_event(transaction, EventType.IDENTITY_ADDED, by=by, at=now, user_id=user_id, app_id=login.app_id)


async def _open_session(transaction: Transaction, login: Login, fixed: _Fixed, user_id: UUID) -> None:
    """Open the session of a login. If the identity then has more than `max_sessions`, end its oldest sessions."""
    await transaction.run(_OPEN_SESSION, **_values(_OPEN_SESSION, login, fixed, user_id))
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
        END_BEYOND_IDENTITY,
        selection,
        reason=EndReason.REPLACED,
        by=SYSTEM,
        app_id=login.app_id,
        now=fixed.now,
    )


def _values(
    statement: Statement[Any], login: Login, fixed: _Fixed, user_id: UUID | None = None, **overrides: object
) -> dict[str, Any]:
    """Return the values of a statement's parameters for a login.

    `overrides` take precedence over the login's fields.
    """
    session_id = None if login.expires_in is None else fixed.session_id
    values = {**vars(login), "user_id": user_id, "session_id": session_id, "now": fixed.now, **overrides}
    return {name: values[name] for name in statement.names}


def _sign_up_values(login: Login, fixed: _Fixed) -> dict[str, Any]:
    """Return the values of the parameters of `SIGN_UP`.

    If no earlier attempt has chosen the new user's id, choose the id, and store it in `fixed`.
    """
    if fixed.new_user_id is None:
        fixed.new_user_id = new_id(fixed.now)
    initial = login.initial
    created_data: dict[str, object] = {"roles": login.roles} if login.roles else {}
    if initial.is_undecided:
        # This value is part of the published event, so it keeps its name, although the hook may have been asked.
        created_data["hook"] = "not_asked"
    return _values(
        batched_queries.SIGN_UP,
        login,
        fixed,
        nickname=login.nickname or initial.nickname,
        new_user_id=fixed.new_user_id,
        external_id=initial.external_id,
        roles=" ".join(login.roles),
        attributes=to_json(initial.attributes).decode() if initial.attributes else None,
        event_id=new_id(fixed.now),
        created_data=to_json(created_data).decode(),
    )
