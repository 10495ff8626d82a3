"""The statements of a login, which find or create the user and the identity, and open a session."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final, NamedTuple
from uuid import UUID

from wxauth.errors import SignUpClosed, SnapshotUser, StorageUnavailable
from wxauth.server.core.database import CONFLICTS, Database, is_refusal, reason_of
from wxauth.server.core.ids import new_id
from wxauth.server.core.logs import get_logger
from wxauth.server.core.statements import Statement
from wxauth.server.core.trail import SYSTEM, EventType
from wxauth.server.core.users import MAY_LOG_IN, ORIGIN, USER, UserFields
from wxauth.server.limits.rates import PROFILE_CHANGES, WINDOW
from wxauth.server.limits.rows import taking_part
from wxauth.server.login.newcomers import Welcome
from wxauth.server.sessions.rows import EndReason
from wxauth.server.users.leaving import stay
from wxauth.server.users.merging import ObserveMerge, link_unionid
from wxauth.server.users.merging_rows import People, are_split, people_of

_ATTEMPTS: Final = 5

log = get_logger()


class EnteredUser(UserFields):
    """A user who has logged in, or whose login was refused."""

    unjudged_since: datetime | None
    banned_until: datetime | None

    @property
    def is_leaving(self) -> bool:
        """Whether the user has asked to be erased, and is not banned, which counts first."""
        return self.erase_at is not None and self.status == "active"


_MAY_ENTER: Final = "status = 'active' AND erase_at IS NULL"
"""As `MAY_LOG_IN`, of what a statement returns."""
_OPEN_PART: Final = """
    INSERT INTO sessions
           (id, user_id, app_id, openid, session_key, ip, user_agent, created_at, last_used_at, expires_at)
    SELECT :session_id, id, :app_id, :openid, :session_key, :ip::text::inet, :user_agent,
           :now, :now, :now + make_interval(secs => :expires_in)"""
_CREATED_DATA: Final = """CASE WHEN cardinality(roles) > 0 THEN jsonb_build_object('roles', roles) ELSE '{}' END"""
_SET_LAST_LOGIN_PART: Final = f"""
       SET last_login_at = CASE WHEN {MAY_LOG_IN} THEN :now ELSE users.last_login_at END"""


# The origin of this identity: see `users/origins.py`. It is looked up only if a field changes.
_ORIGIN_PART: Final = f"COALESCE({ORIGIN}, (SELECT came_from FROM unionids WHERE unionid = :unionid))"  # noqa: S608 - put together from constants


def _field_part(name: str, condition: str) -> str:
    return f""",
       {name} = CASE WHEN {condition} THEN COALESCE(:{name}, users.{name}) ELSE users.{name} END,
       {name}_from = CASE WHEN {condition} AND :{name} <> COALESCE(users.{name}, '')
                          THEN {_ORIGIN_PART} ELSE users.{name}_from END"""


def _profile_part(condition: str) -> str:
    return _field_part("nickname", condition) + _field_part("avatar_url", condition)


_KNOWN_PART: Final = """
     WHERE i.app_id = :app_id AND i.openid = :openid AND users.id = i.user_id
       AND (:unionid::text IS NULL OR i.unionid = :unionid OR (i.unionid IS NULL AND users.unionid = :unionid))"""

# Counts as `PROFILE_CHANGES.count_user` does, but only a real change.
_COUNTED_PART: Final = taking_part(
    f"""sha256('{PROFILE_CHANGES.what}\\000'::bytea
                || COALESCE(convert_to(unionid, 'UTF8'),
                            convert_to(:app_id, 'UTF8') || '\\000'::bytea || convert_to(:openid, 'UTF8'))), :now, 1
      FROM before
     WHERE {_MAY_ENTER}
       AND (COALESCE(:nickname, nickname), COALESCE(:avatar_url, avatar_url))
           IS DISTINCT FROM (nickname, avatar_url)""",
    began_by=f":now::timestamptz - interval '{WINDOW.total_seconds():.0f} seconds'",
    at_most=str(PROFILE_CHANGES.at_most),
)


def _renamed_part(after: str) -> str:
    # Only the fields that really change, compared with the locked row from before.
    return f"""
    INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
    SELECT :profile_event_id, '{EventType.PROFILE_CHANGED.value}', :now, now.id::text, now.id, :app_id, :ip::text::inet,
           jsonb_build_object('fields', array_remove(ARRAY [
               CASE WHEN now.nickname IS DISTINCT FROM before.nickname THEN 'nickname' END,
               CASE WHEN now.avatar_url IS DISTINCT FROM before.avatar_url THEN 'avatar_url' END], NULL))
      FROM {after} now JOIN before ON before.id = now.id
     WHERE (now.nickname, now.avatar_url) IS DISTINCT FROM (before.nickname, before.avatar_url)"""  # noqa: S608 - put together from constants


# What a login to an app with `max_sessions` ends. The user's row is locked by then.
_REPLACED_PART: Final = f""", replaced AS (
    SELECT id, replace_sessions(id, :app_id, :openid, :session_id, :max_sessions, :now) AS session_ids
      FROM person WHERE {_MAY_ENTER} AND :session_id::uuid IS NOT NULL
), replacement AS (
    INSERT INTO events (id, type, at, actor, user_id, app_id, data)
    SELECT :ended_event_id, '{EventType.SESSION_ENDED.value}', :now, '{SYSTEM.name}', id, :app_id,
           jsonb_build_object('session_ids', session_ids, 'reason', '{EndReason.REPLACED.value}')
      FROM replaced WHERE cardinality(session_ids) > 0
)"""  # noqa: S608 - put together from constants


def _returning_part(conditions: str, *, also: str = "") -> str:
    return f"""
