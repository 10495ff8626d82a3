"""Questions to wxauth about a verified token: is its session still valid, and which roles does its user have now?"""

from __future__ import annotations

import asyncio
import json
import os
import threading
import time
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, Final, Protocol
from weakref import finalize

from wxauth_guard.claims import Principal
from wxauth_guard.errors import InsufficientScope, SessionRevoked, TokenExpired, VerificationUnavailable
from wxauth_guard.issuer import Issuer, httpx
from wxauth_guard.outages import BUSY_SECONDS, IS_BUSY, Outages
from wxauth_guard.questions import UNREACHABLE_STATUSES, Question, Response, is_unreachable

# A question that waits in this process tells nothing about wxauth. So the wait is limited apart from the question.
BEGIN_TIMEOUT: Final = 0.5  # seconds, from the call until the question is sent
ASK_TIMEOUT: Final = 2.0  # seconds, from then to the last header
VERIFY_PATH: Final = "/v1/verify"
KEYS_PATH: Final = "/.well-known/jwks.json"
MAX_ASKED: Final = 64
MAX_WAITING: Final = 256
_IDLE_SECONDS: Final = 30.0  # shorter than the 75 s after which wxauth closes an idle connection
_NOT_ASKED: Final = "wxauth can't be asked about the session"


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


_Steps = Generator[tuple[Future[Any], float], None, frozenset[str]]
"""What to wait for, and for how many seconds at most."""


@dataclass
class _Pool:
    client: httpx.Client
    threads: ThreadPoolExecutor
    outages: Outages | None  # None if an outage admits nobody
    questions: set[Question] = field(default_factory=set)  # those that are asked or wait
    lock: threading.Lock = field(default_factory=threading.Lock)


