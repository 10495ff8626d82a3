"""The end of a process.

A reverse proxy must notice the end before the process closes its port. Otherwise, the proxy would still send requests
to the closed port.
"""

import asyncio
import multiprocessing
import shutil
import signal
from collections.abc import Mapping
from dataclasses import dataclass
from types import FrameType
from typing import Any

from wxauth.core.logs import get_logger
from wxauth.service.probes import Readiness
from wxauth.service.server import ENDING_FILE
from wxauth.service.shared_counts import own_counts_folder
from wxauth.service.starting import can_replace, end_if_signalled, end_process

log = get_logger()


def install_signal_handlers(readiness: Readiness) -> None:
    """Install handlers for SIGTERM, SIGINT and the end of the parent process, in place of uvicorn's handlers.

    After SIGTERM, the process serves requests for `readiness.notice_seconds` more, and then calls uvicorn's handler. If
    no other worker replaces the process, it reports during this time that it is not ready. After SIGINT, the process
    calls uvicorn's handler immediately. Before the process has begun to serve requests, a signal ends it at once. A
    worker ignores SIGHUP, which is for its parent.

    wxauth does not have to remove its handlers, because uvicorn, when it ends, restores the handlers that were
    installed before it started.
    """
    handlers_of_server: dict[int, Any] = {
        number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)
    }
    # `wxauth-desk dev` has no proxy to wait for. In tests, there is no server whose handlers could be replaced.
    if readiness.notice_seconds is None or not can_replace(handlers_of_server[signal.SIGTERM]):
        return
    leaving = _Leaving(readiness, readiness.notice_seconds, handlers_of_server, asyncio.get_running_loop())
    for number in handlers_of_server:
        signal.signal(number, leaving.handle)
    end_if_signalled(handlers_of_server[signal.SIGTERM])
    parent = multiprocessing.parent_process()
    if parent is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        leaving.loop.add_reader(parent.sentinel, leaving.leave_without_parent, parent.sentinel)


@dataclass(frozen=True, slots=True)
class _Leaving:
    readiness: Readiness
    notice_seconds: float  # for which the process still serves requests after SIGTERM
    handlers_of_server: Mapping[int, Any]  # by the number of the signal
    loop: asyncio.AbstractEventLoop

    def handle(self, number: int, frame: FrameType | None) -> None:
        readiness = self.readiness
        # In a worker, a second SIGTERM does not ask for an immediate end, because systemd might send SIGTERM to all
        # processes, and the supervisor then also sends SIGTERM to each worker.
        is_worker = multiprocessing.parent_process() is not None
        is_urgent = readiness.is_leaving and (number == signal.SIGINT or not is_worker)
        if is_urgent or not readiness.is_serving:
            end_process()
        if readiness.is_leaving:
            return
        readiness.is_leaving = True
        # The supervisor creates the file `ENDING_FILE` before it ends all workers. If the supervisor itself has died,
        # `leave_without_parent` has deleted the folder.
        folder = own_counts_folder()
        readiness.is_replaced = folder is not None and folder.exists() and not (folder / ENDING_FILE).exists()
        # SIGINT comes from a developer at a terminal, who has no proxy, or from a supervisor that must not wait.
        seconds = 0.0 if number == signal.SIGINT else self.notice_seconds
        # A handler can interrupt any code, so the event loop logs the line and sets the timer.
        self.loop.call_soon_threadsafe(log.info, "leaving")
        self.loop.call_soon_threadsafe(self.loop.call_later, seconds, self.handlers_of_server[number], number, frame)

    def leave_without_parent(self, sentinel: int) -> None:
        self.loop.remove_reader(sentinel)
        folder = own_counts_folder()
        if folder is not None:
            # The parent can no longer delete the folder. The other workers delete it at the same time.
            shutil.rmtree(folder, ignore_errors=True)
        signal.raise_signal(signal.SIGTERM)  # otherwise, the worker would occupy the port at the next start