WITH person AS (
    UPDATE users{_SET_LAST_LOGIN_PART}
      FROM identities i{_KNOWN_PART}{conditions}
       AND users.identity_lost_at IS NULL
    RETURNING {USER}, users.unjudged_since, users.banned_until
), opened AS ({_OPEN_PART}
      FROM person WHERE {_MAY_ENTER} AND :session_id::uuid IS NOT NULL
    ON CONFLICT (id) DO NOTHING
){also}
SELECT * FROM person
"""  # noqa: S608 - put together from constants


# For a known identity whose unionid has not changed: records the login in the user's row, and opens a session. A user
# who is banned or leaving is returned unchanged, and gets no session. The caller makes the session's id, so that a
# statement that is sent twice opens one session. Only the user's row is locked, because a lock on the identity's would
# write another page. After waiting for that row, this statement still sees the identity's row as it was before the
# wait. `identity_lost_at` is on the locked row and cannot be stale: if it is set, the statements below lock the
# identity, too.
_RETURN: Final = Statement[EnteredUser](_returning_part(""))
# The same if nickname and picture are those already stored, because most mini-programs send them with each login.
_AS_BEFORE_PART: Final = """
       AND (users.status <> 'active' OR users.erase_at IS NOT NULL
            OR (:nickname::text IS NULL OR users.nickname = :nickname)
               AND (:avatar_url::text IS NULL OR users.avatar_url = :avatar_url))"""
_RETURN_AS_BEFORE: Final = Statement[EnteredUser](_returning_part(_AS_BEFORE_PART))
_RETURN_REPLACING: Final = Statement[EnteredUser](_returning_part("", also=_REPLACED_PART))
_RETURN_AS_BEFORE_REPLACING: Final = Statement[EnteredUser](_returning_part(_AS_BEFORE_PART, also=_REPLACED_PART))
# The same with another nickname or picture. The former values are read under a lock. Otherwise, if two logins change
# them at the same time, one could also record the other's change, or none. If the user changes them too often, the
# change is left out, because a login is never refused for that.


def _renaming_part(also: str = "") -> str:
    return f"""
