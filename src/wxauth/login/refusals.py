"""The refused logins of one process.

A process holds the refusals in memory, and stores them after short pauses, so that no refusal waits for the database. A
process that is killed loses the refusals of its last seconds.

A flood of refusals adds only a limited number of rows. In each minute, each of the first `MAX_OWN_ROWS` refusals of a
network has a separate row, and one row for each error code counts the other refusals of the network. Refusals of known
users have separate limits of the same kind, so that refusals of a network cannot displace them.
"""

from collections import Counter
from dataclasses import field
from datetime import datetime
from enum import StrEnum
from typing import Final
from uuid import UUID

from wxauth.core import metrics
from wxauth.core.ids import new_id
from wxauth.core.services import part
from wxauth.core.write_buffer import WriteBuffer
from wxauth.errors import WeChatError
from wxauth.login import refusal_queries
from wxauth.settings.addresses import TRUNCATED
from wxauth.settings.apps import APP_ID
from wxauth_guard.errors import WxAuthError

REFUSALS_STORE_SECONDS: Final = 1.0
"""The pause, in seconds, between two writes of refusals to the database."""
MAX_OWN_ROWS: Final = 10
"""The largest number of refusals per minute, of one network or one user, that each get their own row.

One row for each error code counts the other refusals.
"""
MAX_NEW_ROWS: Final = 30
"""The largest number of new rows per second that a process adds for refusals without a known user.

One row for each error code, without a network or a user, counts further refusals.
"""
MAX_NEW_ROWS_OF_USERS: Final = 100
"""The largest number of new rows per second that a process adds for refusals of known users.

One row for each error code, without a network or a user, counts further refusals.
"""
MAX_IN_MEMORY: Final = 1000
"""The largest number of rows that wait for the next write to the database.

While so many rows wait, because the database is slow, the process drops refusals that need another row.
"""
_MAX_ERRCODE: Final = 2**31 - 1
"""The largest value of the column `wechat_errcode`. WeChat's error codes are far smaller."""
_SharedKey = tuple[UUID | str | None, str]
"""The key of a row that counts several refusals: the user or the network, if there is one, and the error code."""


class Dropped(StrEnum):
    """The reason why wxauth has stored no separate row for a refused login."""

    TOO_MANY = "too_many"
    """The refusal is included in the count of another row."""
    STORAGE = "storage"
    """The refusal is not stored, because the database was down or too slow."""


DROPPED: Final = metrics.Counter(
    "wxauth_refusals_dropped",
    "Refused logins without a row of their own, by reason.",
    "outcome",
    first=Dropped,
)


@part
class Refusals(WriteBuffer):
    """The refused logins of one process, and the refreshes that were refused because the user is banned."""

    failure_event = "refusals_not_stored"
    store_pause = REFUSALS_STORE_SECONDS
    _waiting: dict[UUID, refusal_queries.Refusal] = field(init=False, default_factory=dict)
    """The rows to store: new rows, and rows whose count has grown since they were stored."""
    _second: int = field(init=False, default=0)
    """The second, counted since 1970, to which `_rows_begun` applies."""
    _minute: int = field(init=False, default=0)
    """The minute, counted since 1970, to which `_own_rows` and `_shared_rows` apply."""
    _own_rows: Counter[UUID | str] = field(init=False, default_factory=Counter)
    """The number of rows of this minute that each contain one refusal, by user or network."""
    _shared_rows: dict[_SharedKey, refusal_queries.Refusal] = field(init=False, default_factory=dict)
    """The rows of this minute that can count several refusals."""
    _rows_begun: Counter[bool] = field(init=False, default_factory=Counter)
    """The number of rows begun in this second, with a user (True) and without a user (False)."""

    def note(self, error: WxAuthError, *, ip: str | None, request_id: str) -> None:
        """Record a login or refresh that was refused with this error, in a new row or in the count of an existing row.

        If `MAX_IN_MEMORY` rows already wait, a refusal that needs another waiting row is dropped. The `app_id` of the
        error can be any text from the client.
        """
        now = self.clock()
        self._reset_limits(int(now.timestamp()))
        network, user_id = _network_of(ip), error.user_id
        source = user_id or network
        row = self._shared_rows.get((source, error.code))
        if row is None and not self._claim_new_row(is_of_user=user_id is not None):
            # So many rows have begun in this second that a row without a user and a network counts this refusal.
            source = network = user_id = None
            row = self._shared_rows.get((None, error.code))
        if row is not None:
            row.count += 1
            DROPPED.count(Dropped.TOO_MANY)
        else:
            row = _new_row(error, user_id=user_id, network=network, request_id=request_id, at=now)
            if source is not None and self._own_rows[source] < MAX_OWN_ROWS:
                self._own_rows[source] += 1
            else:
                self._shared_rows[source, error.code] = row
        if row.id in self._waiting or len(self._waiting) < MAX_IN_MEMORY:
            self._waiting[row.id] = row
        else:
            DROPPED.count(Dropped.STORAGE)

    def _reset_limits(self, second: int) -> None:
        """Reset the counters when a new second or minute begins."""
        if second != self._second:
            self._second = second
            self._rows_begun.clear()
        if second // 60 != self._minute:
            self._minute = second // 60
            self._own_rows.clear()
            self._shared_rows.clear()

    def _claim_new_row(self, *, is_of_user: bool) -> bool:
        """Count a new row, and return True. If too many have begun in this second, return False without counting it."""
        limit = MAX_NEW_ROWS_OF_USERS if is_of_user else MAX_NEW_ROWS
        if self._rows_begun[is_of_user] >= limit:
            return False
        self._rows_begun[is_of_user] += 1
        return True

    async def _store(self) -> None:
        """Store the waiting rows. If that fails, drop them."""
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        try:
            await self.database.run(refusal_queries.STORE_REFUSALS, refusals=[dict(each) for each in waiting.values()])
        except BaseException:
            DROPPED.count(Dropped.STORAGE, number=len(waiting))
            raise


def _new_row(
    error: WxAuthError, *, user_id: UUID | None, network: str | None, request_id: str, at: datetime
) -> refusal_queries.Refusal:
    """Return the row of a first refusal, without values from the client or WeChat that do not fit into its columns."""
    errcode = error.errcode if isinstance(error, WeChatError) else None
    return refusal_queries.Refusal(
        id=new_id(at),
        at=at,
        code=error.code,
        wechat_errcode=None if errcode is None or abs(errcode) > _MAX_ERRCODE else errcode,
        app_id=error.app_id if error.app_id is not None and APP_ID.fullmatch(error.app_id) else None,
        user_id=user_id,
        network=network,
        request_id=request_id[: refusal_queries.MAX_REQUEST_ID],
        count=1,
    )


def _network_of(ip: str | None) -> str | None:
    """Return the /24 or /48 of an address; None if there is no IP address."""
    try:
        return None if ip is None else TRUNCATED.network_of(ip)
    except ValueError:
        return None  # the client has connected through a Unix socket
