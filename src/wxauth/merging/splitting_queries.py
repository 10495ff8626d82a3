"""The statements that separate identities from a user, either to move them to a new user or to erase them.

wxauth does not know which of the user's data came from which identity. Therefore, a split leaves nearly all data with
the user. The new user gets the unionid of the separated identities, and an external id if the caller names one. A split
deletes a phone number that only these identities have verified. If the user is not banned, a split also deletes the
unionids that no remaining identity has (see `_divide_unionids`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Self
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.core.database import Transaction
from wxauth.core.statements import Nothing, Statement
from wxauth.core.trail import Actor, EventType, record_event
from wxauth.core.users import PROFILE_FIELDS
from wxauth.sessions.queries import EndReason, end_sessions, identity_parameters
from wxauth.users.user_queries import clear_fields


class OwnedIdentity(SQLModel):
    """An identity that might be separated from its user."""

    app_id: str
    openid: str
    unionid: str | None
    created_at: datetime
    phone_proved_at: datetime | None
    """The time at which this identity last verified the user's present phone number; None if it has not verified it."""

    @property
    def key(self) -> tuple[str, str]:
        """The app_id and openid of the identity."""
        return self.app_id, self.openid


_IDENTITIES: Final = Statement[OwnedIdentity]("""
SELECT app_id, openid, unionid, created_at, phone_proved_at
  FROM identities WHERE user_id = :user_id ORDER BY created_at, app_id, openid
""")
_HAS_EXTERNAL_ID: Final = Statement[bool]("""
SELECT EXISTS (SELECT FROM users WHERE id = :user_id AND external_id = :external_id)
    OR EXISTS (SELECT FROM former_external_ids WHERE user_id = :user_id AND external_id = :external_id) AS has_it
""")
# The statement removes the external id from both places that can contain it.
_REMOVE_EXTERNAL_ID: Final = Statement[Nothing]("""
WITH former AS (
    DELETE FROM former_external_ids WHERE user_id = :user_id AND external_id = :external_id
)
UPDATE users SET external_id = NULL WHERE id = :user_id AND external_id = :external_id
""")
# The new user gets the creation time of the oldest identity that leaves. Both users get the old user's last login,
# because wxauth does not know with which identity the old user last logged in.
_ADD_USER: Final = Statement[Nothing]("""
INSERT INTO users (id, external_id, created_at, last_login_at)
SELECT :new_user_id, :external_id, :created_at, last_login_at FROM users WHERE id = :user_id
""")
# A trigger moves the sessions of the identities, too. The statement clears the identities' proofs of a number, because
# the new user has no number.
_MOVE_IDENTITIES: Final = Statement[Nothing]("""
UPDATE identities SET user_id = :new_user_id, phone_proved_at = NULL
  FROM unnest(:app_ids::text[], :openids::text[]) AS leaving (app_id, openid)
 WHERE identities.user_id = :user_id AND (identities.app_id, identities.openid) = (leaving.app_id, leaving.openid)
""")
# A trigger deletes the sessions of the identities, too.
_DELETE_IDENTITIES: Final = Statement[Nothing]("""
DELETE FROM identities USING unnest(:app_ids::text[], :openids::text[]) AS leaving (app_id, openid)
 WHERE identities.user_id = :user_id AND (identities.app_id, identities.openid) = (leaving.app_id, leaving.openid)
""")
# If the separated identities have no unionid, :unionid is null, and the next two statements change nothing.
_MOVE_UNIONID: Final = Statement[Nothing](
    "UPDATE unionids SET user_id = :new_user_id WHERE unionid = :unionid AND user_id = :user_id"
)
# The statement keeps a unionid that a remaining identity also has.
_DELETE_UNIONID: Final = Statement[Nothing]("""
DELETE FROM unionids
 WHERE unionid = :unionid AND user_id = :user_id
   AND NOT EXISTS (SELECT FROM identities i WHERE i.user_id = :user_id AND i.unionid = :unionid)
""")
_DELETE_UNUSED_UNIONIDS: Final = Statement[Nothing]("""
DELETE FROM unionids
 WHERE user_id = :user_id
   AND NOT EXISTS (SELECT FROM identities i WHERE i.user_id = :user_id AND i.unionid = unionids.unionid)
""")
# `users.unionid` must be one of the user's unionids in the table `unionids`. If it no longer is, the user gets the
# unionid of the newest remaining identity that has one, or null if no identity has one.
_REPLACE_LOST_UNIONID: Final = Statement[Nothing]("""
UPDATE users
   SET unionid = (SELECT i.unionid FROM identities i
                   WHERE i.user_id = :user_id AND i.unionid IS NOT NULL
                   ORDER BY i.created_at DESC, i.app_id, i.openid LIMIT 1)
 WHERE id = :user_id AND unionid IS NOT NULL
   AND NOT EXISTS (SELECT FROM unionids WHERE unionids.unionid = users.unionid AND unionids.user_id = :user_id)
""")
_SET_UNIONID: Final = Statement[Nothing]("UPDATE users SET unionid = :unionid WHERE id = :new_user_id")
_SET_PROOF: Final = Statement[Nothing]("UPDATE users SET phone_verified_at = :proved_at WHERE id = :user_id")


