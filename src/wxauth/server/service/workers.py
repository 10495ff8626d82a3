"""Worker processes, forked from a parent that has imported and built everything, which watches, replaces and ends them.

A forked process shares the memory of its parent's imports; docs/decisions/0003-forked-workers.md has the numbers.
uvicorn's supervisor spawns its workers, and leaves them on the port when it is killed. Replace this with it once it
forks, and takes its workers along.
"""

import asyncio
import gc
import os
import selectors
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass, field
from types import FrameType
from typing import Final, NoReturn

from uvicorn.config import STARTUP_FAILURE

from wxauth.server.core.logs import get_logger
from wxauth.server.core.settings import InvalidSettings

SUPERSEDED: Final = signal.SIGUSR1
"""Signals a worker that it has been replaced: it finishes its requests and ends."""
MAX_SILENT_CHECKS: Final = 15
"""How many checks, about a second apart, a worker may be silent before it is killed."""
MAX_CHECKS_OF_LEAVING: Final = 25
"""How many checks a worker may take to end before it is killed: more than its graceful time, which is 20 seconds, and
fewer than the 30 after which the service itself is killed."""

_CHECK_SECONDS: Final = 1.0
"""Between two messages of a worker, between two checks of the parent, and before a restart after a failure."""
_ALIVE: Final = b"."
_READY: Final = b"!"
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)

log = get_logger()


class Heartbeat:
    """Reports to the parent that a worker is alive."""

    def __init__(self, writable: int) -> None:
        self._writable = writable

    async def report(self, *, is_ready: Callable[[], bool]) -> None:
        """Report to the parent, every second, that the event loop runs and whether it can serve.

        Ends with the parent.
        """
        with suppress(BrokenPipeError):
            while True:
                with suppress(BlockingIOError):  # the pipe is full: the parent has not read for hours
                    os.write(self._writable, _READY if is_ready() else _ALIVE)
                await asyncio.sleep(_CHECK_SECONDS if is_ready() else _CHECK_SECONDS / 20)


Work = Callable[[Heartbeat], None]
"""The work of a worker, which runs until a signal arrives."""


@dataclass(eq=False, slots=True)
class _Worker:
    pid: int
    readable: int
    """The pipe from which the worker's messages are read. Its end means that the worker has ended."""
    work: Work
    is_ready: bool = False
    is_leaving: bool = False
    silence: int = 0
    """How many checks in a row found no message."""
    checks_of_leaving: int = 0


