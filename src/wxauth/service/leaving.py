"""The end of a process, which a reverse proxy must notice before the process closes the port.

The module uses no part of the server except the server's signal handlers.
"""

import asyncio
import multiprocessing
import os
import shutil
import signal
import threading
from types import FrameType
from typing import Any

from wxauth.core.logs import get_logger
from wxauth.service.probes import Readiness
from wxauth.service.server import ENDING
from wxauth.service.shared_counts import own_folder

log = get_logger()


def heed_signals(readiness: Readiness) -> None:
    """Handle SIGTERM, SIGINT and the end of the parent process before the server's own handlers do.

    Until the process serves requests, a signal ends it at once. When the server ends, it restores the handlers that
    were installed before it started.
    """
    former: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    is_main, notice = threading.current_thread() is threading.main_thread(), readiness.notice
    if notice is None or not is_main or not callable(former[signal.SIGTERM]):  # without a server, there are no handlers
        return
    loop, parent, folder = asyncio.get_running_loop(), multiprocessing.parent_process(), own_folder()

    def leave(number: int, frame: FrameType | None) -> None:
        # systemd may also send SIGTERM to the workers, which then get another SIGTERM from their parent.
        is_told_again = readiness.is_leaving and (parent is None or number == signal.SIGINT)
        if is_told_again or not readiness.is_serving:
            os._exit(0)
        if not readiness.is_leaving:
            readiness.is_leaving = True
            readiness.is_replaced = folder is not None and folder.exists() and not (folder / ENDING).exists()
            # SIGINT comes from a person at a terminal, who need not wait for proxies.
            seconds = 0.0 if number == signal.SIGINT else notice
            loop.call_soon_threadsafe(log.info, "leaving")
            loop.call_soon_threadsafe(loop.call_later, seconds, former[number], number, frame)

    # A worker whose parent has ended must end, too. Otherwise it would occupy the port that the next start needs.
    def leave_without_parent(sentinel: int) -> None:
        loop.remove_reader(sentinel)
        shutil.rmtree(folder or "", ignore_errors=True)
        signal.raise_signal(signal.SIGTERM)

    for number in former:
        signal.signal(number, leave)
    if parent is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the signal is for the parent
        loop.add_reader(parent.sentinel, leave_without_parent, parent.sentinel)