@dataclass(frozen=True, slots=True)
class Separation:
    """The division of a locked user's identities into identities that leave and identities that stay."""

    user_id: UUID
    leaving: Sequence[OwnedIdentity]
    """The identities that leave, the oldest first."""
    staying: Sequence[OwnedIdentity]
    """The identities that stay with the user, the oldest first."""
    unionid: str | None
    """The unionid of the identity that the caller has named; None if that identity has no unionid."""

    @classmethod
    async def of(
        cls, transaction: Transaction, user_id: UUID, *, app_id: str, openid: str, only_named: bool = False
    ) -> Self | None:
        """Return the separation in which the named identity leaves; None if the user does not have this identity.

        `app_id` and `openid` name the identity. Unless `only_named` is set, the user's other identities with the same
        unionid leave, too.
        """
        identities = await transaction.rows(_IDENTITIES, user_id=user_id)
        named = next((each for each in identities if each.key == (app_id, openid)), None)
        if named is None:
            return None

        def leaves(each: OwnedIdentity) -> bool:
            shares_unionid = named.unionid is not None and each.unionid == named.unionid
            return each.key == named.key or (shares_unionid and not only_named)

        leaving = [each for each in identities if leaves(each)]
        staying = [each for each in identities if not leaves(each)]
        return cls(user_id, leaving, staying, named.unionid)

    @property
    def leaving_app_ids(self) -> Sequence[str]:
        """The ids of the apps in which an identity leaves the old user."""
        return sorted({each.app_id for each in self.leaving})

    @property
    def staying_app_ids(self) -> Sequence[str]:
        """The ids of the apps in which an identity stays with the old user."""
        return sorted({each.app_id for each in self.staying})

    @property
    def leaving_parameters(self) -> Mapping[str, object]:
        """The identities that leave, as the parameters :app_ids and :openids of a statement."""
        return identity_parameters([each.key for each in self.leaving])

    async def end_sessions(self, transaction: Transaction, *, reason: EndReason, by: Actor, now: datetime) -> None:
        """End the sessions of the identities that leave."""
        identities = [each.key for each in self.leaving]
        await end_sessions(transaction, self.user_id, reason=reason, by=by, now=now, identities=identities)


async def has_external_id(transaction: Transaction, user_id: UUID, external_id: str) -> bool:
    """Return whether `external_id` is the present or a former external id of a locked user."""
    return bool(await transaction.value(_HAS_EXTERNAL_ID, user_id=user_id, external_id=external_id))


async def move_to_new_user(
    transaction: Transaction, separation: Separation, new_user_id: UUID, *, external_id: str | None, is_banned: bool
) -> bool:
    """Create the user `new_user_id`, and give this user the identities that leave and their unionid.

    If `external_id` is given, the new user gets it, too. If the old user is not banned, delete the unionids that none
    of the remaining identities has. Return whether the old user has lost the phone number.
    """
    ids = {"user_id": separation.user_id, "new_user_id": new_user_id}
    if external_id is not None:
        await transaction.run(_REMOVE_EXTERNAL_ID, user_id=separation.user_id, external_id=external_id)
    await transaction.run(_ADD_USER, **ids, external_id=external_id, created_at=separation.leaving[0].created_at)
    await transaction.run(_MOVE_IDENTITIES, **ids, **separation.leaving_parameters)
    await _divide_unionids(transaction, separation, new_user_id, is_banned=is_banned)
    return await _update_phone(transaction, separation)


