"""The middleware of `wxauth-desk dev` that records each request to wxauth, so that the desk shows it."""

import re
from typing import Any, Final
from urllib.parse import parse_qsl

from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wxauth.core.logs import redact
from wxauth_desk.wechat import MASK, PAGE_HEADER, CallRecord, masked

_MAX_BODY_BYTES: Final = 16 * 1024
# Probes, the files of pages, and the polls of login pages would push out the requests of interest. The simulated WeChat
# records its messages itself.
_UNSEEN: Final = re.compile(
    r"/(?:livez|readyz|metrics|docs(?:/.*)?|openapi\.json|favicon\.ico|v1/pages/.*|admin/[\w.-]+\.(?:js|css|json|svg)"
    r"|v1/authorize/[\w-]+/state|v1/avatars/.*|v1/wechat/push/.*)"
)
# Sites, WeChat's page and the console send authorization codes to paths with these ends.
_ENDS_OF_CODE_PATHS: Final = ("/token", "/wechat", "/session")
_SHOWN_HEADERS: Final = ("user-agent", "content-type")
_FORM: Final = "application/x-www-form-urlencoded"


class Watched:
    """Middleware that records the requests to an app, and its responses, without secrets.

    If a page of the desk sends a phone's request, `PAGE_HEADER` contains the page's id, which the app doesn't get.
    """

    def __init__(self, app: ASGIApp, call_record: CallRecord) -> None:
        self._app = app
        self._call_record = call_record

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        page = headers.get(PAGE_HEADER)
        other_fields = [field for field in scope["headers"] if field[0] != PAGE_HEADER.encode()]
        scope = {**scope, "headers": other_fields}
        if _UNSEEN.fullmatch(scope["path"]):
            await self._app(scope, receive, send)
            return
        path = redact(scope["path"])
        query = _form(scope["query_string"], path)
        with self._call_record.recording("clientToService", scope["method"], path, query, None) as call:
            call |= {"page": page, "header": _shown(headers)}
            sent, received = _Body(), _Body()

            async def watched_receive() -> Message:
                message = await receive()
                sent.add(message)
                return message

            async def watched_send(message: Message) -> None:
                if message["type"] == "http.response.start":
                    received.content_type = Headers(raw=message["headers"]).get("content-type", "")
                    call["status"] = message["status"]
                received.add(message)
                await send(message)

            sent.content_type = headers.get("content-type", "")
            try:
                await self._app(scope, watched_receive, watched_send)
            finally:
                call |= {"body": sent.shown(path), "answer": received.shown(path)}


class _Body:
    """A body, of which at most `_MAX_BODY_BYTES` are kept."""

    def __init__(self) -> None:
        self.content_type = ""
        self._start = b""
        self._size = 0

    def add(self, message: Message) -> None:
        piece = message.get("body", b"")
        self._size += len(piece)
        self._start += piece[: _MAX_BODY_BYTES - len(self._start)]

    def shown(self, path: str) -> Any:
        """Return the body without its secrets, or only its size and type if the secrets can't be found."""
        if not self._size:
            return None
        if self._size == len(self._start):
            if self.content_type.startswith(_FORM):
                return _form(self._start, path)
            try:
                value = from_json(self._start)
            except ValueError:
                value = None
            if isinstance(value, dict | list):
                return _redacted(_with_masked_code(masked(value), path))
        return f"({self._size} bytes, {self.content_type.partition(';')[0] or '?'})"


def _form(encoded: bytes, path: str) -> dict[str, Any]:
    values = masked(dict(parse_qsl(encoded[:_MAX_BODY_BYTES].decode("latin-1"), keep_blank_values=True)))
    redacted: dict[str, Any] = _redacted(_with_masked_code(values, path))
    return redacted


def _redacted(value: Any) -> Any:
    match value:
        case str():
            return redact(value)
        case dict():
            return {name: _redacted(inner) for name, inner in value.items()}
        case list():
            return [_redacted(inner) for inner in value]
    return value


def _with_masked_code(values: Any, path: str) -> Any:
    """Mask an authorization code. A `wx.login` code is shown, because the simulated WeChat gives it to anyone."""
    if isinstance(values, dict) and "code" in values and path.endswith(_ENDS_OF_CODE_PATHS):
        return {**values, "code": MASK}
    return values


def _shown(headers: Headers) -> dict[str, str]:
    shown = {name: headers[name] for name in _SHOWN_HEADERS if name in headers}
    if "authorization" in headers:
        scheme = headers["authorization"].partition(" ")[0]
        shown["authorization"] = f"{scheme} {MASK}" if scheme.lower() in ("bearer", "basic") else MASK
    return shown
