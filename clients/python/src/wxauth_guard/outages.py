"""Whether wxauth is away, as a request for its public keys tells, which contains nothing of a client."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from typing import Final

from wxauth_guard.questions import UNREACHABLE_STATUSES, Question, is_unreachable

PAUSE_SECONDS: Final = 1.0  # between two requests for the keys
FRESH_SECONDS: Final = 1.0  # for which a finding admits tokens without a question
BUSY_SECONDS: Final = 0.5  # by which this process may be late before it can tell nothing about wxauth
_BEAT_SECONDS: Final = 0.1
IS_BUSY: Final = "this process is too busy to tell whether wxauth is away"


class Outages:
    """What this process has found out. All requests share one request for the keys.

    Args:
        begin: Starts the request for the keys in a thread.
        timeout: The time limit of this request, in seconds.
    """

    def __init__(
        self, begin: Callable[[], Question], *, timeout: float, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._begin = begin
        self._timeout = timeout
        self._timer = timer
        self._lock = threading.Lock()
        self._begun_at = self._away_at = float("-inf")
        self._finding: Future[str] = Future()
        self._finding.set_result("")

    def is_certain(self) -> bool:
        """Return whether wxauth was away a moment ago, so that no question is necessary."""
        return self._timer() - self._away_at <= FRESH_SECONDS

    def find(self) -> Future[str]:
        """Return what is found out now or was a moment ago: why wxauth is not away, or "" if it is."""
        with self._lock:
            now = self._timer()
            if self._finding.done() and now - self._begun_at >= PAUSE_SECONDS:
                self._begun_at = now
                self._finding = Future()
                self._finding.set_running_or_notify_cancel()  # a waiter that is cancelled must not cancel it
                try:
                    threading.Thread(target=self._run, args=(self._finding,), daemon=True).start()
                except RuntimeError:  # the process has reached its limit of threads
                    self._finding.set_result(IS_BUSY)
            return self._finding

    def _run(self, finding: Future[str]) -> None:
        why_not = IS_BUSY
        try:
            why_not = self._why_not_away()
            if not why_not:
                self._away_at = self._timer()
        except (OSError, RuntimeError):  # a lack of this machine's resources
            pass
        finally:
            finding.set_result(why_not)

    def _why_not_away(self) -> str:
        # This thread runs beside the one that asks. What delays it delays the other one, too: the interpreter's lock,
        # an event loop of green threads, or their few threads that resolve names.
        late, measured_at = 0.0, self._timer()
        question = self._begin()
        for _ in range(max(round(self._timeout / _BEAT_SECONDS), 1)):
            _resolve()
            wait([question.completion], _BEAT_SECONDS)
            now = self._timer()
            late, measured_at = late + max(now - measured_at - _BEAT_SECONDS, 0.0), now
            if question.completion.done():
                break
        _resolve()
        late += self._timer() - measured_at
        if late > BUSY_SECONDS:
            return IS_BUSY
        if question.response is not None:
            status = question.response.status
            return (
                ""
                if status in UNREACHABLE_STATUSES
                else f"it responds to a request for its public keys with status {status}"
            )
        is_away = question.error is None or is_unreachable(question.error)
        return "" if is_away else f"its public keys can't be read ({type(question.error).__name__})"


def _resolve() -> None:
    # Without free file descriptors, this name cannot be resolved either.
    socket.getaddrinfo("localhost", None)
