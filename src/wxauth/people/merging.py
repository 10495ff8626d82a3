"""Linking an identity to the person whom its unionid names, when WeChat tells it only later.

Rare: an app that has newly been bound to an Open Platform account, or moved to another one. Clarity
before speed. A user has one unionid, the one given last: while the apps of one owner move, one after the
other, each login with the other unionid comes this way.
"""

from collections.abc import Set as AbstractSet
from dataclasses import replace
from datetime import datetime
from uuid import UUID

from wxauth.core.database import Transaction
from wxauth.core.tables import UserStatus
from wxauth.core.trail import SYSTEM, forget_person
from wxauth.people.merging_rows import merge_empty_user, move_identity, name_user, people_of
from wxauth.people.standing import ADMIN, MAX_ROLES, Standing, lock_standings, settle
from wxauth.people.standing_rows import lock_administrators


async def link_unionid(transaction: Transaction, app_id: str, openid: str, unionid: str, *, now: datetime) -> None:
    """Give a known identity's user this unionid; where another user has it, the identity becomes that user's.

    Its sessions go with it. A user left without identities is merged into the other one: to WeChat they
    are one person. If either user was banned, the merged one is, unless that would leave no administrator. Fields that
    the remaining user lacks are taken from the other one.
    """
    people = await people_of(transaction, app_id=app_id, openid=openid, unionid=unionid)
    user_id, holder_id = people
    if user_id is None:
        return
    administrators = await lock_administrators(transaction)
    standings = await lock_standings(
        transaction, [user_id, holder_id or user_id]
    )  # before the identity, as a login does
    if await people_of(transaction, app_id=app_id, openid=openid, unionid=unionid) != people:
        return  # another request has linked it meanwhile
    if holder_id is None:
        await name_user(transaction, user_id, unionid)
    elif holder_id != user_id:
        await move_identity(transaction, app_id=app_id, openid=openid, to=holder_id)
        before, former = standings[holder_id], standings[user_id]
        after = _with_ban_of(before, former, is_needed=_are_all(administrators, {user_id, holder_id}))
        if await merge_empty_user(transaction, user_id, into=holder_id):
            await forget_person(transaction, user_id)  # nothing would lead to it any more, should the person be erased
            after = replace(after, roles=_united(before, former))
        await settle(transaction, holder_id, before=before, after=after, by=SYSTEM, now=now)


def _are_all(administrators: AbstractSet[UUID], those: AbstractSet[UUID]) -> bool:
    """Whether there is an administrator, and none but those."""
    return bool(administrators) and administrators <= those


def _with_ban_of(one: Standing, other: Standing, *, is_needed: bool) -> Standing:
    is_banned = (one.is_banned or other.is_banned) and not is_needed
    return replace(one, status=UserStatus.DISABLED if is_banned else UserStatus.ACTIVE)


def _united(one: Standing, other: Standing) -> tuple[str, ...]:
    """The roles of both; `admin` before the others, should they be too many for one user."""
    return tuple(sorted({*one.roles, *other.roles}, key=lambda role: (role != ADMIN, role))[:MAX_ROLES])
