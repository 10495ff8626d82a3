"""The limits on the work that runs at the same time in this process, for each session and user, or for all users."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Hashable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar
from uuid import UUID

from wxauth.core.services import part
from wxauth.errors import RateLimited

RETRY_AFTER_SECONDS: Final = 3
AT_ONCE: Final = 2  # requests in one queue that run, while the others wait
AT_ONCE_OF_USER: Final = AT_ONCE + 1  # so that one session cannot occupy all places of its user
# Together with AT_ONCE_OF_USER, one user's requests occupy at most four of the five transactions (MAX_TRANSACTIONS).
_ENDING_AT_ONCE: Final = 1
MAX_PRESENT: Final = 64  # requests in one queue that run or wait
PATIENCE_SECONDS: Final = 5.0
_DETAIL: Final = "this user has too many requests in progress"

Holder = TypeVar("Holder", bound=Hashable)


@dataclass(eq=False, kw_only=True)
class Places(Generic[Holder]):
    """A limited number of places for work in progress. If no place is free, work is refused instead of waiting."""

    per_holder: int
    in_total: int | None = None
    detail: str  # for developers
    _taken: Counter[Holder] = field(init=False, default_factory=Counter)

    @contextmanager
    def place(self, holder: Holder) -> Iterator[None]:
        """Occupy one of the places of `holder` during the block."""
        is_full = self.in_total is not None and self._taken.total() >= self.in_total
        if is_full or self._taken[holder] >= self.per_holder:
            raise RateLimited(self.detail, retry_after=RETRY_AFTER_SECONDS)
        self.take(holder)
        try:
            yield
        finally:
            self.give_back(holder)

    def take(self, holder: Holder) -> None:
        """Take a place even if none is free, for work that already occupies one and needs a second.

        The caller must call `give_back` when the work has ended.
        """
        self._taken[holder] += 1

    def give_back(self, holder: Holder) -> None:
        """Give back one of the places of `holder`, so that other work can take it."""
        self._taken -= Counter([holder])  # `-=` removes counts of zero, which would accumulate


@dataclass(slots=True, eq=False)
class _Queue:
    places: asyncio.Semaphore
    present: int = 0


@part
class Concurrency:
    """The queues of sessions and users.

    Transactions are few (`MAX_TRANSACTIONS`), and those of one user wait for the same lock. Without the queues, forty
    connections of one phone could occupy all transactions, and the logins and changes of all users would wait. wxauth
    does not refuse requests immediately, because a client that repeats a refused request costs more than a client that
    waits.

    An attacker who has stolen a token must not be able to make the token's owner wait. Therefore, each session has its
    own queue before the queue of its user, and one session cannot fill the user's queue. Requests that end sessions
    have separate queues, in which no request waits for WeChat. A request occupies no place in a queue while its client
    sends the request or reads the response.
    """

    patience: float = PATIENCE_SECONDS
    _queues: dict[Hashable, _Queue] = field(init=False, default_factory=dict)

    @asynccontextmanager
    async def of_session(self, session: Hashable, user_id: UUID, *, ends_sessions: bool = False) -> AsyncIterator[None]:
        """Occupy a place in the queue of a session, and one in the queue of its user, during the block.

        `session` is usually the id of a session. It can also identify something else that a user can have several of: a
        login to a site, a browser's login, or an identity whose phone number is requested.
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

        All calls with one name must have the same `at_once`, because the first of them creates the queue.
        """
        queue = self._queues.setdefault(name, _Queue(asyncio.Semaphore(at_once)))
        if queue.present >= MAX_PRESENT:
            raise RateLimited(_DETAIL, retry_after=RETRY_AFTER_SECONDS)
        queue.present += 1
        try:
            try:
                async with asyncio.timeout(self.patience):
                    await queue.places.acquire()
            except TimeoutError:
                raise RateLimited(_DETAIL, retry_after=RETRY_AFTER_SECONDS) from None
            try:
                yield
            finally:
                queue.places.release()
        finally:
            queue.present -= 1
            if not queue.present:  # otherwise the queues of all sessions would accumulate
                del self._queues[name]