WITH before AS (
    SELECT users.id, users.unionid, users.status, users.erase_at, users.nickname, users.avatar_url
      FROM identities i, users{_KNOWN_PART}
       FOR NO KEY UPDATE OF users FOR SHARE OF i
), counted AS ({_COUNTED_PART}
), person AS (
    UPDATE users{_SET_LAST_LOGIN_PART}{_profile_part("EXISTS (SELECT FROM counted)")}
      FROM before
     WHERE users.id = before.id
    RETURNING {USER}, users.unjudged_since, users.banned_until
), opened AS ({_OPEN_PART}
      FROM person WHERE {_MAY_ENTER} AND :session_id::uuid IS NOT NULL
    ON CONFLICT (id) DO NOTHING
), renamed AS ({_renamed_part("person")}
){also}
SELECT * FROM person
"""  # noqa: S608 - put together from constants


_RETURN_WITH_PROFILE: Final = Statement[EnteredUser](_renaming_part())
_RETURN_WITH_PROFILE_REPLACING: Final = Statement[EnteredUser](_renaming_part(_REPLACED_PART))


# An external id that another user has, or had, is left out. If two newcomers get the same one at once, the unique index
# lets one succeed.
_WELCOME_PART: Final = """,
           CASE WHEN NOT EXISTS (SELECT FROM users WHERE external_id = :external_id)
                     AND NOT EXISTS (SELECT FROM former_external_ids WHERE external_id = :external_id)
                THEN :external_id::text END,
           :attributes::jsonb"""


def _sign_up_part(holder: str, source: str, *, is_welcome: bool = False) -> str:
    columns, values = (", external_id, attributes", _WELCOME_PART) if is_welcome else ("", "")
    return f"""
WITH {holder}person AS (
    INSERT INTO users (id, unionid, nickname, avatar_url, roles, created_at, last_login_at, unjudged_since{columns})
    SELECT :new_user_id::uuid, :unionid::text, :nickname::text, :avatar_url::text, :roles::text[], :now::timestamptz,
           :now, CASE WHEN :is_judged THEN :now END{values}
      {source}
    RETURNING {USER}, users.unjudged_since, users.banned_until
), identity AS (
    INSERT INTO identities (app_id, openid, user_id, created_at, unionid)
    SELECT :app_id, :openid, id, :now, :unionid FROM person
), event AS (
    INSERT INTO events (id, type, at, actor, user_id, app_id, ip, data)
    SELECT :event_id, '{EventType.USER_CREATED.value}', :now, id::text, id, :app_id, :ip::text::inet, {_CREATED_DATA}
      FROM person
), opened AS ({_OPEN_PART}
      FROM person WHERE :session_id::uuid IS NOT NULL
)
SELECT * FROM person
"""  # noqa: S608 - put together from constants


_UNKNOWN_PART: Final = "WHERE NOT EXISTS (SELECT FROM identities WHERE app_id = :app_id AND openid = :openid)"

# For an unknown identity without a unionid, which always makes a new user. If a concurrent login adds the identity
# first, this one violates its primary key.
_SIGN_UP: Final = Statement[EnteredUser](_sign_up_part("", _UNKNOWN_PART))
_SIGN_UP_WELCOME: Final = Statement[EnteredUser](_sign_up_part("", _UNKNOWN_PART, is_welcome=True))
_HOLDER_PART: Final = f"""holder AS (
    INSERT INTO unionids (unionid, user_id) SELECT :unionid, :new_user_id {_UNKNOWN_PART}
    ON CONFLICT DO NOTHING
    RETURNING user_id
), """
# For an unknown identity with an unknown unionid, which makes a new user, too. The row of the unionid, which is written
# first as in `_ENTER`, decides the race: the second of two logins waits for the first one's row, makes no user, and
# goes on to `_ENTER`.
_SIGN_UP_WITH_UNIONID: Final = Statement[EnteredUser](_sign_up_part(_HOLDER_PART, "FROM holder"))
_SIGN_UP_WITH_UNIONID_WELCOME: Final = Statement[EnteredUser](
    _sign_up_part(_HOLDER_PART, "FROM holder", is_welcome=True)
)


def _is_of_another_account(identity: str, holder: str) -> str:
    """Whether an identity belongs to another WeChat account of a person than :unionid, whose row is `holder`.

    Both are of one user. WeChat has one openid for each account and app, so this identity must have another unionid.
    And :unionid must not be an earlier one of the same account: it came from another user by a merge, or the user has
    it in another app. An identity whose unionid is unknown is of another account if it and an identity with :unionid
    are one user only by a merge, unless one of the two openids may be a snapshot's.
    """
    return f"""({identity}.unionid <> :unionid
                AND ({identity}.came_from IS DISTINCT FROM {holder}.came_from
                     OR EXISTS (SELECT FROM identities it
                                 WHERE it.user_id = {identity}.user_id AND it.unionid = :unionid))
                OR {identity}.unionid IS NULL AND NOT :may_be_snapshot
                   AND EXISTS (SELECT FROM identities it
                                WHERE it.user_id = {identity}.user_id AND it.unionid = :unionid
                                  AND it.came_from IS DISTINCT FROM {identity}.came_from))"""  # noqa: S608 - put together from constants


# For a known identity, or a known unionid. The row of the unionid decides to which user the unionid belongs: the second
# of two logins waits for the first one's row. An unknown identity is added to the unionid's user. A known identity gets
# the unionid, and is locked, so that it still belongs to that user after a wait. Nothing is changed, and no row is
# returned, if the unionid of a known identity belongs to another user, or if the unionid of an unknown identity belongs
# to a user who already has another identity in this app, unless that is of another account of the same person, whose
# users were merged. The user is locked before the unionid, as in a merge and an erasure, to avoid deadlocks. A user
# who is leaving gets no further identity.


def _entering_part(also: str = "") -> str:
    return f"""
