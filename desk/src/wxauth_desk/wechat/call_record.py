"""The record of the calls to and from the simulated WeChat, and of the requests to wxauth, which the desk shows."""

import re
import threading
from collections import deque
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from operator import itemgetter
from time import perf_counter, time
from typing import Any, Final, Literal

from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import Response

MASK: Final = "•••"
# The record does not show a value with such a name, unless the value is a list of objects.
_MASKED_NAME: Final = re.compile(
    r"(\w+_)?(secret|token|key|keys|password|assertion|verifier|ticket|device_code)|appsecret|cert_info|id_token_hint",
    re.IGNORECASE,
)
_MAX_CALLS: Final = 100  # of each kind
_PICTURE_SIGNATURES: Final = (b"\x89PNG", b"\xff\xd8")  # of a PNG and of a JPEG

Direction = Literal["serviceToWeChat", "weChatToService", "clientToService"]
Handler = Callable[[Request], Awaitable[Response]]


class CallRecord:
    """The record of the latest calls to and from WeChat and of requests to wxauth, with their responses.

    WeChat and wxauth run in different threads, and both write into the record.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._calls: deque[dict[str, Any]] = deque(maxlen=_MAX_CALLS)
        # These requests have their own limit, so that they don't push out the calls of WeChat.
        self._requests: deque[dict[str, Any]] = deque(maxlen=_MAX_CALLS)
        # The latest change has this number. After a restart, it is higher than the numbers that open pages know.
        self._revision = int(time() * 1000)

    def recorded(self, endpoint: Handler) -> Handler:
        """Wrap an endpoint, so that each call to it is recorded when it begins, and updated with the response."""

        async def serve(request: Request) -> Response:
            body = _readable(await request.body())
            query = masked(dict(request.query_params))
            with self.recording("serviceToWeChat", request.method, request.url.path, query, body) as call:
                response = await endpoint(request)
                if not await request.is_disconnected():  # otherwise, the client does not receive the response
                    call |= {"status": response.status_code, "answer": _readable(bytes(response.body))}
            return response

        return serve

    @contextmanager
    def recording(
        self, direction: Direction, method: str, path: str, query: Any, body: Any, *, repeats: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Record a call when the block begins, and update the record when the block ends.

        `repeats` is the id of the first attempt to push the same message; None for this first attempt and for any other
        call. The block gets the record, which has an `id`, and sets the `status` and the `answer` of the response in
        it. If the block raises an error, the record contains only the values that the block has set before.
        """
        call = {
            "direction": direction,
            "repeats": repeats,
            "at": time() * 1000,
            "method": method,
            "path": path,
            "query": query,
            "body": body,
            "status": None,
            "answer": None,
            "ms": None,
        }
        self._mark_changed(call, self._requests if direction == "clientToService" else self._calls)
        started = perf_counter()
        try:
            yield call
        finally:  # without it, the desk would show a call that raised an exception as running forever
            call["ms"] = (perf_counter() - started) * 1000
            self._mark_changed(call)

    def since(self, revision: int) -> dict[str, Any]:
        """Return the calls that are new or have changed since a revision, and the current revision.

        `revision` is the revision that the previous call of this method returned, or 0 for all calls. In each call,
        `at` is the time at which the call began, in milliseconds since the epoch. `ms` is the duration in milliseconds,
        or null until the call has ended. `status` is null if there is no response, or not yet. Secrets are masked.
        """
        with self._lock:
            calls = sorted((*self._calls, *self._requests), key=itemgetter("at"))
            return {"revision": self._revision, "calls": [{**call} for call in calls if call["revision"] > revision]}

    def _mark_changed(self, call: dict[str, Any], new_in: deque[dict[str, Any]] | None = None) -> None:
        """Give a call the next revision. The first revision of a call is also the call's id."""
        with self._lock:
            self._revision += 1
            call["revision"] = self._revision
            call.setdefault("id", self._revision)
            if new_in is not None:
                new_in.append(call)


def _readable(body: bytes) -> Any:
    """Return a body as the desk shows it; None if it is empty.

    JSON is parsed, and its secrets are masked. Of a picture, only the size is returned. Any other body is decoded.
    """
    if body.startswith(_PICTURE_SIGNATURES):
        return f"(a picture of {len(body)} bytes)"
    try:
        return masked(from_json(body)) if body else None
    except ValueError:
        return body.decode(errors="replace")


def masked(value: Any) -> Any:
    """Return a copy of a parsed JSON value in which the secrets are masked."""
    match value:
        case dict():
            return {name: MASK if _is_secret(name, inner) else masked(inner) for name, inner in value.items()}
        case list():
            return [masked(inner) for inner in value]
    return value


def _is_secret(name: str, value: Any) -> bool:
    is_public_list = isinstance(value, list) and any(isinstance(item, dict) for item in value)  # such as a JWKS
    return not is_public_list and _MASKED_NAME.fullmatch(name) is not None
