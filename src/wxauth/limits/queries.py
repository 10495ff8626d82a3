"""The limits for actions that PostgreSQL counts, so that a limit applies to all replicas together."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from math import ceil
from typing import Final

from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.core.database import Database, Transaction
from wxauth.core.models import TIME
from wxauth.core.statements import Nothing, Statement
from wxauth.core.upkeep import Sweep
from wxauth.core.users import UserInSession
from wxauth.errors import RateLimited, StorageUnavailable

# No window may be longer, because housekeeping deletes the counts of windows that began more than an hour ago.
WINDOW: Final = timedelta(hours=1)
MINUTE: Final = timedelta(minutes=1)


class ActionCount(SQLModel, table=True):
    """How often one subject has done one kind of action in a window. An action beyond the limit does not count."""

    __tablename__ = "attempts"

    # The SHA-256 of the kind and of the subject. An erasure keeps the row, so it does not reset the count.
    key: bytes = Field(sa_type=BYTEA, primary_key=True)
    since: datetime = Field(sa_type=TIME)
    number: int


class _CountOutcome(SQLModel):
    is_within_limit: bool
    since_before: datetime | None  # of the window that was stored before the statement ran


# `window_ago` is the time one window's length before now, so a window that began later is open. A window that begins
# more than one window's length after now was begun while the clock was ahead, so it counts as ended.
_IS_OPEN: Final = """(attempts.since > :window_ago
                        AND attempts.since < :now::timestamptz + (:now::timestamptz - :window_ago))"""
# If two actions are concurrent, the second waits until the first has released the row, and then increments the count.
_COUNT: Final = Statement[_CountOutcome](f"""
WITH counted AS (
    INSERT INTO attempts (key, since, number) VALUES (:key, :now, 1)
    ON CONFLICT (key) DO UPDATE
       SET since = CASE WHEN {_IS_OPEN} THEN attempts.since ELSE excluded.since END,
           number = CASE WHEN {_IS_OPEN} THEN attempts.number + 1 ELSE 1 END
     WHERE NOT {_IS_OPEN} OR attempts.number < :at_most  -- otherwise the limit is reached, and nothing is written
    RETURNING since
)
SELECT EXISTS (SELECT FROM counted) AS is_within_limit, (SELECT since FROM attempts WHERE key = :key) AS since_before
""")
_UNCOUNT: Final = Statement[Nothing]("UPDATE attempts SET number = number - 1 WHERE key = :key AND number > 0")
sweep_action_counts: Final = Sweep.of("attempts", key="key", by="since")


@dataclass(frozen=True, slots=True)
class Rate:
    """The limit for an action: the number of times that one subject may do it within a window."""

    what: str  # the kind of action, which has its own count
    at_most: int
    detail: str  # for the developer
    window: timedelta = WINDOW

    async def count(self, database: Database | Transaction, *subject: str, now: datetime) -> None:
        """Count one more action of a subject. If `database` is a transaction, its rollback undoes the count.

        `subject` contains the ids of the subject: the app and openid, the unionid or the id of a user, or the client
        and `jti` of an assertion.

        Raises: RateLimited, if the limit is reached. In that case, the action is not counted.
        """
        row = await database.one(
            _COUNT, key=self._key(subject), now=now, window_ago=now - self.window, at_most=self.at_most
        )
        if not row.is_within_limit:
            # If a concurrent action began the window after this statement's snapshot, the start is not known.
            since = row.since_before or now
            raise RateLimited(self.detail, retry_after=max(1, ceil((since + self.window - now).total_seconds())))

    async def uncount(self, database: Database, *subject: str) -> None:
        """Undo one `count` of a subject. If the database is unavailable, the action remains counted."""
        with suppress(StorageUnavailable):
            await database.run(_UNCOUNT, key=self._key(subject))

    async def count_user(self, database: Database | Transaction, user: UserInSession, *, now: datetime) -> None:
        """Count one more action of this user, as `count` does.

        The subject is not the user's id, because a login after an erasure creates a new id, which must not reset the
        count.
        """
        await self.count(database, *_lasting_names(user), now=now)

    async def uncount_user(self, database: Database, user: UserInSession) -> None:
        """Undo one `count_user` of this user."""
        await self.uncount(database, *_lasting_names(user))

    def _key(self, subject: Sequence[str]) -> bytes:
        return sha256("\0".join((self.what, *subject)).encode()).digest()


def _lasting_names(user: UserInSession) -> Sequence[str]:
    return (user.app_id, user.openid) if user.unionid is None else (user.unionid,)


# The limits are per hour, unless a window is named.

# Honest users send fewer codes. Each code is a call to WeChat, and each number costs money, so without the limit, one
# user could use up the app's quota and money. A code does not count if the call fails because of the app or WeChat.
PHONE_CODES: Final = Rate("phone_code", 20, "this user has sent too many phone codes")
# No other request reads as much data as an export.
EXPORTS: Final = Rate("export", 1, "you can export your own data only once a minute", window=MINUTE)
PROFILE_CHANGES: Final = Rate("profile", 60, "this user has changed their name or picture URL too often")
CONSENTS_GIVEN: Final = Rate("consent", 20, "this user has given consent too often")
SITES: Final = Rate("site", 60, "this user has logged in to sites too often", window=MINUTE)
PICTURES: Final = Rate("picture", 20, "this user has uploaded pictures too often")
# Wrong codes may be guesses.
USER_CODES: Final = Rate("user_code", 5, "this user has entered too many wrong codes", window=MINUTE)
# An assertion, identified by its `jti`, can be used only once. No assertion is valid for longer than the window.
ASSERTIONS: Final = Rate("assertion", 1, "this assertion has already been used")