WITH known AS (
    SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid
), before AS (
    SELECT users.id, users.nickname, users.avatar_url
      FROM users
     WHERE users.id = COALESCE((SELECT user_id FROM unionids WHERE unionid = :unionid), (SELECT user_id FROM known))
       FOR NO KEY UPDATE
), kept AS (
    SELECT before.id FROM before JOIN identities i ON i.user_id = before.id
     WHERE i.app_id = :app_id AND i.openid = :openid
       FOR NO KEY UPDATE OF i
), fit AS (
    SELECT id FROM before
     WHERE CASE WHEN EXISTS (SELECT FROM known) THEN EXISTS (SELECT FROM kept)
                ELSE NOT EXISTS (SELECT FROM identities i, unionids
                                  WHERE i.user_id = before.id AND i.app_id = :app_id AND unionids.unionid = :unionid
                                    AND {_is_of_another_account("i", "unionids")} IS NOT TRUE) END
), holder AS (
    INSERT INTO unionids (unionid, user_id)
    SELECT :unionid::text, id FROM fit WHERE :unionid::text IS NOT NULL
    ON CONFLICT (unionid) DO UPDATE SET unionid = excluded.unionid
    RETURNING user_id
), person AS (
    UPDATE users{_SET_LAST_LOGIN_PART}{_profile_part(MAY_LOG_IN)},
           unionid = COALESCE(:unionid, users.unionid)
      FROM fit
     WHERE users.id = fit.id
       AND (:unionid::text IS NULL OR EXISTS (SELECT FROM holder WHERE holder.user_id = fit.id))
    RETURNING {USER}, users.unjudged_since, users.banned_until
), identity_unionid AS (
    UPDATE identities SET unionid = :unionid FROM person
     WHERE app_id = :app_id AND openid = :openid AND :unionid IS NOT NULL
), identity AS (
    INSERT INTO identities (app_id, openid, user_id, created_at, unionid)
    SELECT :app_id, :openid, id, :now, :unionid FROM person WHERE NOT EXISTS (SELECT FROM known) AND erase_at IS NULL
), event AS (
    INSERT INTO events (id, type, at, actor, user_id, app_id, ip)
    SELECT :event_id, '{EventType.IDENTITY_ADDED.value}', :now, id::text, id, :app_id, :ip::text::inet
      FROM person WHERE NOT EXISTS (SELECT FROM known) AND erase_at IS NULL
), renamed AS ({_renamed_part("person")}
), opened AS ({_OPEN_PART}
      FROM person WHERE {_MAY_ENTER} AND :session_id::uuid IS NOT NULL
    ON CONFLICT (id) DO NOTHING
){also}
SELECT * FROM person
"""  # noqa: S608 - put together from constants


_ENTER: Final = Statement[EnteredUser](_entering_part())
_ENTER_REPLACING: Final = Statement[EnteredUser](_entering_part(_REPLACED_PART))
# Whether another openid of the app has the unionid, which a unique index forbids; or whether the unionid belongs to
# another user who has another openid of the app, which is not of another account.
_IS_ANOTHERS: Final = Statement[int](f"""
SELECT 1 FROM identities WHERE app_id = :app_id AND openid <> :openid AND unionid = :unionid
 UNION ALL
