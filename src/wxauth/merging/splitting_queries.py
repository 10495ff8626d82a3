"""The statements that separate identities from a user, either to move them to a new user or to erase them.

wxauth does not know which of the user's data came from which identity, so a split leaves nearly all data with the user.
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
    """When this identity last verified the user's present number."""

    @property
    def key(self) -> tuple[str, str]:
        return self.app_id, self.openid


_IDENTITIES: Final = Statement[OwnedIdentity]("""
SELECT app_id, openid, unionid, created_at, phone_proved_at
  FROM identities WHERE user_id = :user_id ORDER BY created_at, app_id, openid
""")
_HAS_EXTERNAL_ID: Final = Statement[bool]("""
SELECT EXISTS (SELECT FROM users WHERE id = :user_id AND external_id = :external_id)
    OR EXISTS (SELECT FROM former_external_ids WHERE user_id = :user_id AND external_id = :external_id) AS has_it
""")

_REMOVE_EXTERNAL_ID: Final = Statement[Nothing]("""
WITH former AS (
    DELETE FROM former_external_ids WHERE user_id = :user_id AND external_id = :external_id
)
UPDATE users SET external_id = NULL WHERE id = :user_id AND external_id = :external_id
""")
# Both users get the last login and refresh: wxauth does not know which of the identities was last seen.
_ADD_USER: Final = Statement[Nothing]("""
INSERT INTO users (id, external_id, created_at, last_login_at, last_refresh_at)
SELECT :new_user_id, :external_id, :created_at, last_login_at, last_refresh_at FROM users WHERE id = :user_id
""")
# A trigger moves the sessions of the identities, too. The new user has no number to prove.
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
_MOVE_UNIONID: Final = Statement[Nothing](
    "UPDATE unionids SET user_id = :new_user_id WHERE unionid = :unionid AND user_id = :user_id"
)
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
# `users.unionid` must be one of the user's in the table `unionids`.
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
    """The identities of a locked user that leave and that stay, each the oldest first."""

    user_id: UUID
    leaving: Sequence[OwnedIdentity]
    staying: Sequence[OwnedIdentity]
    unionid: str | None
    """The unionid of the identity that the caller has named."""

    @classmethod
    async def of(
        cls, transaction: Transaction, user_id: UUID, *, app_id: str, openid: str, only_named: bool = False
    ) -> Self | None:
        """Read what leaves: this identity and, unless `only_named`, those with its unionid.

        Return None if the identity is not the user's.
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
        return sorted({each.app_id for each in self.leaving})

    @property
    def staying_app_ids(self) -> Sequence[str]:
        return sorted({each.app_id for each in self.staying})

    @property
    def leaving_parameters(self) -> Mapping[str, object]:
        """The identities that leave, as the parameters :app_ids and :openids of a statement."""
        return identity_parameters([each.key for each in self.leaving])

    async def end_leaving_sessions(
        self, transaction: Transaction, *, reason: EndReason, by: Actor, now: datetime
    ) -> None:
        identities = [each.key for each in self.leaving]
        await end_sessions(transaction, self.user_id, reason=reason, by=by, now=now, identities=identities)


async def has_external_id(transaction: Transaction, user_id: UUID, external_id: str) -> bool:
    """Return whether this is the present or a former external id of a locked user."""
    return bool(await transaction.value(_HAS_EXTERNAL_ID, user_id=user_id, external_id=external_id))


async def move_to_new_user(
    transaction: Transaction, separation: Separation, new_user_id: UUID, *, external_id: str | None, is_banned: bool
) -> bool:
    """Create a user with the identities that leave. Return whether the old user has lost the number.

    The caller must have ended the sessions of these identities, because a trigger moves them with the identities.
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
    """Erase an identity of a locked user, the others with its unionid, and the name, picture and number.

    The name, picture and number might come from these identities. The cleared fields are recorded, so that services
    that follow the events delete their copies. Return False, and change nothing, if the identity is not the user's, or
    if the user would keep no identity.
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
    """Erase one identity of a locked user, with its sessions, and its unionid if no other identity has it.

    Return False, and change nothing, if the identity is not the user's, or is the user's only one.
    """
    separation = await Separation.of(transaction, user_id, app_id=app_id, openid=openid, only_named=True)
    if separation is None or not separation.staying:
        return False
    await _erase(transaction, separation, by=by, now=now)
    return True


async def _erase(transaction: Transaction, separation: Separation, *, by: Actor, now: datetime) -> None:
    user_id = separation.user_id
    await separation.end_leaving_sessions(transaction, reason=EndReason.ERASED, by=by, now=now)
    await transaction.run(_DELETE_IDENTITIES, user_id=user_id, **separation.leaving_parameters)
    await transaction.run(_DELETE_UNIONID, user_id=user_id, unionid=separation.unionid)
    await transaction.run(_REPLACE_LOST_UNIONID, user_id=user_id)
    for app_id in sorted(set(separation.leaving_app_ids).difference(separation.staying_app_ids)):
        await record_event(transaction, EventType.IDENTITY_REMOVED, by=by, at=now, user_id=user_id, app_id=app_id)


async def _divide_unionids(
    transaction: Transaction, separation: Separation, new_user_id: UUID, *, is_banned: bool
) -> None:
    ids = {"user_id": separation.user_id, "new_user_id": new_user_id}
    await transaction.run(_MOVE_UNIONID, **ids, unionid=separation.unionid)
    # wxauth does not know whose the unused unionids are, and a login with one must not lead to the wrong user. But a
    # banned user keeps them, because a login with one would create a new user, who is not banned.
    if not is_banned:
        await transaction.run(_DELETE_UNUSED_UNIONIDS, user_id=separation.user_id)
    await transaction.run(_REPLACE_LOST_UNIONID, user_id=separation.user_id)
    # This statement runs last, because two users can never have the same unionid.
    await transaction.run(_SET_UNIONID, new_user_id=new_user_id, unionid=separation.unionid)


async def _update_phone(transaction: Transaction, separation: Separation) -> bool:
    """Return whether the number was removed, because only identities that have left have verified it."""
    if all(each.phone_proved_at is None for each in separation.leaving):
        return False
    proofs = [each.phone_proved_at for each in separation.staying if each.phone_proved_at is not None]
    if not proofs:
        return bool(await clear_fields(transaction, separation.user_id, ["phone"]))
    await transaction.run(_SET_PROOF, user_id=separation.user_id, proved_at=max(proofs))
    return False
