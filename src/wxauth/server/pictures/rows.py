"""The statements for users' pictures. A trigger deletes a picture when its user's avatar_url no longer points to it."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Statement
from wxauth.server.core.users import ORIGIN, USER, UserFields
from wxauth.server.users.user_rows import record_profile_change


class _Picture(SQLModel):
    content_type: str
    content: bytes


_REPLACE: Final = Statement[UserFields](f"""
WITH person AS (
    UPDATE users SET avatar_url = :url, avatar_url_from = {ORIGIN} WHERE id = :user_id AND status = 'active'
    RETURNING {USER}
), stored AS (
    INSERT INTO avatars (id, user_id, content_type, content, created_at)
        SELECT :avatar_id, id, :content_type, :content, :now FROM person
    ON CONFLICT (user_id) DO UPDATE
       SET id = excluded.id, content_type = excluded.content_type, content = excluded.content,
           created_at = excluded.created_at
)
SELECT * FROM person
""")  # noqa: S608 - put together from constants
_READ: Final = Statement[_Picture]("SELECT content_type, content FROM avatars WHERE id = :avatar_id")


@dataclass(frozen=True, slots=True)
class Avatar:
    """A user's picture."""

    id: str
    """22 unguessable characters."""
    content_type: str
    content: bytes


async def replace_avatar(
    database: Database, user_id: UUID, avatar: Avatar, *, url: str, app_id: str, openid: str, now: datetime
) -> UserFields | None:
    """Replace a user's picture. Returns the changed user; None if the user is banned or erased."""
    # A transaction is never retried after a lost connection: a retry could overwrite a withdrawal made in between.
    async with database.begin() as transaction:
        user: UserFields | None = await transaction.row(
            _REPLACE,
            user_id=user_id,
            url=url,
            app_id=app_id,
            openid=openid,
            avatar_id=avatar.id,
            content_type=avatar.content_type,
            content=avatar.content,
            now=now,
        )
        if user is not None:
            await record_profile_change(transaction, user_id, ["avatar_url"], app_id=app_id, now=now)
    return user


async def read_avatar(database: Database, avatar_id: str) -> Avatar | None:
    """The picture of this id; None if there is none."""
    row = await database.row(_READ, avatar_id=avatar_id)
    return None if row is None else Avatar(avatar_id, row.content_type, row.content)
