"""The outermost layer, plain ASGI: the request's id, the limit of its body, the last resort for a fault."""

from time import perf_counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wxauth.errors import InternalError, PayloadTooLarge, WxAuthError
from wxauth.logs import get_logger, redact, request_id
from wxauth.problems import REQUEST_ID_KEY, accepted_request_id, problem_response

MAX_BODY: Final = 64 * 1024
PROBLEM_KEY: Final = "wxauth.problem"
"""Where an answered failure leaves itself in the ASGI scope, for the log line."""

_MAX_LOGGED_PATH = 200
_MAX_LOGGED_CAUSE = 300
_FIRST_FAILURE = 400
_FIRST_FAULT = 500

log = get_logger()


class Edge:
    """Wraps the app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = perf_counter()
        given_id = content_length = None
        has_body = False
        for name, value in scope["headers"]:
            if name == b"x-request-id":
                given_id = value.decode("latin-1")
            elif name == b"content-length":
                content_length, has_body = value, True
            elif name == b"transfer-encoding":
                has_body = True
        current_id = accepted_request_id(given_id)
        scope[REQUEST_ID_KEY] = current_id
        id_token = request_id.set(current_id)
        status = 0

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

        try:
            if has_body:
                receive = await _whole_body(receive, content_length)
            await self._app(scope, receive, send_with_id)
        except WxAuthError as error:
            scope[PROBLEM_KEY] = error
            await problem_response(error, scope)(scope, receive, send_with_id)
        except Exception as fault:
            log.error("request_failed", exc_info=fault)
            if status == 0:
                scope[PROBLEM_KEY] = failure = InternalError("the log has more under this request_id")
                await problem_response(failure, scope)(scope, receive, send_with_id)
        finally:
            if status >= _FIRST_FAILURE:
                _log_failure(scope, status, started)
            request_id.reset(id_token)


async def _whole_body(receive: Receive, content_length: bytes | None) -> Receive:
    """Read the body before anything else; a `receive` that gives it again."""
    if content_length is not None and content_length.isdigit() and int(content_length) > MAX_BODY:
        raise PayloadTooLarge(f"a body may have {MAX_BODY} bytes")
    first = await receive()
    if first["type"] != "http.request":
        return _replay(first, receive)
    if not first.get("more_body"):
        _check_size(len(first.get("body", b"")))
        return _replay(first, receive)
    body = bytearray(first.get("body", b""))
    _check_size(len(body))
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return _replay(message, receive)
        body += message.get("body", b"")
        _check_size(len(body))
        if not message.get("more_body"):
            return _replay({"type": "http.request", "body": bytes(body), "more_body": False}, receive)


def _check_size(size: int) -> None:
    if size > MAX_BODY:
        raise PayloadTooLarge(f"a body may have {MAX_BODY} bytes")


def _replay(message: Message, receive: Receive) -> Receive:
    pending: Message | None = message

    async def replay() -> Message:
        nonlocal pending
        if pending is None:
            return await receive()
        given, pending = pending, None
        return given

    return replay


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
