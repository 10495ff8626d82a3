"""The statements that find a unionid's user, check whether a unionid can belong to an identity, and store unionids."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from wxauth.core.database import Database, Transaction
from wxauth.core.statements import Nothing, Statement
from wxauth.merging.merging_queries import ARE_SPLIT


class UnionidConflict(Exception):
    """The error for a unionid that cannot belong to an identity. Its text is the reason."""


class OfAnotherOpenid(UnionidConflict):
    """The error for a unionid that another openid of the app has, or whose WeChat account has another openid.

    One of the two openids might belong to a snapshot. A snapshot is a page that WeChat only previews. For such a page,
    WeChat returns a made-up openid.
    """


@dataclass(frozen=True, slots=True)
class People:
    """The users of an identity and of a unionid that WeChat has returned for the identity.

    An id is None if there is no such user.
    """

    user_id: UUID | None
    """The user of the identity."""
    holder_id: UUID | None
    """The user of the unionid."""
    misnamed_user_id: UUID | None = None
    """The user of an imported identity of this app that has this unionid in place of an openid.

    After the first login with that identity, or after `KEEP_MISNAMED`, it is None, too.
    """

    @property
    def two_users(self) -> tuple[UUID, UUID] | None:
        """The identity's user and the unionid's user; None if both are the same user, or if one does not exist."""
        if self.user_id is None or self.holder_id is None or self.user_id == self.holder_id:
            return None
        return self.user_id, self.holder_id


# `awaits_login` is true until somebody logs in with an imported identity, or until `KEEP_MISNAMED` sets it to false.
PEOPLE: Final = Statement[People]("""
SELECT (SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid) AS user_id,
       (SELECT user_id FROM unionids WHERE unionid = :unionid) AS holder_id,
       (SELECT user_id FROM identities
         WHERE app_id = :app_id AND openid = :unionid AND openid <> :openid AND awaits_login) AS misnamed_user_id
""")
"""The query for the users of an identity and of a unionid. It always returns one row."""
ADD_UNIONID: Final = Statement[Nothing]("INSERT INTO unionids (unionid, user_id) VALUES (:unionid, :user_id)")
"""The statement that gives an unknown unionid to a locked user.

If two transactions give one unionid to two users at the same time, the second transaction fails with a conflict.
"""
# The statement sets the unionid to null. The login then stores the unionid by the same rules as any late unionid, which
# is a unionid that WeChat returns for an existing identity.
_CORRECT_OPENID: Final = Statement[Nothing]("""
UPDATE identities SET openid = :openid, unionid = NULL
 WHERE app_id = :app_id AND openid = :unionid
   AND NOT EXISTS (SELECT FROM identities correct WHERE correct.app_id = :app_id AND correct.openid = :openid)
""")
_DELETE_MISNAMED: Final = Statement[Nothing]("""
DELETE FROM identities WHERE app_id = :app_id AND openid = :unionid
   AND EXISTS (SELECT FROM identities correct WHERE correct.app_id = :app_id AND correct.openid = :openid)
""")
KEEP_MISNAMED: Final = Statement[Nothing](
    "UPDATE identities SET awaits_login = false WHERE app_id = :app_id AND openid = :unionid"
)
"""The statement that stops wxauth from trying to correct an identity that has a unionid as its openid."""
STORE_UNIONID: Final = Statement[Nothing]("""
WITH identity AS (
    UPDATE identities SET unionid = :unionid WHERE app_id = :app_id AND openid = :openid
    RETURNING user_id
)
UPDATE users SET unionid = :unionid FROM identity WHERE users.id = identity.user_id
""")
"""The statement that stores WeChat's latest unionid of an identity, in the rows of the identity and its user."""
# This condition is true if the identity `other` and :unionid belong to two WeChat accounts of one user:
# (1) `other` has a different unionid, or it has none and neither of the two openids can belong to a snapshot; and
# (2) the user has several accounts, because the user was merged from several users, or because `other` has a unionid
#     and another identity of the user has :unionid. If (2) is false, the user might have only one account. `other` then
#     belongs to this account, and :unionid is an earlier unionid of the same account.
_IS_OF_ANOTHER_ACCOUNT: Final = """
       /* (1) */ (other.unionid <> :unionid OR (other.unionid IS NULL AND NOT :may_be_snapshot))
   AND /* (2) */ (EXISTS (SELECT FROM former_users WHERE former_users.user_id = other.user_id)
                  OR (other.unionid IS NOT NULL
                      AND EXISTS (SELECT FROM identities same_user
                                   WHERE same_user.user_id = other.user_id AND same_user.unionid = :unionid)))"""
# This query returns a row in two cases. In the first case, another openid of the app has the unionid, and a unique
# index allows only one. In the second case, the unionid belongs to a user who does not have the given identity, but has
# another openid of the app. That openid belongs to the unionid's account, and not to another account of the user. A
# WeChat account has only one openid in each app, so the unionid cannot belong to the given identity, too. If the
# unionid of `other` is unknown, the inserted condition can be null, which `IS NOT TRUE` treats like false.
#
# For example, a user has the unionid U and the openid A, and WeChat returns U for the openid B of the same app. Usually
# A belongs to the account of U, so B cannot belong to this account, and the query returns a row. But if the user was
# merged from two users, and A has the unionid V, then A belongs to another account, so the query returns no row.
_IS_OF_ANOTHER_OPENID: Final = Statement[int](f"""
SELECT 1 FROM identities WHERE app_id = :app_id AND openid <> :openid AND unionid = :unionid
 UNION ALL
SELECT 1 FROM unionids JOIN identities other USING (user_id)
 WHERE unionids.unionid = :unionid AND other.app_id = :app_id AND other.openid <> :openid
   AND ({_IS_OF_ANOTHER_ACCOUNT}) IS NOT TRUE
   AND NOT EXISTS (SELECT FROM identities own
                    WHERE own.app_id = :app_id AND own.openid = :openid AND own.user_id = other.user_id)
 LIMIT 1
""")


async def check_unionid(
    database: Database | Transaction, people: People, *, app_id: str, openid: str, unionid: str, may_be_snapshot: bool
) -> None:
    """Check that a unionid can belong to an identity. `people` contains the users of the unionid and of the identity.

    `may_be_snapshot` means that WeChat might have made up this openid, or the other openid that the unionid might have.

    Raises: OfAnotherOpenid, in the two cases that the comment on `_IS_OF_ANOTHER_OPENID` describes; UnionidConflict, if
        an administrator or operator has split the unionid's user off from the identity's user, or the other way round.
    """
    identity = {"app_id": app_id, "openid": openid, "unionid": unionid}
    if await database.value(_IS_OF_ANOTHER_OPENID, **identity, may_be_snapshot=may_be_snapshot) is not None:
        raise OfAnotherOpenid("another openid of this app has it")
    if people.two_users is not None:
        one_id, other_id = people.two_users
        if await database.value(ARE_SPLIT, one_id=one_id, other_id=other_id):
            raise UnionidConflict("an administrator has split its user and this one")


async def correct_openid(transaction: Transaction, *, app_id: str, openid: str, unionid: str) -> None:
    """Correct the openid of an identity that has a unionid as its openid.

    If another identity already has the right openid, delete the identity with the wrong openid instead. The caller has
    locked the user of the unionid, who is also the user of the identity with the wrong openid.
    """
    identity = {"app_id": app_id, "openid": openid, "unionid": unionid}
    await transaction.run(_CORRECT_OPENID, **identity)
    await transaction.run(_DELETE_MISNAMED, **identity)
