"""What administrators do, and operators by command."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from wxauth.core import trail
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
from wxauth.core.tables import UserStatus
from wxauth.core.trail import EventSearch, EventType, NewEvent
from wxauth.errors import NotFound
from wxauth.store import sessions, users
from wxauth.store.sessions import EndReason
from wxauth.store.users import ADMIN, Standing, UserSearch

PAGE_SIZE: Final = 50
MAX_PAGE_SIZE: Final = 200
MAX_ROLES: Final = 32

_CURSOR: Final = re.compile(r"[A-Za-z0-9_-]{22}")

log = get_logger()


class TooManyRoles(Exception):
    """The user would have more roles than one may have."""


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does it, and from where."""

    name: str
    """An administrator's user id, or `OPERATOR`."""
    ip: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class UserChange:
    """What is decided of a user; what is left out stays."""

    status: UserStatus | None = None
    roles: Sequence[str] | None = None
    """All that the user is to have."""
    granted: str | None = None
    """A role to have beside the others."""
    revoked: str | None = None
    """A role to have no longer."""

    def applied_to(self, before: Standing) -> Standing:
        """How the user stands then. Raises: TooManyRoles."""
        wanted = [*(before.roles if self.roles is None else self.roles), self.granted]
        roles = tuple(dict.fromkeys(role for role in wanted if role and role != self.revoked))
        if len(roles) > MAX_ROLES:
            raise TooManyRoles
        return Standing(self.status or before.status, roles)

    @property
    def may_end_an_administrator(self) -> bool:
        """Whether an administrator may be none afterwards."""
        takes_role = self.revoked == ADMIN or (self.roles is not None and ADMIN not in self.roles)
        return takes_role or self.status is UserStatus.DISABLED


@dataclass(frozen=True, slots=True)
class Page:
    """Some of a list, and how to go on."""

    items: Sequence[Mapping[str, Any]]
    next_cursor: str | None


async def list_users(database: Database, search: UserSearch, *, before: UUID | None, limit: int) -> Page:
    """The newest users who are wanted, of those before this one. Raises: StorageUnavailable."""
    return _page(await users.find_users(database, search, before=before, limit=limit + 1), limit)


async def read_user(database: Database, user_id: UUID, *, now: datetime) -> Mapping[str, Any]:
    """A user with all identities and open sessions. Raises: NotFound, StorageUnavailable."""
    user = await users.read_user(database, user_id)
    if user is None:
        raise _no_such_user()
    return {**user, "sessions": await sessions.open_sessions(database, user_id, now=now)}


async def change_user(database: Database, user_id: UUID, change: UserChange, *, by: Actor, now: datetime) -> None:
    """Ban or unban a user, and set their roles; a ban ends every session.

    Raises: NotFound, LastAdmin, TooManyRoles, StorageUnavailable.
    """
    async with database.begin() as transaction:
        if change.may_end_an_administrator:  # before the user is locked: all lock in one order
            await users.keep_an_administrator(transaction, user_id)
        before = await users.lock_standing(transaction, user_id)
        if before is None:
            raise _no_such_user()
        after = change.applied_to(before)
        changes = _changes(before, after)
        if changes:
            await users.set_standing(transaction, user_id, after)
        for kind, data in changes.items():
            event = NewEvent(type=kind, at=now, actor=by.name, user_id=user_id, ip=by.ip, data=data)
            await trail.record_event(transaction, event)
        if EventType.USER_BANNED in changes:
            await sessions.end_sessions(transaction, user_id, reason=EndReason.BANNED, actor=by.name, now=now, ip=by.ip)
    for kind in changes:
        log.info(kind, user_id=user_id, actor=by.name)


async def erase_user(database: Database, user_id: UUID, *, by: Actor, now: datetime) -> None:
    """Erase a person everywhere. Raises: NotFound, LastAdmin, StorageUnavailable."""
    if not await users.erase_user(database, user_id, actor=by.name, now=now, ip=by.ip):
        raise _no_such_user()
    log.info("user_erased", user_id=user_id, actor=by.name)


async def end_sessions(database: Database, user_id: UUID, *, by: Actor, now: datetime) -> None:
    """Sign a user out everywhere. Raises: NotFound, StorageUnavailable."""
    async with database.begin() as transaction:
        if await users.lock_standing(transaction, user_id) is None:
            raise _no_such_user()
        await sessions.end_sessions(transaction, user_id, reason=EndReason.SIGNED_OUT, actor=by.name, now=now, ip=by.ip)
    log.info("sessions_ended", user_id=user_id, actor=by.name)


async def list_events(database: Database, search: EventSearch, *, before: UUID | None, limit: int) -> Page:
    """The newest events that are wanted, of those before this one. Raises: StorageUnavailable."""
    return _page(await trail.find_events(database, search, before=before, limit=limit + 1), limit)


def id_in_cursor(cursor: str) -> UUID:
    """The last id of the page before. Raises: ValueError."""
    if not _CURSOR.fullmatch(cursor):
        raise ValueError("Not a next_cursor of this list")
    return UUID(bytes=urlsafe_b64decode(cursor + "=="))


def _page(rows: Sequence[Mapping[str, Any]], limit: int) -> Page:
    """Of rows of which one more than the limit was asked for."""
    items = rows[:limit]
    is_last = len(rows) <= limit
    return Page(items, None if is_last else urlsafe_b64encode(items[-1]["id"].bytes).rstrip(b"=").decode())


def _changes(before: Standing, after: Standing) -> dict[EventType, dict[str, Any]]:
    """The events that tell of it, and their data."""
    changes: dict[EventType, dict[str, Any]] = {}
    if after.status is not before.status:
        banned = after.status is UserStatus.DISABLED
        changes[EventType.USER_BANNED if banned else EventType.USER_UNBANNED] = {}
    if set(after.roles) != set(before.roles):
        changes[EventType.ROLES_CHANGED] = {"before": before.roles, "after": after.roles}
    return changes


def _no_such_user() -> NotFound:
    return NotFound("there is no such user")
