"""The issuer's public keys, which the guard reads through the issuer's metadata, and caches.

While the issuer is unavailable, the cached keys stay in use for up to a day.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, wait
from typing import Final, NamedTuple

from wxauth_guard.errors import KEYS_RETRY_SECONDS, KeysUnavailable
from wxauth_guard.issuer import FETCH_TIMEOUT, STALE_IF_ERROR, Issuer, KeySet, Unreadable
from wxauth_guard.keys import VerificationKey

UNKNOWN_KEY_PAUSE: Final = 10.0
"""The shortest time, in seconds, between two fetches that unknown key ids cause."""
MAX_PAUSE: Final = 60.0
"""The upper limit, in seconds, of the pause after failed fetches while the guard has usable keys.

The pause begins with `UNKNOWN_KEY_PAUSE`, and doubles with each failure.
"""
RETRY_PAUSE: Final = 1.0
"""The shortest time, in seconds, between two attempts while there is no usable key.

The pause doubles with each failure, up to `KEYS_RETRY_SECONDS`.
"""
_MAX_DOUBLINGS: Final = 10
"""The largest number of doublings of a pause, to prevent an overflow.

Each pause reaches its upper limit after fewer doublings.
"""
STALE_WHILE_REVALIDATE: Final = 300.0
"""The time, in seconds, for which a fetch that is due does not delay requests with known keys (as in RFC 5861).

