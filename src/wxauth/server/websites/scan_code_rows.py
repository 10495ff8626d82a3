"""The statements for what WeChat makes for logins: the pictures of codes, and URL Links, one for each app."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

import asyncpg

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Nothing, Statement
from wxauth.server.websites.doors import SCAN_LASTS
from wxauth.server.websites.models import SealedUrlLink
from wxauth.server.websites.rows import IS_OPEN
from wxauth.server.wechat.api import CodePicture


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownCode:
    """A code to scan whose picture is requested."""

    id: UUID
    app_id: str | None
    """The app of the site."""
    content: bytes | None
    """The picture; None if it has not been made yet."""
    content_type: Literal["image/jpeg", "image/png"] | None


_SHOWN_CODE: Final = Statement[ShownCode](f"""
SELECT l.id, c.app_id, p.content, p.content_type
  FROM site_logins l JOIN clients c ON c.name = l.client_id LEFT JOIN scan_pictures p ON p.login_id = l.id
 WHERE l.scene_hash = :scene_hash AND l.user_code_hash IS NOT NULL AND {IS_OPEN}
""")  # noqa: S608 - put together from constants
# Settles the race of two processes that make the same picture: both get the one that was stored first.
_KEEP_PICTURE: Final = Statement[CodePicture]("""
INSERT INTO scan_pictures (login_id, content_type, content)
SELECT id, :content_type, :content FROM site_logins WHERE id = :id
ON CONFLICT (login_id) DO UPDATE SET login_id = excluded.login_id
RETURNING content_type, content
""")

_COLUMNS: Final = ", ".join(SealedUrlLink.model_fields)
_ALL: Final = Statement[SealedUrlLink](f"SELECT {_COLUMNS} FROM url_links ORDER BY app_id")  # noqa: S608 - constants
_ONE: Final = Statement[SealedUrlLink](f"SELECT {_COLUMNS} FROM url_links WHERE app_id = :app_id")  # noqa: S608 - constants
# Of two that replicas have made at once, the later one stays. Both open the page.
_PUT: Final = Statement[Nothing](f"""
INSERT INTO url_links ({_COLUMNS}) VALUES ({", ".join(f":{name}" for name in SealedUrlLink.model_fields)})
ON CONFLICT (app_id) DO UPDATE
   SET opens = excluded.opens, sealed = excluded.sealed, made_at = excluded.made_at, renew_at = excluded.renew_at
 WHERE url_links.made_at <= excluded.made_at
""")  # noqa: S608 - constants
_TAKE_DUE: Final = Statement[SealedUrlLink](f"""
UPDATE url_links SET renew_at = :retry_at
 WHERE app_id = ANY (ARRAY(
    SELECT app_id FROM url_links WHERE renew_at <= :now ORDER BY app_id LIMIT :size FOR UPDATE SKIP LOCKED
 ))
RETURNING {_COLUMNS}
""")  # noqa: S608 - constants
_DELETE_OLD: Final = Statement[Nothing]("DELETE FROM url_links WHERE made_at <= :made_before")
# Only if it is still what was read: one made meanwhile is sealed with the current key already.
_RESEAL: Final = Statement[str]("""
UPDATE url_links SET sealed = :anew WHERE app_id = :app_id AND sealed = :former RETURNING app_id
""")
_DELETE_ONE: Final = Statement[str]("""
DELETE FROM url_links WHERE app_id = :app_id AND sealed = :sealed RETURNING app_id
""")


async def shown_code(database: Database, scene_hash: bytes, *, now: datetime) -> ShownCode | None:
    """The code to scan of this scene, until it is decided."""
    return await database.row(_SHOWN_CODE, scene_hash=scene_hash, scanned_since=now - SCAN_LASTS, now=now)


async def keep_picture(database: Database, login_id: UUID, picture: CodePicture) -> CodePicture:
    """Store a code's picture. Returns the stored one: this picture, unless another was stored first."""
    try:
        stored = await database.row(
            _KEEP_PICTURE, id=login_id, content_type=picture.content_type, content=picture.content
        )
    except asyncpg.ForeignKeyViolationError:  # the login has just been deleted
        return picture
    return stored or picture


async def url_links(database: Database) -> Sequence[SealedUrlLink]:
    """Every app's link."""
    return await database.rows(_ALL)


async def url_link(database: Database, app_id: str) -> SealedUrlLink | None:
    """The link of an app."""
    return await database.row(_ONE, app_id=app_id)


async def put_url_link(database: Database, link: SealedUrlLink) -> None:
    """Store a new link in place of the one before."""
    await database.run(_PUT, **link.model_dump())


async def take_due(database: Database, *, size: int, now: datetime, retry_at: datetime) -> Sequence[SealedUrlLink]:
    """The links that are due to be renewed: no other replica gets them until `retry_at`."""
    return await database.rows(_TAKE_DUE, size=size, now=now, retry_at=retry_at)


async def delete_old(database: Database, *, made_before: datetime) -> None:
    """Delete the links that no longer work."""
    await database.run(_DELETE_OLD, made_before=made_before)


async def replace_url_link(database: Database, link: SealedUrlLink, anew: bytes) -> bool:
    """Replace a sealed link. Returns False if it has changed since it was read."""
    return await database.value(_RESEAL, app_id=link.app_id, former=link.sealed, anew=anew) is not None


async def delete_url_link(database: Database, link: SealedUrlLink) -> bool:
    """Delete a link. Returns False if it has changed since it was read."""
    return await database.value(_DELETE_ONE, app_id=link.app_id, sealed=link.sealed) is not None
