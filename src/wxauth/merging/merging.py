"""The merging of two users who are the same person."""

from collections.abc import Collection, Sequence, Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import Any, Final
from uuid import UUID

from wxauth.core.database import ATTEMPTS_OF_OPERATORS, ChangedMeanwhile, Database, Transaction, retrying
from wxauth.core.logs import get_logger
from wxauth.core.metrics import Counter
from wxauth.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.errors import LastAdmin, MergeRefused
from wxauth.i18n import lazy_gettext as _
from wxauth.merging import merging_queries as queries, unionid_queries
from wxauth.merging.merging_queries import UserInMerge
from wxauth.sessions.queries import EndReason, end_logins_in_browsers
from wxauth.settings.roles import ADMIN, MAX_ROLES, STAFF_ROLES
from wxauth.users.attributes import add_missing_attributes
from wxauth.users.erasure_queries import cancel_erasure
from wxauth.users.status_queries import (
    StatusAndRoles,
    StatusChange,
    change_status_and_roles,
    check_may_log_in,
    lock_with_administrators,
)
from wxauth.users.user_queries import current_user_id, read_attributes

NEW_USER_FOR: Final = timedelta(days=1)  # afterwards, other services may have stored the user's id

log = get_logger()


@dataclass(frozen=True, slots=True)
class MergeSource:
    """A reason for a merge, and what it decides. docs/manage/merging.md also says what the callers decide."""

    name: str
    joins_accounts: bool = True
    """Whether the remaining user gets the status, the roles and the attributes of both users."""
    keeps_banned_staff: bool = True
    """Whether a user who is banned keeps the roles of staff."""
    joins_verifications: bool = True
    """Whether the later of both users' verifications of the same number counts."""
    is_in_event: bool = True
    """Whether `user.merged` names the reason, by which `IS_JOINED` finds the merges that WeChat has not caused."""


# Nobody has decided that the person whom WeChat recognizes is staff.
BY_UNIONID: Final = MergeSource("unionid", keeps_banned_staff=False, is_in_event=False)
# A number proves who has it now, and not that both users are one person.
BY_PHONE: Final = MergeSource("phone", joins_accounts=False, joins_verifications=False)
BY_OPERATOR: Final = MergeSource("operator")
MERGES: Final = Counter(
    "wxauth_merges",
    "Merges of two users, by reason.",
    "by",
    first=[source.name for source in (BY_UNIONID, BY_PHONE, BY_OPERATOR)],
)


@dataclass(frozen=True, slots=True)
class Merged:
    """The two users before the merge, and what it has changed."""

    former_user: UserInMerge
    remaining_user: UserInMerge
    source: MergeSource
    by: Actor
    status_change: StatusChange

    def report(self) -> None:
        """Count and log the merge. Call this after the commit, because the commit might fail."""
        MERGES.count(self.source.name)
        log.info(
            "user_merged",
            user_id=self.remaining_user.id,
            former_id=self.former_user.id,
            source=self.source.name,
            actor=self.by.name,
        )
        self.status_change.report(by=self.by)


@dataclass(frozen=True, slots=True)
class MergePair:
    """The two users of a merge. They are locked, so no other transaction can change their status and roles."""

    former_id: UUID
    remaining_id: UUID
    former: StatusAndRoles
    remaining: StatusAndRoles
    administrators: AbstractSet[UUID]
    """All administrators; empty if neither of the two users is one."""

    @property
    def has_the_last_administrators(self) -> bool:
        """Whether one of the two users is an administrator, and no other user is."""
        return bool(self.administrators) and self.administrators <= {self.former_id, self.remaining_id}

    @property
    def is_either_leaving(self) -> bool:
        return self.former.is_leaving or self.remaining.is_leaving


async def merge(transaction: Transaction, pair: MergePair, *, source: MergeSource, by: Actor, now: datetime) -> Merged:
    """Merge two locked users. The callers have checked that they may be merged, and call `report` after the commit."""
    after = status_and_roles_of_both(pair, source, now=now) if source.joins_accounts else pair.remaining
    # A website must see the same user id as long as a session lasts, so the former user's sessions there end. So do
    # logins that were approved by identities that now gain staff roles (see `end_logins_in_browsers`).
    gained_staff_roles = STAFF_ROLES.intersection(after.roles).difference(pair.former.roles)
    await end_logins_in_browsers(
        transaction, pair.former_id, becomes_staff=bool(gained_staff_roles), reason=EndReason.MERGED, by=by, now=now
    )
    # These rows must be read before `merge_users`, which changes the remaining user and deletes the former user.
    remaining_user = await queries.read_user(transaction, pair.remaining_id)
    former_user = await queries.read_user(transaction, pair.former_id)
    former_attributes = await read_attributes(transaction, pair.former_id)
    app_ids = await queries.merge_users(
        transaction,
        pair.former_id,
        into=pair.remaining_id,
        joins_verifications=source.joins_verifications,
        now=now,
    )
    await _record_merge(transaction, pair, source, app_ids=app_ids, by=by, now=now)
    await queries.record_gained_data(transaction, pair.remaining_id, remaining_user, by=by, now=now)
    if former_attributes and source.joins_accounts:
        await add_missing_attributes(transaction, pair.remaining_id, former_attributes, by=by, now=now)
    status_change = StatusChange(pair.remaining_id, pair.remaining, after)
    await change_status_and_roles(transaction, [status_change], by=by, now=now)
    return Merged(former_user, remaining_user, source, by, status_change)


