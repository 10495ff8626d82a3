"""Splitting a user who was wrongly merged from two people.

Each merge records from which user identities, unionids and former ids came. If exactly the identities of one former
user are split off, the new user gets the former id back, so that data of other services belongs to it again.
"""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.errors import NotFound, SplitRefused, StorageUnavailable
from wxauth.server.core.database import Database
from wxauth.server.core.ids import new_id
from wxauth.server.core.logs import get_logger
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.sessions.rows import end_sessions_of_identities
from wxauth.server.users.merging_rows import current_user
from wxauth.server.users.splitting_rows import (
    SplitIdentity,
    has_external_id,
    identities_to_split,
    merges_into,
    split_user,
)
from wxauth.server.users.standing import lock_standing

_ATTEMPTS: Final = 50
"""Tries: of fifty concurrent changes of one user, only one succeeds in each round."""

AppAndOpenid = tuple[str, str]

log = get_logger()


async def split(
    database: Database,
    user_id: UUID,
    *,
    app_id: str,
    openid: str,
    external_id: str | None,
    by: Actor,
    now: datetime,
) -> tuple[UUID, UUID]:
    """Split an identity off, with the user's other identities that have its unionid. They become a new user.

    The new user is active, without roles. Nickname, picture, number and consents stay with the user. The sessions of
    these identities end. The two users are never merged automatically again: see `are_split`.

    For a former id, the user that remained after its merge is split. `external_id` is a present or former external id
    of the user that moves to the new one, if any. Returns the ids of the user and of the new user.

    Raises: NotFound, SplitRefused, StorageUnavailable.
    """
    for _ in range(_ATTEMPTS):
        remaining_id = await current_user(database, user_id)
        if remaining_id is None:
            raise NotFound("there is no such user")
        async with database.begin() as transaction:
            if await lock_standing(transaction, remaining_id) is None:
                continue  # merged or erased meanwhile
            identities = await identities_to_split(transaction, remaining_id)
            leaving = _leaving(identities, (app_id, openid))
            if external_id is not None and not await has_external_id(transaction, remaining_id, external_id):
                raise SplitRefused("the external_id is not the user's")
            keys = {_key(identity) for identity in leaving}
            former_id, former_ids = _former_id_of(identities, keys, await merges_into(transaction, remaining_id))
            new_user_id = former_id or new_id(now)
            await end_sessions_of_identities(transaction, remaining_id, keys, by=by, now=now)
            await split_user(
                transaction,
                remaining_id,
                new_user_id=new_user_id,
                identities=keys,
                unionid=leaving[0]["unionid"],
                former_ids=former_ids,
                external_id=external_id,
                created_at=leaving[0]["created_at"],
            )
            data = {"new_user_id": new_user_id}
            await record_event(transaction, EventType.USER_SPLIT, by=by, at=now, user_id=remaining_id, data=data)
        log.info("user_split", user_id=remaining_id, new_user_id=new_user_id, actor=by.name)
        return remaining_id, new_user_id
    raise StorageUnavailable("too many changes to this user at once")


def _leaving(identities: Sequence[SplitIdentity], key: AppAndOpenid) -> Sequence[SplitIdentity]:
    """The identity and the user's others with its unionid, the oldest first. Raises: SplitRefused."""
    named = next((identity for identity in identities if _key(identity) == key), None)
    if named is None:
        raise SplitRefused("the user has no such identity")
    leaving = [named]
    if named["unionid"] is not None:
        leaving = [identity for identity in identities if identity["unionid"] == named["unionid"]]
    if len(leaving) == len(identities):
        raise SplitRefused("nothing would be left of the user")
    return leaving


def _former_id_of(
    identities: Sequence[SplitIdentity], leaving: Collection[AppAndOpenid], merges: Mapping[UUID, UUID | None]
) -> tuple[UUID | None, Sequence[UUID]]:
    """The former id from which exactly these identities came, and the former ids that were merged into that one.

    In a chain of merges several former ids may fit. Then it is the one that was merged first. `merges` are the user's
    former ids, each with the id into which it was merged.
    """

    def merge_chain(former_id: UUID | None) -> list[UUID]:
        """The chain of merges from this former id on: the id itself, the one it was merged into, and so on."""
        found: list[UUID] = []
        while former_id is not None and former_id in merges:
            found.append(former_id)
            former_id = merges[former_id]
        return found

    sources = [identity["came_from"] for identity in identities if _key(identity) in leaving]
    for candidate in merge_chain(sources[0]):
        brought = {_key(identity) for identity in identities if candidate in merge_chain(identity["came_from"])}
        if brought == set(leaving):
            return candidate, [each for each in merges if each != candidate and candidate in merge_chain(each)]
    return None, ()


def _key(identity: SplitIdentity) -> AppAndOpenid:
    return identity["app_id"], identity["openid"]
