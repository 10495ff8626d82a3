"""The limits on the work that runs at the same time in this process, for each session and user, or for all users.

`Concurrency` lets a user's requests wait in queues, so that a user who sends many requests at once makes only their own
requests wait. The number of simultaneous transactions is small (`MAX_TRANSACTIONS` in `core/database.py`), and the
transactions of one user wait for the same lock. Without the queues, forty connections of one phone could occupy all
transactions, and the logins and changes of all users would wait.

An attacker who has stolen a token must not be able to make the token's owner wait. Therefore, each session has its own
queue before the queue of its user, and one session cannot fill the user's queue. Requests that end sessions have
separate queues, in which no request waits for WeChat. A request occupies no place in a queue while its client sends the
request or reads the response.

`Places` refuses phone codes and uploads instead of letting them wait, if too many are already in progress.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar
from uuid import UUID

from wxauth.core.services import part
from wxauth.errors import RateLimited

RETRY_AFTER: Final = 3
"""The `Retry-After`, in seconds, of a response that refuses a request because no place is free."""
AT_ONCE: Final = 2
"""The largest number of requests of one session's queue that run at the same time."""
AT_ONCE_OF_USER: Final = AT_ONCE + 1
"""The largest number of requests of one user's queue that run at the same time.

Because the number is larger than `AT_ONCE`, one session cannot occupy all places of its user.
"""
_ENDING_AT_ONCE: Final = 1
"""The largest number of requests that run at the same time in a queue of requests that end sessions.

With this limit and `AT_ONCE_OF_USER`, one user's requests occupy at most four of the five transactions
(`MAX_TRANSACTIONS`), so one transaction remains free for other users.
"""
MAX_PRESENT: Final = 64
"""The largest number of requests in one queue that may run or wait."""
PATIENCE_SECONDS: Final = 5.0
"""The longest time, in seconds, that a request waits for a place in a queue."""
_DETAIL: Final = "this user has too many requests in progress"

Holder = TypeVar("Holder", bound=Hashable)


@dataclass(eq=False, kw_only=True)
class Places(Generic[Holder]):
    """A limited number of places for work in progress. If no place is free, work is refused instead of waiting."""

    per_holder: int
    """The number of places for each holder, for example for a user."""
    in_total: int | None = None
    """The number of places for all holders together; None for no limit."""
    detail: str
    """The `detail` of the error that refuses the work. It is a text for developers."""
    _taken: Counter[Holder] = field(init=False, default_factory=Counter)

    @contextmanager
    def place(self, holder: Holder) -> Iterator[None]:
        """Occupy one of the places of `holder` during the block. Raises: RateLimited, if no place is free."""
        is_full = self.in_total is not None and self._taken.total() >= self.in_total
        if is_full or self._taken[holder] >= self.per_holder:
            raise RateLimited(self.detail, retry_after=RETRY_AFTER)
        self.take(holder)
        try:
            yield
        finally:
            self.give_back(holder)

    def take(self, holder: Holder) -> None:
        """Take a place for `holder`, even if no place is free.

        This method is for work that already occupies a place, and needs a second place. The caller must call
        `give_back` when the work has ended.
        """
        self._taken[holder] += 1

    def give_back(self, holder: Holder) -> None:
        """Give back one of the places of `holder`, so that other work can take it."""
        self._taken -= Counter([holder])  # `-=` removes counts of zero, which would accumulate


@dataclass(slots=True, eq=False)
class _Queue:
    """The requests of one session or user, in the order in which they came."""

    places: asyncio.Semaphore
    """The places of the requests that run."""
    present: int = 0
    """The number of requests that run or wait."""


@part
class Concurrency:
    """The queues of sessions and users.

    In each queue, a few requests run, and the others wait in order for up to `patience` seconds. wxauth does not refuse
    them immediately, because a client that immediately repeats a refused request costs more than a client that waits.
    """

    patience: float = PATIENCE_SECONDS
    _queues: dict[Hashable, _Queue] = field(init=False, default_factory=dict)

    @asynccontextmanager
    async def of_session(self, session: Hashable, user_id: UUID, *, ends_sessions: bool = False) -> AsyncIterator[None]:
        """Occupy a place in the queue of a session, and one in the queue of its user, during the block.

        `session` is usually the id of a session. It can also identify something else that a user can have several of:
        a login to a site, a browser's login, or an identity whose phone number is requested. Requests with
        `ends_sessions` have their own queues, so they do not wait for the user's other requests.

        Raises: RateLimited, if one of the queues is full, or if no place becomes free in time.
        """
        if ends_sessions:
            session_queue = self.queue(("ends", session), _ENDING_AT_ONCE)
            user_queue = self.queue(("ends", user_id), _ENDING_AT_ONCE)
        else:
            session_queue = self.queue(session, AT_ONCE)
            user_queue = self.queue(user_id, AT_ONCE_OF_USER)
        async with session_queue, user_queue:
            yield

    @asynccontextmanager
    async def queue(self, name: Hashable, at_once: int = AT_ONCE) -> AsyncIterator[None]:
        """Occupy a place in the queue of this name during the block.

        Up to `at_once` requests of the queue run at a time. All calls with one name must have the same `at_once`,
        because the first of them creates the queue.

        Raises: RateLimited, if the queue is full, or if no place becomes free in time.
        """
        queue = self._queues.setdefault(name, _Queue(asyncio.Semaphore(at_once)))
        if queue.present >= MAX_PRESENT:
            raise RateLimited(_DETAIL, retry_after=RETRY_AFTER)
        queue.present += 1
        try:
            try:
                async with asyncio.timeout(self.patience):
                    await queue.places.acquire()
            except TimeoutError:
                raise RateLimited(_DETAIL, retry_after=RETRY_AFTER) from None
            try:
                yield
            finally:
                queue.places.release()
        finally:
            queue.present -= 1
            if not queue.present:  # otherwise the queues of all sessions would accumulate
                del self._queues[name]
