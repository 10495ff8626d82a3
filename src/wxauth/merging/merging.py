"""The merging of two users who are the same person.

The usual reason is a late unionid, which WeChat returns for an existing identity, although the unionid belongs to
another user. WeChat does so if the app was bound to an Open Platform account, or moved to another account. wxauth
stores every unionid that a user has had, so that user ids do not change back and forth while an operator's apps move
one after the other. Other reasons for a merge are a phone number that both users have verified, and an operator's
decision.
"""

from collections.abc import Collection, Sequence, Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial
from typing import Any, Final
from uuid import UUID

from wxauth.core.database import Database, Transaction
from wxauth.core.logs import get_logger
from wxauth.core.metrics import Counter
from wxauth.core.retrying import ATTEMPTS_OF_OPERATORS, ChangedMeanwhile, retrying
from wxauth.core.trail import SYSTEM, Actor, EventType, record_event
from wxauth.errors import LastAdmin, MergeRefused
from wxauth.i18n import lazy_gettext as _
from wxauth.merging import merging_queries as queries, unionid_queries
from wxauth.merging.merging_queries import UserInMerge
from wxauth.sessions.queries import EndReason, end_logins_in_browsers
from wxauth.settings.roles import MAX_ROLES, STAFF_ROLES
from wxauth.users.attributes import add_missing_attributes
from wxauth.users.erasure_queries import cancel_erasure
from wxauth.users.status_queries import (
    ADMIN,
    StatusAndRoles,
    StatusChange,
    change_status_and_roles,
    check_may_log_in,
    lock_with_administrators,
)
from wxauth.users.user_queries import current_user_id, read_attributes

NEW_USER_FOR: Final = timedelta(days=1)
"""The time after a user's creation in which wxauth may merge the user into another user with the same phone number."""

log = get_logger()


class MergeSource(StrEnum):
    """The reason for a merge."""

    UNIONID = "unionid"
    PHONE = "phone"
    OPERATOR = "operator"


MERGES: Final = Counter("wxauth_merges", "Merges of two users, by reason.", "by", first=MergeSource)


@dataclass(frozen=True, slots=True)
class Merged:
    """The result of a merge."""

    former_user: UserInMerge
    """The data of the removed user before the merge."""
    remaining_user: UserInMerge
    """The data of the remaining user before the merge."""
    source: MergeSource
    by: Actor
    status_change: StatusChange
    """The change of the remaining user's status and roles."""

    def report(self) -> None:
        """Count the merge, and write the log lines.

        Call this method after the commit, because the commit might fail.
        """
        MERGES.count(self.source)
        log.info(
            "user_merged",
            user_id=self.remaining_user.id,
            former_id=self.former_user.id,
            source=self.source,
            actor=self.by.name,
        )
        self.status_change.report(by=self.by)


@dataclass(frozen=True, slots=True)
class MergePair:
    """The two users of a merge. They are locked, so no other transaction can change their status and roles."""

    former_id: UUID
    remaining_id: UUID
    former: StatusAndRoles
    """The status and roles of the user whom the merge removes."""
    remaining: StatusAndRoles
    """The status and roles of the user who remains."""
    administrators: AbstractSet[UUID]
    """The ids of all administrators; empty if neither of the two users is an administrator."""

    @property
    def has_the_last_administrators(self) -> bool:
        """Whether at least one of the two users is an administrator, and no other user is."""
        return bool(self.administrators) and self.administrators <= {self.former_id, self.remaining_id}

    @property
    def is_either_leaving(self) -> bool:
        """Whether at least one of the two users has asked to be erased."""
        return self.former.is_leaving or self.remaining.is_leaving


