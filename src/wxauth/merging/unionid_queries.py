"""The statements that find a unionid's user, check whether it can belong to an identity, and store it.

Every unionid that a user has had is stored, so that user ids do not change back and forth while an operator's apps move
to another Open Platform account one after the other.
"""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from wxauth.core.database import Database, Transaction
from wxauth.core.statements import Nothing, Statement
from wxauth.merging.merging_queries import ARE_SPLIT


class UnionidConflict(Exception):
    """The error for a unionid that cannot belong to an identity. Its text is the reason."""


class OfAnotherOpenid(UnionidConflict):
    """Another openid of the app has the unionid, or its WeChat account has another openid.

    One of the two openids might belong to a snapshot, a page that WeChat only previews, with a made-up openid.
    """


@dataclass(frozen=True, slots=True)
class People:
    """The users of an identity, and of the unionid that WeChat has returned for the identity, if they exist."""

    user_id: UUID | None
    holder_id: UUID | None
    """The user of the unionid."""
    misnamed_user_id: UUID | None = None
    """The user of an imported identity of this app with the unionid in place of an openid."""

    @property
    def two_users(self) -> tuple[UUID, UUID] | None:
        """The users of the identity and of the unionid; None if they are one user, or if one does not exist."""
        if self.user_id is None or self.holder_id is None or self.user_id == self.holder_id:
            return None
        return self.user_id, self.holder_id


# `awaits_login` lasts until somebody logs in with an imported identity, or until `KEEP_MISNAMED`.
PEOPLE: Final = Statement[People]("""
SELECT (SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid) AS user_id,
       (SELECT user_id FROM unionids WHERE unionid = :unionid) AS holder_id,
       (SELECT user_id FROM identities
         WHERE app_id = :app_id AND openid = :unionid AND openid <> :openid AND awaits_login) AS misnamed_user_id
""")
# This statement fails with a conflict if another transaction gives the unionid to another user.
ADD_UNIONID: Final = Statement[Nothing]("INSERT INTO unionids (unionid, user_id) VALUES (:unionid, :user_id)")
# The login stores the unionid afterwards, by the same rules as any late unionid.
_CORRECT_OPENID: Final = Statement[Nothing]("""
UPDATE identities SET openid = :openid, unionid = NULL
 WHERE app_id = :app_id AND openid = :unionid
   AND awaits_login
   AND NOT EXISTS (SELECT FROM identities correct WHERE correct.app_id = :app_id AND correct.openid = :openid)
""")
_DELETE_MISNAMED: Final = Statement[Nothing]("""
DELETE FROM identities WHERE app_id = :app_id AND openid = :unionid
   AND awaits_login
   AND EXISTS (SELECT FROM identities correct WHERE correct.app_id = :app_id AND correct.openid = :openid)
""")
# The identity stays as it was imported, and no later login tries to correct it.
KEEP_MISNAMED: Final = Statement[Nothing](
    "UPDATE identities SET awaits_login = false WHERE app_id = :app_id AND openid = :unionid"
)
STORE_UNIONID: Final = Statement[Nothing]("""
WITH identity AS (
    UPDATE identities SET unionid = :unionid WHERE app_id = :app_id AND openid = :openid
    RETURNING user_id
)
UPDATE users SET unionid = :unionid FROM identity WHERE users.id = identity.user_id
""")
# Whether the identity `other` and :unionid belong to two WeChat accounts of one user. The condition is null if this is
# unknown.
_IS_OF_ANOTHER_ACCOUNT: Final = """
       -- Where WeChat makes up no openids, two openids of an app are of two accounts, even if `other` has no unionid.
       -- At an app with snapshots, one of them might be made up, so while `other` has no unionid, this is unknown.
       (other.unionid <> :unionid OR (other.unionid IS NULL AND NOT :may_be_snapshot))
       -- the user has several accounts; otherwise, :unionid is an earlier unionid of the only one
   AND (EXISTS (SELECT FROM former_users WHERE former_users.user_id = other.user_id)
        OR (other.unionid IS NOT NULL
            AND EXISTS (SELECT FROM identities same_user
                         WHERE same_user.user_id = other.user_id AND same_user.unionid = :unionid)))"""
# A WeChat account has only one openid in each app. For example, a user has the unionid U and the openid A, and WeChat
# returns U for the openid B of the same app. Usually A belongs to the account of U, so B cannot. But if the user was
# merged from two users, and A has the unionid V, then A is of another account.
_IS_OF_ANOTHER_OPENID: Final = Statement[int](f"""
-- another openid of the app has the unionid, which a unique index allows for only one
SELECT 1 FROM identities WHERE app_id = :app_id AND openid <> :openid AND unionid = :unionid
 UNION ALL
-- the unionid's user does not have the identity, but another openid of the app, of the unionid's account
SELECT 1 FROM unionids JOIN identities other USING (user_id)
 WHERE unionids.unionid = :unionid AND other.app_id = :app_id AND other.openid <> :openid
   -- if it is unknown whose `other` is, it counts as the account's other openid
   AND ({_IS_OF_ANOTHER_ACCOUNT}) IS NOT TRUE
   AND NOT EXISTS (SELECT FROM identities own
                    WHERE own.app_id = :app_id AND own.openid = :openid AND own.user_id = other.user_id)
 LIMIT 1
""")


async def check_unionid(
    database: Database | Transaction, people: People, *, app_id: str, openid: str, unionid: str, may_be_snapshot: bool
) -> None:
    """Check that a unionid can belong to an identity.

    `may_be_snapshot` means that WeChat might have made up this openid, or the other one that the unionid might have.

    Raises: OfAnotherOpenid; UnionidConflict, if the users of `people` were split.
    """
    identity = {"app_id": app_id, "openid": openid, "unionid": unionid}
    if await database.value(_IS_OF_ANOTHER_OPENID, **identity, may_be_snapshot=may_be_snapshot) is not None:
        raise OfAnotherOpenid("another openid of this app has it")
    if people.two_users is not None:
        one_id, other_id = people.two_users
        if await database.value(ARE_SPLIT, one_id=one_id, other_id=other_id):
            raise UnionidConflict("an administrator has split its user and this one")


async def correct_openid(transaction: Transaction, *, app_id: str, openid: str, unionid: str) -> None:
    """Correct an imported openid, or delete the identity if another has the right one.

    The caller has locked the user of the imported identity, `People.misnamed_user_id`.
    """
    identity = {"app_id": app_id, "openid": openid, "unionid": unionid}
    await transaction.run(_CORRECT_OPENID, **identity)
    await transaction.run(_DELETE_MISNAMED, **identity)
