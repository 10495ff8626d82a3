"""Statements that run once for several callers, so that each caller costs less when the service is busy.

If the statement is not running, a caller runs it immediately and alone. Otherwise the caller waits for the next batch.
The batch starts when the running statement returns, or `Deadlines.batch_wait` after that statement was sent, whichever
is earlier. Therefore a lock, a slow disk or a distant PostgreSQL delays the next batch by no more than
`Deadlines.batch_wait`. See docs/contribute/decisions/0018-statements-in-batches.md.

An error that one caller's arguments cause never reaches another caller. A separate task sends each batch, so that
cancelling one caller does not cancel the others. If the result of a batch has no row for a caller, not even a row of
nulls, this caller runs the statement alone. If PostgreSQL refuses a batch, or if the batch conflicts with other changes
or loses its connection, each of its callers runs the statement alone. If there is no connection, or if PostgreSQL does
not respond in time, all callers of the batch get this failure.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from typing import Any, Final, LiteralString, NamedTuple, TypeVar

from pydantic import BaseModel

from wxauth.core.logs import get_logger
from wxauth.core.metrics import Histogram
from wxauth.core.outage_texts import reason_of
from wxauth.core.statements import Statement, model_of, with_parameters
from wxauth.errors import StorageUnavailable

MAX_BATCH_SIZE: Final = 16
"""The largest number of callers in a batch."""
BATCH_SIZES: Final = Histogram(
    "wxauth_database_batch_size",
    "How many callers a statement was run for.",
    "statement",
    buckets=(1, 2, 4, 8, MAX_BATCH_SIZE),
)
_RUN_ALONE: Final = object()
"""A mark in place of a row. It tells a caller to run the statement alone."""

log = get_logger()

Row = TypeVar("Row", bound=BaseModel)
Records = Sequence[Any]


class _Caller(NamedTuple):
    """A caller that waits for the row of a batched statement."""

    arguments: Sequence[object]
    outcome: asyncio.Future[object]
    """The future of the caller's row. Its result can also be `_RUN_ALONE`, or the failure of the batch."""
    until: float
    """The end of the caller's time limit, in the event loop's time."""


class Batched(Statement[Row]):
    """A statement for one caller that `Database.row` can run once for several waiting callers.

    The form for one caller is `one`, for example `SELECT id, nickname FROM users WHERE id = :user_id`. The form for
    several callers is `many`, in this example `SELECT n, id, nickname FROM asked LEFT JOIN users ON id = :user_id`. The
    table `asked` has a row for each caller, with the caller's number `n` and the caller's parameters. In `many`,
    `:user_id` stands for the column `asked.user_id`, so that both forms can contain the same fragments.

    `many` returns `n` as the first column, and then the columns of `one`. If the first column after `n` is null, the
    caller gets no row. A caller whose number is missing runs the statement alone, so `many` may skip locked rows. But
    `many` must not wait for a lock for more than a few milliseconds, because all its callers would wait.

    Args:
        name: The name of the statement in metrics.
        one: The form for one caller.
        many: The SQL after `WITH asked AS (…)` in the form for several callers. By default, it joins `one` laterally,
            which suits a statement that only reads.
        types: The PostgreSQL type of each parameter.
    """

    def __init__(
        self, name: str, one: LiteralString, many: LiteralString | None = None, /, **types: LiteralString
    ) -> None:
        super().__init__(one)
        self.name: Final = name
        # Sub-selects hide the number of callers from the planner. PostgreSQL assumes that an array has ten rows, and
        # that an unknown limit returns a tenth of them. Therefore the plan for several callers is the plan for one
        # caller. The limit itself has no effect, because no batch has more callers.
        arrays = ", ".join(f"(SELECT :{each}::{types[each]}[])" for each in self.names)
        columns = ", ".join([*self.names, "n"])
        rows = f"SELECT * FROM unnest({arrays}) WITH ORDINALITY AS asked({columns}) LIMIT (SELECT {MAX_BATCH_SIZE})"
        if many is None:
            many = f" SELECT n, found.* FROM asked LEFT JOIN LATERAL ({one}) AS found ON true"
        text = f"WITH asked AS ({rows})" + with_parameters(many, lambda name: f"asked.{name}")
        # pyrefly cannot tell that the text consists only of literals.
        self.many: Final = Statement[Mapping[str, object]](text)  # pyrefly: ignore[bad-argument-type]
        """The statement for several callers."""

    def outcomes_of(self, records: Records, size: int) -> list[object]:
        """Return a list with the row of each of `size` callers.

        None means that there is no row, and `_RUN_ALONE` means that the caller must run the statement alone.
        """
        outcomes: list[object] = [_RUN_ALONE] * size
        for record in records:
            values = dict(record.items())
            n = values.pop("n")
            # record[1] is the first column after `n`.
            outcomes[n - 1] = None if record[1] is None else model_of(self.kind, values)
        return outcomes


