"""The statements that split a user in two."""

from collections.abc import Collection, Iterable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from wxauth.server.core.database import Transaction
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.sessions.rows import end_erased_sessions
from wxauth.server.users.consent_rows import PRESENT_CONSENTS
from wxauth.server.users.origin_rows import FIELDS, Parting, Side

# The caller has locked the user. The statements below run in this order, so that unique values are removed before they
# are set elsewhere.
_FREE_EXTERNAL_IDS: Final = Statement[Nothing]("DELETE FROM former_external_ids WHERE user_id = :user_id")
_SET_EXTERNAL_ID: Final = Statement[Nothing](
    "UPDATE users SET external_id = :external_id, external_id_from = :origin WHERE id = :user_id"
)
# External_ids and origins are parallel arrays, as are app_ids and openids below.
_ADD_FORMER_EXTERNAL_IDS: Final = Statement[Nothing]("""
INSERT INTO former_external_ids (external_id, user_id, came_from)
SELECT external_id, :user_id, came_from
  FROM unnest(:external_ids::text[], :origins::uuid[]) AS given (external_id, came_from)
""")
# The user gets the unionid of the newest identity that stays.
_GIVE_UP_UNIONID: Final = Statement[Nothing]("""
UPDATE users
   SET unionid = (SELECT i.unionid FROM identities i
                   WHERE i.user_id = :user_id AND i.unionid IS NOT NULL
                     AND (i.app_id, i.openid) NOT IN (SELECT * FROM unnest(:app_ids::text[], :openids::text[]))
                   ORDER BY i.created_at DESC LIMIT 1)
 WHERE id = :user_id
   AND (users.unionid = :unionid
        OR users.unionid IN (SELECT unionid FROM unionids
                              WHERE user_id = :user_id AND came_from = ANY (:its_ids::uuid[])))
""")


def _field_part(name: str) -> str:
    return f"""CASE WHEN '{name}' = ANY (:fields::text[]) THEN {name} END,
       CASE WHEN '{name}' = ANY (:fields::text[]) AND {name}_from = ANY (:former_ids::uuid[]) THEN {name}_from END"""


_ADD: Final = Statement[Nothing](f"""
INSERT INTO users (id, unionid, created_at, last_login_at, unjudged_since, phone_verified_at,
                   {", ".join(f"{name}, {name}_from" for name in FIELDS)})
SELECT :new_user_id, :unionid, :created_at, last_login_at, unjudged_since,
       CASE WHEN 'phone' = ANY (:fields::text[])
            THEN COALESCE((SELECT max(phone_proved_at) FROM identities
                            WHERE (app_id, openid) IN (SELECT * FROM unnest(:app_ids::text[], :openids::text[]))),
                          phone_verified_at) END,
       {", ".join(_field_part(name) for name in FIELDS)}
  FROM users WHERE id = :user_id
""")  # noqa: S608 - put together from constants
_MOVE_AVATAR: Final = Statement[Nothing]("""
UPDATE avatars SET user_id = :new_user_id WHERE user_id = :user_id AND 'avatar_url' = ANY (:fields::text[])
""")
# Proofs of a number that stays with the user end.
_MOVE_IDENTITIES: Final = Statement[Nothing]("""
UPDATE identities
   SET user_id = :new_user_id, came_from = CASE WHEN came_from = ANY (:former_ids::uuid[]) THEN came_from END,
       phone_proved_at = CASE WHEN 'phone' = ANY (:fields::text[]) THEN phone_proved_at END
  FROM unnest(:app_ids::text[], :openids::text[]) AS i (app_id, openid)
 WHERE (identities.app_id, identities.openid) = (i.app_id, i.openid)
""")
# After the identities: a trigger ends the proofs of a number that the user loses. The reason for a ban is about the
# person who leaves, if it came with them; the ban stays until staff lifts it.
_GIVE_UP_FIELDS: Final = Statement[Nothing]("""
UPDATE users
   SET nickname = CASE WHEN 'nickname' = ANY (:lost::text[]) THEN NULL ELSE nickname END,
       avatar_url = CASE WHEN 'avatar_url' = ANY (:lost::text[]) THEN NULL ELSE avatar_url END,
       phone = CASE WHEN 'phone' = ANY (:lost::text[]) THEN NULL ELSE phone END,
       phone_verified_at = CASE WHEN 'phone' = ANY (:lost::text[]) THEN NULL
                                WHEN phone_verified_at IS NOT NULL
                                THEN COALESCE((SELECT max(phone_proved_at) FROM identities
                                                WHERE identities.user_id = users.id), phone_verified_at) END,
       ban_reason = CASE WHEN :is_reason_lost THEN NULL ELSE ban_reason END,
       ban_from = CASE WHEN :is_reason_lost THEN NULL ELSE ban_from END
 WHERE id = :user_id
""")
# The unionid of these identities, and those that came with the former ids that leave, except unionids of identities
# that stay.
_MOVE_UNIONIDS: Final = Statement[Nothing]("""
UPDATE unionids
   SET user_id = :new_user_id, came_from = CASE WHEN came_from = ANY (:former_ids::uuid[]) THEN came_from END
 WHERE user_id = :user_id AND (unionid = :unionid OR came_from = ANY (:its_ids::uuid[]))
   AND NOT EXISTS (SELECT FROM identities i WHERE i.user_id = :user_id AND i.unionid = unionids.unionid)
""")
_TAKE_BACK: Final = Statement[Nothing]("DELETE FROM former_users WHERE id = :new_user_id")
_MOVE_FORMER_IDS: Final = Statement[Nothing](
    "UPDATE former_users SET user_id = :new_user_id WHERE id = ANY (:former_ids::uuid[])"
)
# A trigger deletes the identities' sessions with them.
_ERASE_IDENTITIES: Final = Statement[Nothing]("""
DELETE FROM identities USING unnest(:app_ids::text[], :openids::text[]) AS gone (app_id, openid)
 WHERE (identities.app_id, identities.openid) = (gone.app_id, gone.openid)
""")
_DELETE_UNIONIDS: Final = Statement[Nothing]("""
DELETE FROM unionids
 WHERE user_id = :user_id AND (unionid = :unionid OR came_from = ANY (:its_ids::uuid[]))
   AND NOT EXISTS (SELECT FROM identities i WHERE i.user_id = :user_id AND i.unionid = unionids.unionid)
""")
_MOVE_CONSENTS: Final = Statement[Nothing](
    "UPDATE consents SET user_id = :new_user_id WHERE user_id = ANY (:ids::uuid[])"
)
_MOVE_CONSENTS_OF_APPS: Final = Statement[Nothing](
    "UPDATE consents SET user_id = :new_user_id WHERE user_id = ANY (:ids::uuid[]) AND app_id = ANY (:app_ids::text[])"
)
_DELETE_UNKNOWN_CONSENTS: Final = Statement[Nothing](
    "DELETE FROM consents WHERE user_id = ANY (:ids::uuid[]) AND (app_id = ANY (:app_ids::text[])) IS NOT TRUE"
)
_DELETE_CONSENTS: Final = Statement[Nothing]("DELETE FROM consents WHERE user_id = ANY (:ids::uuid[])")
_DELETE_CONSENTS_OF_APPS: Final = Statement[Nothing](
    "DELETE FROM consents WHERE user_id = ANY (:ids::uuid[]) AND app_id = ANY (:app_ids::text[])"
)
_NOTE_CONSENTS: Final = Statement[Nothing](
    f"UPDATE users SET consents = {PRESENT_CONSENTS} WHERE id IN (:user_id, :new_user_id)"  # noqa: S608 - put together from constants
)