class RemoteAuthority:
    """An `Authority` that asks wxauth over HTTP.

    Args:
        or_offline: Whether to find out if a failure is an outage (`VerificationUnavailable.is_unreachable`).
    """

    def __init__(
        self,
        issuer: Issuer,
        *,
        or_offline: bool = False,
        begin_timeout: float = BEGIN_TIMEOUT,
        timeout: float = ASK_TIMEOUT,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._issuer = issuer
        self._base = issuer.internal_url or issuer.url
        self._or_offline = or_offline
        self._begin_timeout = begin_timeout
        self._timeout = timeout
        self._timer = timer
        # By process id, because neither locks nor connections can be shared with the process of a fork.
        self._locks: dict[int, threading.Lock] = {}
        self._pools: dict[int, _Pool] = {}

    async def ask(self, token: str, principal: Principal, query: str) -> frozenset[str]:
        """Ask about a token in any event loop."""
        steps = self._steps(token, principal, query)
        while True:
            try:
                completion, seconds = next(steps)
            except StopIteration as end:
                roles: frozenset[str] = end.value
                return roles
            waiter = asyncio.wrap_future(completion)
            try:
                await asyncio.wait({waiter}, timeout=seconds)
            finally:
                waiter.cancel()

    def ask_sync(self, token: str, principal: Principal, query: str) -> frozenset[str]:
        """Ask about a token in a thread."""
        steps = self._steps(token, principal, query)
        while True:
            try:
                completion, seconds = next(steps)
            except StopIteration as end:
                roles: frozenset[str] = end.value
                return roles
            wait([completion], seconds)

    def _steps(self, token: str, principal: Principal, query: str) -> _Steps:
        pool = self._pool()
        if pool.outages is not None and pool.outages.is_certain():
            raise VerificationUnavailable(f"{_NOT_ASKED}: it was away a moment ago", is_unreachable=True)
        question = Question(self._base + VERIFY_PATH + query, token, self._timer())
        self._queue(pool, question)
        yield question.completion, self._begin_timeout
        if question.began_at is None:
            raise VerificationUnavailable(f"{_NOT_ASKED}: this process is too busy")
        due_at = question.began_at + self._timeout
        if not question.completion.done():
            if pool.outages is not None:
                pool.outages.find()  # so that its result is there soon after the end of this question
            yield question.completion, max(due_at - self._timer(), 0)
        if question.response is not None:  # a refusal whose body does not come is no outage
            return _roles(question.response, principal)
        error = question.error or asyncio.TimeoutError()
        reason = f"{_NOT_ASKED}: {self._issuer.reason_of(error, timeout=self._timeout)}"
        if pool.outages is None or not (question.error is None or is_unreachable(error)):
            raise VerificationUnavailable(reason) from error
        if self._timer() - due_at > BUSY_SECONDS:
            raise VerificationUnavailable(f"{reason}, but {IS_BUSY}") from error
        finding = pool.outages.find()
        yield finding, self._timeout + BUSY_SECONDS
        why_not = finding.result() if finding.done() else IS_BUSY
        detail = f"{reason}, but {why_not}" if why_not else reason
        raise VerificationUnavailable(detail, is_unreachable=not why_not) from error

    def _queue(self, pool: _Pool, question: Question) -> None:
        with pool.lock:
            if len(pool.questions) >= MAX_ASKED + MAX_WAITING:
                raise VerificationUnavailable(f"{_NOT_ASKED}: too many requests are waiting")
            pool.questions.add(question)
        try:
            # Even `ask_sync` uses another thread, because httpx limits only each step of a request, and nothing limits
            # a slow name server.
            pool.threads.submit(self._answer, pool, question)
        except RuntimeError as exc:  # the process has reached its limit of threads
            with pool.lock:
                pool.questions.discard(question)
            raise VerificationUnavailable(f"{_NOT_ASKED}: {type(exc).__name__}") from exc

    def _answer(self, pool: _Pool, question: Question) -> None:
        try:
            if self._timer() - question.called_at > self._begin_timeout:
                question.completion.set_result(None)
            else:
                question.send(pool.client, timeout=self._timeout, timer=self._timer)
        finally:
            with pool.lock:
                pool.questions.discard(question)

    def _pool(self) -> _Pool:
        process_id = os.getpid()
        pool = self._pools.get(process_id)
        if pool is not None:
            return pool
        with self._locks.setdefault(process_id, threading.Lock()):
            if process_id not in self._pools:
                proxy = self._issuer.proxy_for(self._base)
                client = httpx.Client(
                    verify=self._issuer.ssl_context,
                    follow_redirects=False,
                    trust_env=False,
                    proxy=None if proxy is None else proxy.url,
                    # The threads limit the connections, so that no question waits for one.
                    limits=httpx.Limits(max_keepalive_connections=MAX_ASKED, keepalive_expiry=_IDLE_SECONDS),
                    # The client stores no cookies, because it sends the tokens of all users.
                    cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
                )
                threads = ThreadPoolExecutor(MAX_ASKED, thread_name_prefix="ask wxauth")
                outages = None
                if self._or_offline:
                    begin = partial(_ask_for_keys, client, self._base, timeout=self._timeout, timer=self._timer)
                    outages = Outages(begin, timeout=self._timeout, timer=self._timer)
                pool = self._pools[process_id] = _Pool(client, threads, outages)
                finalize(self, _close, pool, process_id)
        return self._pools[process_id]


def _ask_for_keys(client: httpx.Client, base: str, *, timeout: float, timer: Callable[[], float]) -> Question:
    question = Question(base + KEYS_PATH, None, timer())
    arguments = {"timeout": timeout, "timer": timer}
    threading.Thread(target=question.send, args=(client,), kwargs=arguments, daemon=True).start()
    return question


def _close(pool: _Pool, process_id: int) -> None:
    if os.getpid() == process_id:  # a fork must not end the TLS sessions of its parent
        pool.threads.shutdown(wait=False)
        pool.client.close()


def _roles(response: Response, principal: Principal) -> frozenset[str]:
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
    raise VerificationUnavailable(f"{_NOT_ASKED}: status {status}", is_unreachable=status in UNREACHABLE_STATUSES)


def _code(body: bytes) -> object:
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        return None
    return problem.get("code") if isinstance(problem, dict) else None
