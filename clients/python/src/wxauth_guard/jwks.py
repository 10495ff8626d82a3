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

UNKNOWN_KEY_PAUSE_SECONDS: Final = 10.0  # between two fetches that unknown key ids cause
# After failures, the pause doubles from UNKNOWN_KEY_PAUSE_SECONDS up to this one while the guard has usable keys.
MAX_PAUSE_SECONDS: Final = 60.0
# Without a usable key, the pause doubles from this one up to KEYS_RETRY_SECONDS.
RETRY_PAUSE_SECONDS: Final = 1.0
# Each pause reaches its upper limit after fewer doublings, and more could overflow.
_MAX_DOUBLINGS: Final = 10
# For this long, a fetch that is due delays no request with a known key in an event loop (as in RFC 5861). Of the
# requests after this time, the one that starts the fetch waits for the new keys.
STALE_WHILE_REVALIDATE_SECONDS: Final = 300.0
# Keys that were read at most this long ago can tell that an unknown key is nobody's, because wxauth publishes a key
# six minutes before it signs.
YOUNG_FOR_SECONDS: Final = 300.0
# A thread waits at most this part of the timeout for a fetch other than the very first one.
PATIENCE_SHARE: Final = 0.2
_LOOP_PAUSE_SECONDS: Final = 0.01
_log = logging.getLogger(__name__)


class _Fetch(NamedTuple):
    completion: Future[None]  # completed even if the fetch fails
    is_needed: bool  # by this request, which waits for the fetch if it runs in an event loop
    # Some servers, such as uWSGI without `enable-threads`, run other threads only while a request waits. Therefore the
    # thread that starts a fetch waits for a while, and later requests do so after the fetch's timeout.
    should_thread_wait: bool


