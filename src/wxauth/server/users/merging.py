"""Two users turn out to be one person.

WeChat says so when it gives an identity a unionid that is another user's: an app has newly been bound to an Open
Platform account, or has moved to another one. Every unionid that a person has had is remembered, so that ids never
flip while apps move one after the other. A number that both have proved may say so too, and so may an operator.
"""

from collections.abc import Callable, Collection
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final
from uuid import UUID

from wxauth.errors import LastAdmin, LoginTooOld, MergeRefused, NotFound, StorageUnavailable
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.logs import get_logger
from wxauth.server.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.server.core.users import MAX_ROLES, STAFF_ROLES, UserStatus
from wxauth.server.sessions.rows import end_sessions_of_websites
from wxauth.server.users.merging_rows import (
    are_split,
    current_user,
    have_both_external_ids,
    may_link_by_phone,
    merge_users,
    name_identity,
    people_of,
)
from wxauth.server.users.standing import (
    ADMIN,
    Settled,
    Standing,
    administrators_among,
    lock_standings,
    settle,
)
from wxauth.server.users.standing_rows import some_are_administrators

NEWCOMER_FOR: Final = timedelta(days=1)
"""How long after it was created a user may be merged into another one by a phone number."""

_ATTEMPTS: Final = 5
_ATTEMPTS_OF_OPERATORS: Final = 50
"""Tries of an operator's merge. Of fifty crosswise merges at once one wins a round; the others look again."""

log = get_logger()


class Source(StrEnum):
    """The reason for a merge: what says that two users are one person."""

    UNIONID = "unionid"
    PHONE = "phone"
    OPERATOR = "operator"


