"""The ASGI layer for request ids, trace ids, checks and metrics of all requests, and for log lines of failures."""

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from http import HTTPStatus
from time import perf_counter
from typing import Final, NamedTuple, Protocol, TypeVar

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.routing import compile_path
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wxauth.core.logs import get_logger, message_of, redact, request_id, trace_id
from wxauth.core.metrics import REFUSED, Counter, Histogram
from wxauth.errors import InternalError, PayloadTooLarge, WeChatMisconfigured
from wxauth.settings.settings import InvalidSettings
from wxauth.web.cookies import move_cookies
from wxauth_guard.errors import InvalidRequest, WxAuthError
from wxauth_guard.problems import REQUEST_ID_KEY, accepted_request_id, problem_response

MAX_HEAD: Final = 64 * 1024  # bytes of the target and the header fields
MAX_FIELDS: Final = 128
MAX_TARGET: Final = 8 * 1024  # bytes
# A site sends an id_token of up to 8,192 characters beside its other parameters.
_LONGER_TARGETS: Final = {"/v1/end_session": 12 * 1024}
SENDING_SECONDS: Final = 30.0  # for the head, and by default for the body
MAX_BODY: Final = 64 * 1024  # bytes, on each path that isn't in the `size_limits` of `Edge`
MAX_CONTENT_TYPE: Final = 256  # characters, because libraries take quadratic time to parse its parameters
# A size below 2**64 has at most 20 digits, and Python refuses to parse more than 4,300. Leading zeros count, too.
MAX_CONTENT_LENGTH_DIGITS: Final = 20
MAX_PARAMETERS: Final = 128  # because libraries parse all parameters, even if no route reads them
PROBLEM_KEY: Final = "wxauth.problem"  # the error that was returned
EXPECTED_KEY: Final = "wxauth.expected"
"""Marks an expected refusal, for example of a poll that came too early.

Such a refusal is not logged, not counted in `REFUSED`, and not passed to the function `on_refusal` of `Edge`.
"""
IGNORES_UPGRADES: Final = "wxauth.ignores_upgrades"
"""An extension of a server that reads the body of a request for an upgrade as any other body."""
BODY_ARRIVED: Final = "wxauth.body_arrived"
"""An extension of a server, added when the whole body has arrived. The next `receive` then returns it at once."""
CONTROL_CHARACTERS_REFUSED: Final = "a path must not contain control characters"
# Callers may send any text as a method, so all other methods share one label.
_COUNTED_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_FIELDS_READ: Final = frozenset(
    b"host x-request-id content-length content-type cookie traceparent expect upgrade transfer-encoding".split()
)  # `_read_head` has a branch for each of them
_CONTROL_CHARACTER: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")
_TRACE_PARENT: Final = re.compile(
    rb"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?:-.*)?"
)  # W3C Trace Context; the group contains the trace id
_MAX_LOGGED_PATH: Final = 200
_MAX_LOGGED_CAUSE: Final = 300
# A parser of HTTP/1.1 accepts these versions. HTTP/0.9 has no header fields, and "2.0" in a request line is not HTTP/2.
_UNSUPPORTED_VERSIONS: Final = frozenset(("0.9", "2.0"))
# Browsers send a head that is too large (status 431) only if they have too many cookies for the site.
TOO_MANY_COOKIES_PAGE: Final = """<!doctype html><html lang="zh-CN"><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>Cookie 过多 · Too many cookies</title>
<h1>Cookie 过多</h1><p>浏览器为此网站及其域名保存的 Cookie 过多。请清除后重新加载。</p>
<div lang="en"><h1>Too many cookies</h1><p>Your browser keeps too many cookies for this site and its domain.
Clear them, then load this page again.</p></div></html>
""".encode()
REQUESTS: Final = Counter(
    "wxauth_requests",
    "Requests, by method, route template (none if no route matches) and status of the answer.",
    "method",
    "route",
    "status",
)
REQUEST_SECONDS: Final = Histogram(
    "wxauth_request_seconds",
    "Duration of requests, from their head to the end of the answer, by method and route template.",
    "method",
    "route",
    buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
Number = TypeVar("Number", int, float)
log = get_logger()


class Leaving(Protocol):
    """An object that knows whether this process is ending."""

    is_leaving: bool


class _Head(NamedTuple):
    """What wxauth needs of a request's head before it passes the request on.

    The request id and the trace id are those that the caller or a proxy gave.
    """

    size: int
    target_size: int
    request_id: str | None
    body_size: int | None  # as declared by Content-Length
    trace_id: str | None
    cookies: bytes
    waits_for_continue: bool  # the client sends the body only after `100 Continue`
    asks_for_upgrade: bool  # with the field `Upgrade` or the method CONNECT
    refusal: InvalidRequest | None


class Edge:
    """The layer that checks, limits and counts each request, and logs failures.

    The layers outside this layer only prepare or trace a request: see `with_middleware` in `service/app.py`.

    Args:
        size_limits: The bytes of a body, for the paths where bodies may be larger than `MAX_BODY`.
        time_limits: The seconds for a body, for the paths that have a limit other than `body_seconds`.
        on_refusal: Called with the scope and the error of each request that failed with an error of wxauth, unless the
            failure was expected (`EXPECTED_KEY`).
        leaving: If the process is ending, the server closes each connection after its next response.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        size_limits: Mapping[str, int],
        time_limits: Mapping[str, float],
        on_refusal: Callable[[Scope, WxAuthError], None],
        leaving: Leaving,
        body_seconds: float = SENDING_SECONDS,
    ) -> None:
        self._app = app
        self.size_limits = [(compile_path(path)[0], limit) for path, limit in size_limits.items()]
        self.time_limits = [(compile_path(path)[0], seconds) for path, seconds in time_limits.items()]
        self._on_refusal = on_refusal
        self.leaving = leaving
        self.body_seconds = body_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Check the head of a request, and refuse the request or pass it on to the app."""
        if scope["type"] == "lifespan":
            await self._run_lifespan(scope, receive, send)
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        head = _read_head(scope)
        refusal = _refusal_of(scope, head)
        if head.cookies:
            move_cookies(scope, head.cookies)
        scope[REQUEST_ID_KEY] = current_id = accepted_request_id(head.request_id)
        request_id_token = request_id.set(current_id)
        trace_id_token = None if head.trace_id is None else trace_id.set(head.trace_id)
        exchange = _Exchange(self, scope, receive, send, head, is_refused=refusal is not None, started=started)
        try:
            if refusal is not None:
                scope[PROBLEM_KEY] = refusal
                await _response_to(refusal, scope)(scope, receive, exchange.send)
            else:
                await self._app(scope, exchange.receive, exchange.send)
        except asyncio.CancelledError:
            # The server is probably stopping, and cancels the remaining requests.
            await exchange.send_problem(InternalError("the service stopped before it could respond"))
            raise
        except ClientDisconnect:
            pass  # nobody waits for the response
        except Exception as fault:
            # Starlette has sent a response, unless the failure occurred before the request reached Starlette.
            failure = fault if isinstance(fault, WxAuthError) else InternalError("the log has more")
            if failure is not fault:
                log.error("request_failed", exc_info=fault)
            await exchange.send_problem(failure)
        finally:
            self._record(scope, exchange.status, perf_counter() - started)
            request_id.reset(request_id_token)
            if trace_id_token is not None:
                trace_id.reset(trace_id_token)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        if status:
            method = scope["method"] if scope["method"] in _COUNTED_METHODS else "other"
            route = scope.get("route")
            path = route.path if route else "none"
            REQUESTS.count(method, path, status)
            REQUEST_SECONDS.observe(seconds, method, path)
        if status >= HTTPStatus.BAD_REQUEST and EXPECTED_KEY not in scope:
            _log_failure(scope, status, seconds)
            if PROBLEM_KEY in scope:
                # WeChatMisconfigured is not counted here, because it is already counted when WeChat refuses the app.
                if not isinstance(scope[PROBLEM_KEY], WeChatMisconfigured):
                    REFUSED.count(scope[PROBLEM_KEY].code)
                self._on_refusal(scope, scope[PROBLEM_KEY])

    async def _run_lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        # If the start fails, the reason has already been logged or printed. Therefore the server gets neither the stack
        # trace in the app's message nor an InvalidSettings, because it would write them into the log again.
        async def send_type(message: Message) -> None:
            await send({"type": message["type"]})

        with suppress(InvalidSettings):
            await self._app(scope, receive, send_type)


class _Exchange:
    """One request and its response, which pass through this object between the server and the app."""

    def __init__(
        self, edge: Edge, scope: Scope, receive: Receive, send: Send, head: _Head, *, is_refused: bool, started: float
    ) -> None:
        self.status = 0  # before the response
        self._has_whole_body = head.body_size == 0
        self._edge = edge
        self._scope = scope
        self._receive_from_server = receive
        self._send_to_server = send
        self._started = started
        self._declared_size = head.body_size
        self._received_size = 0
        # Without `100 Continue`, the client may send the body or another request next.
        self._waits_for_continue = head.waits_for_continue and not self._has_whole_body
        # Under some servers, the body of a request for an upgrade would be the next request. It is also uncertain where
        # the body ends that follows a refused head.
        asks_for_upgrade = head.asks_for_upgrade and IGNORES_UPGRADES not in scope.get("extensions", ())
        self._must_close = is_refused or asks_for_upgrade

    async def receive(self) -> Message:
        # Once the whole body has arrived, the app waits for the client's disconnection, to which no limit applies.
        if self._has_whole_body:
            return await self._receive_from_server()
        if self._declared_size is not None and self._declared_size > MAX_BODY:
            self._check_size(self._declared_size)
        self._waits_for_continue = False  # the server sends `100 Continue` when it is asked for the body
        if BODY_ARRIVED in self._scope.get("extensions", ()):
            message = await self._receive_from_server()  # at once, so it needs no time limit, which takes 5 µs
        else:
            message = await self._receive_in_time()
        self._has_whole_body = not message.get("more_body", False)
        self._received_size += len(message.get("body", b""))
        if self._received_size > MAX_BODY:
            self._check_size(self._received_size)
        return message

    async def _receive_in_time(self) -> Message:
        seconds = _limit_for(self._scope, self._edge.time_limits, self._edge.body_seconds)
        try:
            # The time limit begins when the head has arrived, and covers the whole body.
            async with asyncio.timeout(self._started + seconds - perf_counter()):
                message = await self._receive_from_server()
        except TimeoutError:
            raise InvalidRequest(
                f"the body didn't arrive within {seconds:g} s", status=HTTPStatus.REQUEST_TIMEOUT
            ) from None
        return message

    # Each path allows bodies of `MAX_BODY`, so most requests do not need this check.
    def _check_size(self, size: int) -> None:
        limit = _limit_for(self._scope, self._edge.size_limits, MAX_BODY)
        if size > limit:
            raise PayloadTooLarge(f"a body must have at most {limit} bytes")

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = int(message["status"])  # in the log, an HTTPStatus would be shown with its name
            message["headers"] = [
                *message.get("headers", ()),
                (b"x-request-id", self._scope[REQUEST_ID_KEY].encode()),
                (b"x-content-type-options", b"nosniff"),
            ]
            if (
                self._edge.leaving.is_leaving
                or self._must_close
                or self._waits_for_continue
                # The rest of the body might still arrive.
                or self.status == HTTPStatus.REQUEST_TIMEOUT
            ):
                message["headers"].append((b"connection", b"close"))
        await self._send_to_server(message)

    async def send_problem(self, error: WxAuthError) -> None:
        """Send a problem document, unless a response has already begun."""
        if self.status == 0:
            self._scope[PROBLEM_KEY] = error
            await problem_response(error, self._scope)(self._scope, self._receive_from_server, self.send)


def _limit_for(scope: Scope, limits: Iterable[tuple[re.Pattern[str], Number]], default: Number) -> Number:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    for pattern, limit in limits:
        if pattern.match(path):
            return limit
    return default


# This function reads the header fields in only one pass, because it runs for each request.
def _read_head(scope: Scope) -> _Head:
    request_id_sent = body_size = trace = refusal = None
    waits_for_continue = has_host = is_chunked = False
    asks_for_upgrade = scope["method"] == "CONNECT"
    query = scope["query_string"]
    # If there is a query, the question mark before the query counts, too.
    size = target_size = len(scope.get("raw_path") or scope["path"]) + len(query) + bool(query)
    cookies: list[bytes] = []
    for name, value in scope["headers"]:
        size += len(name) + len(value)
        if name not in _FIELDS_READ:  # one lookup takes less time than a comparison with each name
            continue
        if name == b"host":
            # If there are two fields, a proxy may have chosen the route by the other field (RFC 9112, section 3.2).
            if has_host:
                refusal = _bad_request("a request must have exactly one Host header")
            has_host = True
        elif name == b"x-request-id":
            request_id_sent = value.decode("latin-1")
        elif name == b"content-length":
            if len(value) > MAX_CONTENT_LENGTH_DIGITS:
                refusal = _bad_request(f"Content-Length must have at most {MAX_CONTENT_LENGTH_DIGITS} digits")
            else:
                body_size = int(value)  # the server has checked that this is a number
        elif name == b"content-type":
            if len(value) > MAX_CONTENT_TYPE:
                refusal = _bad_request(f"Content-Type must have at most {MAX_CONTENT_TYPE} characters")
        elif name == b"cookie":
            cookies.append(value)
        elif name == b"expect":
            waits_for_continue = value.lower() == b"100-continue"
        elif name == b"upgrade":
            asks_for_upgrade = True
        elif name == b"transfer-encoding":
            # Servers disagree about where a body with other codings ends.
            if is_chunked or value.lower() != b"chunked":
                refusal = _bad_request("Transfer-Encoding must be 'chunked'")
            is_chunked = True
        elif (trace_parent := _TRACE_PARENT.fullmatch(value)) is not None:  # only `traceparent` remains
            trace = trace_parent[1].decode()
    if not has_host and scope["http_version"] == "1.1":
        refusal = _bad_request("a request must have exactly one Host header")
    return _Head(
        size=size,
        target_size=target_size,
        request_id=request_id_sent,
        body_size=body_size,
        trace_id=trace,
        cookies=b";".join(cookies),
        waits_for_continue=waits_for_continue,
        asks_for_upgrade=asks_for_upgrade,
        refusal=refusal,
    )


def _refusal_of(scope: Scope, head: _Head) -> InvalidRequest | None:
    if head.size > MAX_HEAD:
        text = f"the head of a request, including cookies, must have at most {MAX_HEAD} bytes"
        return InvalidRequest(text, status=HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    if len(scope["headers"]) > MAX_FIELDS:
        return InvalidRequest(
            f"a request must have at most {MAX_FIELDS} headers", status=HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
        )
    if head.target_size > MAX_TARGET:
        limit = _LONGER_TARGETS.get(scope["path"].removeprefix(scope.get("root_path", "")), MAX_TARGET)
        if head.target_size > limit:
            return InvalidRequest(
                f"a request target must have at most {limit} bytes", status=HTTPStatus.REQUEST_URI_TOO_LONG
            )
    if head.refusal is not None:
        return head.refusal
    path = scope["path"]
    # A route's pattern ends with `$`, which also matches before a final newline. `isprintable` is only a faster check,
    # which most paths pass.
    if not path.isprintable() and _CONTROL_CHARACTER.search(path) is not None:
        return _bad_request(CONTROL_CHARACTERS_REFUSED)
    if scope["query_string"].count(b"&") >= MAX_PARAMETERS:
        return _bad_request(f"a query must have at most {MAX_PARAMETERS} parameters")
    if scope.get("http_version") in _UNSUPPORTED_VERSIONS:
        return _bad_request("the version of a request must be HTTP/1.1 or HTTP/1.0")
    return None


def _bad_request(detail: str) -> InvalidRequest:
    return InvalidRequest(detail, status=HTTPStatus.BAD_REQUEST)


def _response_to(refusal: InvalidRequest, scope: Scope) -> Response:
    accepted = b",".join(value for name, value in scope["headers"] if name == b"accept")
    if refusal.status == HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE and b"text/html" in accepted.lower():
        headers = {"Cache-Control": "no-store"}
        return Response(TOO_MANY_COOKIES_PAGE, refusal.status, headers, media_type="text/html; charset=utf-8")
    return problem_response(refusal, scope)


def _log_failure(scope: Scope, status: int, seconds: float) -> None:
    error: WxAuthError | None = scope.get(PROBLEM_KEY)
    fields = {
        "method": scope["method"],
        "path": redact(scope["path"][:_MAX_LOGGED_PATH]),
        "status": status,
        "code": None if error is None else error.code,
        "detail": None if error is None else error.detail,
        "ms": round(seconds * 1000, 1),
    }
    if error is not None and error.__cause__ is not None:
        fields["cause"] = f"{type(error.__cause__).__qualname__}: {message_of(error.__cause__)[:_MAX_LOGGED_CAUSE]}"
    write = log.warning if status >= HTTPStatus.INTERNAL_SERVER_ERROR else log.info
    write("request_refused", **fields)