async def erase_wechat_account(
    transaction: Transaction, user_id: UUID, *, app_id: str, openid: str, by: Actor, now: datetime
) -> bool:
    """Erase one WeChat account of a locked user, with the name, picture and phone number, which might come from it.

    `app_id` and `openid` name an identity of this account. Erase this identity, the user's other identities with the
    same unionid, and the unionid. Delete the sessions of these identities, and record that the sessions have ended.
    Also clear the user's name, picture and phone number, because wxauth does not know from which identity they come.
    Record the cleared fields, so that services that follow the events delete their copies.

    Return whether the data was erased. If the user does not have this identity, or would keep no identity, do nothing.
    """
    separation = await Separation.of(transaction, user_id, app_id=app_id, openid=openid)
    if separation is None or not separation.staying:
        return False
    await _erase(transaction, separation, by=by, now=now)
    cleared = await clear_fields(transaction, user_id, [*PROFILE_FIELDS, "phone"])
    fields = [name for name in PROFILE_FIELDS if name in cleared]
    if fields:
        data = {"fields": fields}
        await record_event(transaction, EventType.PROFILE_CHANGED, by=by, at=now, user_id=user_id, data=data)
    if "phone" in cleared:
        await record_event(transaction, EventType.PHONE_REMOVED, by=by, at=now, user_id=user_id)
    return True


async def erase_identity(
    transaction: Transaction, user_id: UUID, *, app_id: str, openid: str, by: Actor, now: datetime
) -> bool:
    """Erase one identity of a locked user, with its sessions. Also erase its unionid if no other identity has it.

    The user keeps the name, the picture, the phone number and all other identities, even those with the same unionid.

    Return whether the identity was erased. If the user does not have it, or has no other identity, do nothing.
    """
    separation = await Separation.of(transaction, user_id, app_id=app_id, openid=openid, only_named=True)
    if separation is None or not separation.staying:
        return False
    await _erase(transaction, separation, by=by, now=now)
    return True


async def _erase(transaction: Transaction, separation: Separation, *, by: Actor, now: datetime) -> None:
    """Erase the identities that leave, with their sessions. Also erase their unionid if no remaining identity has it.

    Record an event for each app in which the user now has no identity.
    """
    user_id = separation.user_id
    await separation.end_sessions(transaction, reason=EndReason.ERASED, by=by, now=now)
    await transaction.run(_DELETE_IDENTITIES, user_id=user_id, **separation.leaving_parameters)
    await transaction.run(_DELETE_UNIONID, user_id=user_id, unionid=separation.unionid)
    await transaction.run(_REPLACE_LOST_UNIONID, user_id=user_id)
    for app_id in sorted(set(separation.leaving_app_ids).difference(separation.staying_app_ids)):
        await record_event(transaction, EventType.IDENTITY_REMOVED, by=by, at=now, user_id=user_id, app_id=app_id)


async def _divide_unionids(
    transaction: Transaction, separation: Separation, new_user_id: UUID, *, is_banned: bool
) -> None:
    """Give the new user the unionid of the identities that have left.

    Delete the unionids that no identity of the old user has, because wxauth does not know which of the two persons
    they belong to, and a login with one of them must not lead to the wrong user. If the old user is banned, keep these
    unionids, because otherwise a login with one of them would create a new user, who is not banned.

    If the old user loses their present unionid in either way, they get the unionid of a remaining identity, if one has
    a unionid.
    """
    ids = {"user_id": separation.user_id, "new_user_id": new_user_id}
    await transaction.run(_MOVE_UNIONID, **ids, unionid=separation.unionid)
    if not is_banned:
        await transaction.run(_DELETE_UNUSED_UNIONIDS, user_id=separation.user_id)
    await transaction.run(_REPLACE_LOST_UNIONID, user_id=separation.user_id)
    # This statement runs last, because two users can never have the same unionid.
    await transaction.run(_SET_UNIONID, new_user_id=new_user_id, unionid=separation.unionid)


async def _update_phone(transaction: Transaction, separation: Separation) -> bool:
    """Remove the old user's phone number if only identities that have left have verified it.

    If remaining identities have also verified the number, the latest of their proofs counts from now on. Return whether
    the number was removed.
    """
    if all(each.phone_proved_at is None for each in separation.leaving):
        return False
    proofs = [each.phone_proved_at for each in separation.staying if each.phone_proved_at is not None]
    if not proofs:
        return bool(await clear_fields(transaction, separation.user_id, ["phone"]))
    await transaction.run(_SET_PROOF, user_id=separation.user_id, proved_at=max(proofs))
    return False
