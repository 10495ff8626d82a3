"""Splitting a user who was wrongly merged from two people.

What one of the two has brought goes with their identities: see `origins.py`. If exactly the identities of one former
user are split off, the new user gets the former id back, so that data of other services belongs to it again.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.errors import NotFound, SplitRefused, StorageUnavailable
from wxauth.server.core.clock import new_id
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.logs import get_logger
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.sessions.rows import end_sessions_of_identities
from wxauth.server.users.merging_rows import current_user
from wxauth.server.users.origin_rows import Parting, Side, belongings_of, record_moved
from wxauth.server.users.splitting_rows import split_consents, split_user
from wxauth.server.users.standing import lock_standing

_ATTEMPTS: Final = 50
"""Tries: of fifty concurrent changes of one user, only one succeeds in each round."""

log = get_logger()


async def split(
    database: Database,
    user_id: UUID,
    *,
    app_id: str,
    openid: str,
    external_ids: Sequence[str] | None,
    by: Actor,
    now: datetime,
) -> tuple[UUID, UUID]:
    """Split an identity off, with the user's other identities that have its unionid. They become a new user.

    The new user is active, without roles. Nickname, picture, number and consents go with who has brought them; if that
    is not known, neither keeps them. The sessions of these identities end. The two users are never merged automatically
    again: see `are_split`.

    For a former id, the user that remained after its merge is split. `external_ids` are those present or former
    external ids of the user that move to the new one; None: those that came with these identities.

    Returns the ids of the user and of the new user.

    Raises: NotFound, SplitRefused.
    """
    for _ in range(_ATTEMPTS):
        remaining_id = await current_user(database, user_id)
        if remaining_id is None:
            raise NotFound("there is no such user")
        async with database.begin() as transaction:
            standing = await lock_standing(transaction, remaining_id)
            if standing is None:
                continue  # merged or erased meanwhile
            if standing.is_leaving:
                raise SplitRefused("the user is leaving: cancel that first")
            parting = await Parting.of(transaction, remaining_id, (app_id, openid))
            if parting is None:
                raise SplitRefused("the user has no such identity")
            if parting.is_whole:
                raise SplitRefused("nothing would be left of the user")
            moving = _external_ids_to_move(parting, external_ids)
            new_user_id = await _split(transaction, parting, moving, by=by, now=now)
        log.info("user_split", user_id=remaining_id, new_user_id=new_user_id, actor=by.name)
        return remaining_id, new_user_id
    raise StorageUnavailable("too many changes to this user at once")


async def _split(
    transaction: Transaction, parting: Parting, external_ids: Sequence[str], *, by: Actor, now: datetime
) -> UUID:
    """Carry out a split, and return the id of the new user."""
    user_id = parting.user_id
    new_user_id = parting.id_of_merge or new_id(now)
    lost = parting.fields_on(Side.LEAVES, Side.UNKNOWN)
    before = await belongings_of(transaction, user_id)
    await end_sessions_of_identities(transaction, user_id, parting.keys, by=by, now=now)
    await split_user(
        transaction,
        parting,
        new_user_id=new_user_id,
        fields=parting.fields_on(Side.LEAVES),
        lost=lost,
        external_ids=external_ids,
    )
    await split_consents(transaction, parting, new_user_id=new_user_id)
    await record_event(
        transaction,
        EventType.USER_SPLIT,
        by=by,
        at=now,
        user_id=user_id,
        data={
            "new_user_id": new_user_id,
            "former_ids": [former_id for former_id in parting.leaving_ids if former_id != new_user_id],
            "app_ids": sorted({app_id for app_id, _ in parting.keys}),
            "kept_app_ids": sorted({each.app_id for each in parting.identities} - parting.apps_of_leaving),
        },
    )
    await record_moved(transaction, user_id, before, by=by, now=now)
    # The name and picture of the new user are nobody's change.
    new = (await belongings_of(transaction, new_user_id)).model_copy(update={"phone": None, "consents": None})
    await record_moved(transaction, new_user_id, new, by=by, now=now)
    return new_user_id


def _external_ids_to_move(parting: Parting, given: Sequence[str] | None) -> Sequence[str]:
    """The external ids that move to the new user: those that are given, or those known to be theirs.

    Raises: SplitRefused.
    """
    if given is not None:
        if not {known.external_id for known in parting.external_ids}.issuperset(given):
            raise SplitRefused("the external_id is not the user's")
        return given
    sides = {known.external_id: parting.side_of(known.origin) for known in parting.external_ids}
    if Side.UNKNOWN in sides.values():
        raise SplitRefused("it is not known whose external_id this is: name the one that moves, or null for none")
    return [external_id for external_id, side in sides.items() if side is Side.LEAVES]
