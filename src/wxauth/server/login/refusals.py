"""Refused logins: collected in memory, and stored once a second in one statement.

No request waits for the database because of them. What is stored of a flood is bounded: in a minute, the first ten of a
network have a row each; after that, one row for each code counts the others. So do those of a user, whom no network can
crowd out. A process that is killed loses its last second.
"""

import re
from collections import Counter
from dataclasses import field, replace
from enum import StrEnum
from typing import Final
from uuid import UUID

from wxauth.errors import WxAuthError
from wxauth.server.core import metrics
from wxauth.server.core.addresses import TRUNCATED
from wxauth.server.core.background import Gathering
from wxauth.server.core.clock import new_id
from wxauth.server.core.database import Database
from wxauth.server.core.services import part
from wxauth.server.login.models import Refusal
from wxauth.server.login.refusal_rows import RefusalSearch, find_refusals, store_refusals
from wxauth.server.web.bodies import Page

STORE_PAUSE_SECONDS: Final = 1.0
"""Seconds between two stores."""
MAX_OWN_ROWS: Final = 10
"""How many refusals of one network, or of one user, have a row of their own in a minute. The others are counted."""
MAX_NEW_ROWS: Final = 30
"""How many rows are begun per second for refusals that name nobody. Beyond that, one row for each code counts them."""
MAX_NEW_ROWS_OF_USERS: Final = 100
"""How many rows are begun per second for refusals of users."""
MAX_IN_MEMORY: Final = 1000
"""How many rows may wait in memory while the database is slow. Refusals beyond that are dropped."""
MAX_REQUEST_ID: Final = 64
"""Characters of a request id that are stored and compared. The client may choose up to 128; ours have 32."""

_APP_ID: Final = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MAX_ERRCODE: Final = 2**31 - 1
"""The largest value of the column. WeChat's error codes are far smaller."""


class Dropped(StrEnum):
    """Why a refused login has no row of its own."""

    TOO_MANY = "too_many"
    """It is in the count of another row."""
    STORAGE = "storage"
    """The database is down or too slow."""


DROPPED: Final = metrics.Counter(
    "wxauth_refusals_dropped",
    "Refused logins that are counted here and not stored for support staff, by reason.",
    "outcome",
    first=Dropped,
)
Group = tuple[UUID | str | None, str]
"""What one row counts in a minute: a user, a network, or neither, and a code."""


@part
class Refusals(Gathering):
    """The refused logins of one process."""

    failed = "refusals_not_stored"
    store_pause: float = STORE_PAUSE_SECONDS
    _waiting: dict[UUID, Refusal] = field(init=False, default_factory=dict)
    """The rows to store: new ones, and those whose count has grown since."""
    _second: int = field(init=False, default=0)
    _minute: int = field(init=False, default=0)
    _own_rows: Counter[UUID | str] = field(init=False, default_factory=Counter)
    _counting: dict[Group, Refusal] = field(init=False, default_factory=dict)
    """The rows of this minute that count."""
    _begun: Counter[bool] = field(init=False, default_factory=Counter)
    """How many rows were begun in this second, by whether they name a user."""

    def note(self, error: WxAuthError, *, ip: str | None, request_id: str) -> None:
        """Note a login refused with this error. Its app_id may be any text."""
        now = self.clock()
        self._turn(int(now.timestamp()))
        network, user_id = _truncated(ip), error.user_id
        who = user_id or network
        if (who, error.code) not in self._counting and not self._has_place(is_of_user=user_id is not None):
            who = network = user_id = None
        row = self._counting.get((who, error.code))
        if row is not None:
            row.count += 1
            DROPPED.count(Dropped.TOO_MANY)
        else:
            errcode: int | None = getattr(error, "errcode", None)
            row = Refusal(
                id=new_id(now),
                at=now,
                code=error.code,
                wechat_errcode=None if errcode is None or abs(errcode) > _MAX_ERRCODE else errcode,
                app_id=error.app_id if error.app_id is not None and _APP_ID.fullmatch(error.app_id) else None,
                user_id=user_id,
                network=network,
                request_id=request_id[:MAX_REQUEST_ID],
                count=1,
            )
            if who is not None and self._own_rows[who] < MAX_OWN_ROWS:
                self._own_rows[who] += 1
            else:
                self._counting[who, error.code] = row
        if row.id in self._waiting or len(self._waiting) < MAX_IN_MEMORY:
            self._waiting[row.id] = row
        else:
            DROPPED.count(Dropped.STORAGE)

    def _turn(self, second: int) -> None:
        """Begin a new second, and a new minute."""
        if second != self._second:
            self._second = second
            self._begun.clear()
        if second // 60 != self._minute:
            self._minute = second // 60
            self._own_rows.clear()
            self._counting.clear()

    def _has_place(self, *, is_of_user: bool) -> bool:
        """Whether another row may begin in this second; if so, its place is taken."""
        if self._begun[is_of_user] >= (MAX_NEW_ROWS_OF_USERS if is_of_user else MAX_NEW_ROWS):
            return False
        self._begun[is_of_user] += 1
        return True

    async def _store(self) -> None:
        """On failure, they are dropped."""
        waiting, self._waiting = self._waiting, {}
        if not waiting:
            return
        try:
            await store_refusals(self.database, list(waiting.values()))
        except BaseException:
            DROPPED.count(Dropped.STORAGE, number=len(waiting))
            raise


async def list_refusals(database: Database, search: RefusalSearch, *, before: UUID | None, limit: int) -> Page[Refusal]:
    """A page of the refusals that match a search and are older than `before`, newest first."""
    if search.request_id is not None:
        search = replace(search, request_id=search.request_id[:MAX_REQUEST_ID])
    return Page.of(await find_refusals(database, search, before=before, limit=limit + 1), limit)


def _truncated(ip: str | None) -> str | None:
    try:
        return None if ip is None else TRUNCATED.network_of(ip)
    except ValueError:
        return None  # a unix socket
