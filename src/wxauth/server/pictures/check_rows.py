"""The statements for WeChat's checks of pictures under way."""

from collections.abc import Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from sqlmodel import SQLModel

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Statement
from wxauth.server.wechat.push import PictureVerdict


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
