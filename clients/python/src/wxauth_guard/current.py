"""Questions to wxauth about a verified token: is its session still valid, and which roles does its user have now?"""

from __future__ import annotations

import asyncio
import errno
import json
import os
import ssl
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, TimeoutError as FutureTimeout
from contextlib import suppress
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final, NamedTuple, Protocol
from weakref import finalize

from wxauth_guard.claims import Principal
from wxauth_guard.errors import InsufficientScope, SessionRevoked, TokenExpired, VerificationUnavailable
from wxauth_guard.issuer import Issuer, causes_of, httpx

ASK_TIMEOUT: Final = 2.0  # seconds, from the call to the last header
VERIFY_PATH: Final = "/v1/verify"
_MAX_CONNECTIONS: Final = 64
_IDLE_SECONDS: Final = 30.0  # shorter than the 75 s after which wxauth closes an idle connection
_MAX_PROBLEM_BYTES: Final = 16 * 1024
# With `or_offline`, an outage admits a token. Therefore, no status that a client can cause counts as an outage, and no
# lack of this machine's resources.
_UNREACHABLE_STATUSES: Final = frozenset(
    {HTTPStatus.BAD_GATEWAY, HTTPStatus.SERVICE_UNAVAILABLE, HTTPStatus.GATEWAY_TIMEOUT}
)
_EXHAUSTION_ERRNOS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})


class Authority(Protocol):
    """An interface for questions about a token. `query` is the query of `/v1/verify`, with its question mark."""

    async def ask(self, token: str, principal: Principal, query: str, /) -> frozenset[str]:
        """Return the current roles of the token's user.

        Raises: SessionRevoked, TokenExpired, InsufficientScope, VerificationUnavailable.
        """
        ...

    def ask_sync(self, token: str, principal: Principal, query: str, /) -> frozenset[str]:
        """Do the same in a thread."""
        ...


class _Response(NamedTuple):
    status: int
    headers: httpx.Headers
    body: bytes


@dataclass
class _Question:
    url: str
    token: str = field(repr=False)
    deadline: float
    head: _Response | None = None  # set before the body is read, which may take too long


class _Pool(NamedTuple):
    client: httpx.Client
    threads: ThreadPoolExecutor