class RemoteKeys:
    """A `KeySource` that reads the issuer's metadata and JWK set, for event loops and for threads.

    Args:
        issuer: The issuer's URL. The issuer's metadata must name exactly this URL (RFC 8414, section 3.3).
        internal_url: The URL inside the operator's network from which both documents are read instead of the issuer's
            own. Plain http is allowed. The `jwks_uri` in the metadata must be below the issuer's URL, and is read at
            the same path below this URL.
        timer: A function that returns a monotonic time, in seconds.
        timeout: The time limit, in seconds, for reading both documents. With green threads, a fetch may first wait as
            long for another event loop of the thread.
        ssl_context: The context with the certificates to trust. By default, httpx creates the context.
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
        self.issuer = Issuer(issuer, internal_url=internal_url, timer=timer, timeout=timeout, ssl_context=ssl_context)
        self._timer = timer
        self._timeout = timeout
        self._key_set: KeySet | None = None
        # The keys are process ids, because a lock that a thread held when the process forked is never released in the
        # new process. The thread of a fetch stores its result without the lock, because no other fetch starts before it
        # has completed the future.
        self._locks: dict[int, threading.Lock] = {}
        self._thread: threading.Thread | None = None
        self._completion: Future[None] = Future()
        self._begun_at = 0.0
        self._next_refresh = 0.0
        # Before this time, an unknown key causes no fetch, unless a refresh is due.
        self._next_for_unknown = 0.0
        self._failures = 0  # since the last success
        self._failed_at = float("-inf")
        self._failure = ""

    async def find(self, kid: str) -> VerificationKey | None:
        """Return the issuer's key with this id; None if the issuer had no such key at the last fetch.

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
        not respond.

        Raises: KeysUnavailable, in the same cases as `find`, and if the id is unknown while a fetch is under way and
            the keys in memory are older than five minutes.
        """
        if (key := self._fresh_key(kid)) is not None:
            return key
        is_first = self._key_set is None and self._failures == 0
        fetch = self._fetch_for(kid)
        if is_first:  # All threads wait, because requests would otherwise fail when the service starts.
            fetch.completion.result()
        elif fetch.should_thread_wait:
            wait([fetch.completion], self._timeout * PATIENCE_SHARE)
        key = self._key_at_hand(kid)
        if key is None and fetch.is_needed and not fetch.completion.done() and not self._are_keys_young():
            raise KeysUnavailable("the issuer's keys are being read")
        return key

    def _fresh_key(self, kid: str) -> VerificationKey | None:
        now = self._timer()
        return self._usable_keys(now).get(kid) if now < self._next_refresh else None

    def _key_at_hand(self, kid: str) -> VerificationKey | None:
        keys = self._usable_keys(self._timer())
        if not keys:
            raise KeysUnavailable(f"the issuer's keys cannot be read: {self._failure or 'not yet'}")
        return keys.get(kid)

    def _are_keys_young(self) -> bool:
        return self._key_set is not None and self._timer() - self._key_set.read_at <= YOUNG_FOR_SECONDS

    def _usable_keys(self, now: float) -> Mapping[str, VerificationKey]:
        if self._key_set is None or now - self._key_set.read_at > STALE_IF_ERROR:
            return {}
        return self._key_set.keys

    def _fetch_for(self, kid: str) -> _Fetch:
        """Start a fetch if one is due for this key, and return the current or last fetch."""
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            now = self._timer()
            keys = self._usable_keys(now)
            is_due = self._is_due(kid, keys, now)
            is_overdue = now >= self._next_refresh + STALE_WHILE_REVALIDATE_SECONDS
            # After a fork, the new process lacks the thread, so a fetch without a live thread is not under way.
            is_under_way = self._thread is not None and self._thread.is_alive() and not self._completion.done()
            is_late = is_under_way and now - self._begun_at > self._timeout
            starts_now = is_due and not is_under_way
            if starts_now:
                if keys and kid not in keys:
                    # A client can invent key ids, which must not cause a fetch for each request.
                    self._next_for_unknown = now + UNKNOWN_KEY_PAUSE_SECONDS
                self._begun_at = now
                self._start_fetch()
            # A known key is used while new keys are fetched. Only the call that starts an overdue fetch waits for it.
            is_needed_for_known_key = starts_now and is_overdue
            is_needed_for_unknown_key = starts_now or is_under_way
            is_needed = is_needed_for_known_key if kid in keys else is_needed_for_unknown_key
            return _Fetch(self._completion, is_needed=is_needed, should_thread_wait=starts_now or is_late)

    def _is_due(self, kid: str, keys: Mapping[str, VerificationKey], now: float) -> bool:
        if not keys:
            return now - self._failed_at >= self._pause(RETRY_PAUSE_SECONDS, KEYS_RETRY_SECONDS)
        if kid in keys:
            return now >= self._next_refresh
        # A refresh that is due anyway can also bring the unknown key.
        return now >= min(self._next_for_unknown, self._next_refresh)

    def _pause(self, first: float, most: float) -> float:
        doublings = min(max(self._failures - 1, 0), _MAX_DOUBLINGS)
        return min(first * 2.0**doublings, most)

    def _start_fetch(self) -> None:
        """Start a fetch. The caller holds the lock."""
        # The fetch has its own thread and event loop. Therefore any thread or event loop can wait for the fetch, and
        # none can end it. The timeout also covers host names that do not resolve, and responses that arrive byte by
        # byte.
        completion: Future[None] = Future()
        # A waiter that is cancelled must not cancel the future for the other waiters.
        completion.set_running_or_notify_cancel()
        name = f"read the keys of {self.issuer.url}"
        self._thread = threading.Thread(target=self._run_fetch, args=(completion,), name=name, daemon=True)
        self._completion = completion
        try:
            self._thread.start()
        except RuntimeError as exc:  # the process has reached its limit of threads
            self._note_failure(self.issuer.reason_of(exc))
            completion.set_result(None)

    def _run_fetch(self, completion: Future[None]) -> None:
        try:
            _wait_for_end_of_other_loop(self._timeout)
            asyncio.run(self._fetch_keys(completion))
        except Exception as exc:  # for example, too many open files. Waiters must not wait forever.
            if not completion.done():
                self._note_failure(self.issuer.reason_of(exc))
                completion.set_result(None)

    async def _fetch_keys(self, completion: Future[None]) -> None:
        # The future is completed here, and not after the loop has ended, because `asyncio.run` ends a loop only when
        # its threads have ended. A thread that resolves a host's name can take much longer than the timeout.
        try:
            key_set = await self.issuer.read_keys()
        except Exception as exc:  # the keys in memory are kept, whatever the failure is
            self._note_failure(self.issuer.reason_of(exc))
        else:
            self._key_set = key_set
            self._failures = 0
            self._next_refresh = key_set.read_at + key_set.max_age
        completion.set_result(None)

    def _note_failure(self, reason: str) -> None:
        _log.warning(
            "The keys of %s could not be read%s: %s",
            self.issuer.url,
            "" if self.issuer.internal_url is None else f" at {self.issuer.internal_url}",
            reason,
        )
        self._failure = reason
        self._failed_at = self._timer()
        self._failures += 1
        next_try = self._failed_at + self._pause(UNKNOWN_KEY_PAUSE_SECONDS, MAX_PAUSE_SECONDS)
        # An unknown id can cause a fetch while the keys are fresh. Because of max(), they stay fresh after a failure.
        self._next_refresh = max(self._next_refresh, next_try)
        self._next_for_unknown = max(self._next_for_unknown, next_try)


def _wait_for_end_of_other_loop(seconds: float) -> None:
    """Wait while another event loop runs in this thread, for example that of another guard.

    Green threads (gevent, eventlet) share a thread, which can run only one event loop at a time.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        time.sleep(_LOOP_PAUSE_SECONDS)
    raise Unreadable("another event loop runs in the thread that reads them")
