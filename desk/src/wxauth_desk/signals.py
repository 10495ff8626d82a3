"""The handlers of the signals that stop `wxauth-desk dev`."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import FrameType
from typing import NoReturn


@contextmanager
def handled_by(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Handle SIGTERM and SIGINT with this handler during the block, and then restore the previous handlers."""
    previous = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, previous_handler in previous.items():
            signal.signal(number, previous_handler)


def stop_and_exit(stack: ExitStack, _signal: int, _frame: FrameType | None) -> NoReturn:
    """Stop the parts in the stack, and end the process, even if a part cannot be stopped.

    `dev` uses this handler before its service handles the signals, and again after the service has stopped. The handler
    raises no exception, because Python might drop an exception that a signal handler raises (see `__main__.main`).
    """
    with suppress(Exception):
        stack.close()
    os._exit(0)


def raise_exit(_signal: int, _frame: FrameType | None) -> NoReturn:
    """End the process with status 0, after it has run the `finally` blocks.

    Use this handler only for a prompt, because Python runs no callback that drops exceptions while it waits for input.
    """
    raise SystemExit(0)
