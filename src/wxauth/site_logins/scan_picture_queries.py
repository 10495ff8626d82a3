"""The statements that find and store the pictures of the codes that users scan."""

from dataclasses import dataclass
from typing import Final, Literal
from uuid import UUID

import asyncpg

from wxauth.core.database import Database
from wxauth.core.statements import Statement
from wxauth.site_logins.queries import UNDECIDED_STAGES
from wxauth.wechat.api import CodePicture


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCode:
    """A login whose code can be scanned, with the picture of the code."""

    id: UUID
    app_id: str | None
    """The app_id that the site names for its QR codes; None if the code opens the default app."""
    content: bytes | None
    """The picture; None if none is stored."""
    content_type: Literal["image/jpeg", "image/png"] | None

    @property
    def picture(self) -> CodePicture | None:
        """The stored picture; None if there is none."""
        return CodePicture(self.content, self.content_type) if self.content and self.content_type else None


# The statement finds the code only until the user has decided, or the code has expired. `created_after` excludes a code
# that has expired although the login has not (see `scan_ends_at`). The row of a link also has a scene, but only a login
# with a code to scan has a user code.
SHOWN_CODE: Final = Statement[ShownCode](f"""
SELECT l.id, c.app_id, p.content, p.content_type
  FROM site_logins l LEFT JOIN clients c ON c.name = l.site LEFT JOIN scan_pictures p ON p.login_id = l.id
 WHERE c.removed_by IS NULL
   AND l.scene_hash = :scene_hash AND l.user_code_hash IS NOT NULL AND l.stage IN ({UNDECIDED_STAGES})
   AND l.created_at > :created_after AND l.expires_at > :now
""")
# If two processes make the picture of one code, both get the picture that was stored first. DO UPDATE changes nothing,
# but with DO NOTHING, the statement would not return the stored picture.
_KEEP_PICTURE: Final = Statement[CodePicture]("""
INSERT INTO scan_pictures (login_id, content_type, content)
SELECT id, :content_type, :content FROM site_logins WHERE id = :id
ON CONFLICT (login_id) DO UPDATE SET login_id = excluded.login_id
RETURNING content_type, content
""")


async def keep_picture(database: Database, login_id: UUID, picture: CodePicture) -> CodePicture:
    """Store a code's picture, and return it. If another process has stored a picture first, return that picture.

    If the login was deleted, store nothing, and return `picture`.
    """
    try:
        stored = await database.row(
            _KEEP_PICTURE, id=login_id, content_type=picture.content_type, content=picture.content
        )
    except asyncpg.ForeignKeyViolationError:  # the login was deleted during the statement
        return picture
    if stored is None:  # the login was deleted before the statement
        return picture
    return stored