async def merge(transaction: Transaction, pair: MergePair, *, source: MergeSource, by: Actor, now: datetime) -> Merged:
    """Merge two locked users. The table shows the rules for each reason.

    This function does not check the row "refused if", because its callers check these conditions.

                 late unionid              phone number               operator
    proof        WeChat itself says that   the user has the number    the operator's decision
                 both are the same         now, which does not
                 person                    prove who they are
    refused if   the users were split, or  an account could be        a user has asked to be
                 one has asked to be       stolen: see                erased, both have an external
                 erased: see               `link_by_phone`            id, or a ban would leave no
                 `link_unionid`                                       administrator
    remaining    the user with the         the user who had the       the user whom the operator
                 unionid                   number before              names
    status       a ban of either, the      active, as both are        a ban of either, the longer
                 longer one, unless no                                one
                 administrator would
                 be left
    roles        of both; if banned,       of the remaining user      of both
                 without the staff roles
    attributes   of the remaining user     of the remaining user      as for a late unionid
                 and, if all of them fit,
                 those that only the
                 removed user has
    actor        `system`                  the user                   the operator or administrator

    The remaining user keeps their unionid, nickname, picture, number and external id, and gets missing values from the
    removed user. If both users have an external id, which only a late unionid allows, wxauth finds the remaining user
    by either of these ids.

    Identities, sessions in apps, former ids and all unionids move to the remaining user. Consents and events keep the
    removed user's id, through which wxauth finds them. The removed user's sessions at websites and logins in browsers
    end, because a website must see the same user id as long as a session lasts. The remaining user gets the earlier
    creation time and the later last login of the two users.

    The caller must call `report` on the result after the commit.
    """
    is_by_phone = source is MergeSource.PHONE
    after = pair.remaining if is_by_phone else status_and_roles_of_both(pair, source, now=now)
    # The moved identities get the roles in `after`. If these include staff roles that the removed user did not have,
    # the logins to websites that these identities have approved must end (see `end_logins_in_browsers`).
    gained_staff_roles = STAFF_ROLES.intersection(after.roles).difference(pair.former.roles)
    await end_logins_in_browsers(
        transaction, pair.former_id, becomes_staff=bool(gained_staff_roles), reason=EndReason.MERGED, by=by, now=now
    )
    # These rows must be read before `merge_users`, which changes the remaining user and deletes the removed user.
    remaining_user = await queries.read_user(transaction, pair.remaining_id)
    former_user = await queries.read_user(transaction, pair.former_id)
    former_attributes = await read_attributes(transaction, pair.former_id)
    app_ids = await queries.merge_users(
        transaction, pair.former_id, into=pair.remaining_id, is_by_phone=is_by_phone, now=now
    )
    await _record_merge(transaction, pair, source, app_ids=app_ids, by=by, now=now)
    await queries.record_gained_data(transaction, pair.remaining_id, remaining_user, by=by, now=now)
    if former_attributes and not is_by_phone:
        await add_missing_attributes(transaction, pair.remaining_id, former_attributes, by=by, now=now)
    status_change = StatusChange(pair.remaining_id, pair.remaining, after)
    await change_status_and_roles(transaction, [status_change], by=by, now=now)
    return Merged(former_user, remaining_user, source, by, status_change)


async def _record_merge(
    transaction: Transaction, pair: MergePair, source: MergeSource, *, app_ids: Sequence[str], by: Actor, now: datetime
) -> None:
    """Record the merge, and the addition of an identity in each of the apps in `app_ids`."""
    record = partial(record_event, transaction, by=by, at=now, user_id=pair.remaining_id)
    data: dict[str, Any] = {"former_id": pair.former_id}
    if source is not MergeSource.UNIONID:
        data["by"] = source  # with this key, `IS_JOINED` finds the merges that WeChat has not caused
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
    """Merge the user of a known identity into the user of the unionid that WeChat now returns for this identity.

    Then store the unionid in the rows of the identity and the remaining user. Do nothing if the two users are the same
    user, if one of them does not exist, or if they were split. `cancels_erasure` means that the person who logs in
    wants to keep the account. If it is set and neither user is banned, cancel the erasures that the users have
    requested.

    Raises: AccountLeaving, if a user has asked to be erased and `cancels_erasure` is not set; AccountDisabled, if a
        user has asked to be erased and one of the two is banned; TooManyChanges.
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

    WeChat has just returned both ids for one person, so the user of this identity is that person. Therefore, give the
    identity the right openid, or delete the imported identity if another identity has the right openid.

    - If there is no such imported identity, do nothing.
    - If the unionid belongs to another user, first merge the two users, as for any late unionid. If these users were
      split, leave the identity unchanged, and never try to correct it again.
    - If the right openid belongs to another user, the next attempt of the login merges the users, because this function
      has given the unionid to the user of the imported identity.

    Raises: AccountDisabled, AccountLeaving, TooManyChanges, as `link_unionid` does; one of
        `core.database_errors.CONFLICTS`, if another transaction has just given the unionid to a user.
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
    """Merge two locked users because of a unionid. Return None, and change nothing, if the users were split.

    Raises: AccountDisabled, AccountLeaving, as `link_unionid` does.
    """
    if await transaction.value(queries.ARE_SPLIT, one_id=pair.former_id, other_id=pair.remaining_id):
        return None
    if pair.is_either_leaving:
        pair = await _cancel_erasures_of_both(transaction, pair, cancels_erasure=cancels_erasure, now=now)
    return await merge(transaction, pair, source=MergeSource.UNIONID, by=SYSTEM, now=now)


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
    """Merge a new user who has verified a phone number into the only other user who has verified the number before.

    Return None if the merge is not allowed. A carrier might have given the number to another person, who must not get
    the account of the previous holder. Therefore, all these conditions must hold:

    - Neither of the two users is an administrator, or has asked to be erased.
    - The new user has one identity, was created within the last day, and is not banned.
    - The two users have no app in common, and were never split.
    - At most one of the two users has a unionid, and at most one has an external id.
    - The holder has only harmless roles, is not banned, and has verified the number recently. Later logins do not count
      as a verification.

    The caller must have locked the number, so that no other user verifies the number at the same time. "Recently" is
    `verified_since` or later, and `harmless_roles` are the roles that a new user can get by signing up.

    Raises: ChangedMeanwhile, if another request has just merged or erased one of the two users, or made one of them an
        administrator.
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
    return await merge(transaction, pair, source=MergeSource.PHONE, by=Actor(str(holder_id)), now=now)


