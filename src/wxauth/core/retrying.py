"""The repetition of what another transaction has overtaken.

What is read before a lock may have changed when the lock is held: the user was merged, erased or made an administrator.
Such a transaction changes nothing, raises ChangedMeanwhile, and begins again with what is stored now.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from wxauth.core.database import Database, Transaction
from wxauth.errors import StorageUnavailable

ATTEMPTS: Final = 5
ATTEMPTS_OF_OPERATORS: Final = 50
"""The number of attempts of an operator's or administrator's change.

Of fifty simultaneous merges and splits of one user, only one succeeds in each round.
"""
_FAILURE: Final = "too many concurrent changes to this user"

P = ParamSpec("P")
T = TypeVar("T")


class ChangedMeanwhile(Exception):
    """What an attempt has read has changed, so that it must begin again."""


class TooManyChanges(StorageUnavailable):
    """Each attempt was overtaken by another request."""


def retrying(
    attempts: int = ATTEMPTS, *, failure: str = _FAILURE, conflicts: tuple[type[Exception], ...] = ()
) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Decorate one attempt, which is repeated while it raises ChangedMeanwhile or one of `conflicts`.

    The decorated function raises TooManyChanges with the text `failure` after the last attempt.
    """

    def decorated(attempt: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(attempt)
        async def repeated(*args: P.args, **kwargs: P.kwargs) -> T:
            cause: Exception | None = None
            for _ in range(attempts):
                try:
                    return await attempt(*args, **kwargs)
                except ChangedMeanwhile:
                    continue
                except conflicts as exc:
                    cause = exc
            raise TooManyChanges(failure) from cause

        return repeated

    return decorated


@asynccontextmanager
async def begin_locked(
    database: Database, lock: Callable[[Transaction], Awaitable[T]], *, attempts: int = ATTEMPTS
) -> AsyncIterator[tuple[Transaction, T]]:
    """Open a transaction that begins with `lock`, and yield what `lock` returns.

    If `lock` raises ChangedMeanwhile, it is called again in a new transaction.

    Raises: TooManyChanges.
    """
    for _ in range(attempts):
        async with database.begin() as transaction:
            try:
                locked = await lock(transaction)
            except ChangedMeanwhile:
                continue
            yield transaction, locked
            return
    raise TooManyChanges(_FAILURE)
