"""How a signal ends a process that has not begun to serve: at once, and with status 0, as after a regular stop."""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from uvicorn.config import STARTUP_FAILURE

from wxauth.i18n import Text
from wxauth.terminal import localized

_END_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Let SIGTERM and SIGINT end the process during the block, in place of the server's handlers.

    uvicorn's handlers would create and start the whole app first, which takes 10 s on a busy machine.
    """
    handlers = {number: signal.getsignal(number) for number in _END_SIGNALS}
    if not can_replace(handlers[signal.SIGTERM]):
        yield
        return
    for number in handlers:
        signal.signal(number, lambda _number, _frame: end_process())
    end_if_signalled(handlers[signal.SIGTERM])
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def can_replace(handler: Any) -> bool:
    """Return whether this handler is a server's, and the current thread can install handlers."""
    has_server = callable(handler)  # without a server, it is one of Python's constants
    return has_server and threading.current_thread() is threading.main_thread()


def end_if_signalled(handler_of_server: Any) -> None:
    """End the process if uvicorn's server has already received a signal, which its handler only notes."""
    if getattr(getattr(handler_of_server, "__self__", None), "should_exit", False):
        end_process()


def end_process() -> None:
    """End the process. The interrupted code, such as a callback, might catch or drop an exception."""
    os._exit(0)


def report_failed_start(reason: Text) -> None:
    """Print why the process cannot start. A worker ends at once."""
    sys.stderr.write(f"{localized(reason)}\n")
    if multiprocessing.parent_process() is not None:
        # An orderly exit would take so long that the supervisor would treat the worker as hung, and start another one.
        sys.stderr.flush()
        os._exit(STARTUP_FAILURE)
