"""SQL statements with named parameters, functions that read their rows, and statements in batches.

A batched statement runs once for several callers: see docs/contribute/decisions/0018-statements-in-batches.md. An error
that one caller's arguments cause never reaches another caller. If the result of a batch has no row for a caller, not
even a row of nulls, this caller runs the statement alone. If the batch fails, all its callers do so, except if there is
no connection, or if PostgreSQL does not respond in time. Then all of them get this failure.
"""

import asyncio
import re
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextvars import Context
from dataclasses import is_dataclass
from functools import cached_property, partial
from operator import itemgetter
from typing import Any, Final, Generic, LiteralString, NamedTuple, TypeVar, get_args

from pydantic import BaseModel
from typing_extensions import TypedDict

from wxauth.core.logs import get_logger
from wxauth.core.metrics import Histogram
from wxauth.core.outages import reason_of
from wxauth.errors import StorageUnavailable

# In literals, quoted names, comments and casts, a colon does not begin a parameter. Everywhere else, `:name` is a
# parameter, and `$1` is an error.
_PIECES: Final = re.compile(
    r"""
      \b[eE]'(?:[^'\\]|\\.|'')*'  # a string with escapes: E'it\'s'
    | '[^']*'
    | "[^"]*"
    | (?P<comment>--[^\n]*|/\*.*?\*/)
    | \$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$  # a dollar-quoted string: $$text$$ or $tag$text$tag$
    | ::  # a cast
    | :(?P<name>[a-z_]\w*)
    | (?P<number>\$\d+)
    """,
    re.VERBOSE | re.DOTALL,
)

_NAME: Final = re.compile("[a-z0-9_.]+(-[a-z0-9]+)*")  # without quotes, spaces and comments

_set_unchecked: Final = object.__setattr__  # without pydantic's checks

MAX_BATCH_SIZE: Final = 16
BATCH_SIZES: Final = Histogram(
    "wxauth_database_batch_size",
    "How many callers a statement was run for.",
    "statement",
    buckets=(1, 2, 4, 8, MAX_BATCH_SIZE),
)
_RUN_ALONE: Final = object()  # in place of a row, tells a caller to run the statement alone

log = get_logger()

T_co = TypeVar("T_co", covariant=True)
Model = TypeVar("Model", bound=BaseModel)
Records = Sequence[Any]


def pair_range(
    column: LiteralString,
    value: LiteralString,
    *,
    after: LiteralString = "'00000000-0000-0000-0000-000000000000'",
    before: LiteralString = "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
) -> LiteralString:
    """Return SQL that is true if `column` equals `value`, and the row's id is at least `after` and less than `before`.

    The SQL compares pairs, for example `(events.user_id, events.id) >= (:user_id, :after)`, which suits an index on
    both columns, and `ORDER BY` must name both. With `user_id = :user_id … ORDER BY id LIMIT 20`, PostgreSQL might read
    all rows in the order of their ids, because it expects to find enough matching rows soon if its statistics contain
    few values of the column.
    """
    pair = f"({column}, {column.rpartition('.')[0]}.id)"
    return f"{pair} >= ({value}, {after}) AND {pair} < ({value}, {before})"


def fragment(name: str) -> LiteralString:
    """Check a name or number, which may then be a part of a statement. pyrefly refuses any other string."""
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name: {name!r}")
    return name  # pyrefly: ignore[bad-return]  # checked


def columns_of(model: type[BaseModel]) -> tuple[LiteralString, ...]:
    """Return the names of a model's fields, checked for use in the SQL of a statement."""
    return tuple(fragment(name) for name in model.model_fields)


def with_parameters(text: str, parameter_of: Callable[[str], str]) -> str:
    """Replace each `:name` in a statement, and drop comments."""

    def replacement_of(piece: re.Match[str]) -> str:
        if piece["number"] is not None:
            raise ValueError(f"{piece['number']} must be a name")
        if piece["comment"] is not None:
            return " "  # PostgreSQL would log it with each slow statement
        return piece[0] if piece["name"] is None else parameter_of(piece["name"])

    return _PIECES.sub(replacement_of, text)


class Nothing(TypedDict):
    """The row type of a statement that returns no rows."""


def model_of(model: type[Model], columns: Mapping[str, Any]) -> Model:
    """Create a model from a row that has all the model's fields.

    There is no validation, because PostgreSQL has checked the row. The model of a user takes 1 µs. With SQLModel's
    `__new__`, it would take 2 µs, and with pydantic's `model_construct`, which fills in defaults and aliases, 13 µs.
    """
    row = object.__new__(model)
    # Reading all columns of the driver's row at once is faster than reading them one by one.
    values = dict(columns.items())
    _set_unchecked(row, "__dict__", values)
    _set_unchecked(row, "__pydantic_fields_set__", set(values))
    _set_unchecked(row, "__pydantic_extra__", None)
    _set_unchecked(row, "__pydantic_private__", None)
    return row