@retrying(ATTEMPTS_OF_OPERATORS)
async def merge_by_operator(
    database: Database,
    former_id: UUID,
    *,
    into: UUID,
    by: Actor,
    now: datetime,
) -> Merged:
    """Merge a user into another user by an operator's decision.

    The id of a user who was merged earlier stands for the user into whom they were merged.

    Raises: NotFound, if one of the users does not exist; MergeRefused, if both ids belong to one user, if a user has
        requested erasure, or if both users have an external id; LastAdmin, if the merge would ban the only
        administrator; TooManyChanges.
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
        merged = await merge(transaction, pair, source=MergeSource.OPERATOR, by=by, now=now)
    merged.report()
    return merged


async def _lock_pair(transaction: Transaction, former_id: UUID, *, into: UUID) -> MergePair:
    """Lock two users, and return them. If one of them is an administrator, lock all administrators, too.

    `former_id` is the id of the user who would be merged into the user with the id `into`.

    Raises: ChangedMeanwhile, if another request has just merged or erased one of the two users, or made one of them an
        administrator.
    """
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


async def _cancel_erasures_of_both(
    transaction: Transaction, pair: MergePair, *, cancels_erasure: bool, now: datetime
) -> MergePair:
    """Cancel the erasures that one or both of the users have requested, and return the pair after this change.

    Raises: AccountLeaving, if a user has requested erasure and `cancels_erasure` is not set; AccountDisabled, if a user
        is banned.
    """
    accounts = {pair.former_id: pair.former, pair.remaining_id: pair.remaining}
    # `check_may_log_in` raises the errors. A ban of either user takes precedence over a requested erasure of the other.
    for user_id, account in accounts.items():
        if account.is_banned:
            check_may_log_in(user_id, account)
    for user_id, account in accounts.items():
        if not cancels_erasure:
            check_may_log_in(user_id, account)
        await cancel_erasure(transaction, user_id, account, by=Actor(str(user_id)), now=now)
    return replace(pair, former=replace(pair.former, erase_at=None), remaining=replace(pair.remaining, erase_at=None))


def status_and_roles_of_both(pair: MergePair, source: MergeSource, *, now: datetime) -> StatusAndRoles:
    """Return the status and roles that the remaining user of a merge gets: the roles of both, and the longer ban.

    If the ban would leave no administrator, the user is not banned. The function drops roles beyond MAX_ROLES, but
    never `admin`. In a merge because of a unionid, it drops the staff roles of a banned user.
    """
    remaining, former = pair.remaining, pair.former
    bans = [ban for ban in (remaining.ban, former.ban) if ban is not None]
    if pair.has_the_last_administrators:
        bans = []
    # `admin` comes first, so that the limit never drops it.
    roles = sorted({*remaining.roles, *former.roles}, key=lambda role: (role != ADMIN, role))[:MAX_ROLES]
    if bans and source is MergeSource.UNIONID:
        # No administrator has decided that the merged user is staff.
        roles = [role for role in roles if role not in STAFF_ROLES]
    return replace(remaining.with_longest_of(bans, now=now), roles=tuple(roles))
