"""The last refreshes of users, which a process collects in memory, so that no refresh writes to the user's row."""

from dataclasses import field
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from wxauth.core.background import WriteBuffer
from wxauth.core.services import part
from wxauth.core.statements import Nothing, Statement
from wxauth.core.users import LAST_SEEN_AT, UserFields

STORE_PAUSE_SECONDS: Final = 1.0
MAX_WAITING: Final = 20_000
_MAX_USERS_STORED_AT_ONCE: Final = 500  # a login of one of these users waits for the statement

_STORE: Final = Statement[Nothing](f"""
UPDATE users SET last_refresh_at = noted.at
  FROM unnest(:user_ids::uuid[], :times::timestamptz[]) AS noted (id, at)
 WHERE users.id = noted.id AND users.id = ANY (ARRAY(
       SELECT users.id FROM unnest(:user_ids::uuid[], :times::timestamptz[]) AS noted (id, at)
         JOIN users ON users.id = noted.id
        -- another process might have stored the day already
        WHERE {LAST_SEEN_AT} IS NULL OR {LAST_SEEN_AT} < date_trunc('day', noted.at, 'UTC')
        -- the next refresh of a locked user notes the user again
        ORDER BY users.id FOR NO KEY UPDATE OF users SKIP LOCKED))
""")


@part
class LastSeen(WriteBuffer):
    """The users who have refreshed tokens or redeemed a code in this process, and had not been seen that day."""

    failure_event = "last_seen_not_stored"
    store_pause = STORE_PAUSE_SECONDS
    _waiting: dict[UUID, datetime] = field(init=False, default_factory=dict)

    def note(self, user: UserFields, *, at: datetime) -> None:
        """Note a refresh or redemption, unless the user was seen before on this day in UTC, or too many users wait."""
        seen_at = user.last_seen_at
        is_due = seen_at is None or seen_at < at.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if is_due and len(self._waiting) < MAX_WAITING:
            self._waiting[user.id] = at

    async def _store(self) -> None:
        # Users who cannot be stored are dropped. Their next refresh notes them again.
        waiting, self._waiting = sorted(self._waiting.items()), {}
        for first in range(0, len(waiting), _MAX_USERS_STORED_AT_ONCE):
            user_ids, times = zip(*waiting[first : first + _MAX_USERS_STORED_AT_ONCE], strict=True)
            await self.database.run(_STORE, user_ids=user_ids, times=times)
