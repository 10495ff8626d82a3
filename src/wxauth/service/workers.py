"""Worker processes: forked from one that has imported everything, watched, replaced one by one, ended together.

A process that is forked shares the memory of what was imported before, and has nothing to import itself.
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
from dataclasses import dataclass
from types import FrameType
from typing import Final, NoReturn

from uvicorn.config import STARTUP_FAILURE

from wxauth.core.logs import get_logger
from wxauth.core.settings import InvalidSettings

SUPERSEDED: Final = signal.SIGTERM if sys.platform == "win32" else signal.SIGUSR1
"""What a worker is sent when another one has taken its place, so that it is to end what it has in hand."""
PATIENCE: Final = 15
"""Looks, each about a second."""

_LOOK: Final = 1.0
"""Seconds between two words of a worker, two looks of the parent, and two starts where one has failed."""
_ALIVE: Final = b"."
_READY: Final = b"!"
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, *(() if sys.platform == "win32" else (signal.SIGHUP,)))

log = get_logger()


class Parent:
    """What a worker knows of the process that watches it."""

    def __init__(self, ear: int) -> None:
        self._ear = ear

    async def tell(self, *, is_ready: Callable[[], bool]) -> None:
        """Say again and again that the event loop runs, and whether it serves; until there is no parent any more."""
        with suppress(BrokenPipeError):
            while True:
                with suppress(BlockingIOError):  # it has not listened for hours
                    os.write(self._ear, _READY if is_ready() else _ALIVE)
                await asyncio.sleep(_LOOK if is_ready() else _LOOK / 20)


Work = Callable[[Parent], None]
"""What a worker does, until it is sent a signal."""


@dataclass(eq=False, slots=True)
class _Worker:
    pid: int
    mouth: int
    """What it says is read here. At its end there is the end of it."""
    work: Work
    is_ready: bool = False
    is_leaving: bool = False
    silence: int = 0
    """Looks in a row at which it had said nothing."""


class Workers:
    """Keeps so many processes at work until it is sent SIGTERM or SIGINT; on SIGHUP it replaces them one by one.

    Args:
        number: How many.
        listener: What they all accept connections from.
        work: What they do.
        renew: Says at each SIGHUP what they are to do from now on. Raises: InvalidSettings.
        patience: How many looks in a row a worker may say nothing, before it is taken for hung.
    """

    def __init__(
        self,
        number: int,
        listener: socket.socket,
        *,
        work: Work,
        renew: Callable[[], Work],
        patience: int = PATIENCE,
    ) -> None:
        self._number = number
        self._listener = listener
        self._work = work
        self._renew = renew
        self._patience = patience
        self._former_work: Work | None = None
        self._workers: list[_Worker] = []
        self._has_served = False
        self._is_leaving = False
        self._status = 0
        self._starts_again_at = 0.0

    def run(self) -> int:
        """Until all have ended. The exit status."""
        with _noticed_signals() as signals, selectors.DefaultSelector() as selector:
            self._selector = selector
            self._signals = signals
            selector.register(signals, selectors.EVENT_READ)
            gc.collect()
            gc.freeze()  # the collector would write to each object, so that nothing stayed shared
            next_look = time.monotonic()
            while self._workers or not self._is_leaving:
                for key, _ in selector.select(max(0.0, next_look - time.monotonic())):
                    if key.data is None:
                        self._heed(signals.recv(64))
                    else:
                        self._listen_to(key.data)
                if time.monotonic() >= next_look:
                    self._end_the_hung()
                    next_look = time.monotonic() + _LOOK
                self._mend()
        return self._status

    def _heed(self, numbers: bytes) -> None:
        for number in numbers:
            if number == signal.SIGHUP:
                self._reload()
            else:
                self._leave(number)

    def _reload(self) -> None:
        try:
            work = self._renew()
        except InvalidSettings as exc:
            log.error("reload_refused", reason=str(exc), consequence="the workers go on as they are")
            return
        log.info("reloading", workers=self._number)
        self._former_work = self._former_work or self._work
        self._work = work

    def _leave(self, number: int) -> None:
        if not self._is_leaving:
            self._is_leaving = True
            self._listener.close()  # or it would let people in to wait for nobody while the workers drain
        for worker in self._workers:
            self._dismiss(worker, number)

    def _dismiss(self, worker: _Worker, number: int) -> None:
        worker.is_leaving = True
        os.kill(worker.pid, number)

    def _listen_to(self, worker: _Worker) -> None:
        said = os.read(worker.mouth, 4096)
        worker.silence = 0
        if _READY in said and not worker.is_ready:
            worker.is_ready = self._has_served = True
            if worker.work is self._work:
                self._former_work = None  # what is new works
        if not said:
            self._bury(worker)

    def _bury(self, worker: _Worker) -> None:
        self._selector.unregister(worker.mouth)
        os.close(worker.mouth)
        self._workers.remove(worker)
        status = os.waitstatus_to_exitcode(os.waitpid(worker.pid, 0)[1])
        if worker.is_leaving:
            if status:
                log.warning("worker_ended", pid=worker.pid, status=status)
            return
        log.error("worker_ended", pid=worker.pid, status=status, consequence="another one takes its place")
        if worker.is_ready:
            return
        self._starts_again_at = time.monotonic() + _LOOK
        if self._former_work is not None:
            log.error("reload_failed", reason="a worker did not start", consequence="the others go on as they are")
            self._work, self._former_work = self._former_work, None
        elif status == STARTUP_FAILURE and not self._has_served:  # and so it would be each time
            self._status = status
            self._leave(signal.SIGTERM)

    def _end_the_hung(self) -> None:
        # Looks are counted, not seconds: where the whole machine has stood still, nobody is to blame.
        for worker in self._workers:
            worker.silence += 1
            if worker.silence > self._patience:
                log.error("worker_hangs", pid=worker.pid, consequence="it is killed")
                os.kill(worker.pid, signal.SIGKILL)

    def _mend(self) -> None:
        """Take the next step to having so many workers that do what they are to do now."""
        if self._is_leaving:
            return
        at_work = [worker for worker in self._workers if not worker.is_leaving]
        outdated = [worker for worker in at_work if worker.work is not self._work]
        if len(at_work) < self._number:
            if time.monotonic() >= self._starts_again_at:
                for _ in range(self._number - len(at_work)):
                    self._start()
        elif outdated and all(worker.is_ready for worker in at_work) and len(self._workers) == len(at_work):
            if len(at_work) > self._number:
                self._dismiss(outdated[0], SUPERSEDED)
            else:
                self._start()

    def _start(self) -> None:
        mouth, ear = os.pipe()
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)  # one that came in between would be lost to the child
        pid = os.fork()
        if pid == 0:
            self._become_worker(mouth, ear)
        os.close(ear)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        worker = _Worker(pid, mouth, self._work)
        self._workers.append(worker)
        self._selector.register(mouth, selectors.EVENT_READ, worker)

    def _become_worker(self, mouth: int, ear: int) -> NoReturn:
        status = 1
        try:
            os.setpgid(0, 0)  # Ctrl-C reaches the parent alone, which passes it on
            self._selector.close()
            self._signals.close()
            for descriptor in (mouth, *(worker.mouth for worker in self._workers)):
                os.close(descriptor)
            os.set_blocking(ear, False)
            _forget_signals()
            self._work(Parent(ear))
            status = 0
        except KeyboardInterrupt:
            status = 0
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        except BaseException:
            log.exception("worker_failed")
        finally:
            os._exit(status)


def _leave_at_once(_signal: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


@contextmanager
def _noticed_signals() -> Iterator[socket.socket]:
    """In the block each signal is a byte to be read here."""
    inward, outward = socket.socketpair()
    with inward, outward:
        inward.setblocking(False)
        outward.setblocking(False)
        former_wakeup = signal.set_wakeup_fd(outward.fileno(), warn_on_full_buffer=False)
        former = {number: signal.signal(number, lambda *_: None) for number in _SIGNALS}
        try:
            yield inward
        finally:
            signal.set_wakeup_fd(former_wakeup)
            for number, handler in former.items():
                signal.signal(number, handler)


def _forget_signals() -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGTERM, _leave_at_once)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # it is for the parent
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
