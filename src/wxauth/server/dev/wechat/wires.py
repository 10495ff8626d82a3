"""The calls between the service and the simulated WeChat, both ways, recorded for display with secrets masked."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
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
    """The latest calls, with their answers.

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
            body = _readable(await request.body())
            query = _masked(dict(request.query_params))
            with self._noted("serviceToWeChat", request.method, request.url.path, query, body) as outcome:
                response = await endpoint(request)
                await asyncio.sleep(0)  # lets the loop notice a connection that was just closed
                if not await request.is_disconnected():
                    outcome |= {"status": response.status_code, "answer": _readable(bytes(response.body))}
            return response

        return serve

    @contextmanager
    def push(self, path: str, message: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """Record a message that WeChat pushes. The block sets `status` and `answer` of the result."""
        with self._noted("weChatToService", "POST", path, {}, message) as outcome:
            yield outcome

    @contextmanager
    def _noted(self, direction: str, method: str, path: str, query: Any, body: Any) -> Iterator[dict[str, Any]]:
        call = {
            "direction": direction,
            "at": self._clock() * 1000,
            "method": method,
            "path": path,
            "query": query,
            "body": body,
            "status": None,
            "answer": None,
            "ms": None,
        }
        self._calls.append(call)
        self._change(call)
        started = perf_counter()
        outcome: dict[str, Any] = {}
        yield outcome
        call |= outcome
        call["ms"] = (perf_counter() - started) * 1000
        self._change(call)

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
