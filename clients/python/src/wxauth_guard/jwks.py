"""The issuer's public keys in another service. They are found through the issuer's metadata, and cached.

While the issuer is unavailable, the cached keys stay in use for up to a day.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, wait
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from wxauth_guard.errors import KeysUnavailable
from wxauth_guard.keys import VerificationKey, verification_keys
from wxauth_guard.proxies import proxy_for
from wxauth_guard.texts import is_http_url, is_loopback, is_secure

if TYPE_CHECKING or find_spec("httpx") is not None:
    import httpx
else:  # the successor of httpx, with the same names, which may be the only one installed if the service uses MCP's SDK
    import httpx2 as httpx

METADATA_PATH: Final = "/.well-known/oauth-authorization-server"
UNKNOWN_KEY_PAUSE: Final = 10.0
"""The time, in seconds, between two fetches that an unknown `kid` causes."""
MAX_PAUSE: Final = 60.0
"""The upper limit, in seconds, of `UNKNOWN_KEY_PAUSE`, which doubles with each fetch that fails."""
RETRY_PAUSE: Final = 1.0
"""The time, in seconds, between two attempts while there is no key at all."""
MAX_RETRY_PAUSE: Final = 5.0
"""The upper limit, in seconds, of `RETRY_PAUSE`, which doubles with each failure and is sent as `Retry-After`."""
KEPT_FOR: Final = 86400.0
"""The time, in seconds, for which keys are used while the issuer is unavailable."""
KEPT_UNASKED: Final = 300.0
"""The time, in seconds, after the max-age of the keys during which they are used while new keys are fetched.

If the keys are older, the request that starts the fetch waits for new keys.
"""
FETCH_TIMEOUT: Final = 5.0
CONNECT_PART: Final = 0.8
"""The part of the timeout that connecting may take. It is below 1, so that the cause of a timeout can be seen."""
PATIENCE_PART: Final = 0.2
"""The part of the timeout for which the thread that starts a fetch waits for it."""
_LOOP_PAUSE: Final = 0.01
MAX_DOCUMENT: Final = 256 * 1024
DEFAULT_MAX_AGE: Final = 300.0

_MAX_SHOWN = 200
_BELOW = re.compile(r"(?:/(?!\.{1,2}(?:/|$))[A-Za-z0-9._~-]+)+")
_log = logging.getLogger(__name__)
_MAX_AGE = re.compile(r'(?:^|[\s,])max-age\s*=\s*"?(\d{1,9})', re.IGNORECASE)
_AGE = re.compile(r"(\d{1,9})\s*(?:,|$)", re.ASCII)


class _Unreadable(Exception):
    """The issuer's keys could not be read. The message is also shown in responses."""


@dataclass(frozen=True)
class _KeySet:
    keys: Mapping[str, VerificationKey]
    read_at: float
    max_age: float