SELECT 1 FROM unionids JOIN identities other USING (user_id)
 WHERE unionids.unionid = :unionid AND other.app_id = :app_id AND other.openid <> :openid
   AND {_is_of_another_account("other", "unionids")} IS NOT TRUE
   AND NOT EXISTS (SELECT FROM identities own
                    WHERE own.app_id = :app_id AND own.openid = :openid AND own.user_id = other.user_id)
 LIMIT 1
""")  # noqa: S608 - put together from constants
_BANNED_HOLDER: Final = Statement[EnteredUser](f"""
SELECT {USER}, users.unjudged_since, users.banned_until
  FROM unionids JOIN users ON users.id = unionids.user_id
 WHERE unionids.unionid = :unionid AND users.status = 'disabled'
""")  # noqa: S608 - put together from constants


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """A login to store."""

    app_id: str
    openid: str
    unionid: str | None
    nickname: str | None
    avatar_url: str | None
    session_key: bytes | None
    """WeChat's session_key, sealed; None if the app is not a mini-program."""
    ip: str | None
    user_agent: str | None
    expires_in: int | None
    """Seconds until the session expires if it is not used. None: no session is opened."""
    is_judged: bool
    """Whether WeChat must be asked about the risk of a new user."""
    may_sign_up: bool
    roles: Sequence[str] = ()
    """The roles of a person who signs up."""
    welcome: Welcome | None = None
    """What else such a person has from the start."""
    max_sessions: int | None = None
    """How many sessions of the identity stay open at most, with the one that is opened; None for no such limit."""
    stays: bool = False
    """Whether somebody who has asked to be erased has changed their mind."""
    may_be_snapshot: bool = False
    """Whether WeChat may return a snapshot's user here. If so, a unionid that belongs to another openid marks one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedIn:
    """A stored login."""

    session_id: UUID
    """Unused, if no session was requested."""
    is_new: bool
    is_unjudged: bool
    """Whether the user's risk is still unknown, because WeChat has not rated it at any login so far."""
    user: EnteredUser
    ignored_fields: Sequence[str]
    """Which of `nickname` and `avatar_url` were not stored, because the user has changed the profile too often."""

    @property
    def leaves_at(self) -> datetime | None:
        """When the user is erased, who has asked for it, so that no session was opened."""
        return self.user.erase_at if self.user.is_leaving else None

    @property
    def is_disabled(self) -> bool:
        """Whether the user is banned, so that no session was opened."""
        return self.user.status == "disabled"


