"""The statements about pictures, and about their checks at WeChat."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Statement
from wxauth.server.core.users import ORIGIN, USER, UserFields
from wxauth.server.users.user_rows import record_profile_change
from wxauth.server.wechat.received import PictureVerdict


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


class Check(SQLModel):
    """A check of which at least one half is known: what was asked (openid and picture), or what WeChat answered."""

    openid: str | None
    avatar_id: str | None
    suggest: str | None
    label: int | None


_HALVES: Final = "openid, avatar_id, suggest, label"
# Either half may be stored first: WeChat's message may come before its answer to the call is stored.
_ASKED: Final = Statement[Check](f"""
INSERT INTO picture_checks (app_id, trace_id, openid, avatar_id, at)
    SELECT app_id, :trace_id::text, openid, :avatar_id::text, :now::timestamptz FROM identities
     WHERE app_id = :app_id AND openid = :openid FOR KEY SHARE
ON CONFLICT (app_id, trace_id) DO UPDATE SET openid = excluded.openid, avatar_id = excluded.avatar_id
RETURNING {_HALVES}
""")  # noqa: S608 - put together from constants
_ANSWERED: Final = Statement[Check](f"""
INSERT INTO picture_checks (app_id, trace_id, suggest, label, at) VALUES (:app_id, :trace_id, :suggest, :label, :now)
ON CONFLICT (app_id, trace_id) DO UPDATE SET suggest = excluded.suggest, label = excluded.label
RETURNING {_HALVES}
""")  # noqa: S608 - put together from constants
_TAKE: Final = Statement[Check](f"""
DELETE FROM picture_checks WHERE app_id = :app_id AND trace_id = :trace_id AND openid IS NOT NULL RETURNING {_HALVES}
""")  # noqa: S608 - put together from constants
_IS_PICTURE_OF: Final = Statement[bool]("""
SELECT EXISTS (SELECT FROM avatars WHERE id = :avatar_id AND user_id = :user_id)
""")
_SWEEP: Final = Statement[str]("""
DELETE FROM picture_checks WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM picture_checks WHERE at < :before ORDER BY at LIMIT :size FOR UPDATE SKIP LOCKED))
RETURNING CASE WHEN openid IS NULL THEN '' ELSE app_id END AS unanswered_of
""")


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


async def note_asked(
    database: Database, *, app_id: str, trace_id: str, openid: str, avatar_id: str, now: datetime
) -> Check | None:
    """Remember what was asked. Returns what is known of the check; None if the identity has just been erased."""
    async with database.begin() as transaction:
        return await transaction.row(
            _ASKED, app_id=app_id, trace_id=trace_id, openid=openid, avatar_id=avatar_id, now=now
        )


async def note_answered(database: Database, verdict: PictureVerdict, *, app_id: str, now: datetime) -> Check:
    """Remember what WeChat answered. Returns what is known of the check."""
    async with database.begin() as transaction:
        check = await transaction.row(
            _ANSWERED,
            app_id=app_id,
            trace_id=verdict.trace_id,
            suggest=verdict.suggest,
            label=verdict.label,
            now=now,
        )
    assert check is not None
    return check


async def take_check(transaction: Transaction, *, app_id: str, trace_id: str) -> Check | None:
    """Delete a check that was asked for, and return it; None if there is none any more."""
    return await transaction.row(_TAKE, app_id=app_id, trace_id=trace_id)


async def is_picture_of(transaction: Transaction, user_id: UUID, avatar_id: str) -> bool:
    """Whether this is still the picture of a locked user."""
    return bool(await transaction.value(_IS_PICTURE_OF, user_id=user_id, avatar_id=avatar_id))


async def sweep_checks(database: Database, *, before: datetime, size: int) -> Sequence[str]:
    """Delete up to `size` checks that began before a time. Returns the app of each, or '' if nothing was asked."""
    async with database.begin() as transaction:
        return await transaction.values(_SWEEP, before=before, size=size)