class RemoteKeys:
    """A `KeySource` that reads the issuer's metadata and JWK set, for event loops and for threads.

    Args:
        issuer: The issuer's URL. The issuer's metadata must name exactly this URL (RFC 8414, section 3.3).
        internal_url: The URL inside the operator's network from which both documents are read instead of the issuer's
            own. Plain http is allowed. The `jwks_uri` must then be below the issuer, and is read below this URL.
        timer: A function that returns a monotonic time, in seconds.
        timeout: The time limit, in seconds, for reading both documents.
        ssl_context: The certificates to trust. By default, the certificates that httpx trusts.

    Raises: ValueError, if the issuer is neither https nor on loopback, or a URL has more than host and path.
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
        if not (_is_plain_url(issuer) and is_secure(issuer)):
            raise ValueError(
                "issuer must be an https URL, or http on loopback, without user, query, fragment or a slash at the end"
                f": {_host_of(issuer)} {_fault_of(issuer)}"
            )
        if internal_url is not None and not _is_plain_url(internal_url):
            raise ValueError(
                "internal_url must be an http or https URL without user, query, fragment or a slash at the end"
            )
        self._issuer = issuer
        self._internal_url = internal_url
        self._is_on_loopback = is_loopback(urlsplit(issuer).hostname)
        self._timer = timer
        self._timeout = timeout
        self._key_set: _KeySet | None = None
        # There is one lock per process, because a lock that a thread held when the process forked is never released.
        self._locks: dict[int, threading.Lock] = {}
        self._reader: threading.Thread | None = None
        self._reading: Future[None] = Future()
        self._begun_at = 0.0
        self._next_refresh = 0.0
        self._next_for_unknown = 0.0
        self._failures = 0
        self._failed_at = float("-inf")
        self._failure = ""
        self._ssl = ssl_context

    async def find(self, kid: str) -> VerificationKey | None:
        """Return the issuer's key with this id, or None.

        The call waits for the issuer if there are no usable keys in memory, or if the id is unknown. For a known key,
        only the call that starts a fetch waits, and only if the keys are more than five minutes past their max-age.

        Raises: KeysUnavailable, if there are no keys, or they are more than a day old.
        """
        if (key := self._fresh_key(kid)) is not None:
            return key
        reading, must_wait, _ = self._needed_reading(kid)
        if must_wait:
            await asyncio.wrap_future(reading)
        return self._key_at_hand(kid)

    def find_sync(self, kid: str) -> VerificationKey | None:
        """Return the key, as `find` does, in a thread.

        Only the thread that starts a fetch waits for it, for part of the timeout.

        Otherwise, a few tokens with unknown ids would block all threads of a service while the issuer does not respond.
        Other threads use the keys in memory. Only for the very first fetch do all threads wait, so that no request
        fails when the service starts.

        Raises: KeysUnavailable, also if the id is unknown while keys are being fetched.
        """
        if (key := self._fresh_key(kid)) is not None:
            return key
        is_first = self._key_set is None and self._failures == 0
        reading, must_wait, needs_a_thread = self._needed_reading(kid)
        if is_first:
            reading.result()
        elif needs_a_thread:
            wait([reading], self._timeout * PATIENCE_PART)
        key = self._key_at_hand(kid)
        if key is None and must_wait and not reading.done():
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

    def _usable_keys(self, now: float) -> Mapping[str, VerificationKey]:
        if self._key_set is None or now - self._key_set.read_at > KEPT_FOR:
            return {}
        return self._key_set.keys

    def _needed_reading(self, kid: str) -> tuple[Future[None], bool, bool]:
        """Return the current or last fetch, whether a call for this key must wait for it, and whether a thread must.

        The thread that starts the fetch must wait. Some servers, such as uWSGI without `enable-threads`, run other
        threads only while a request waits. In such a server, a fetch can take longer than its timeout, and continues
        only while another request waits.
        """
        with self._locks.setdefault(os.getpid(), threading.Lock()):
            now = self._timer()
            keys = self._usable_keys(now)
            # After a fork, the thread that fetches does not exist in the new process.
            is_under_way = self._reader is not None and self._reader.is_alive() and not self._reading.done()
            if not keys:
                is_due = now - self._failed_at >= self._pause(RETRY_PAUSE, MAX_RETRY_PAUSE)
            elif kid in keys:
                is_due = now >= self._next_refresh
            else:
                is_due = now >= min(self._next_for_unknown, self._next_refresh)
            is_begun = is_due and not is_under_way
            is_late = now >= self._next_refresh + KEPT_UNASKED
            must_wait = is_begun and is_late if kid in keys else is_due or is_under_way
            if is_begun:
                if keys and kid not in keys:
                    self._next_for_unknown = now + UNKNOWN_KEY_PAUSE
                self._begun_at = now
                self._start_reading()
            is_held_up = is_under_way and now - self._begun_at > self._timeout
            return self._reading, must_wait, is_begun or is_held_up

    def _pause(self, first: float, most: float) -> float:
        return min(first * 2.0 ** min(max(self._failures - 1, 0), 10), most)

    def _start_reading(self) -> None:
        # The fetch has its own thread and event loop. Therefore any thread or event loop can wait for the fetch, and
        # none can end it. The timeout also covers host names that do not resolve, and responses that arrive byte by
        # byte.
        reading: Future[None] = Future()
        reading.set_running_or_notify_cancel()  # so that a cancelled waiter does not cancel the fetch for the others
        name = f"read the keys of {self._issuer}"
        reader = threading.Thread(target=self._run, args=(reading,), name=name, daemon=True)
        reader.start()
        self._reader, self._reading = reader, reading

    def _run(self, reading: Future[None]) -> None:
        try:
            _wait_for_another_loop(self._timeout)
            asyncio.run(self._read(reading))
        except Exception as exc:  # for example, too many open files or threads: waiters must not wait forever
            if not reading.done():
                self._note_failure(self._cause(exc))
                reading.set_result(None)

    async def _read(self, reading: Future[None]) -> None:
        try:
            if self._ssl is None:
                self._ssl = httpx.create_ssl_context()
            # This call, which imports forty modules, runs before the timeout begins.
            httpx.AsyncHTTPTransport(verify=self._ssl)
            key_set = await asyncio.wait_for(self._fetch(self._ssl), self._timeout)
        except Exception as exc:  # no network, a timeout, or no key set: the keys in memory are kept after any failure
            self._note_failure(self._cause(exc))
        else:
            self._key_set = key_set
            self._failures = 0
            self._next_refresh = key_set.read_at + key_set.max_age
        reading.set_result(None)

    def _cause(self, error: Exception) -> str:
        """Return why the keys could not be read. The text contains no host names, because responses contain it, too."""
        _, variable = self._proxy_for(self._issuer)
        by_proxy = isinstance(error, httpx.TransportError) and variable is not None
        return self._reason(error) + (f" (by the proxy of {variable})" if by_proxy else "")

    def _proxy_for(self, url: str) -> tuple[str, str] | tuple[None, None]:
        """Return the proxy, as `proxy_for` does, but none for an issuer on this machine or in the internal network."""
        found = proxy_for(url)  # called for every issuer, because it warns of values that cannot be used
        is_nearby = self._internal_url is not None or self._is_on_loopback
        return (None, None) if is_nearby else found

    def _reason(self, error: Exception) -> str:
        if isinstance(error, _Unreadable):
            return str(error)
        for link in _chain(error):
            if isinstance(link, socket.gaierror):
                return f"the host's name could not be resolved: {link.strerror}"
            if isinstance(link, ssl.SSLCertVerificationError):
                # The part after the comma contains the host.
                return f"TLS failed: {link.verify_message.partition(',')[0]}"
            if isinstance(link, ssl.SSLError):
                return f"TLS failed: {link.reason}"
            if isinstance(link, OSError) and link.errno is not None and isinstance(error, httpx.ConnectError):
                return f"no connection: {os.strerror(link.errno)}"  # the error's own text contains the address
        if isinstance(error, httpx.ConnectTimeout):
            return f"no connection within {self._timeout * CONNECT_PART:g} s ({type(error).__name__})"
        # Before Python 3.11, asyncio.TimeoutError is not TimeoutError.
        if isinstance(error, (httpx.TimeoutException, asyncio.TimeoutError)):
            return f"no answer within {self._timeout:g} s ({type(error).__name__})"
        if isinstance(error, httpx.NetworkError):
            return f"no connection: {type(error).__name__}"
        return type(error).__name__

    def _note_failure(self, reason: str) -> None:
        _log.warning(
            "The keys of %s could not be read%s: %s",
            self._issuer,
            "" if self._internal_url is None else f" at {self._internal_url}",
            reason,
        )
        self._failure = reason
        self._failed_at = self._timer()
        self._failures += 1
        next_try = self._failed_at + self._pause(UNKNOWN_KEY_PAUSE, MAX_PAUSE)
        self._next_refresh = max(self._next_refresh, next_try)  # keys stay fresh if an unknown id caused the fetch
        self._next_for_unknown = max(self._next_for_unknown, next_try)

    async def _fetch(self, trusted: ssl.SSLContext) -> _KeySet:
        metadata, _ = await self._get_json((self._internal_url or self._issuer) + METADATA_PATH, trusted)
        if (named := metadata.get("issuer")) != self._issuer:
            raise _Unreadable(f"the metadata names another issuer, {_shown(named)}, in place of {self._issuer!a}")
        jwks, headers = await self._get_json(self._jwks_url(metadata.get("jwks_uri")), trusted)
        documents = jwks.get("keys")
        if not isinstance(documents, list):
            raise _Unreadable("the JWK set has no list of keys")
        keys = verification_keys(documents)
        if not keys:  # for example, a gateway that returns 200 during maintenance: the keys in memory are kept
            raise _Unreadable("the JWK set has no usable key")
        return _KeySet(keys, read_at=self._timer(), max_age=_max_age(headers))

    async def _get_json(self, url: str, trusted: ssl.SSLContext) -> tuple[dict[str, Any], httpx.Headers]:
        # The response must not be compressed, because a few compressed bytes could decompress to more than
        # MAX_DOCUMENT.
        headers = {"Accept": "application/json", "Accept-Encoding": "identity"}
        async with (
            httpx.AsyncClient(
                verify=trusted,
                timeout=httpx.Timeout(self._timeout, connect=self._timeout * CONNECT_PART),
                follow_redirects=False,
                trust_env=False,
                proxy=self._proxy_for(url)[0],
            ) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            if response.status_code != httpx.codes.OK:
                raise _Unreadable(f"status {response.status_code}")
            body = bytearray()
            async for chunk in response.aiter_raw():
                body += chunk
                if len(body) > MAX_DOCUMENT:
                    raise _Unreadable("the document is too large")
        document = json.loads(body)
        if not isinstance(document, dict):
            raise _Unreadable("not a JSON object")
        return document, response.headers

    def _jwks_url(self, jwks_uri: object) -> str:
        if self._internal_url is not None:
            path = jwks_uri.removeprefix(self._issuer) if isinstance(jwks_uri, str) else ""
            if path == jwks_uri or not _BELOW.fullmatch(path):
                raise _Unreadable("the metadata's jwks_uri is not below the issuer")
            return self._internal_url + path
        if not isinstance(jwks_uri, str) or not self._is_as_secure(jwks_uri):
            raise _Unreadable("the metadata's jwks_uri is missing or not https")
        return jwks_uri

    def _is_as_secure(self, url: str) -> bool:
        # Plain http to loopback is for development. The metadata of another machine must not direct the guard to this
        # machine.
        return is_secure(url) and (self._is_on_loopback or urlsplit(url).scheme == "https")


def _wait_for_another_loop(seconds: float) -> None:
    """Wait while another event loop runs in this thread.

    Green threads (gevent, eventlet) share a thread, which can run only one event loop at a time. The running loop may
    belong to another guard, for example.

    Raises: _Unreadable.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return
        time.sleep(_LOOP_PAUSE)
    raise _Unreadable("another event loop runs in the thread that reads them")


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        # Only the first error of an ExceptionGroup is used. The group has one error for each address of a name.
        for each in getattr(error, "exceptions", ())[:1]:
            yield from _chain(each)
        error = error.__cause__ or error.__context__


