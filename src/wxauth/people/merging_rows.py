"""The statements that link an identity to another user, and make one user of two."""

from typing import Final, NamedTuple
from uuid import UUID

from wxauth.core.database import Transaction


class People(NamedTuple):
    """Who is concerned by a unionid that an identity did not have."""

    user_id: UUID | None
    """Whose the identity is."""
    holder_id: UUID | None
    """Who has the unionid."""


# $1 app_id  $2 openid  $3 unionid
_PEOPLE: Final = """
SELECT (SELECT user_id FROM identities WHERE app_id = $1 AND openid = $2) AS user_id,
       (SELECT id FROM users WHERE unionid = $3) AS holder_id
"""
_NAME_USER: Final = "UPDATE users SET unionid = $2 WHERE id = $1"
_MOVE_IDENTITY: Final = "UPDATE identities SET user_id = $3 WHERE app_id = $1 AND openid = $2"
# Away with the one and into the other in one statement, so that no unique value of theirs is there twice.
# $1 former user id  $2 remaining user id
_MERGE_EMPTY_USER: Final = """
WITH former AS (
    DELETE FROM users
     WHERE id = $1 AND NOT EXISTS (SELECT FROM identities WHERE user_id = $1)
    RETURNING *
), moved AS (
    UPDATE avatars SET user_id = users.id FROM former, users
     WHERE avatars.user_id = former.id AND users.id = $2 AND users.avatar_url IS NULL
)
UPDATE users
   SET nickname = COALESCE(users.nickname, former.nickname),
       avatar_url = COALESCE(users.avatar_url, former.avatar_url),
       phone = COALESCE(users.phone, former.phone),
       created_at = LEAST(users.created_at, former.created_at)
  FROM former
 WHERE users.id = $2
RETURNING users.id
"""


async def people_of(transaction: Transaction, *, app_id: str, openid: str, unionid: str) -> People:
    """Whose an identity is, and whose a unionid."""
    return People(**await transaction.fetchrow(_PEOPLE, app_id, openid, unionid))


async def name_user(transaction: Transaction, user_id: UUID, unionid: str) -> None:
    """Give a user a unionid that nobody has."""
    await transaction.execute(_NAME_USER, user_id, unionid)


async def move_identity(transaction: Transaction, *, app_id: str, openid: str, to: UUID) -> None:
    """Give an identity, with its sessions, to another user."""
    await transaction.execute(_MOVE_IDENTITY, app_id, openid, to)


async def merge_empty_user(transaction: Transaction, former_id: UUID, *, into: UUID) -> bool:
    """Let a user without identities be no more, and give the other one what that one lacks; whether it was so."""
    return await transaction.fetchval(_MERGE_EMPTY_USER, former_id, into) is not None
