"""The statements that change the status (active or banned) and the roles of users.

All such changes to stored users, whether by staff, services, commands, merges, splits or imports, use
`change_status_and_roles`. One transaction makes the change, records the events, and ends sessions, for example all
sessions of a banned user. If a change to one user may remove an administrator, `lock_user` refuses the change for the
last administrator. Merges and imports check this themselves.
"""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence, Set as AbstractSet
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from enum import Enum, auto
from functools import partial
from typing import Any, Final, Literal, Self
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.retrying import ChangedMeanwhile, begin_locked
from wxauth.core.statements import Nothing, Statement, columns_of
from wxauth.core.trail import SYSTEM, Actor, EventType, event, record_events
from wxauth.core.users import IS_ADMINISTRATOR
from wxauth.errors import AccountDisabled, AccountLeaving, LastAdmin
from wxauth.i18n import lazy_gettext as _
from wxauth.sessions.queries import END_CONSOLES, EndReason, end_logins_in_browsers, end_selected, end_sessions
from wxauth.settings.roles import STAFF_ROLES


class LockedUser(SQLModel):
    """The stored status and roles of a locked user, with the details of a ban and of a requested erasure."""

    id: UUID
    status: Literal["active", "disabled"]
    roles: list[str]
    ban_reason: str | None
    banned_until: datetime | None
    erase_at: datetime | None


_COLUMNS: Final = ", ".join(columns_of(LockedUser))
# The statement locks users in the order of their ids, to avoid deadlocks.
_LOCK: Final = Statement[LockedUser](f"SELECT {_COLUMNS} FROM users WHERE id = ANY (:user_ids) ORDER BY id FOR UPDATE")
# This statement also locks all administrators, in the same order. If two administrators demote each other, the second
# request waits here for the first, and then sees that no other administrator is left.
_LOCK_WITH_ADMINISTRATORS: Final = Statement[LockedUser](f"""
SELECT {_COLUMNS}
  FROM users WHERE id = ANY (:user_ids) OR ({IS_ADMINISTRATOR})
 ORDER BY id FOR UPDATE
""")
# This query takes no locks, so `lock_with_administrators` checks its result again after locking.
_SOME_ARE_ADMINISTRATORS: Final = Statement[bool](f"""
SELECT EXISTS (SELECT FROM users WHERE id = ANY (:user_ids) AND {IS_ADMINISTRATOR})
""")
# The statement locks users whose bans have ended. A concurrent change of such a ban takes precedence, because the
# statement skips locked rows, and because PostgreSQL checks the condition again if a row has just been changed. The
# next run finds the skipped rows.
_LOCK_ENDED_BANS: Final = Statement[LockedUser](f"""
SELECT {_COLUMNS}
  FROM users WHERE banned_until <= :now ORDER BY banned_until LIMIT :size
   FOR UPDATE SKIP LOCKED
""")
# `:accounts` contains the id, the new roles and the new ban of each user. The caller has locked the users. If `ban` is
# null, its reason and end are null, too.
_SET_STATUS_AND_ROLES: Final = Statement[Nothing]("""
UPDATE users SET status = CASE WHEN ban IS NULL THEN 'active' ELSE 'disabled' END, roles = given.roles,
                 ban_reason = ban ->> 'reason', banned_until = (ban ->> 'until')::timestamptz
  FROM jsonb_to_recordset(:accounts) AS given (id uuid, roles text[], ban jsonb)
 WHERE users.id = given.id
""")
ADMIN: Final = "admin"
"""The role of administrators, who may use every route of `/v1/admin`."""
SUPPORT: Final = "support"
"""The role of customer support.

Support may read all users. If a user is not staff, support may also ban and unban the user, end the user's sessions,
and clear the nickname, the picture and the phone number.
"""
log = get_logger()


class UserIsGone(Exception):
    """The error for a user who does not exist, for example after an erasure, or a merge into another user."""