@dataclass(eq=False)
class Workers:
    """Keeps a number of workers running until SIGTERM or SIGINT. SIGHUP replaces them one by one.

    `renew` returns the work for new workers after each SIGHUP, or raises InvalidSettings. The numbers of checks are
    those of the constants above.
    """

    number: int
    listener: socket.socket
    _: KW_ONLY
    work: Work
    renew: Callable[[], Work]
    max_silent_checks: int = MAX_SILENT_CHECKS
    max_checks_of_leaving: int = MAX_CHECKS_OF_LEAVING
    _former_work: Work | None = field(init=False, default=None)
    _workers: list[_Worker] = field(init=False, default_factory=list)
    _has_served: bool = field(init=False, default=False)
    _is_leaving: bool = field(init=False, default=False)
    _status: int = field(init=False, default=0)
    _starts_again_at: float = field(init=False, default=0.0)

    def run(self) -> int:
        """Run until all workers have ended, and return the exit status."""
        with _signals_as_bytes() as signals, selectors.DefaultSelector() as selector:
            self._selector = selector
            self._signals = signals
            selector.register(signals, selectors.EVENT_READ)
            gc.collect()
            gc.freeze()  # otherwise the collector would write to each object, and unshare its memory
            next_check = time.monotonic()
            while self._workers or not self._is_leaving:
                for key, _ in selector.select(max(0.0, next_check - time.monotonic())):
                    if key.data is None:
                        self._handle_signals(signals.recv(64))
                    else:
                        self._read_messages(key.data)
                if time.monotonic() >= next_check:
                    self._kill_hung()
                    next_check = time.monotonic() + _CHECK_SECONDS
                self._converge()
        return self._status

    def _handle_signals(self, numbers: bytes) -> None:
        for number in sorted(set(numbers), reverse=True):  # SIGHUP, which is 1, comes last
            if number != signal.SIGHUP:
                self._leave(number)
            elif not self._is_leaving:
                self._reload()

    def _reload(self) -> None:
        try:
            work = self.renew()
        except InvalidSettings as exc:
            log.error("reload_refused", reason=exc.text, consequence="the workers go on as they are")
            return
        except Exception:
            log.exception("reload_failed", consequence="the workers go on as they are")
            return
        log.info("reloading", workers=self.number)
        self._former_work = self._former_work or self.work
        self.work = work

    def _leave(self, number: int) -> None:
        if not self._is_leaving:
            self._is_leaving = True
            self.listener.close()  # else clients could connect, and would never be answered
        for worker in self._workers:
            self._dismiss(worker, number)

    def _dismiss(self, worker: _Worker, number: int) -> None:
        worker.is_leaving = True
        os.kill(worker.pid, number)

    def _read_messages(self, worker: _Worker) -> None:
        messages = os.read(worker.readable, 4096)
        worker.silence = 0
        if _READY in messages and not worker.is_ready:
            worker.is_ready = self._has_served = True
            if worker.work is self.work:
                self._former_work = None  # the new work has started well, so it will not be reverted
        if not messages:
            self._reap(worker)

    def _reap(self, worker: _Worker) -> None:
        self._selector.unregister(worker.readable)
        os.close(worker.readable)
        self._workers.remove(worker)
        status = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
        if worker.is_leaving:
            if status:
                log.warning("worker_ended", pid=worker.pid, status=status)
            return
        log.warning("worker_ended", pid=worker.pid, status=status, consequence="another one takes its place")
        if worker.is_ready or worker.work is not self.work:  # the end of an outdated worker does not count
            return
        self._starts_again_at = time.monotonic() + _CHECK_SECONDS
        if self._former_work is not None:
            log.error("reload_failed", reason="a worker did not start", consequence="the others go on as they are")
            self.work, self._former_work = self._former_work, None
        elif status == STARTUP_FAILURE and not self._has_served:  # every other worker would fail, too
            self._status = status
            self._leave(signal.SIGTERM)

    def _kill_hung(self) -> None:
        # Counts checks instead of seconds: if the whole machine was suspended, no worker is to blame.
        for worker in self._workers:
            worker.silence += 1
            worker.checks_of_leaving += worker.is_leaving
            if worker.silence > self.max_silent_checks or worker.checks_of_leaving > self.max_checks_of_leaving:
                log.error("worker_hangs", pid=worker.pid, is_leaving=worker.is_leaving, consequence="it is killed")
                os.kill(worker.pid, signal.SIGKILL)

    def _converge(self) -> None:
        """Take the next step towards the required number of workers, all with the current work."""
        if self._is_leaving:
            return
        at_work = [worker for worker in self._workers if not worker.is_leaving]
        outdated = [worker for worker in at_work if worker.work is not self.work]
        if len(at_work) < self.number:
            if time.monotonic() >= self._starts_again_at:
                for _ in range(self.number - len(at_work)):
                    self._start()
        elif (
            outdated
            and all(worker.is_ready for worker in at_work if worker not in outdated)
            and self._workers == at_work
        ):
            if len(at_work) > self.number:
                self._dismiss(min(outdated, key=lambda worker: worker.is_ready), SUPERSEDED)
            else:
                self._start()

    def _start(self) -> None:
        readable, writable = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # a signal just after the fork would be lost in the child
        pid = os.fork()
        if pid == 0:
            self._become_worker(readable, writable)
        os.close(writable)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        worker = _Worker(pid, readable, self.work)
        self._workers.append(worker)
        self._selector.register(readable, selectors.EVENT_READ, worker)

    def _become_worker(self, readable: int, writable: int) -> NoReturn:
        status = 1
        try:
            os.setpgid(0, 0)  # Ctrl-C then reaches only the parent, which passes it on
            self._selector.close()
            self._signals.close()
            for descriptor in (readable, *(worker.readable for worker in self._workers)):
                os.close(descriptor)
            os.set_blocking(writable, False)
            _reset_signals()
            self.work(Heartbeat(writable))
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            log.exception("worker_failed")
        finally:
            os._exit(status)


def _leave_at_once(_signal: int, _frame: FrameType | None) -> NoReturn:
    """Handle a signal until the worker serves. An exception would be lost where one is ignored, as in a destructor."""
    os._exit(0)


@contextmanager
def _signals_as_bytes() -> Iterator[socket.socket]:
    """In the block, each signal is a byte that can be read from this socket. After the block, SIGHUP is ignored."""
    inward, outward = socket.socketpair()
    with inward, outward:
        inward.setblocking(False)
        outward.setblocking(False)
        former_wakeup = signal.set_wakeup_fd(outward.fileno(), warn_on_full_buffer=False)
        former = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)  # a pending signal is delivered now
        try:
            yield inward
        finally:
            signal.set_wakeup_fd(former_wakeup)
            for number, handler in former.items():
                # Otherwise a SIGHUP in the last milliseconds of the process would end it as a failure.
                signal.signal(number, signal.SIG_IGN if number == signal.SIGHUP else handler)


def _reset_signals() -> None:
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGINT, SUPERSEDED):
        signal.signal(number, _leave_at_once)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # SIGHUP is for the parent
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
