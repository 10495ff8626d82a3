"""The end of a process, which a reverse proxy must notice before the process closes the port."""

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
    """Handle SIGTERM, SIGINT and the end of the parent process before uvicorn's handlers do.

    After SIGTERM, the process reports that it is not ready, serves requests for `readiness.notice` seconds more, and
    then calls uvicorn's handler. Until the process serves requests, a signal ends it at once. When uvicorn ends, it
    restores the handlers that were installed before it started.
    """
    handlers_of_server: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)
    }
    has_server = callable(handlers_of_server[signal.SIGTERM])
    is_main_thread = threading.current_thread() is threading.main_thread()  # other threads cannot install handlers
    notice = readiness.notice
    if notice is None or not is_main_thread or not has_server:
        return
    loop, parent, folder = asyncio.get_running_loop(), multiprocessing.parent_process(), own_folder()

    def leave(number: int, frame: FrameType | None) -> None:
        # In a worker, a second SIGTERM does not ask for an immediate end, because systemd may send SIGTERM to all
        # processes, and the supervisor then also sends SIGTERM to each worker.
        is_told_again = readiness.is_leaving and (parent is None or number == signal.SIGINT)
        if is_told_again or not readiness.is_serving:
            os._exit(0)
        if not readiness.is_leaving:
            readiness.is_leaving = True
            # The supervisor creates the file `ENDING` before it ends all workers.
            readiness.is_replaced = folder is not None and folder.exists() and not (folder / ENDING).exists()
            # SIGINT comes from a developer at a terminal, who has no proxy.
            seconds = 0.0 if number == signal.SIGINT else notice
            loop.call_soon_threadsafe(log.info, "leaving")
            loop.call_soon_threadsafe(loop.call_later, seconds, handlers_of_server[number], number, frame)

    # A worker whose parent has ended must end, too. Otherwise it would occupy the port that the next start needs.
    def leave_without_parent(sentinel: int) -> None:
        loop.remove_reader(sentinel)
        shutil.rmtree(folder or "", ignore_errors=True)
        signal.raise_signal(signal.SIGTERM)

    for number in handlers_of_server:
        signal.signal(number, leave)
    if parent is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the signal is for the parent
        loop.add_reader(parent.sentinel, leave_without_parent, parent.sentinel)
