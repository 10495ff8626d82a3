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
from wxauth.core.background import WriteBuffer
from wxauth.core.clock import new_id
from wxauth.core.services import part
from wxauth.errors import WeChatError
from wxauth.login.refusal_queries import MAX_REQUEST_ID, STORE_REFUSALS, Refusal
from wxauth.settings.addresses import TRUNCATED
from wxauth.settings.apps import APP_ID
from wxauth_guard.errors import WxAuthError

REFUSALS_STORE_SECONDS: Final = 1.0
MAX_OWN_ROWS: Final = 10  # per minute, and network or user
MAX_NEW_ROWS: Final = 30  # per second and process, of refusals without a known user
MAX_NEW_ROWS_OF_USERS: Final = 100  # per second and process, of refusals with a known user
# While so many rows wait because the database is slow, refusals that need another row are dropped.
MAX_IN_MEMORY: Final = 1000
_MAX_ERRCODE: Final = 2**31 - 1  # the limit of the column
_SharedKey = tuple[UUID | str | None, str]  # the user or the network, if there is one, and the error code


class Dropped(StrEnum):
    """Why a refused login has no row of its own."""

    TOO_MANY = "too_many"  # included in the count of another row
    STORAGE = "storage"  # not stored, because the database was down or too slow


DROPPED: Final = metrics.Counter(
    "wxauth_refusals_dropped", "Refused logins without a row of their own, by reason.", "outcome", first=Dropped
)


@part
class Refusals(WriteBuffer):
    """The refused logins of one process, and the refreshes that were refused because the user is banned."""

    failure_event = "refusals_not_stored"
    store_pause = REFUSALS_STORE_SECONDS
    # These are new rows, and rows whose count has grown since they were stored.
    _waiting: dict[UUID, Refusal] = field(init=False, default_factory=dict)
    _second: int = field(init=False, default=0)
    _minute: int = field(init=False, default=0)
    # These are the numbers of rows in this minute that have one refusal each.
    _own_rows: Counter[UUID | str] = field(init=False, default_factory=Counter)
    _shared_rows: dict[_SharedKey, Refusal] = field(init=False, default_factory=dict)
    # These are the numbers of rows begun in this second, with a user (True) and without.
    _rows_begun: Counter[bool] = field(init=False, default_factory=Counter)

    def note(self, error: WxAuthError, *, ip: str | None, request_id: str) -> None:
        """Record a refusal in a new row or in a count. The `app_id` of the error can be any text from the client."""
        now = self.clock()
        self._reset_limits(int(now.timestamp()))
        network, user_id = _network_of(ip), error.user_id
        source = user_id or network
        row = self._shared_rows.get((source, error.code))
        if row is None and not self._reserve_new_row(is_of_user=user_id is not None):
            # Many rows have begun in this second, so a row without a user and a network counts this refusal.
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
        if second != self._second:
            self._second = second
            self._rows_begun.clear()
        if second // 60 != self._minute:
            self._minute = second // 60
            self._own_rows.clear()
            self._shared_rows.clear()

    def _reserve_new_row(self, *, is_of_user: bool) -> bool:
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
            await self.database.run(STORE_REFUSALS, refusals=[dict(each) for each in waiting.values()])
        except BaseException:
            DROPPED.count(Dropped.STORAGE, number=len(waiting))
            raise


def _new_row(
    error: WxAuthError, *, user_id: UUID | None, network: str | None, request_id: str, at: datetime
) -> Refusal:
    errcode = error.errcode if isinstance(error, WeChatError) else None
    return Refusal(
        id=new_id(at),
        at=at,
        code=error.code,
        wechat_errcode=None if errcode is None or abs(errcode) > _MAX_ERRCODE else errcode,
        app_id=error.app_id if error.app_id is not None and APP_ID.fullmatch(error.app_id) else None,
        user_id=user_id,
        network=network,
        request_id=request_id[:MAX_REQUEST_ID],
        count=1,
    )


def _network_of(ip: str | None) -> str | None:
    try:
        return None if ip is None else TRUNCATED.network_of(ip)
    except ValueError:
        return None  # the client has connected through a Unix socket
