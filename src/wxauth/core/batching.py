"""Statements that are run for several callers at once: the busier the service, the less each of them costs.

A caller who comes while nothing is under way is served at once, by the statement for one. Whoever comes while one is
under way waits, and goes with the next, which leaves when the one before is answered, or after
`Deadlines.headway`: a lock, a slow disk or a long way to PostgreSQL holds up nobody else for longer. See
docs/contribute/decisions/0018-statements-in-batches.md.

Nobody pays for another. A batch is sent by a task of its own, so a caller who gives up takes nobody along. Whom its
answer leaves out runs the statement for one, and so do all of a batch that is refused, clashes or loses its connection.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from typing import Any, Final, LiteralString, TypeVar

from pydantic import BaseModel

from wxauth.core.logs import get_logger
from wxauth.core.metrics import Histogram
from wxauth.core.outages import reason_of
from wxauth.core.statements import Statement, model_of, with_parameters
from wxauth.errors import StorageUnavailable

AT_MOST: Final = 16
"""How many callers a batch has at most."""
SIZES: Final = Histogram(
    "wxauth_database_batch_size", "How many callers a statement was run for.", "statement", buckets=(1, 2, 4, 8, 16)
)
_ALONE: Final = object()
"""In place of a row: the caller is to run the statement for one."""

log = get_logger()

Row = TypeVar("Row", bound=BaseModel)
Records = Sequence[Any]
Waiting = tuple[Sequence[object], asyncio.Future[object], float]
"""Who waits: their arguments, their row, and their time limit."""


class Batched(Statement[Row]):
    """A statement for one caller, as any other, which `Database.row` runs for several if they wait.

    Its form for several, `many`, reads `asked`, a row for each caller with their parameters and their number `n`, and
    returns `n` and the columns of the statement for one. A row of nulls is no row. A caller without a row is to be
    asked alone: so `many` may skip locked rows, and must wait for none. Both forms are to be written from the same
    parts, in which `:name` is a parameter, or the column of `asked`.

    Args:
        name: The label of its batches in metrics.
        one: The statement for one.
        many: What follows `WITH asked AS (…)` in the form for several; `LATERALLY`, if `one` only reads.
        types: The type of each parameter.
    """

    def __init__(
        self, name: str, one: LiteralString, many: LiteralString | None = None, /, **types: LiteralString
    ) -> None:
        super().__init__(one)
        self.name: Final = name
        # By sub-selects, so that the planner does not see how many there are. It takes a tenth of the ten that it
        # supposes in an array, and so plans for several what it plans for one.
        arrays = ", ".join(f"(SELECT :{name}::{types[name]}[])" for name in self.names)
        columns = ", ".join([*self.names, "n"])
        asked = f"WITH asked AS (SELECT * FROM unnest({arrays}) WITH ORDINALITY AS asked({columns}) LIMIT (SELECT 99))"
        if many is None:
            many = f" SELECT n, found.* FROM asked LEFT JOIN LATERAL ({one}) AS found ON true"
        text = asked + with_parameters(many, "asked.{}".format)
        self.many: Final = Statement[Mapping[str, object]](text)  # pyrefly: ignore[bad-argument-type]  # of literals

    def rows_of(self, records: Records, size: int) -> list[object]:
        """The row of each caller: None without one, and `_ALONE` for those to be asked alone."""
        rows: list[object] = [_ALONE] * size
        for record in records:
            values = dict(record.items())
            n = values.pop("n")
            rows[n - 1] = None if record[1] is None else model_of(self.kind, values)
        return rows


class Batches:
    """The callers of one batched statement, in the order in which they came.

    Args:
        statement: The statement.
        answer: Runs one of both forms by a time limit, with a second try unless there are to be fewer `tries`.
        wait: Waits for the row of a caller who goes with others.
        whole: How long a caller waits at most, in seconds.
        headway: How long a statement under way holds up the next one, in seconds.
    """

    def __init__(
        self,
        statement: Batched[Any],
        answer: Callable[..., Awaitable[Records]],
        wait: Callable[[asyncio.Future[object]], Awaitable[object]],
        *,
        whole: float,
        headway: float,
    ) -> None:
        self._statement = statement
        self._answer, self._wait = answer, wait
        self._whole, self._headway = whole, headway
        self._waiting: deque[Waiting] = deque()
        self._newest: asyncio.Future[Any] | None = None
        """What was sent last, until it is answered."""
        self._sent_at = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    async def row(self, arguments: Sequence[object]) -> Any:
        """The row of the statement with these arguments, or None. Raises: StorageUnavailable."""
        loop = asyncio.get_running_loop()
        mine, until = loop.create_future(), loop.time() + self._whole
        self._waiting.append((arguments, mine, until))
        if self._newest is None:
            self._send()
        elif self._timer is None:
            self._timer = loop.call_at(self._sent_at + self._headway, self._send)
        try:
            row = mine.result() if mine.done() else await self._wait(mine)
            if isinstance(row, StorageUnavailable):  # to each an error of their own, which is marked as theirs
                raise StorageUnavailable(row.detail) from row.__cause__
            if row is not _ALONE:
                return row
            records = await self._answer(self._statement.text, arguments, until)
            return self._statement.read(records)[0] if records else None
        finally:
            if self._newest is mine:
                self._send()

    async def aclose(self) -> None:
        """Give up what is under way."""
        while self._tasks:
            await asyncio.sleep(0)  # one that has not begun would end without a word to who waits for it
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send(self) -> None:
        """Send those who wait, of those who have not given up: the first ones, if there are many."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch: list[Waiting] = []
        while self._waiting and len(batch) < AT_MOST:
            if not self._waiting[0][1].done():
                batch.append(self._waiting[0])
            self._waiting.popleft()
        self._newest = None
        if not batch:
            return
        loop = asyncio.get_running_loop()
        self._sent_at = loop.time()
        SIZES.observe(len(batch), self._statement.name)
        if len(batch) == 1:  # who needs no task: nobody else depends on it
            self._newest = alone = batch[0][1]
            alone.set_result(_ALONE)
            return
        # In a context of its own: no log line of it is about the request that happened to be there.
        self._newest = task = loop.create_task(self._run(batch), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        if self._waiting:
            self._timer = loop.call_at(self._sent_at + self._headway, self._send)

    async def _run(self, batch: Sequence[Waiting]) -> None:
        rows: Sequence[object] = [_ALONE] * len(batch)
        columns = [list(column) for column in zip(*(arguments for arguments, _, _ in batch), strict=True)]
        until = batch[0][2]  # of who has waited longest
        try:
            records = await self._answer(self._statement.many.text, columns, until, tries=1)
            rows = self._statement.rows_of(records, len(batch))
        except Exception as exc:
            if isinstance(exc, StorageUnavailable) and isinstance(exc.__cause__, OSError):
                # No connection, or no answer in time: each of them would wait for it again.
                rows = [exc] * len(batch)
            else:  # who is refused alone, too, is told why then
                log.debug("batch_failed", statement=self._statement.name, size=len(batch), reason=reason_of(exc))
        finally:
            if self._newest is asyncio.current_task():
                self._send()  # before the answers are read, so that PostgreSQL has work meanwhile
            for (_, future, _), row in zip(batch, rows, strict=True):
                if not future.done():
                    future.set_result(row)
