"""The signals that stop `wxauth-desk dev`."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import NoReturn


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle SIGTERM and SIGINT with this handler during the block."""
    former = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, other in former.items():
            signal.signal(number, other)


def end(stack: ExitStack, _signal: int, _frame: FrameType | None) -> NoReturn:
    """Stop all parts before the service runs.

    An exception would not be reliable, because Python may drop it (see `main`).
    """
    with suppress(Exception):
        stack.close()
    os._exit(0)


def raise_exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End the process with status 0, and run the `finally` blocks before."""
    raise SystemExit(0)