@dataclass(frozen=True, slots=True)
class Ban:
    """A ban of a user, with its reason and its end."""

    reason: str | None = None
    """The reason, for staff only. wxauth never sends it to the user or to other services."""
    until: datetime | None = None
    """The time at which the ban ends automatically; None for a ban without an end."""

    @property
    def data(self) -> dict[str, Any]:
        """The details of the ban, as the audit trail stores them. Details that are None are left out."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class StatusAndRoles:
    """The roles of a user, the ban if the user is banned, and the time of a requested erasure."""

    roles: tuple[str, ...]
    ban: Ban | None = None
    erase_at: datetime | None = None
    """The time of the erasure that the user has requested, if any.

    For stored users, only `users/erasure_queries.py` changes it. An import can create users with such a time.
    """

    @classmethod
    def of(cls, row: LockedUser) -> Self:
        """Return the status and roles of a locked user."""
        ban = Ban(row.ban_reason, row.banned_until) if row.status == "disabled" else None
        return cls(tuple(row.roles), ban, row.erase_at)

    def with_longest_of(self, bans: Iterable[Ban], *, now: datetime) -> "StatusAndRoles":
        """Return this status with the longest of the bans that have not ended, in place of the present ban.

        If all bans have ended, or there is none, the user is active.
        """
        lasting = [ban for ban in bans if ban.until is None or ban.until > now]
        # In the order of these keys, a ban without an end is longer than any ban with an end.
        longest = max(lasting, key=lambda ban: (ban.until is None, ban.until), default=None)
        return replace(self, ban=longest)

    @property
    def is_banned(self) -> bool:
        """Whether the user is banned. A ban whose end has passed counts until wxauth has lifted it."""
        return self.ban is not None

    @property
    def is_leaving(self) -> bool:
        """Whether the user has asked to be erased."""
        return self.erase_at is not None

    @property
    def is_administrator(self) -> bool:
        """Whether the user is an administrator who can log in: neither banned nor waiting to be erased."""
        return ADMIN in self.roles and not self.is_banned and not self.is_leaving

    @property
    def is_staff(self) -> bool:
        """Whether the user has a role of staff, even if the user is banned."""
        return not STAFF_ROLES.isdisjoint(self.roles)

    def adds_roles_to(self, before: Self) -> bool:
        """Return whether a change from `before` to this status adds a role.

        A role of staff that a banned user keeps counts as added, because the change might lift the ban. A new role
        counts even if the user stays banned, because an administrator might lift the ban later.
        """
        suspended = STAFF_ROLES if before.is_banned else frozenset[str]()
        usable_before = frozenset(before.roles) - suspended
        return not usable_before.issuperset(self.roles)


class Ending(Enum):
    """The kinds of a user's sessions that a change of status or roles can end."""

    ALL = auto()
    CONSOLES = auto()
    """The sessions of the administration console."""
    BROWSERS = auto()
    """The logins and website sessions in browsers.

    They end when a user gets a staff role. Staff may log in only in a browser near their phone, and wxauth has not
    checked this for the user's earlier logins.
    """


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A change of a user's status and roles."""

    user_id: UUID
    before: StatusAndRoles
    after: StatusAndRoles

    @property
    def events(self) -> Mapping[EventType, Mapping[str, Any] | None]:
        """The events to record, with the data of each.

        A new reason or a new end of a ban is also recorded as a ban.
        """
        before, after = self.before, self.after
        events: dict[EventType, Mapping[str, Any] | None] = {}
        if after.ban is None and before.is_banned:
            events[EventType.USER_UNBANNED] = None
        elif after.ban is not None and after.ban != before.ban:
            events[EventType.USER_BANNED] = after.ban.data
        if set(after.roles) != set(before.roles):
            events[EventType.ROLES_CHANGED] = {"before": before.roles, "after": after.roles}
        return events

    @property
    def endings(self) -> AbstractSet[Ending]:
        """The kinds of sessions to end. If the user is banned after the change, all sessions end."""
        if self.after.is_banned:
            return {Ending.ALL}
        staff_roles_before = STAFF_ROLES.intersection(self.before.roles)
        staff_roles_after = STAFF_ROLES.intersection(self.after.roles)
        endings = set[Ending]()
        if staff_roles_before - staff_roles_after:
            endings.add(Ending.CONSOLES)
        if staff_roles_after - staff_roles_before:
            endings.add(Ending.BROWSERS)
        return endings

    def report(self, *, by: Actor) -> None:
        """Write a log line for each event of the change.

        Call this method after the commit, because a change that is rolled back must not appear in the log.
        """
        for kind in self.events:
            log.info(kind.log_event, user_id=self.user_id, actor=by.name)


def check_may_log_in(user_id: UUID, account: StatusAndRoles) -> None:
    """Check that a user may log in.

    Raises: AccountDisabled, if the user is banned; AccountLeaving, if the user has requested erasure.
    """
    if account.ban is not None:
        raise AccountDisabled(until=account.ban.until, user_id=user_id)
    if account.erase_at is not None:
        raise AccountLeaving(account.erase_at, user_id=user_id)


async def lock_status_and_roles(transaction: Transaction, user_id: UUID) -> StatusAndRoles | None:
    """Lock a user until the transaction ends, and return the status and roles.

    Return None if the user does not exist.
    """
    accounts = await lock_users(transaction, [user_id])
    return accounts.get(user_id)


async def lock_users(transaction: Transaction, user_ids: Iterable[UUID]) -> dict[UUID, StatusAndRoles]:
    """Lock several users, in the order of their ids, and return the status and roles of each.

    Leave out unknown ids.
    """
    rows = await transaction.rows(_LOCK, user_ids=list(user_ids))
    return {row.id: StatusAndRoles.of(row) for row in rows}