A fetch is due when the keys have reached their max-age or, after a failure, at the end of a pause. If the fetch begins
later than this time after it became due, the request that starts it waits for the new keys.
"""
PATIENCE_SHARE: Final = 0.2
"""The share of the timeout for which a thread waits, at most, for a fetch other than the very first one."""
_LOOP_PAUSE: Final = 0.01
"""The pause, in seconds, between two checks of whether another event loop runs in the thread."""
_log = logging.getLogger(__name__)


class _Fetch(NamedTuple):
    """A fetch of the keys, as one call to `find` or `find_sync` sees it."""

    completion: Future[None]
    """The future that is completed at the end of the fetch, even if the fetch fails."""
    is_needed: bool
    """Whether the call needs the result of the fetch.

    This is the case if the fetch is under way and no usable key in memory has the id, or if the call starts a fetch
    that is overdue (see `STALE_WHILE_REVALIDATE`).
    """
    needs_a_thread: bool
    """Whether the thread of the call must wait, so that the fetch makes progress. Only `find_sync` reads this field.

    Some servers, such as uWSGI without `enable-threads`, run other threads only while a request waits. Therefore the
    thread that starts a fetch waits for a while. If the fetch has not ended after its timeout, later requests also wait
    for a while, so that it can continue.
    """


class RemoteKeys:
    """A `KeySource` that reads the issuer's metadata and JWK set, for event loops and for threads.

    Args:
        issuer: The issuer's URL. The issuer's metadata must name exactly this URL (RFC 8414, section 3.3).
        internal_url: The URL inside the operator's network from which both documents are read instead of the issuer's
            own. Plain http is allowed. The `jwks_uri` in the metadata must be below the issuer's URL, and is read at
            the same path below this URL.
        timer: A function that returns a monotonic time, in seconds.
        timeout: The time limit, in seconds, for reading both documents.
        ssl_context: The context with the certificates to trust. By default, httpx creates the context.

    Raises: ValueError, if the issuer is neither https nor http on loopback, if the internal URL is neither https nor
        http, or if one of them contains a user, a query, a fragment or a slash at the end.
    """

    def __init__(
        self,
        issuer: str,
        *,
        internal_url: str | None = None,
        timer: Callable[[], float] = time.monotonic,
        timeout: float = FETCH_TIMEOUT,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self._issuer = Issuer(issuer, internal_url=internal_url, timer=timer, timeout=timeout, ssl_context=ssl_context)
        self._timer = timer
        self._timeout = timeout
        self._key_set: KeySet | None = None
        self._locks: dict[int, threading.Lock] = {}
        """The lock under which calls decide whether to start a fetch, by process id.

        There is one lock per process, because a lock that a thread held when the process forked is never released in
        the new process. The thread of a fetch stores the keys or the failure without the lock. This is safe, because no
        other fetch starts before the thread has completed the future.
        """
        self._thread: threading.Thread | None = None
        """The thread of the current or last fetch."""
        self._completion: Future[None] = Future()
        """The future of the current or last fetch."""
        self._begun_at = 0.0
        """The timer's time at which the current or last fetch began."""
        self._next_refresh = 0.0
        """The timer's time until which known keys are used without a fetch."""
        self._next_for_unknown = 0.0
        """The timer's time until which an unknown key does not cause a fetch, unless a refresh is due."""
        self._failures = 0
        """The number of failures since the last success."""
        self._failed_at = float("-inf")
        """The timer's time of the last failure."""
        self._failure = ""
        """The reason for the last failure."""

    async def find(self, kid: str) -> VerificationKey | None:
        """Return the issuer's key with this id; None if the issuer had no such key at the last fetch.

        If there are no usable keys in memory, or if the id is unknown, the call waits for a fetch that it starts or
        finds under way. For a known key, only the call that starts a fetch waits, and only if the fetch has been due
        for at least five minutes.

        Raises: KeysUnavailable, if there are no keys, or if they are more than a day old.
        """
        if (key := self._fresh_key(kid)) is not None:
            return key
        fetch = self._fetch_for(kid)
        if fetch.is_needed:
            await asyncio.wrap_future(fetch.completion)
        return self._key_at_hand(kid)

    def find_sync(self, kid: str) -> VerificationKey | None:
        """Return the key with this id, as `find` does, in a thread.

        Usually, only the thread that starts a fetch waits, for a part of the timeout, and other threads use the keys in
        memory. If all threads waited, a few tokens with unknown ids would block a whole service while the issuer does
        not respond. There are two exceptions. All threads wait for the very first fetch, because requests would
        otherwise fail when the service starts. For a fetch that exceeds its timeout, see `_Fetch.needs_a_thread`.

        Raises: KeysUnavailable, in the same cases as `find`, and if the id is unknown while a fetch is under way.
        """
        if (key := self._fresh_key(kid)) is not None:
            return key
        is_first = self._key_set is None and self._failures == 0
        fetch = self._fetch_for(kid)
        if is_first:
            fetch.completion.result()
        elif fetch.needs_a_thread:
            wait([fetch.completion], self._timeout * PATIENCE_SHARE)
        key = self._key_at_hand(kid)
        if key is None and fetch.is_needed and not fetch.completion.done():
            raise KeysUnavailable("the issuer's keys are being read")
        return key

    def _fresh_key(self, kid: str) -> VerificationKey | None:
        """Return the key if it is in memory, and does not have to be fetched again yet; otherwise None."""
        now = self._timer()
        return self._usable_keys(now).get(kid) if now < self._next_refresh else None

    def _key_at_hand(self, kid: str) -> VerificationKey | None:
        """Return the key, even if it is not fresh; None if it is not in memory.

        Raises: KeysUnavailable, if no key in memory is usable.
        """
        keys = self._usable_keys(self._timer())
        if not keys:
            raise KeysUnavailable(f"the issuer's keys cannot be read: {self._failure or 'not yet'}")
        return keys.get(kid)

    def _usable_keys(self, now: float) -> Mapping[str, VerificationKey]:
        """Return the keys in memory, by id, or an empty mapping if they are more than a day old."""
        if self._key_set is None or now - self._key_set.read_at > STALE_IF_ERROR:
            return {}
        return self._key_set.keys

    def _fetch_for(self, kid: str) -> _Fetch:
        """Start a fetch if one is due for this key, and return the current or last fetch."""
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            now = self._timer()
            keys = self._usable_keys(now)
            is_due = self._is_due(kid, keys, now)
            is_overdue = now >= self._next_refresh + STALE_WHILE_REVALIDATE
            # After a fork, the new process lacks the thread, so a fetch without a live thread is not under way.
            is_under_way = self._thread is not None and self._thread.is_alive() and not self._completion.done()
            is_late = is_under_way and now - self._begun_at > self._timeout
            starts_now = is_due and not is_under_way
            if starts_now:
                if keys and kid not in keys:
                    # A client can invent key ids, which must not cause a fetch for each request.
                    self._next_for_unknown = now + UNKNOWN_KEY_PAUSE
                self._begun_at = now
                self._start_fetch()
            # A known key is used while new keys are fetched. Only the call that starts an overdue fetch waits for it.
            is_needed_for_known_key = starts_now and is_overdue
            is_needed_for_unknown_key = starts_now or is_under_way
            is_needed = is_needed_for_known_key if kid in keys else is_needed_for_unknown_key
            return _Fetch(self._completion, is_needed=is_needed, needs_a_thread=starts_now or is_late)

    def _is_due(self, kid: str, keys: Mapping[str, VerificationKey], now: float) -> bool:
        """Return whether a token with this key is a reason to fetch the keys if no fetch is under way.

        `keys` are the usable keys in memory.
        """
        if not keys:
            return now - self._failed_at >= self._pause(RETRY_PAUSE, KEYS_RETRY_SECONDS)
        if kid in keys:
            return now >= self._next_refresh
        # A refresh that is due anyway can also bring the unknown key.
        return now >= min(self._next_for_unknown, self._next_refresh)

    def _pause(self, first: float, most: float) -> float:
        """Return the pause, in seconds, after the failures so far.

        It is `first` after the first failure, and doubles with each further one, up to `most`.
        """
        doublings = min(max(self._failures - 1, 0), _MAX_DOUBLINGS)
        return min(first * 2.0**doublings, most)

    def _start_fetch(self) -> None:
        """Start a fetch. The caller holds the lock."""
        # The fetch has its own thread and event loop. Therefore any thread or event loop can wait for the fetch, and
        # none can end it. The timeout also covers host names that do not resolve, and responses that arrive byte by
        # byte.
        completion: Future[None] = Future()
        # So that a waiter that is cancelled does not cancel the future for the other waiters.
        completion.set_running_or_notify_cancel()
        name = f"read the keys of {self._issuer.url}"
        self._thread = threading.Thread(target=self._run_fetch, args=(completion,), name=name, daemon=True)
        self._completion = completion
        try:
            self._thread.start()
        except RuntimeError as exc:  # the process has reached its limit of threads
            self._note_failure(self._issuer.reason_of(exc))
            completion.set_result(None)

    def _run_fetch(self, completion: Future[None]) -> None:
        """Fetch the keys, in the thread of the fetch, and complete the future even after a failure."""
        try:
            _wait_for_end_of_other_loop(self._timeout)
            asyncio.run(self._fetch_keys(completion))
        except Exception as exc:  # for example, too many open files. Waiters must not wait forever.
            if not completion.done():
                self._note_failure(self._issuer.reason_of(exc))
                completion.set_result(None)

    async def _fetch_keys(self, completion: Future[None]) -> None:
        """Read the keys in the event loop of the fetch, and complete the future even after a failure."""
        # The future is completed here, and not after the loop has ended, because `asyncio.run` ends a loop only when
        # its threads have ended. A thread that resolves a host's name can take much longer than the timeout.
        try:
            key_set = await self._issuer.read_keys()
        except Exception as exc:  # the keys in memory are kept, whatever the failure is
            self._note_failure(self._issuer.reason_of(exc))
        else:
            self._key_set = key_set
            self._failures = 0
            self._next_refresh = key_set.read_at + key_set.max_age
        completion.set_result(None)

    def _note_failure(self, reason: str) -> None:
        """Log and store a failure, and postpone the next fetch."""
        _log.warning(
            "The keys of %s could not be read%s: %s",
            self._issuer.url,
            "" if self._issuer.internal_url is None else f" at {self._issuer.internal_url}",
            reason,
        )
        self._failure = reason
        self._failed_at = self._timer()
        self._failures += 1
        next_try = self._failed_at + self._pause(UNKNOWN_KEY_PAUSE, MAX_PAUSE)
        # An unknown id can cause a fetch while the keys are fresh. Because of max(), they stay fresh after a failure.
        self._next_refresh = max(self._next_refresh, next_try)
        self._next_for_unknown = max(self._next_for_unknown, next_try)


def _wait_for_end_of_other_loop(seconds: float) -> None:
    """Wait up to this number of seconds while another event loop runs in this thread.

    Green threads (gevent, eventlet) share a thread, which can run only one event loop at a time. The running loop might
    belong to another guard, for example.

    Raises: Unreadable, if the other event loop still runs after this time.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        time.sleep(_LOOP_PAUSE)
    raise Unreadable("another event loop runs in the thread that reads them")
