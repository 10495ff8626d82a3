"""The calls between the service and the simulated WeChat, recorded for display with secrets masked."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from time import perf_counter, time
from typing import Any, Final

from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

_MASK: Final = "•••"
_MASKED: Final = frozenset({"secret", "session_key", "access_token", "refresh_token"})
_REMEMBERED: Final = 100

Handler = Callable[[Request], Awaitable[Response]]


class Wires:
    """The latest calls of the service, with their answers.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._calls: deque[dict[str, Any]] = deque(maxlen=_REMEMBERED)
        self._revision = int(clock() * 1000)  # after a restart, higher than those that open pages know

    def noting(self, endpoint: Handler) -> Handler:
        """An endpoint whose calls are recorded, when they begin and when they end."""

        async def serve(request: Request) -> Response:
            call = {
                "at": self._clock() * 1000,
                "method": request.method,
                "path": request.url.path,
                "query": _masked(dict(request.query_params)),
                "body": _readable(await request.body()),
                "status": None,
                "answer": None,
                "ms": None,
            }
            self._calls.append(call)
            self._change(call)
            started = perf_counter()
            response = await endpoint(request)
            await asyncio.sleep(0)  # lets the loop notice a connection that was just closed
            if not await request.is_disconnected():
                call |= {"status": response.status_code, "answer": _readable(bytes(response.body))}
            call["ms"] = (perf_counter() - started) * 1000
            self._change(call)
            return response

        return serve

    def since(self, revision: int) -> dict[str, Any]:
        """The calls that are new or have changed since a revision.

        `at` and `ms` are in milliseconds; `ms` is null until the call has ended. `status` is null if no answer was
        sent. Secrets are masked.
        """
        return {"revision": self._revision, "calls": [call for call in self._calls if call["revision"] > revision]}

    def _change(self, call: dict[str, Any]) -> None:
        self._revision += 1
        call["revision"] = self._revision
        call.setdefault("id", self._revision)


def _readable(body: bytes) -> Any:
    if body.startswith((b"\x89PNG", b"\xff\xd8")):
        return f"(a picture of {len(body)} bytes)"
    try:
        return _masked(from_json(body)) if body else None
    except ValueError:
        return body.decode(errors="replace")


def _masked(value: Any) -> Any:
    match value:
        case dict():
            return {name: _MASK if name in _MASKED else _masked(inner) for name, inner in value.items()}
        case list():
            return [_masked(inner) for inner in value]
    return value