async def record_login(
    database: Database, login: Login, *, now: datetime, observe_merge: ObserveMerge = lambda _source: None
) -> LoggedIn:
    """Find or create the user, and open a session. A returning user costs one statement.

    Of concurrent first logins, the unique constraints let one succeed. The others are rolled back or find no row, try
    again, and find the user of the first. If the unionid belongs to another user, the two users are merged first.
    Nothing is stored about an unknown person who may not sign up.

    WeChat has one openid for each account and app. So the unionid is ignored if it would join somebody to a user who
    has another openid of this app: they are different people. If one of the two may be made up, nothing is stored. Two
    accounts of one person, whose users were merged, may have an openid each. The unionid is also ignored if its user
    was split from this one. But if its user is banned, the login is that user's, and refused.

    Raises: SignUpClosed, SnapshotUser, AccountDisabled, AccountLeaving, StorageUnavailable.
    """
    ids = _Ids(session=new_id(now))
    conflict: BaseException | None = None
    for _ in range(_ATTEMPTS):
        try:
            user = await _returning(database, login, ids, now=now)
            if user is None:
                if ids.new_user is None:
                    ids = ids._replace(new_user=new_id(now))
                user = await _entering(database, login, ids, now=now)
            if user is not None and user.is_leaving and login.stays:
                await stay(database, user.id, now=now)
                continue
            if user is not None:
                return _logged_in(user, login, ids)
            if (unionid_conflict := await _unionid_conflict(database, login)) is not None:
                if (user := await _banned_holder(database, login)) is not None:
                    return _logged_in(user, login, ids)
                login = _without_unionid(login, unionid_conflict)
                continue
            if not login.may_sign_up and not await _is_known(database, login):
                raise SignUpClosed("sign-up is closed for this app")
            if login.unionid is not None:
                identity = {"app_id": login.app_id, "openid": login.openid, "unionid": login.unionid}
                await link_unionid(database, **identity, stays=login.stays, now=now, observe=observe_merge)
        except CONFLICTS as exc:
            conflict = exc
            if (unionid_conflict := await _unionid_conflict(database, login)) is not None:
                if (user := await _banned_holder(database, login)) is not None:
                    return _logged_in(user, login, ids)
                login = _without_unionid(login, unionid_conflict)
    raise StorageUnavailable("too many changes to this user at once") from conflict


class _Undone(Exception):
    """Ends a rehearsal, so that its transaction is rolled back."""


async def rehearse_login(database: Database, *, now: datetime) -> str | None:
    """Sign somebody up and log them in again, and roll both back: what a login needs of the database is tried.

    Returns why the database refuses it, in its own words; None if it does not.

    Raises: StorageUnavailable, for what passes by itself, such as a lock or a failover.
    """
    nobody = f"rehearsal-{new_id(now).hex}"
    login = Login(
        app_id="rehearsal",
        openid=nobody,
        unionid=nobody,
        nickname=None,
        avatar_url=None,
        session_key=None,
        ip=None,
        user_agent=None,
        expires_in=1,
        is_judged=False,
        may_sign_up=True,
    )
    ids = _Ids(session=new_id(now), new_user=new_id(now))
    try:
        async with database.begin() as transaction:
            await transaction.row(_SIGN_UP_WITH_UNIONID, **_made(login, ids), **_written(login, ids, now))
            await transaction.row(_RETURN, **_opening(login, ids._replace(session=new_id(now)), now))
            raise _Undone
    except _Undone:
        return None
    except Exception as exc:
        if is_refusal(exc):
            return reason_of(exc)
        raise


class _Ids(NamedTuple):
    """The ids of a login's rows, which stay the same if the login is tried again. Those of events need not."""

    session: UUID
    new_user: UUID | None = None
    """None until the first statements have found no user."""


class _UnionidConflict(StrEnum):
    """Why a unionid cannot be this identity's."""

    ANOTHER_OPENID = "another openid of this app has it"
    SPLIT = "an administrator has split its user and this one"


async def _unionid_conflict(database: Database, login: Login) -> _UnionidConflict | None:
    if login.unionid is None:
        return None
    identity = {"app_id": login.app_id, "openid": login.openid, "unionid": login.unionid}
    if await database.value(_IS_ANOTHERS, **identity, may_be_snapshot=login.may_be_snapshot) is not None:
        return _UnionidConflict.ANOTHER_OPENID
    people = await people_of(database, **identity)
    user_id, holder_id = people.user_id, people.holder_id
    if user_id is None or holder_id is None or user_id == holder_id:
        return None
    return _UnionidConflict.SPLIT if await are_split(database, user_id, holder_id) else None


async def _banned_holder(database: Database, login: Login) -> EnteredUser | None:
    """The unionid's user, also of an earlier unionid, if banned: a unionid that is ignored must not evade the ban."""
    return await database.row(_BANNED_HOLDER, unionid=login.unionid)


