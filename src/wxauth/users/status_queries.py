"""The rules and the statements for changes of the status (active or banned) and the roles of users.

All such changes of stored users pass through `change_status_and_roles`. A transaction that could remove an
administrator locks all administrators. With `could_remove_administrator`, `lock_user` refuses to remove the last one.
Merges and imports check this themselves.
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

from wxauth.core.database import ChangedMeanwhile, Database, Transaction, begin_locked
from wxauth.core.logs import get_logger
from wxauth.core.statements import Nothing, Statement, columns_of
from wxauth.core.trail import SYSTEM, Actor, EventType, event, record_events
from wxauth.core.users import IS_ADMINISTRATOR
from wxauth.errors import AccountDisabled, AccountLeaving, LastAdmin
from wxauth.i18n import lazy_gettext as _
from wxauth.sessions.queries import END_CONSOLES, EndReason, end_logins_in_browsers, end_selected, end_sessions
from wxauth.settings.roles import ADMIN, STAFF_ROLES


class LockedUser(SQLModel):
    id: UUID
    status: Literal["active", "disabled"]
    roles: list[str]
    ban_reason: str | None
    banned_until: datetime | None
    erase_at: datetime | None


_COLUMNS: Final = ", ".join(columns_of(LockedUser))
# Users are locked in the order of their ids, to avoid deadlocks.
_LOCK: Final = Statement[LockedUser](f"SELECT {_COLUMNS} FROM users WHERE id = ANY (:user_ids) ORDER BY id FOR UPDATE")
# If two administrators demote each other, the second waits here, and then sees that no other administrator is left.
_LOCK_WITH_ADMINISTRATORS: Final = Statement[LockedUser](f"""
SELECT {_COLUMNS}
  FROM users WHERE id = ANY (:user_ids) OR ({IS_ADMINISTRATOR})
 ORDER BY id FOR UPDATE
""")
# This query takes no locks, so `lock_with_administrators` checks its answer again.
_SOME_ARE_ADMINISTRATORS: Final = Statement[bool](f"""
SELECT EXISTS (SELECT FROM users WHERE id = ANY (:user_ids) AND {IS_ADMINISTRATOR})
""")
# A concurrent change of a ban takes precedence: locked rows are skipped, and changed rows are checked again.
_LOCK_ENDED_BANS: Final = Statement[LockedUser](f"""
SELECT {_COLUMNS}
  FROM users WHERE banned_until <= :now ORDER BY banned_until LIMIT :size
   FOR UPDATE SKIP LOCKED
""")

_SET_STATUS_AND_ROLES: Final = Statement[Nothing]("""
UPDATE users SET status = CASE WHEN ban IS NULL THEN 'active' ELSE 'disabled' END, roles = given.roles,
                 ban_reason = ban ->> 'reason', banned_until = (ban ->> 'until')::timestamptz
  FROM jsonb_to_recordset(:accounts) AS given (id uuid, roles text[], ban jsonb)
 WHERE users.id = given.id
""")
log = get_logger()


class UserIsGone(Exception):
    """There is no such user, for example after an erasure or a merge."""


@dataclass(frozen=True, slots=True)
class Ban:
    reason: str | None = None  # for staff only, never for the user or other services
    until: datetime | None = None  # without an end if None

    @property
    def data(self) -> dict[str, Any]:
        """The ban as the audit trail stores it."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True)
class StatusAndRoles:
    roles: tuple[str, ...]
    ban: Ban | None = None
    erase_at: datetime | None = None  # only read here: `change_status_and_roles` does not store it

    @classmethod
    def of(cls, row: LockedUser) -> Self:
        ban = Ban(row.ban_reason, row.banned_until) if row.status == "disabled" else None
        return cls(tuple(row.roles), ban, row.erase_at)

    def with_longest_of(self, bans: Iterable[Ban], *, now: datetime) -> "StatusAndRoles":
        """Return this status with the longest of these bans that lasts, instead of the present ban."""
        lasting = [ban for ban in bans if ban.until is None or ban.until > now]
        # In the order of these keys, a ban without an end is longer than any ban with an end.
        longest = max(lasting, key=lambda ban: (ban.until is None, ban.until), default=None)
        return replace(self, ban=longest)

    @property
    def is_banned(self) -> bool:
        """A ban whose end has passed counts until wxauth has lifted it."""
        return self.ban is not None

    @property
    def is_leaving(self) -> bool:
        """Whether the user has asked to be erased."""
        return self.erase_at is not None

    @property
    def is_administrator(self) -> bool:
        """Whether the user has the role, and is neither banned nor waiting to be erased."""
        return ADMIN in self.roles and not self.is_banned and not self.is_leaving

    @property
    def is_staff(self) -> bool:
        """Whether the user has a role of staff, even if banned."""
        return not STAFF_ROLES.isdisjoint(self.roles)

    def adds_roles_to(self, before: Self) -> bool:
        """Return whether a role is added.

        A staff role that a banned user keeps counts, because the change might lift the ban. So does a new role of a
        user who stays banned, because the ban might be lifted later.
        """
        suspended = STAFF_ROLES if before.is_banned else frozenset[str]()
        usable_before = frozenset(before.roles) - suspended
        return not usable_before.issuperset(self.roles)


