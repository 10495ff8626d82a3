"""The table of users' pictures, and its statements."""

from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME
from wxauth.core.statements import Statement
from wxauth.core.users import USER_IN_SESSION, UserInSession


class StoredAvatar(SQLModel, table=True):
    """An uploaded picture, of which each user has at most one. Its URL is the user's `avatar_url`."""

    __tablename__ = "avatars"

    id: str = Field(sa_type=Text, primary_key=True)  # the secret part of the URL; whoever has the URL sees the picture
    user_id: UUID
    content_type: str = Field(sa_type=Text)
    content: bytes = Field(sa_type=BYTEA)
    created_at: datetime = Field(sa_type=TIME)


@dataclass(frozen=True, slots=True)
class Avatar:
    id: str  # 22 random characters, so that nobody can guess it
    content_type: str
    content: bytes


REPLACE_AVATAR: Final = Statement[UserInSession](f"""
WITH changed_user AS (
    -- no row for a user who has just been banned, erased or merged
    UPDATE users SET avatar_url = :url WHERE id = :user_id AND status = 'active'
    RETURNING {USER_IN_SESSION}
), stored AS (
    INSERT INTO avatars (id, user_id, content_type, content, created_at)
        SELECT :id, id, :content_type, :content, :now FROM changed_user
    ON CONFLICT (user_id) DO UPDATE
       SET id = excluded.id, content_type = excluded.content_type, content = excluded.content,
           created_at = excluded.created_at
)
SELECT * FROM changed_user
""")
READ_AVATAR: Final = Statement[Avatar]("SELECT id, content_type, content FROM avatars WHERE id = :avatar_id")