Observe = Callable[[Source], object]
"""Called with each merge that has been committed."""


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of a merge."""

    former_id: UUID
    source: Source
    settled: Settled

    def tell(self, observe: Observe) -> None:
        """Count the merge and write the log lines. Call it after the commit."""
        observe(self.source)
        log.info(
            "user_merged",
            user_id=self.settled.user_id,
            former_id=self.former_id,
            source=self.source,
            actor=self.settled.by.name,
        )
        self.settled.tell()


@dataclass(frozen=True, slots=True)
class Pair:
    """Two locked users: nobody else can change their standing."""

    former_id: UUID
    into: UUID
    former: Standing
    remaining: Standing
    administrators: AbstractSet[UUID]
    """All administrators, if one of the two users is one; otherwise empty."""

    @property
    def has_the_last_administrators(self) -> bool:
        """Whether no other user is an administrator."""
        return bool(self.administrators) and self.administrators <= {self.former_id, self.into}


async def merge(transaction: Transaction, pair: Pair, *, source: Source, by: Actor, now: datetime) -> Merged:
    """Make one user of two who are locked. All merges are done here.

                 late unionid              phone number               operator
    proves       WeChat itself says that   the person holds the       somebody in charge
                 both are one person       number now; not who        says so
                                           they are
    refused      to users who were split   unless nothing can be      two external ids;
                                           stolen by it: see          a ban that would leave
                                           `link_by_phone`            no administrator
    remains      whom the unionid named    who had the number         whom the operator names
    status       a ban of either, the      active, as both are        a ban of either, the
                 longer one, unless                                   longer one
                 no administrator would
                 be left
    roles        of both; of somebody      of who remains             of both
                 banned, none of staff
    unionid, names, picture, number, external id: of who remains; what that user lacks, of the former one. The former
    one's external id goes on finding the user, also where it is not taken (which only a unionid can bring about)
    told as by   `system`                  the person                 the operator, or administrator

    Identities, the mini-programs' sessions, consents, former ids and every unionid go along; websites' sessions end.
    The former user's events stay as they are.
    The user was created when the first of both came, and logged in last when the last one did.
    """
    before, former = pair.remaining, pair.former
    match source:
        case Source.PHONE:
            after = before
        case Source.UNIONID | Source.OPERATOR:
            is_banned = (before.is_banned or former.is_banned) and not pair.has_the_last_administrators
            roles = _united(before, former)
            if is_banned and source is Source.UNIONID:  # nobody in charge has made this user staff
                roles = tuple(role for role in roles if role not in STAFF_ROLES)
            after = (
                replace(_longer_ban(before, former), roles=roles) if is_banned else Standing(UserStatus.ACTIVE, roles)
            )
    await end_sessions_of_websites(transaction, pair.former_id, by=by, now=now)
    moved = await merge_users(transaction, pair.former_id, into=pair.into, now=now)
    data: dict[str, Any] = {"former_id": pair.former_id}
    if source is not Source.UNIONID:
        data["by"] = source
    record = partial(record_event, transaction, by=by, at=now, user_id=pair.into)
    await record(EventType.USER_MERGED, data=data)
    for app_id in moved.app_ids:
        await record(EventType.IDENTITY_ADDED, app_id=app_id)
    if moved.fields:
        await record(EventType.PROFILE_CHANGED, data={"fields": moved.fields})
    settled = await settle(transaction, pair.into, before=before, after=after, by=by, now=now)
    return Merged(pair.former_id, source, settled)


async def link_unionid(
    database: Database,
    *,
    app_id: str,
    openid: str,
    unionid: str,
    now: datetime,
    observe: Observe = lambda _source: None,
) -> None:
    """Merge the user of a known identity into the user of the unionid that WeChat now gives with this identity.

    Nothing is done if both are the same user, if one of them does not exist, or if they were split.

    Raises: StorageUnavailable.
    """
    identity = {"app_id": app_id, "openid": openid, "unionid": unionid}
    for _ in range(_ATTEMPTS):
        user_id, holder_id = await people_of(database, **identity)
        if user_id is None or holder_id is None or user_id == holder_id:
            return
        async with database.begin() as transaction:
            pair = await _lock_pair(transaction, user_id, holder_id)
            if pair is None or await people_of(transaction, **identity) != (user_id, holder_id):
                continue  # merged, erased or split meanwhile
            if await are_split(transaction, user_id, holder_id):
                return
            merged = await merge(transaction, pair, source=Source.UNIONID, by=SYSTEM, now=now)
            await name_identity(transaction, **identity)
        merged.tell(observe)
        return
    raise StorageUnavailable("too many changes to this user at once")


async def link_by_phone(
    transaction: Transaction,
    user_id: UUID,
    *,
    holder_id: UUID,
    phone: str,
    proved_since: datetime,
    harmless_roles: Collection[str],
    now: datetime,
) -> Merged | None:
    """Merge a newcomer who has proved a number into the only user who had proved it; None if that is not allowed.

    A carrier may have given the number to somebody else, who must not get the former holder's account. So a merge is
    allowed only if the newcomer has one identity and was created within a day; if the two users have no app in common,
    were never split, and do not both have a unionid or an external id; and if the holder has no role but harmless ones,
    is not banned, and has proved the number lately: a login proves nothing of a number. The caller has locked the
    number, so that nobody else proves it meanwhile.

    Args:
        transaction: The transaction of the merge.
        user_id: The newcomer.
        holder_id: The user who had proved the number before.
        phone: The number.
        proved_since: The holder must have proved the number since then.
        harmless_roles: Roles that anybody may have by signing up.
        now: The time.
    """
    pair = await _lock_pair(transaction, user_id, holder_id)
    if pair is None or pair.administrators or pair.former.is_banned:
        return None
    if await are_split(transaction, user_id, holder_id):
        return None
    if not await may_link_by_phone(
        transaction,
        user_id,
        holder_id=holder_id,
        phone=phone,
        created_since=now - NEWCOMER_FOR,
        proved_since=proved_since,
        harmless_roles=harmless_roles,
    ):
        return None
    return await merge(transaction, pair, source=Source.PHONE, by=Actor(str(holder_id)), now=now)


async def merge_by_operator(
    database: Database,
    former_id: UUID,
    *,
    into: UUID,
    by: Actor,
    may_promote: bool,
    now: datetime,
    observe: Observe = lambda _source: None,
) -> UUID:
    """Merge a user into another one, as somebody in charge says; the id of the user that remains.

    A former id stands for the user that remains. Without `may_promote`, nobody with a role of staff is merged, banned
    or not: the identities of the other one would become an administrator's.

    Raises: NotFound, MergeRefused, LastAdmin, LoginTooOld, StorageUnavailable.
    """
    for _ in range(_ATTEMPTS_OF_OPERATORS):
        user_id, remaining_id = await current_user(database, former_id), await current_user(database, into)
        if user_id is None or remaining_id is None:
            raise NotFound("there is no such user")
        if user_id == remaining_id:
            raise MergeRefused("they are one user already")
        async with database.begin() as transaction:
            pair = await _lock_pair(transaction, user_id, remaining_id)
            if pair is None:
                continue
            if (pair.former.is_staff or pair.remaining.is_staff) and not may_promote:
                raise LoginTooOld
            if await have_both_external_ids(transaction, user_id, remaining_id):
                raise MergeRefused("both have an external_id, of which one would be lost")
            if pair.has_the_last_administrators and (pair.former.is_banned or pair.remaining.is_banned):
                raise LastAdmin("the ban would follow the only administrator: lift it first")
            merged = await merge(transaction, pair, source=Source.OPERATOR, by=by, now=now)
        merged.tell(observe)
        return remaining_id
    raise StorageUnavailable("too many changes to this user at once")


async def _lock_pair(transaction: Transaction, former_id: UUID, into: UUID) -> Pair | None:
    """Lock both users, and all administrators if one of the two is one; by their ids, as everybody locks users.

    None if another request has meanwhile merged or erased one of the two, or made one an administrator: look again.
    """
    both = (former_id, into)
    are_concerned = await some_are_administrators(transaction, both)
    standings = await lock_standings(transaction, both, with_administrators=are_concerned)
    if not standings.keys() >= set(both):
        return None
    administrators = administrators_among(standings)
    if administrators and not are_concerned:
        return None
    return Pair(former_id, into, standings[former_id], standings[into], administrators)


def _longer_ban(one: Standing, other: Standing) -> Standing:
    """The standing of these two whose ban ends last, or never."""
    bans = [standing for standing in (one, other) if standing.is_banned]
    return max(bans, key=lambda ban: (ban.banned_until is None, ban.banned_until))


def _united(one: Standing, other: Standing) -> tuple[str, ...]:
    """The roles of both. If they are too many for one user, `admin` is kept before all others."""
    return tuple(sorted({*one.roles, *other.roles}, key=lambda role: (role != ADMIN, role))[:MAX_ROLES])