def _shown(issuer: object) -> str:
    """Return another issuer's URL without the parts that may be secret: before an @, and from a ? or # on."""
    plain = re.split(r"[?#]", str(issuer).rpartition("@")[2])[0]
    return f"{plain[:_MAX_SHOWN]!a}"


def _max_age(headers: httpx.Headers) -> float:
    """Return the time, in seconds, for which a response is still fresh (RFC 9111, section 4.2): 1 s to a day."""
    match = _MAX_AGE.search(headers.get("cache-control", ""))
    if match is None:
        return DEFAULT_MAX_AGE
    age = _AGE.match(headers.get("age", ""))
    return min(max(float(match[1]) - (float(age[1]) if age else 0.0), 1.0), KEPT_FOR)


def _host_of(url: str) -> str:
    """Return only the scheme and the host of a wrong URL, because the other parts may contain a secret."""
    found = re.match(r"https?://[\w.-]+(:\d+)?(?=[/?#]|$)", url, re.ASCII)
    return found[0] if found else "this one"


def _fault_of(url: str) -> str:
    """Return a text that says what is wrong with an issuer's URL."""
    faults = (
        (r"[?#]", "has a query or a fragment"),
        (r"@", "has a user"),
        (r"/$", "has a slash at the end"),
        (r"^(?!https?://)", "does not begin with https://"),
        (r"^http://", "is plain http to another machine"),
    )
    return next((fault for pattern, fault in faults if re.search(pattern, url)), "is no URL")


def _is_plain_url(url: str) -> bool:
    """Return whether this http or https URL has at most host, port and path, and no slash at the end."""
    return is_http_url(url) and not re.search(r"[\s?#@\\]|/$", url)