class Statement(Generic[T_co]):
    """An SQL statement for PostgreSQL with parameters like `:name`, and the type of its rows.

    If the type is a model or a dataclass, its fields are the columns. If it is a TypedDict, its keys are the columns. A
    `tuple[str, UUID]` has the columns in their order, and a `Mapping[str, object]` has any columns. Any other type is
    the type of the only column. A test compares these types with PostgreSQL's own description of each statement.

    An array slice needs a space after its colon, as in `[1 : :size]`, because `::` is a cast, and `:name` is a
    parameter.
    """

    def __init__(self, text: LiteralString) -> None:
        numbers: dict[str, int] = {}

        def numbered(name: str) -> str:
            if name not in numbers:
                numbers[name] = len(numbers) + 1
            return f"${numbers[name]}"

        self.text: Final = with_parameters(text, numbered)  # with `$n`
        self.names: Final = tuple(numbers)  # of `$1`, `$2` and so on
        self._pick: Final = _picker_of(self.names)

    @cached_property
    def kind(self) -> Any:
        """The type of the statement's rows: `X` for a `Statement[X](…)`."""
        # `Generic` sets `__orig_class__` after the constructor has returned.
        return get_args(self.__orig_class__)[0]  # type: ignore[attr-defined]

    @cached_property
    def make(self) -> Callable[[Mapping[str, Any]], T_co]:
        """A function that turns a row of the driver into a row of this statement's type."""
        return _row_maker(self.kind)

    def read(self, records: Sequence[Mapping[str, Any]]) -> Sequence[T_co]:
        """Turn rows of the driver into rows of this statement's type."""
        make = self.make
        return [make(record) for record in records]

    def arguments(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """Return the values in the order of `$n`."""
        if len(values) == len(self.names):
            try:
                return self._pick(values)
            except KeyError:
                pass  # the name that is missing is reported below
        missing = sorted(set(self.names) - set(values))
        unknown = sorted(set(values) - set(self.names))
        raise TypeError(f"missing: {missing}, unknown: {unknown}, of:{self.text}")


def _row_maker(kind: Any) -> Callable[[Any], Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return partial(model_of, kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return lambda record: kind(**record)
    return lambda record: record


def _picker_of(names: tuple[str, ...]) -> Callable[[Mapping[str, object]], tuple[object, ...]]:
    if len(names) > 1:
        return itemgetter(*names)
    # An itemgetter with a single name would return the value itself instead of a tuple.
    return lambda values: tuple(values[name] for name in names)


class _Caller(NamedTuple):
    arguments: Sequence[object]
    outcome: asyncio.Future[object]  # the row, `_RUN_ALONE` or the failure of the batch
    until: float  # in the event loop's time


class Batched(Statement[Model]):
    """A statement for one caller that `Database.row` can run once for several waiting callers.

    The form for one caller is `one`, for example `SELECT id, nickname FROM users WHERE id = :user_id`. The form for
    several callers is `many`, in this example `SELECT n, id, nickname FROM asked LEFT JOIN users ON id = :user_id`. The
    table `asked` has a row for each caller, with the number `n` and the parameters. In `many`, `:user_id` stands for
    the column `asked.user_id`, so that both forms can contain the same fragments. `many` follows the definition of
    `asked`, so it begins with SELECT, or with a comma and further definitions. The default suits a statement that only
    reads.

    If the first column after `n` is null, the caller gets no row. A caller whose number is missing runs the statement
    alone, so `many` may skip locked rows. But `many` must not wait for a lock for more than a few milliseconds, because
    all its callers would wait.
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

    def outcomes_of(self, records: Records, size: int) -> list[object]:
        """Return the row of each of `size` callers, or `_RUN_ALONE` for a caller without a record."""
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
        fetch: Runs one of the two forms within a time limit. It tries twice, unless `tries` is given.
        wait: Waits for the row of a caller in a batch. Tracing measures this wait.
    """

    def __init__(
        self,
        statement: Batched[Any],
        fetch: Callable[..., Awaitable[Records]],
        wait: Callable[[asyncio.Future[object], str], Awaitable[object]],
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
        # The task of the last batch, or the future of a caller that runs the statement alone. None after its end.
        self._last_sent: asyncio.Future[Any] | None = None
        self._last_sent_at = 0.0  # in the event loop's time
        # Sends the next batch even if `_last_sent` is still running. It is None if no caller is waiting.
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()  # of the running batches

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
            outcome = future.result() if future.done() else await self._wait(future, self._statement.name)
            # Each caller gets a separate exception, because Python adds the caller's traceback to the exception.
            if isinstance(outcome, StorageUnavailable):
                raise StorageUnavailable(outcome.detail) from outcome.__cause__
            if outcome is not _RUN_ALONE:
                return outcome
            records = await self._fetch(self._statement.text, arguments, until)
            return self._statement.make(records[0]) if records else None
        finally:
            # If this caller ran the statement alone, and nothing was sent afterwards, the next batch has waited for it.
            if self._last_sent is future:
                self._send()

    async def aclose(self) -> None:
        while self._tasks:
            # If a task is cancelled before it begins, its callers never get a result. This pause lets each task begin.
            await asyncio.sleep(0)
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def _send(self) -> None:
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
