"""How a process ends: a proxy must notice it before the port is closed. Of the server, it uses only signal handlers."""

import asyncio
import multiprocessing
import os
import shutil
import signal
import threading
from types import FrameType
from typing import Any

from wxauth.core.logs import get_logger
from wxauth.service.metrics import own_folder
from wxauth.service.probes import Readiness
from wxauth.service.server import ENDING

log = get_logger()


def heed_signals(readiness: Readiness) -> None:
    """From now on, handle SIGTERM, SIGINT and the end of a parent process before the server's own handlers do.

    Until it serves, a signal ends the process at once. The server sets its former handlers again when it has ended.
    """
    former: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    is_main, notice = threading.current_thread() is threading.main_thread(), readiness.notice
    if notice is None or not is_main or not callable(former[signal.SIGTERM]):  # no server has handlers here
        return
    loop, parent, folder = asyncio.get_running_loop(), multiprocessing.parent_process(), own_folder()

    def leave(number: int, frame: FrameType | None) -> None:
        # systemd may send SIGTERM to workers, too, which then get another one from their parent.
        is_told_again = readiness.is_leaving and (parent is None or number == signal.SIGINT)
        if is_told_again or not readiness.is_serving:
            os._exit(0)
        if not readiness.is_leaving:
            readiness.is_leaving = True
            readiness.is_replaced = folder is not None and folder.exists() and not (folder / ENDING).exists()
            seconds = 0.0 if number == signal.SIGINT else notice  # a person does not wait for proxies
            loop.call_soon_threadsafe(log.info, "leaving")
            loop.call_soon_threadsafe(loop.call_later, seconds, former[number], number, frame)

    def leave_without_parent(sentinel: int) -> None:  # the worker would keep the port that the next start needs
        loop.remove_reader(sentinel)
        shutil.rmtree(folder or "", ignore_errors=True)
        signal.raise_signal(signal.SIGTERM)

    for number in former:
        signal.signal(number, leave)
    if parent is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the parent
        loop.add_reader(parent.sentinel, leave_without_parent, parent.sentinel)