async def split_user(
    transaction: Transaction,
    parting: Parting,
    *,
    new_user_id: UUID,
    fields: Collection[str],
    lost: Collection[str],
    external_ids: Collection[str],
) -> None:
    """Move the leaving identities of a locked user, which include all with their unionid, to a new user.

    The new user's id is a former id of the user, or a new one. The new user gets these `fields` and external ids, and
    the former ids that leave. The user loses the fields in `lost`.
    """
    former_ids = [former_id for former_id in parting.leaving_ids if former_id != new_user_id]
    keys = {"app_ids": [app_id for app_id, _ in parting.keys], "openids": [openid for _, openid in parting.keys]}
    ids = {"user_id": parting.user_id, "new_user_id": new_user_id}
    its_ids = [new_user_id, *former_ids]
    oldest = parting.leaving[0]
    unionid, created_at = oldest.unionid, oldest.created_at
    if parting.external_ids:
        await _move_external_ids_away(transaction, parting, external_ids)
    await transaction.run(_GIVE_UP_UNIONID, user_id=parting.user_id, unionid=unionid, its_ids=its_ids, **keys)
    await transaction.run(
        _ADD, **ids, **keys, unionid=unionid, created_at=created_at, fields=fields, former_ids=former_ids
    )
    await _set_external_ids(
        transaction,
        new_user_id,
        [(name, origin if origin in former_ids else None) for name, origin in _divided(parting, external_ids)[0]],
    )
    await transaction.run(_MOVE_AVATAR, **ids, fields=fields)
    await transaction.run(_MOVE_IDENTITIES, new_user_id=new_user_id, former_ids=former_ids, fields=fields, **keys)
    is_reason_lost = _is_reason_lost(parting)
    await transaction.run(_GIVE_UP_FIELDS, user_id=parting.user_id, lost=lost, is_reason_lost=is_reason_lost)
    await transaction.run(_MOVE_UNIONIDS, **ids, unionid=unionid, former_ids=former_ids, its_ids=its_ids)
    await transaction.run(_TAKE_BACK, new_user_id=new_user_id)
    await transaction.run(_MOVE_FORMER_IDS, new_user_id=new_user_id, former_ids=former_ids)