async def lock_with_administrators(
    transaction: Transaction, *user_ids: UUID
) -> tuple[dict[UUID, StatusAndRoles], frozenset[UUID]]:
    """Lock users as `lock_users` does, and all administrators if one of the users is an administrator.

    Until the transaction ends, no other transaction can change the status or roles of the locked users. If none of the
    given users is an administrator, do not lock the administrators, so that changes to the administrators do not wait
    for this transaction. Return the locked users with their status and roles, and the ids of the administrators among
    them.

    Raises: ChangedMeanwhile, if one of the users has just become an administrator.
    """
    with_administrators = bool(await transaction.value(_SOME_ARE_ADMINISTRATORS, user_ids=user_ids))
    # One statement locks all of these users, in the order of their ids.
    rows = await transaction.rows(_LOCK_WITH_ADMINISTRATORS if with_administrators else _LOCK, user_ids=user_ids)
    accounts = {row.id: StatusAndRoles.of(row) for row in rows}
    administrators = frozenset(user_id for user_id, account in accounts.items() if account.is_administrator)
    if administrators and not with_administrators:
        raise ChangedMeanwhile
    return accounts, administrators


@asynccontextmanager
async def locked_user(
    database: Database, user_id: UUID, *, could_remove_administrator: bool = False
) -> AsyncIterator[tuple[Transaction, StatusAndRoles]]:
    """Open a transaction that locks a user. Yield the transaction with the user's status and roles.

    A caller whose change may remove an administrator sets `could_remove_administrator`. In that case, the user must not
    be the only administrator.

    Raises: UserIsGone, if there is no such user; LastAdmin, if `could_remove_administrator` is True, and the user is
        the only administrator; TooManyChanges, if the user has just become an administrator at each attempt.
    """
    lock = partial(lock_user, user_id=user_id, could_remove_administrator=could_remove_administrator)
    async with begin_locked(database, lock) as (transaction, account):
        yield transaction, account


async def lock_user(
    transaction: Transaction, *, user_id: UUID, could_remove_administrator: bool = False
) -> StatusAndRoles:
    """Lock a user as `locked_user` does, and return the user's status and roles.

    Raises: UserIsGone and LastAdmin, as `locked_user` does; ChangedMeanwhile, if `could_remove_administrator` is True,
        and the user has just become an administrator.
    """
    if could_remove_administrator:
        accounts, administrators = await lock_with_administrators(transaction, user_id)
        if administrators == {user_id}:
            raise LastAdmin(_("this user is the only administrator. Appoint another administrator first"))
    else:
        accounts = await lock_users(transaction, [user_id])
    if user_id not in accounts:
        raise UserIsGone
    return accounts[user_id]


async def change_status_and_roles(
    transaction: Transaction, changes: Sequence[StatusChange], *, by: Actor, now: datetime
) -> None:
    """Store changes of the status and roles of locked users, record their events, and end the sessions in `endings`.

    The number of statements does not depend on the number of users. After the commit, the caller must call `report` on
    each change.
    """
    accounts = [
        {"id": change.user_id, "roles": change.after.roles, "ban": change.after.ban}
        for change in changes
        if change.events
    ]
    if accounts:
        await transaction.run(_SET_STATUS_AND_ROLES, accounts=accounts)
    events = [
        event(kind, by=by, at=now, user_id=change.user_id, data=data)
        for change in changes
        for kind, data in change.events.items()
    ]
    await record_events(transaction, events)
    await _end_sessions(transaction, changes, by=by, now=now)


async def _end_sessions(transaction: Transaction, changes: Sequence[StatusChange], *, by: Actor, now: datetime) -> None:
    """End the sessions in `endings` of these changes."""
    banned = [change.user_id for change in changes if Ending.ALL in change.endings]
    demoted = [change.user_id for change in changes if Ending.CONSOLES in change.endings]
    promoted = [change.user_id for change in changes if Ending.BROWSERS in change.endings]
    if banned:
        await end_sessions(transaction, *banned, reason=EndReason.BANNED, by=by, now=now)
    reason = EndReason.ADMINISTRATOR
    if demoted:
        await end_selected(transaction, END_CONSOLES, {"user_ids": demoted}, reason=reason, by=by, now=now)
    if promoted:
        await end_logins_in_browsers(transaction, *promoted, becomes_staff=True, reason=reason, by=by, now=now)


async def lift_bans(database: Database, *, size: int, now: datetime) -> int:
    """Lift up to `size` bans whose end has passed, and return the number of lifted bans."""
    changes: list[StatusChange] = []
    # With `replan`, PostgreSQL does not reuse a plan from a time when the table was empty.
    async with database.begin(replan=True) as transaction:
        for row in await transaction.rows(_LOCK_ENDED_BANS, now=now, size=size):
            before = StatusAndRoles.of(row)
            changes.append(StatusChange(row.id, before, after=replace(before, ban=None)))
        await change_status_and_roles(transaction, changes, by=SYSTEM, now=now)
    for change in changes:
        change.report(by=SYSTEM)
    return len(changes)
