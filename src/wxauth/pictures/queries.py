"""The statements for users' pictures."""

from dataclasses import dataclass
from typing import Final

from wxauth.core.statements import Statement
from wxauth.core.users import USER_IN_SESSION, UserInSession


@dataclass(frozen=True, slots=True)
class Avatar:
    """A user's picture."""

    id: str
    """The id of the picture: 22 random characters, so that nobody can guess it."""
    content_type: str
    content: bytes


REPLACE_AVATAR: Final = Statement[UserInSession](f"""
WITH changed_user AS (
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
"""The statement that replaces a user's picture and `avatar_url`.

It returns the changed user, or no row if the user is banned, erased or merged.
"""
READ_AVATAR: Final = Statement[Avatar]("SELECT id, content_type, content FROM avatars WHERE id = :avatar_id")
"""The query for the picture with the id `avatar_id`. It returns no row if there is no such picture."""