class RemoteAuthority:
    """An `Authority` that asks wxauth over HTTP."""

    def __init__(
        self, issuer: Issuer, *, timeout: float = ASK_TIMEOUT, timer: Callable[[], float] = time.monotonic
    ) -> None:
        self._issuer = issuer
        self._url = (issuer.internal_url or issuer.url) + VERIFY_PATH
        self._timeout = timeout
        self._timer = timer
        # By process id, because neither locks nor connections can be shared with the process of a fork.
        self._locks: dict[int, threading.Lock] = {}
        self._pools: dict[int, _Pool] = {}

    async def ask(self, token: str, principal: Principal, query: str) -> frozenset[str]:
        """Ask about a token in any event loop."""
        question = self._question(token, query)
        try:
            response = await asyncio.wait_for(asyncio.wrap_future(self._begin(question)), self._timeout)
        except Exception as exc:
            response = self._head_or_raise(question, exc)
        return _roles(response, principal)

    def ask_sync(self, token: str, principal: Principal, query: str) -> frozenset[str]:
        """Ask about a token in a thread."""
        question = self._question(token, query)
        try:
            asked = self._begin(question)
            try:
                response = asked.result(self._timeout)
            finally:
                asked.cancel()  # it may not have begun
        except Exception as exc:
            response = self._head_or_raise(question, exc)
        return _roles(response, principal)

    def _question(self, token: str, query: str) -> _Question:
        return _Question(self._url + query, token, self._timer() + self._timeout)

    def _begin(self, question: _Question) -> Future[_Response]:
        # Even `ask_sync` uses another thread, because httpx limits only each step of a request, and nothing limits a
        # slow name server.
        pool = self._pool()
        return pool.threads.submit(self._get, pool.client, question)

    def _get(self, client: httpx.Client, question: _Question) -> _Response:
        try:
            return self._get_once(client, question)
        except (httpx.RemoteProtocolError, httpx.NetworkError) as exc:
            if not _ended_without_response(exc):
                raise
        return self._get_once(client, question)  # wxauth has closed the idle connection meanwhile

    def _get_once(self, client: httpx.Client, question: _Question) -> _Response:
        headers = {
            "Authorization": f"Bearer {question.token}",
            "Accept": "application/json",
            "Accept-Encoding": "identity",  # `iter_raw` does not decompress, because the result could have any size
        }
        # A socket needs a positive timeout, even if the question waited for a thread until its deadline.
        remaining = max(question.deadline - self._timer(), 0.001)
        with client.stream("GET", question.url, headers=headers, timeout=remaining) as response:
            question.head = _Response(response.status_code, response.headers, b"")
            body = bytearray()
            with suppress(httpx.HTTPError):  # the status decides, even without a body
                for chunk in response.iter_raw():
                    body += chunk
                    if len(body) > _MAX_PROBLEM_BYTES or self._timer() > question.deadline:
                        break
            return _Response(response.status_code, response.headers, bytes(body))

    def _head_or_raise(self, question: _Question, error: Exception) -> _Response:
        if question.head is not None:  # a refusal whose body does not come is no outage
            return question.head
        reason = self._issuer.reason_of(error, timeout=self._timeout)
        raise VerificationUnavailable(
            f"wxauth can't be asked about the session: {reason}", is_unreachable=_is_unreachable(error)
        ) from error

    def _pool(self) -> _Pool:
        process_id = os.getpid()
        pool = self._pools.get(process_id)
        if pool is not None:
            return pool
        with self._locks.setdefault(process_id, threading.Lock()):
            if process_id not in self._pools:
                proxy = self._issuer.proxy_for(self._url)
                client = httpx.Client(
                    verify=self._issuer.ssl_context,
                    follow_redirects=False,
                    trust_env=False,
                    proxy=None if proxy is None else proxy.url,
                    limits=httpx.Limits(max_connections=_MAX_CONNECTIONS, keepalive_expiry=_IDLE_SECONDS),
                    # The client stores no cookies, because it sends the tokens of all users.
                    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                )
                threads = ThreadPoolExecutor(_MAX_CONNECTIONS, thread_name_prefix="ask wxauth")
                pool = self._pools[process_id] = _Pool(client, threads)
                finalize(self, _close, pool, process_id)
        return self._pools[process_id]


def _close(pool: _Pool, process_id: int) -> None:
    if os.getpid() == process_id:  # a fork must not end the TLS sessions of its parent
        pool.threads.shutdown(wait=False)
        pool.client.close()


def _roles(response: _Response, principal: Principal) -> frozenset[str]:
    status, headers = response.status, response.headers
    if status == HTTPStatus.OK:
        is_same_user = headers.get("x-auth-user-id") == str(principal.id)
        is_same_session = headers.get("x-auth-session-id") in (None, str(principal.session_id))
        if not (is_same_user and is_same_session):
            raise VerificationUnavailable("wxauth's response is not about this session: is there a proxy in between?")
        return frozenset(role for role in headers.get("x-auth-roles", "").split(",") if role)
    if status == HTTPStatus.UNAUTHORIZED:
        if _code(response.body) == TokenExpired.code:
            raise TokenExpired("the token has expired")
        raise SessionRevoked("the session has ended")
    if status == HTTPStatus.FORBIDDEN:
        raise InsufficientScope("wxauth doesn't accept this token here")
    raise VerificationUnavailable(
        f"wxauth can't be asked about the session: status {status}", is_unreachable=status in _UNREACHABLE_STATUSES
    )


def _code(body: bytes) -> object:
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return problem.get("code") if isinstance(problem, dict) else None


def _is_unreachable(error: Exception) -> bool:
    for cause in causes_of(error):
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
            return False  # for example, a wrong certificate is a fault of the configuration
        if isinstance(cause, OSError) and cause.errno in _EXHAUSTION_ERRNOS:
            return False
    # Before Python 3.11, neither asyncio's nor concurrent.futures' TimeoutError is the built-in one.
    is_late = isinstance(error, (httpx.TimeoutException, TimeoutError, asyncio.TimeoutError, FutureTimeout))
    return is_late or isinstance(error, httpx.NetworkError) or _ended_without_response(error)


def _ended_without_response(error: Exception) -> bool:
    # httpx has no class for this error, so its text, which is httpcore's, is compared.
    is_end = isinstance(error, httpx.RemoteProtocolError) and "without sending a response" in str(error)
    return is_end or isinstance(error, (httpx.ReadError, httpx.WriteError))
