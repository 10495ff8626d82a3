"""The retries of transactions whose data another transaction has changed.

A transaction reads some data before it locks the user. While it waits for the lock, another transaction may merge the
user, erase the user, or make the user an administrator. Then the waiting transaction changes nothing and raises
ChangedMeanwhile, and its function runs again with the data that is stored now.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from wxauth.core.database import Database, Transaction
from wxauth.core.database_errors import ChangesClashed
from wxauth.errors import StorageUnavailable

DEFAULT_ATTEMPTS: Final = 5
"""The default number of attempts of `retrying` and `begin_locked`."""
ATTEMPTS_OF_OPERATORS: Final = 50
"""The number of attempts for a merge or another change of one user that staff, an operator or a service requests.

If fifty merges and splits of one user run at the same time, only one merge or split succeeds in each round, so the last
one needs fifty attempts.
"""
_DETAIL: Final = "too many concurrent changes to this user"

P = ParamSpec("P")
T = TypeVar("T")


class ChangedMeanwhile(Exception):
    """The data that an attempt has read has changed, so the attempt must be repeated."""


class TooManyChanges(StorageUnavailable):
    """The error after the last attempt, if another transaction has changed the data first at each attempt."""


PREVENTED_BY_OTHERS: Final = (ChangesClashed, TooManyChanges)
"""The errors that mean that other transactions have prevented a write, although the database is available.

Such a failure concerns only the rows of this write, so the writes of other rows can go on.
"""


def retrying(
    attempts: int = DEFAULT_ATTEMPTS, *, detail: str = _DETAIL, conflicts: tuple[type[Exception], ...] = ()
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Return a decorator that repeats a function while it raises ChangedMeanwhile or one of `conflicts`.

    If `attempts` calls have failed in this way, the decorated function raises TooManyChanges with this `detail`.
    """

    def decorate(function: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(function)
        async def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
            cause: Exception | None = None
            for _ in range(attempts):
                try:
                    return await function(*args, **kwargs)
                except ChangedMeanwhile:
                    continue
                except conflicts as exc:
                    cause = exc
            raise TooManyChanges(detail) from cause

        return repeated

    return decorate


@asynccontextmanager
async def begin_locked(
    database: Database, lock: Callable[[Transaction], Awaitable[T]], *, attempts: int = DEFAULT_ATTEMPTS
) -> AsyncIterator[tuple[Transaction, T]]:
    """Open a transaction, call `lock` in it, and yield the transaction and the value that `lock` returns.

    If `lock` raises ChangedMeanwhile, this function calls `lock` again in a new transaction. The caller's block runs
    only once. Before `lock` raises ChangedMeanwhile, it must not change anything, because the transaction is committed.

    Raises: TooManyChanges, if `lock` has raised ChangedMeanwhile at each attempt.
    """
    for _ in range(attempts):
        async with database.begin() as transaction:
            try:
                locked = await lock(transaction)
            except ChangedMeanwhile:
                continue
            yield transaction, locked
            return
    raise TooManyChanges(_DETAIL)