async def _record_merge(
    transaction: Transaction, pair: MergePair, source: MergeSource, *, app_ids: Sequence[str], by: Actor, now: datetime
) -> None:
    record = partial(record_event, transaction, by=by, at=now, user_id=pair.remaining_id)
    data: dict[str, Any] = {"former_id": pair.former_id}
    if source.is_in_event:
        data["by"] = source.name
    await record(EventType.USER_MERGED, data=data)
    for app_id in app_ids:
        await record(EventType.IDENTITY_ADDED, app_id=app_id)


@retrying()
async def link_unionid(
    database: Database,
    *,
    app_id: str,
    openid: str,
    unionid: str,
    cancels_erasure: bool = False,
    now: datetime,
) -> None:
    """Merge an identity's user into the user of the unionid that WeChat now returns for it, and store the unionid.

    Do nothing if they are one user, if one of them does not exist, or if they were split. With `cancels_erasure`, the
    person who logs in wants to keep the account, so erasures that were requested are cancelled unless a user is banned.

    Raises: AccountLeaving, if an erasure was requested and is not cancelled; AccountDisabled, if a user is banned, too.
    """
    identity = {"app_id": app_id, "openid": openid, "unionid": unionid}
    people = await database.one(unionid_queries.PEOPLE, **identity)
    if people.two_users is None:
        return
    user_id, holder_id = people.two_users
    async with database.begin() as transaction:
        pair = await _lock_pair(transaction, user_id, into=holder_id)
        if await transaction.one(unionid_queries.PEOPLE, **identity) != people:
            raise ChangedMeanwhile
        merged = await _merge_by_unionid(transaction, pair, cancels_erasure=cancels_erasure, now=now)
        if merged is None:
            return
        await transaction.run(unionid_queries.STORE_UNIONID, **identity)
    merged.report()


@retrying()
async def correct_imported_identity(
    database: Database, *, app_id: str, openid: str, unionid: str, cancels_erasure: bool = False, now: datetime
) -> None:
    """Correct an imported identity that has a unionid in place of the openid.

    WeChat has just returned both ids for one person, who is the identity's user. If the unionid belongs to another
    user, merge the two, as for any late unionid; if these were split, never try again. If the openid belongs to another
    user, the next attempt of the login merges them, because the unionid now belongs to the imported identity's user.

    Raises: as `link_unionid`; one of `core.outages.CONFLICTS`, if the unionid has just been given to a user.
    """
    identity = {"app_id": app_id, "openid": openid, "unionid": unionid}
    people = await database.one(unionid_queries.PEOPLE, **identity)
    user_id = people.misnamed_user_id
    if user_id is None:
        return
    remaining_id = people.holder_id or user_id
    merged = None
    async with database.begin() as transaction:
        # If the unionid belongs to the same user or to nobody, both ids of the pair are equal, and there is no merge.
        pair = await _lock_pair(transaction, user_id, into=remaining_id)
        if await transaction.one(unionid_queries.PEOPLE, **identity) != people:
            raise ChangedMeanwhile
        if people.holder_id is None:
            await transaction.run(unionid_queries.ADD_UNIONID, unionid=unionid, user_id=user_id)
        elif remaining_id != user_id:
            merged = await _merge_by_unionid(transaction, pair, cancels_erasure=cancels_erasure, now=now)
            if merged is None:
                await transaction.run(unionid_queries.KEEP_MISNAMED, app_id=app_id, unionid=unionid)
                return
        await unionid_queries.correct_openid(transaction, **identity)
    log.warning("imported_unionid_as_openid", app_id=app_id, user_id=remaining_id)
    if merged is not None:
        merged.report()


async def _merge_by_unionid(
    transaction: Transaction, pair: MergePair, *, cancels_erasure: bool, now: datetime
) -> Merged | None:
    if await transaction.value(queries.ARE_SPLIT, one_id=pair.former_id, other_id=pair.remaining_id):
        return None
    if pair.is_either_leaving:
        pair = await _without_erasures(transaction, pair, cancels_erasure=cancels_erasure, now=now)
    return await merge(transaction, pair, source=BY_UNIONID, by=SYSTEM, now=now)


