"""Two users turn out to be one person.

WeChat says so when it gives an identity a unionid that is another user's: an app has newly been bound to an Open
Platform account, or has moved to another one. Every unionid that a person has had is remembered, so that ids never
flip while apps move one after the other.
"""

from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import Final
from uuid import UUID

from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.tables import UserStatus
from wxauth.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.errors import StorageUnavailable
from wxauth.people.merging_rows import merge_users, name_identity, people_of
from wxauth.people.standing import ADMIN, MAX_ROLES, Settled, Standing, lock_standings, settle
from wxauth.people.standing_rows import lock_administrators, some_are_administrators

_ATTEMPTS: Final = 5

log = get_logger()


@dataclass(frozen=True, slots=True)
class Merged:
    """What has come of a merge."""

    former_id: UUID
    settled: Settled

    def tell(self) -> None:
        """Write the log lines. For when the transaction has been committed."""
        log.info("user_merged", user_id=self.settled.user_id, former_id=self.former_id, actor=self.settled.by.name)
        self.settled.tell()


async def link_unionid(database: Database, *, app_id: str, openid: str, unionid: str, now: datetime) -> None:
    """Make one user of the one who has a known identity and the one who has the unionid that WeChat gives with it now.

    The one that the unionid names remains. Where there are no two, nothing is done.

    Raises: StorageUnavailable.
    """
    identity = {"app_id": app_id, "openid": openid, "unionid": unionid}
    for _ in range(_ATTEMPTS):
        user_id, holder_id = await people_of(database, **identity)
        if user_id is None or holder_id is None or user_id == holder_id:
            return
        both = (user_id, holder_id)
        async with database.begin() as transaction:
            # All lock in one order: administrators, where one is concerned, then users by their ids.
            are_concerned = await some_are_administrators(transaction, both)
            administrators = await lock_administrators(transaction) if are_concerned else frozenset()
            standings = await lock_standings(transaction, both)
            if len(standings) < len(both):
                continue  # another request has merged or erased one of them
            if not are_concerned and any(standing.is_administrator for standing in standings.values()):
                continue
            merged = await _merge(
                transaction,
                user_id,
                into=holder_id,
                standings=standings,
                administrators=administrators,
                by=SYSTEM,
                now=now,
            )
            await name_identity(transaction, **identity)
        merged.tell()
        return
    raise StorageUnavailable("too many changes to this user at once")


async def _merge(
    transaction: Transaction,
    former_id: UUID,
    *,
    into: UUID,
    standings: dict[UUID, Standing],
    administrators: AbstractSet[UUID],
    by: Actor,
    now: datetime,
) -> Merged:
    """Give a user's identities, sessions and roles to another one; both are locked.

    If either user was banned, the merged one is, unless that would leave no administrator. Fields that the remaining
    user lacks are taken from the other one, whose events stay as they are.
    """
    before, former = standings[into], standings[former_id]
    is_needed = bool(administrators) and administrators <= {former_id, into}
    is_banned = (before.is_banned or former.is_banned) and not is_needed
    after = Standing(UserStatus.DISABLED if is_banned else UserStatus.ACTIVE, _united(before, former))
    moved = await merge_users(transaction, former_id, into=into, now=now)
    record = partial(record_event, transaction, by=by, at=now, user_id=into)
    await record(EventType.USER_MERGED, data={"former_id": former_id})
    for app_id in moved.app_ids:
        await record(EventType.IDENTITY_ADDED, app_id=app_id)
    if moved.fields:
        await record(EventType.PROFILE_CHANGED, data={"fields": moved.fields})
    return Merged(former_id, await settle(transaction, into, before=before, after=after, by=by, now=now))


def _united(one: Standing, other: Standing) -> tuple[str, ...]:
    """The roles of both; `admin` before the others, should they be too many for one user."""
    return tuple(sorted({*one.roles, *other.roles}, key=lambda role: (role != ADMIN, role))[:MAX_ROLES])