class Ending(Enum):
    """The kinds of a user's sessions that a change of status or roles can end."""

    ALL = auto()
    CONSOLES = auto()
    # Staff may log in only in a browser near their phone, which was not checked at the earlier logins.
    BROWSERS = auto()


@dataclass(frozen=True, slots=True)
class StatusChange:
    user_id: UUID
    before: StatusAndRoles
    after: StatusAndRoles

    @property
    def events(self) -> Mapping[EventType, Mapping[str, Any] | None]:
        """What to record. A new reason or end of a ban is a ban, too."""
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
        """Log the change. Call this after the commit: a change that is rolled back must not be logged."""
        for kind in self.events:
            log.info(kind.log_event, user_id=self.user_id, actor=by.name)


def check_may_log_in(user_id: UUID, account: StatusAndRoles) -> None:
    """Raise AccountDisabled if the user is banned, or AccountLeaving after a request for erasure."""
    if account.ban is not None:
        raise AccountDisabled(until=account.ban.until, user_id=user_id)
    if account.erase_at is not None:
        raise AccountLeaving(account.erase_at, user_id=user_id)


async def lock_status_and_roles(transaction: Transaction, user_id: UUID) -> StatusAndRoles | None:
    """Lock a user until the transaction ends. Return None if there is no such user."""
    accounts = await lock_users(transaction, [user_id])
    return accounts.get(user_id)


async def lock_users(transaction: Transaction, user_ids: Iterable[UUID]) -> dict[UUID, StatusAndRoles]:
    """Lock users, and return each one's status and roles. Unknown ids are left out."""
    rows = await transaction.rows(_LOCK, user_ids=list(user_ids))
    return {row.id: StatusAndRoles.of(row) for row in rows}


async def lock_with_administrators(
    transaction: Transaction, *user_ids: UUID
) -> tuple[dict[UUID, StatusAndRoles], frozenset[UUID]]:
    """Lock users and, if one of them is an administrator, all administrators. Return the ids of the latter, too.

    If none of the users is an administrator, changes to administrators need not wait for this transaction.

    Raises: ChangedMeanwhile, if one of the users has just become an administrator.
    """
    locks_administrators = bool(await transaction.value(_SOME_ARE_ADMINISTRATORS, user_ids=user_ids))
    # One statement locks all of these users, in the order of their ids.
    rows = await transaction.rows(_LOCK_WITH_ADMINISTRATORS if locks_administrators else _LOCK, user_ids=user_ids)
    accounts = {row.id: StatusAndRoles.of(row) for row in rows}
    administrators = frozenset(user_id for user_id, account in accounts.items() if account.is_administrator)
    if administrators and not locks_administrators:
        raise ChangedMeanwhile
    return accounts, administrators


@asynccontextmanager
async def locked_user(
    database: Database, user_id: UUID, *, could_remove_administrator: bool
) -> AsyncIterator[tuple[Transaction, StatusAndRoles]]:
    """Open a transaction that locks a user, and yield the user's status and roles, too.

    Raises: UserIsGone; LastAdmin, if `could_remove_administrator` is set, and the user is the only administrator.
    """
    lock = partial(lock_user, user_id=user_id, could_remove_administrator=could_remove_administrator)
    async with begin_locked(database, lock) as (transaction, account):
        yield transaction, account


async def lock_user(transaction: Transaction, *, user_id: UUID, could_remove_administrator: bool) -> StatusAndRoles:
    """Lock a user, as `locked_user`, in a given transaction.

    Raises: ChangedMeanwhile, too, if the user has just become an administrator.
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
    """Store and record changes of locked users, and end sessions. After the commit, call `report` on each change.

    The number of statements does not depend on the number of users.
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
    """Lift up to `size` bans whose end has passed, and return their number."""
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