async def link_by_phone(
    transaction: Transaction,
    user_id: UUID,
    *,
    holder_id: UUID,
    phone: str,
    verified_since: datetime,
    harmless_roles: Collection[str],
    now: datetime,
) -> Merged | None:
    """Merge a new user who has verified a number into the only user who has verified it before, if allowed.

    A carrier might have given the number to another person, who must not get the account of the previous holder.
    Therefore the conditions here and in `MAY_LINK_BY_PHONE` are strict.

    The caller must have locked the number, so that no other user verifies the number at the same time.
    """
    pair = await _lock_pair(transaction, user_id, into=holder_id)
    if pair.administrators or pair.former.is_banned or pair.is_either_leaving:
        return None
    if await transaction.value(queries.ARE_SPLIT, one_id=user_id, other_id=holder_id):
        return None
    is_allowed = await transaction.value(
        queries.MAY_LINK_BY_PHONE,
        new_user_id=user_id,
        holder_id=holder_id,
        phone=phone,
        created_since=now - NEW_USER_FOR,
        verified_since=verified_since,
        harmless_roles=list(harmless_roles),
    )
    if not is_allowed:
        return None
    return await merge(transaction, pair, source=BY_PHONE, by=Actor(str(holder_id)), now=now)


@retrying(ATTEMPTS_OF_OPERATORS)
async def merge_by_operator(
    database: Database,
    former_id: UUID,
    *,
    into: UUID,
    by: Actor,
    now: datetime,
) -> Merged:
    """Merge a user into another user by an operator's decision. A former id stands for the user who remains.

    Raises: NotFound; MergeRefused, if both ids belong to one user, if a user has requested erasure, or if both have an
    external id; LastAdmin, if the merge would ban the only administrator.
    """
    user_id = await current_user_id(database, former_id)
    remaining_id = await current_user_id(database, into)
    if user_id == remaining_id:
        raise MergeRefused(_("these two users are already one user"))
    async with database.begin() as transaction:
        pair = await _lock_pair(transaction, user_id, into=remaining_id)
        if pair.is_either_leaving:
            raise MergeRefused(_("one of the users has requested erasure. Cancel the erasure first"))
        if await transaction.value(queries.HAVE_BOTH_EXTERNAL_IDS, one_id=user_id, other_id=remaining_id):
            raise MergeRefused(_("both users have an external_id, and a merge would discard one of them"))
        if pair.has_the_last_administrators and (pair.former.is_banned or pair.remaining.is_banned):
            raise LastAdmin(_("the merge would ban the only administrator. Lift the ban first"))
        merged = await merge(transaction, pair, source=BY_OPERATOR, by=by, now=now)
    merged.report()
    return merged


async def _lock_pair(transaction: Transaction, former_id: UUID, *, into: UUID) -> MergePair:
    accounts, administrators = await lock_with_administrators(transaction, former_id, into)
    if not accounts.keys() >= {former_id, into}:
        raise ChangedMeanwhile
    return MergePair(
        former_id=former_id,
        remaining_id=into,
        former=accounts[former_id],
        remaining=accounts[into],
        administrators=administrators,
    )


async def _without_erasures(
    transaction: Transaction, pair: MergePair, *, cancels_erasure: bool, now: datetime
) -> MergePair:
    """Cancel the requested erasures, or raise the error of a login if that is not allowed."""
    accounts = {pair.former_id: pair.former, pair.remaining_id: pair.remaining}
    # A ban of either user takes precedence over a requested erasure of the other.
    for user_id, account in accounts.items():
        if account.is_banned:
            check_may_log_in(user_id, account)
    for user_id, account in accounts.items():
        if not cancels_erasure:
            check_may_log_in(user_id, account)
        await cancel_erasure(transaction, user_id, account, by=Actor(str(user_id)), now=now)
    return replace(pair, former=replace(pair.former, erase_at=None), remaining=replace(pair.remaining, erase_at=None))


def status_and_roles_of_both(pair: MergePair, source: MergeSource, *, now: datetime) -> StatusAndRoles:
    """Return what the remaining user gets: the roles of both, up to MAX_ROLES, and the longer ban."""
    remaining, former = pair.remaining, pair.former
    bans = [ban for ban in (remaining.ban, former.ban) if ban is not None]
    if pair.has_the_last_administrators:
        bans = []  # otherwise, no administrator would be left who is not banned
    # `admin` comes first, so that MAX_ROLES never drops it.
    roles = sorted({*remaining.roles, *former.roles}, key=lambda role: (role != ADMIN, role))[:MAX_ROLES]
    if bans and not source.keeps_banned_staff:
        roles = [role for role in roles if role not in STAFF_ROLES]
    return replace(remaining.with_longest_of(bans, now=now), roles=tuple(roles))