class Batches:
    """The callers of one batched statement, in the order of their arrival.

    Args:
        statement: The statement.
        fetch: A function that runs one of the two forms within a time limit. It tries twice, unless `tries` is given.
        wait: A function that waits for the row of a caller in a batch. Tracing measures this wait.
        time_limit: The longest time, in seconds, that a caller waits.
        batch_wait: The longest time, in seconds, for which a running statement delays the next batch.
    """

    def __init__(
        self,
        statement: Batched[Any],
        fetch: Callable[..., Awaitable[Records]],
        wait: Callable[[asyncio.Future[object]], Awaitable[object]],
        *,
        time_limit: float,
        batch_wait: float,
    ) -> None:
        self._statement = statement
        self._fetch = fetch
        self._wait = wait
        self._time_limit = time_limit
        self._batch_wait = batch_wait
        self._waiting: deque[_Caller] = deque()
        self._last_sent: asyncio.Future[Any] | None = None
        """The statement that was sent last: the task of a batch, or the future of a caller that runs it alone.

        None if no statement has been sent yet, or if no caller was waiting when the next batch was due.
        """
        self._last_sent_at = 0.0
        """The time at which `_last_sent` was sent, in the event loop's time."""
        self._timer: asyncio.TimerHandle | None = None
        """The timer that sends the next batch even if `_last_sent` is still running; None if no caller is waiting."""
        self._tasks: set[asyncio.Task[None]] = set()
        """The tasks of the batches that are running."""

    async def row(self, arguments: Sequence[object]) -> Any:
        """Return the statement's row for these arguments, or None if there is none.

        Raises: StorageUnavailable; the error of PostgreSQL, if these arguments make the statement fail.
        """
        loop = asyncio.get_running_loop()
        future, until = loop.create_future(), loop.time() + self._time_limit
        self._waiting.append(_Caller(arguments, future, until))
        if self._last_sent is None:
            self._send()
        elif self._timer is None:
            self._timer = loop.call_at(self._last_sent_at + self._batch_wait, self._send)
        try:
            # `_send` has already set the result if this caller runs the statement alone.
            outcome = future.result() if future.done() else await self._wait(future)
            # Each caller gets a separate exception, because Python adds the caller's traceback to the exception.
            if isinstance(outcome, StorageUnavailable):
                raise StorageUnavailable(outcome.detail) from outcome.__cause__
            if outcome is not _RUN_ALONE:
                return outcome
            records = await self._fetch(self._statement.text, arguments, until)
            return self._statement.read(records)[0] if records else None
        finally:
            # This caller has run the statement alone, so the next batch has waited for its result.
            if self._last_sent is future:
                self._send()

    async def aclose(self) -> None:
        """Cancel the batches that are running."""
        while self._tasks:
            # If a task is cancelled before it begins, its callers never get a result. This pause lets each task begin.
            await asyncio.sleep(0)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send(self) -> None:
        """Run the statement for the first `MAX_BATCH_SIZE` waiting callers that have not been cancelled."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch: list[_Caller] = []
        while self._waiting and len(batch) < MAX_BATCH_SIZE:
            caller = self._waiting.popleft()
            if not caller.outcome.done():
                batch.append(caller)
        self._last_sent = None
        if not batch:
            return
        loop = asyncio.get_running_loop()
        self._last_sent_at = loop.time()
        BATCH_SIZES.observe(len(batch), self._statement.name)
        # A single caller runs the statement itself. If this caller is cancelled, no other caller is affected.
        if len(batch) == 1:
            self._last_sent = batch[0].outcome
            batch[0].outcome.set_result(_RUN_ALONE)
            return
        # The task gets an empty context, because its log lines must not contain the id of the request that happened to
        # start it.
        self._last_sent = task = loop.create_task(self._run(batch), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._waiting:
            self._timer = loop.call_at(self._last_sent_at + self._batch_wait, self._send)

    async def _run(self, batch: Sequence[_Caller]) -> None:
        """Run the statement for these callers, and give each caller its row, the batch's failure or `_RUN_ALONE`."""
        outcomes: Sequence[object] = [_RUN_ALONE] * len(batch)
        columns = [list(column) for column in zip(*(caller.arguments for caller in batch), strict=True)]
        until = batch[0].until  # the time limit of the caller that has waited longest
        try:
            records = await self._fetch(self._statement.many.text, columns, until, tries=1)
            outcomes = self._statement.outcomes_of(records, len(batch))
        except Exception as exc:
            if isinstance(exc, StorageUnavailable) and isinstance(exc.__cause__, OSError):
                # There is no connection, or the database did not respond in time. A caller that tried alone would wait
                # for the same failure again.
                outcomes = [exc] * len(batch)
            else:
                # Each caller now runs the statement alone. If PostgreSQL refuses that statement, too, the caller gets
                # the error.
                log.debug("batch_failed", statement=self._statement.name, size=len(batch), reason=reason_of(exc))
        finally:
            if self._last_sent is asyncio.current_task():
                # The next batch starts before the rows are delivered, so that PostgreSQL has work during that time.
                self._send()
            for caller, outcome in zip(batch, outcomes, strict=True):
                if not caller.outcome.done():  # a cancelled caller's future is cancelled, too
                    caller.outcome.set_result(outcome)
