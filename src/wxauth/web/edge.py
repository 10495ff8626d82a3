"""The outermost layer, plain ASGI: the request's id, the limit of its body, the log line of its failure."""

import asyncio
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wxauth.core.logs import get_logger, redact, request_id
from wxauth.errors import InternalError, PayloadTooLarge, WxAuthError
from wxauth.problems import REQUEST_ID_KEY, accepted_request_id, problem_response

MAX_BODY: Final = 64 * 1024
"""Bytes that a path takes, unless it is said to take more."""
PROBLEM_KEY: Final = "wxauth.problem"
"""Where an answered failure leaves itself in the ASGI scope, for the log line."""
EXPECTED_KEY: Final = "wxauth.expected"
"""In the ASGI scope of a request whose refusal is no news: a poll that is told to wait."""

_MAX_LOGGED_PATH = 200
_MAX_LOGGED_CAUSE = 300
_FIRST_FAILURE = 400
_FIRST_FAULT = 500

log = get_logger()


class Edge:
    """Wraps the app.

    Args:
        app: What is wrapped.
        larger_bodies: Bytes that a path takes which takes more than `MAX_BODY`.
        refused: Is told of each request that is answered by a problem.
    """

    def __init__(
        self, app: ASGIApp, *, larger_bodies: Mapping[str, int], refused: Callable[[WxAuthError], None]
    ) -> None:
        self._app = app
        self._larger_bodies = larger_bodies
        self._refused = refused

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        given_id = None
        declared_size = None
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                given_id = value.decode("latin-1")
            elif name == b"content-length":
                declared_size = int(value)  # the server has seen to it that this is a number
        current_id = accepted_request_id(given_id)
        scope[REQUEST_ID_KEY] = current_id
        id_token = request_id.set(current_id)
        status = received = 0

        async def receive_within_limit() -> Message:
            nonlocal received
            if declared_size is not None and declared_size > MAX_BODY:
                self._check_size(declared_size, scope)
            message = await receive()
            received += len(message.get("body", b""))
            if received > MAX_BODY:
                self._check_size(received, scope)
            return message

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [
                    *message.get("headers", ()),
                    (b"x-request-id", current_id.encode()),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        # The server lets no body be longer than it was said to be.
        is_small = declared_size is not None and declared_size <= MAX_BODY
        try:
            await self._app(scope, receive if is_small else receive_within_limit, send_with_id)
        except asyncio.CancelledError:
            # Most likely the server is stopping, and has waited for as long as it may.
            if status == 0:
                scope[PROBLEM_KEY] = failure = InternalError("the service was stopped before it could answer")
                await problem_response(failure, scope)(scope, receive, send_with_id)
            raise
        except Exception as fault:
            log.error("request_failed", exc_info=fault)  # it has been answered, unless the answer had begun
        finally:
            if status >= _FIRST_FAILURE and EXPECTED_KEY not in scope:
                _log_failure(scope, status, started)
                if PROBLEM_KEY in scope:
                    self._refused(scope[PROBLEM_KEY])
            request_id.reset(id_token)

    def _check_size(self, size: int, scope: Scope) -> None:
        """Of a body that is larger than most paths take. Raises: PayloadTooLarge."""
        limit = self._larger_bodies.get(scope["path"].removeprefix(scope.get("root_path", "")), MAX_BODY)
        if size > limit:
            raise PayloadTooLarge(f"a body may have {limit} bytes")


class UnderPath:
    """Serves an app under the path of the issuer, whether or not the proxy in front has cut it off."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "lifespan":
            scope = {**scope, "root_path": self._root_path}
        await self._app(scope, receive, send)


def _log_failure(scope: Scope, status: int, started: float) -> None:
    error: WxAuthError | None = scope.get(PROBLEM_KEY)
    fields = {
        "method": scope["method"],
        "path": redact(scope["path"][:_MAX_LOGGED_PATH]),
        "status": status,
        "code": error and error.code,
        "detail": error and error.detail,
        "ms": round((perf_counter() - started) * 1000, 1),
    }
    if error is not None and error.__cause__ is not None:
        fields["cause"] = f"{type(error.__cause__).__qualname__}: {redact(str(error.__cause__))[:_MAX_LOGGED_CAUSE]}"
    if status >= _FIRST_FAULT:
        log.warning("request_refused", **fields)
    else:
        log.info("request_refused", **fields)