def _without_unionid(login: Login, conflict: _UnionidConflict) -> Login:
    """The login with its unionid ignored. Raises: SnapshotUser."""
    if conflict is _UnionidConflict.ANOTHER_OPENID and login.may_be_snapshot:
        raise SnapshotUser("another openid of this app has the unionid")
    log.error("unionid_ignored", app_id=login.app_id, reason=conflict.value)
    return replace(login, unionid=None)


async def _is_known(database: Database, login: Login) -> bool:
    people = await people_of(database, app_id=login.app_id, openid=login.openid, unionid=login.unionid)
    return people != People(None, None)


async def _returning(database: Database, login: Login, ids: _Ids, *, now: datetime) -> EnteredUser | None:
    opening = {**_opening(login, ids, now), **_replacing(login, now)}
    is_limited = login.max_sessions is not None
    if login.nickname is None and login.avatar_url is None:
        return await database.row(_RETURN_REPLACING if is_limited else _RETURN, **opening)
    opening |= {"nickname": login.nickname, "avatar_url": login.avatar_url}
    as_before = _RETURN_AS_BEFORE_REPLACING if is_limited else _RETURN_AS_BEFORE
    if (user := await database.row(as_before, **opening)) is not None:
        return user
    with_profile = _RETURN_WITH_PROFILE_REPLACING if is_limited else _RETURN_WITH_PROFILE
    return await database.row(with_profile, **opening, profile_event_id=new_id(now))


async def _entering(database: Database, login: Login, ids: _Ids, *, now: datetime) -> EnteredUser | None:
    entering = _written(login, ids, now)
    if login.may_sign_up:
        statement = _SIGN_UP if login.unionid is None else _SIGN_UP_WITH_UNIONID
        made = _made(login, ids)
        if (welcome := login.welcome) is not None:
            statement = _SIGN_UP_WELCOME if login.unionid is None else _SIGN_UP_WITH_UNIONID_WELCOME
            made |= {"external_id": welcome.external_id, "attributes": welcome.attributes or None}
            made["nickname"] = login.nickname or welcome.nickname
        if (user := await database.row(statement, **{**entering, **made})) is not None:
            return user
    enter = _ENTER if login.max_sessions is None else _ENTER_REPLACING
    more = {**_replacing(login, now), "may_be_snapshot": login.may_be_snapshot}
    return await database.row(enter, **entering, **more, profile_event_id=new_id(now))


def _written(login: Login, ids: _Ids, now: datetime) -> dict[str, object]:
    profile = {"nickname": login.nickname, "avatar_url": login.avatar_url}
    return {**_opening(login, ids, now), **profile, "event_id": new_id(now)}


def _made(login: Login, ids: _Ids) -> dict[str, object]:
    return {"new_user_id": ids.new_user, "roles": login.roles, "is_judged": login.is_judged}


def _logged_in(user: EnteredUser, login: Login, ids: _Ids) -> LoggedIn:
    given = {"nickname": login.nickname, "avatar_url": login.avatar_url}
    ignored_fields = [name for name, value in given.items() if value not in (None, getattr(user, name))]
    return LoggedIn(
        session_id=ids.session,
        is_new=user.id == ids.new_user,
        is_unjudged=user.unjudged_since is not None,
        user=user,
        ignored_fields=ignored_fields,
    )


def _replacing(login: Login, now: datetime) -> dict[str, object]:
    if login.max_sessions is None:
        return {}
    return {"max_sessions": login.max_sessions, "ended_event_id": new_id(now)}


def _opening(login: Login, ids: _Ids, now: datetime) -> dict[str, object]:
    return {
        "app_id": login.app_id,
        "openid": login.openid,
        "unionid": login.unionid,
        "now": now,
        "session_id": None if login.expires_in is None else ids.session,
        "session_key": login.session_key,
        "ip": login.ip,
        "user_agent": login.user_agent,
        "expires_in": login.expires_in,
    }