async def split_consents(transaction: Transaction, parting: Parting, *, new_user_id: UUID) -> None:
    """Give each of the two users of a split the consents of their own.

    If the id under which they are stored does not show who gave them, the app does. If both have an identity there,
    they are deleted. Those under an id that leaves have moved with it.
    """
    kept = [former_id for former_id in parting.merges if former_id not in (new_user_id, *parting.leaving_ids)]
    leaving, unknown = _ids_of_consents(parting, kept)
    apps = {"leaving": list(parting.apps_of_leaving), "staying": list(parting.apps_of_staying)}
    await transaction.run(_MOVE_CONSENTS, new_user_id=new_user_id, ids=leaving)
    await transaction.run(_MOVE_CONSENTS_OF_APPS, new_user_id=new_user_id, ids=unknown, app_ids=apps["leaving"])
    await transaction.run(_DELETE_UNKNOWN_CONSENTS, ids=unknown, app_ids=apps["staying"])
    await transaction.run(_NOTE_CONSENTS, user_id=parting.user_id, new_user_id=new_user_id)


async def erase_leaving(
    transaction: Transaction, parting: Parting, *, lost: Collection[str], now: datetime
) -> Sequence[UUID]:
    """Erase the leaving identities of a locked user, with their sessions, and what is known to have come with them.

    The user loses the fields in `lost`. Returns the sessions that were open.
    """
    user_id, leaving_ids = parting.user_id, parting.leaving_ids
    keys = {"app_ids": [app_id for app_id, _ in parting.keys], "openids": [openid for _, openid in parting.keys]}
    unionid = parting.leaving[0].unionid
    gone = [each.external_id for each in parting.external_ids if parting.side_of(each.origin) is Side.LEAVES]
    session_ids = await end_erased_sessions(transaction, user_id, parting.keys, now=now)
    await _move_external_ids_away(transaction, parting, gone)
    await transaction.run(_GIVE_UP_UNIONID, user_id=user_id, unionid=unionid, its_ids=leaving_ids, **keys)
    await transaction.run(_ERASE_IDENTITIES, **keys)
    await transaction.run(_GIVE_UP_FIELDS, user_id=user_id, lost=lost, is_reason_lost=_is_reason_lost(parting))
    await transaction.run(_DELETE_UNIONIDS, user_id=user_id, unionid=unionid, its_ids=leaving_ids)
    leaving, unknown = _ids_of_consents(parting, parting.merges)
    await transaction.run(_DELETE_CONSENTS, ids=leaving)
    await transaction.run(_DELETE_CONSENTS_OF_APPS, ids=unknown, app_ids=list(parting.apps_of_leaving))
    await transaction.run(_NOTE_CONSENTS, user_id=user_id, new_user_id=user_id)
    return session_ids


def _ids_of_consents(parting: Parting, former_ids: Iterable[UUID]) -> tuple[Sequence[UUID], Sequence[UUID]]:
    """Those of the user's ids whose consents leave, and those of which that is not known."""
    sides = {parting.user_id: parting.side_of(None)}
    sides.update((former_id, parting.side_of(former_id)) for former_id in former_ids)
    leaving = [stored_id for stored_id, side in sides.items() if side is Side.LEAVES]
    return leaving, [stored_id for stored_id, side in sides.items() if side is Side.UNKNOWN]


def _is_reason_lost(parting: Parting) -> bool:
    """Whether the reason for the user's ban is about who leaves."""
    origin = parting.facts.ban_from
    return origin is not None and parting.side_of(origin) is Side.LEAVES


_Names = Sequence[tuple[str, UUID | None]]
"""External ids with their origins. The first is the present one."""


def _divided(parting: Parting, external_ids: Collection[str]) -> tuple[_Names, _Names]:
    """The external ids that move, and those that stay."""
    known = [(each.external_id, each.origin) for each in parting.external_ids]
    moving = [each for each in known if each[0] in external_ids]
    moving.sort(key=lambda each: each[1] != parting.id_of_merge)
    return moving, [each for each in known if each not in moving]


async def _move_external_ids_away(transaction: Transaction, parting: Parting, external_ids: Collection[str]) -> None:
    """Leave the user only the external ids that stay."""
    if external_ids:
        await transaction.run(_FREE_EXTERNAL_IDS, user_id=parting.user_id)
        await _set_external_ids(transaction, parting.user_id, _divided(parting, external_ids)[1])


async def _set_external_ids(transaction: Transaction, user_id: UUID, names: _Names) -> None:
    present, origin = names[0] if names else (None, None)
    await transaction.run(_SET_EXTERNAL_ID, user_id=user_id, external_id=present, origin=origin)
    former = names[1:]
    external_ids, origins = [name for name, _ in former], [origin for _, origin in former]
    await transaction.run(_ADD_FORMER_EXTERNAL_IDS, user_id=user_id, external_ids=external_ids, origins=origins)
