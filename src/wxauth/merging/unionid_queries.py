"""The statements about unionids: whose one is, whether it may belong to an identity, and where it is stored."""

from dataclasses import dataclass
from typing import Final
from uuid import UUID

from wxauth.core.database import Database, Transaction
from wxauth.core.statements import Nothing, Statement
from wxauth.merging.merging_queries import ARE_SPLIT


class UnionidConflict(Exception):
    """The unionid cannot belong to this identity. The text is the reason."""


class OfAnotherOpenid(UnionidConflict):
    """Another openid of the app has the unionid, or one of the two openids belongs to a snapshot."""


@dataclass(frozen=True, slots=True)
class People:
    """The users of an identity and of a unionid that is new to it."""

    user_id: UUID | None
    """The user of the identity."""
    holder_id: UUID | None
    """The user of the unionid."""
    misnamed_id: UUID | None = None
    """The user of an imported identity of this app that has this unionid in place of its openid."""

    @property
    def two(self) -> tuple[UUID, UUID] | None:
        """The two users; None if they are one user."""
        if self.user_id is None or self.holder_id is None or self.user_id == self.holder_id:
            return None
        return self.user_id, self.holder_id


PEOPLE: Final = Statement[People]("""
SELECT (SELECT user_id FROM identities WHERE app_id = :app_id AND openid = :openid) AS user_id,
       (SELECT user_id FROM unionids WHERE unionid = :unionid) AS holder_id,
       (SELECT user_id FROM identities
         WHERE app_id = :app_id AND openid = :unionid AND openid <> :openid AND awaits_login) AS misnamed_id
""")
"""The statement that finds the users of an identity and of a unionid, in its only row."""
HOLD_UNIONID: Final = Statement[Nothing]("INSERT INTO unionids (unionid, user_id) VALUES (:unionid, :user_id)")
"""The statement that gives an unknown unionid to a locked user.

If two transactions do so simultaneously, the second fails.
"""
# The login stores the unionid, by the rules for any other late unionid.
_CORRECT_OPENID: Final = Statement[Nothing]("""
UPDATE identities SET openid = :openid, unionid = NULL
 WHERE app_id = :app_id AND openid = :unionid
   AND NOT EXISTS (SELECT FROM identities it WHERE it.app_id = :app_id AND it.openid = :openid)
""")
_DELETE_MISNAMED: Final = Statement[Nothing]("""
DELETE FROM identities WHERE app_id = :app_id AND openid = :unionid
   AND EXISTS (SELECT FROM identities it WHERE it.app_id = :app_id AND it.openid = :openid)
""")
KEEP_MISNAMED: Final = Statement[Nothing](
    "UPDATE identities SET awaits_login = false WHERE app_id = :app_id AND openid = :unionid"
)
"""The statement that marks an identity with a unionid in place of its openid, so that it is not corrected again."""
NAME_IDENTITY: Final = Statement[Nothing]("""
WITH named AS (UPDATE identities SET unionid = :unionid WHERE app_id = :app_id AND openid = :openid RETURNING user_id)
UPDATE users SET unionid = :unionid FROM named WHERE users.id = named.user_id
""")
"""The statement that stores WeChat's latest unionid of an identity, in the rows of the identity and its user."""
# This is true if an identity belongs to another of the user's WeChat accounts than :unionid does. WeChat has one openid
# for each account and app, so this identity must have another unionid, or none that is known. In the latter case,
# neither of the two openids may be a snapshot's. Also, :unionid must not be an earlier unionid of the same account: the
# user was merged from several, or has it in another app.
_IS_OF_ANOTHER_ACCOUNT: Final = """
       (other.unionid <> :unionid OR other.unionid IS NULL AND NOT :may_be_snapshot)
   AND (EXISTS (SELECT FROM former_users WHERE former_users.user_id = other.user_id)
        OR other.unionid IS NOT NULL
           AND EXISTS (SELECT FROM identities it WHERE it.user_id = other.user_id AND it.unionid = :unionid))"""
# This finds a row if another openid of the app has the unionid, which a unique index forbids, or if the unionid belongs
# to another user who has another openid of the app, unless that openid belongs to another account.
_IS_ANOTHERS: Final = Statement[int](f"""
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
    asked: Database | Transaction, people: People, *, app_id: str, openid: str, unionid: str, may_be_snapshot: bool
) -> None:
    """Check that a unionid may belong to an identity. `people` are their users.

    With `may_be_snapshot`, WeChat might have made up this person or the unionid's.

    Raises: UnionidConflict.
    """
    identity = {"app_id": app_id, "openid": openid, "unionid": unionid}
    if await asked.value(_IS_ANOTHERS, **identity, may_be_snapshot=may_be_snapshot) is not None:
        raise OfAnotherOpenid("another openid of this app has it")
    if people.two is not None:
        one_id, other_id = people.two
        if await asked.value(ARE_SPLIT, one_id=one_id, other_id=other_id):
            raise UnionidConflict("an administrator has split its user and this one")


async def correct_openid(transaction: Transaction, *, app_id: str, openid: str, unionid: str) -> None:
    """Correct an identity that has a unionid as its openid; delete it, if the right openid exists already.

    The user of the unionid, who is also this identity's user, is locked.
    """
    for statement in (_CORRECT_OPENID, _DELETE_MISNAMED):
        await transaction.run(statement, app_id=app_id, openid=openid, unionid=unionid)
