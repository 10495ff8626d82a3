"""The record of the calls to and from the simulated WeChat, and the refusals and faults with which it responds."""

import asyncio
import re
import secrets
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from inspect import unwrap
from pathlib import Path
from time import perf_counter, time
from typing import Any, Final

from pydantic_core import from_json, to_json
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from wxauth_desk.wechat.controls import API_PATHS, Api, FaultRequest
from wxauth_desk.wechat.errcodes import Errcode

_MASK: Final = "•••"
_MASKED_NAMES: Final = frozenset(
    {"secret", "appsecret", "encrypt_key", "session_key", "access_token", "refresh_token", "ticket", "cert_info"}
)
"""The names of the values that the record of calls does not show."""
_MAX_CALLS: Final = 100
"""The largest number of calls that are stored. If there are more, the oldest one is forgotten."""
MAX_FAULTS: Final = 100
"""The largest number of requested faults that wait for a call."""
_PICTURE_SIGNATURES: Final = (b"\x89PNG", b"\xff\xd8")
"""The first bytes of a PNG and of a JPEG."""

Handler = Callable[[Request], Awaitable[Response]]
_ERRMSGS: Final = dict(
    line.split(" ", 1) for line in Path(__file__).with_name("errmsgs.txt").read_text("utf-8").splitlines()
)
"""WeChat's own errmsgs, by errcode. The errcodes are texts, as in the file `errmsgs.txt`."""
_SNS_PATHS: Final = "/sns/"
"""The beginning of the paths of WeChat's APIs for logins, whose errmsgs end with a comma."""
_RENEWAL_ADVICE: Final = (
    ", could get access_token by getStableAccessToken, more details at https://mmbizurl.cn/s/JtxxFh33r"
)
"""The text at the end of the errmsg for errcode 40001 at all paths except those below `_SNS_PATHS`."""
_FAULT_IN_CODE: Final = re.compile(
    r"errcode-(?P<errcode>-?\d{1,9})|slow-(?P<slow>60|[0-5]?\d(?:\.\d{1,2})?)|status-(?P<status>[2-5]\d\d)"
    r"|(?P<hang>hang)|(?P<drop>drop)|(?P<garbage>garbage)|(?P<html>html)"
)
"""The pattern of a login code or phone code that names a fault. Each group is named after a field of `FaultRequest`.

A code cannot name the kinds `cut_off` and `json_type`.
"""


class CallRecord:
    """The record of the latest calls to and from WeChat, with their responses, which the desk shows."""

    def __init__(self) -> None:
        self._calls: deque[dict[str, Any]] = deque(maxlen=_MAX_CALLS)
        self._revision = int(time() * 1000)
        """The number of the latest change. After a restart, it is higher than the numbers that open pages know."""

    def recorded(self, endpoint: Handler) -> Handler:
        """Wrap an endpoint, so that each call to it is recorded when it begins, and updated with the response."""

        async def serve(request: Request) -> Response:
            body = _readable(await request.body())
            query = _masked(dict(request.query_params))
            with self.recording("serviceToWeChat", request.method, request.url.path, query, body) as outcome:
                response = await endpoint(request)
                if not await request.is_disconnected():
                    outcome |= {"status": response.status_code, "answer": _readable(bytes(response.body))}
            return response

        return serve

    @contextmanager
    def recording(self, direction: str, method: str, path: str, query: Any, body: Any) -> Iterator[dict[str, Any]]:
        """Record a call when the block begins, and update the record when the block ends.

        `direction` is `serviceToWeChat` or `weChatToService`. The block gets a dictionary, in which it sets the
        `status` and the `answer` of the response. If the block raises an error, the record contains only the values
        that the block has set before.
        """
        call = {
            "direction": direction,
            "at": time() * 1000,
            "method": method,
            "path": path,
            "query": query,
            "body": body,
            "status": None,
            "answer": None,
            "ms": None,
        }
        self._calls.append(call)
        self._mark_changed(call)
        started = perf_counter()
        outcome: dict[str, Any] = {}
        try:
            yield outcome
        finally:  # without it, the desk would show a call that raised an exception as running forever
            call |= outcome
            call["ms"] = (perf_counter() - started) * 1000
            self._mark_changed(call)

    def since(self, revision: int) -> dict[str, Any]:
        """Return the calls that are new or have changed since a revision, and the current revision.

        `revision` is the revision that the previous call of this method returned, or 0 for all calls. In each call,
        `at` is the time at which the call began, in milliseconds since the epoch. `ms` is the duration in milliseconds,
        or null until the call has ended. `status` is null if no response has been sent. Secrets are masked.
        """
        return {"revision": self._revision, "calls": [call for call in self._calls if call["revision"] > revision]}

    def _mark_changed(self, call: dict[str, Any]) -> None:
        """Give a call the next revision. The first revision of a call is also the call's id."""
        self._revision += 1
        call["revision"] = self._revision
        call.setdefault("id", self._revision)


def _readable(body: bytes) -> Any:
    """Return a body as the desk shows it; None if it is empty.

    JSON is parsed, and its secrets are masked. Of a picture, only the size is returned. Any other body is decoded.
    """
    if body.startswith(_PICTURE_SIGNATURES):
        return f"(a picture of {len(body)} bytes)"
    try:
        return _masked(from_json(body)) if body else None
    except ValueError:
        return body.decode(errors="replace")


def _masked(value: Any) -> Any:
    """Return a copy of a parsed JSON value in which the values of `_MASKED_NAMES` are masked."""
    match value:
        case dict():
            return {name: _MASK if name in _MASKED_NAMES else _masked(inner) for name, inner in value.items()}
        case list():
            return [_masked(inner) for inner in value]
    return value


class CallRefused(Exception):
    """The error if the simulated WeChat refuses a call.

    `errcode` is the errcode in the response. `rid` is the id of the refused call, by which `rid_get` finds the call.
    """

    def __init__(self, errcode: int) -> None:
        self.errcode = errcode
        self.rid = new_rid()

    def answer(self, api: Api = "") -> dict[str, Any]:
        """Return the body of WeChat's response for this refusal. `api` is empty if the call was for an unknown path."""
        errmsg = _ERRMSGS.get(str(self.errcode), "error")
        if api in API_PATHS and API_PATHS[api][1].startswith(_SNS_PATHS):
            errmsg += ","
        elif self.errcode == Errcode.WRONG_ACCESS_TOKEN:
            errmsg += _RENEWAL_ADVICE
        return {"errcode": self.errcode, "errmsg": f"{errmsg} rid: {self.rid}"}


def new_rid() -> str:
    """Return a new id, in WeChat's form, for a refused call or for a content check."""
    return "-".join(secrets.token_hex(4) for _ in range(3))


def require(condition: object, errcode: int) -> None:
    """Refuse a call with this errcode unless the condition is met. Raises: CallRefused."""
    if not condition:
        raise CallRefused(errcode)


def text_in(values: Mapping[str, Any], name: str) -> str:
    """Return the text with this name in a call, or an empty text. Raises: CallRefused, if the value is not a text."""
    value = values.get(name, "")
    if not isinstance(value, str):
        raise CallRefused(Errcode.WRONG_BODY)
    return value


class Faults(deque[FaultRequest]):
    """The requested faults that have not occurred yet, in order.

    If there are more than `MAX_FAULTS`, the oldest one is forgotten.
    """

    def __init__(self) -> None:
        super().__init__(maxlen=MAX_FAULTS)

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The faults as JSON, in the form in which they were requested."""
        return [fault.model_dump(mode="json", exclude_none=True) for fault in self]

    def take_next(self, api: Api, app_id: str | None) -> FaultRequest | None:
        """Return the next fault for an app's call to this API, and count one use of it; None if there is no fault."""
        fault = next((each for each in self if each.api == api and each.app_id in (None, app_id)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self.remove(fault)
        return fault


def fault_in(code: str, api: Api) -> FaultRequest | None:
    """Return the fault that a login code or phone code such as `errcode-40029` or `slow-2` names; None for any other.

    `api` is the API that has been called with the code.
    """
    match = _FAULT_IN_CODE.fullmatch(code)
    if match is None:
        return None
    kind = match.lastgroup
    assert kind is not None
    value = match[kind]
    # A kind without a value, such as `hang`, is its own text.
    return FaultRequest.model_validate({"api": api, kind: True if value == kind else value})


NO_FAULT: Final = FaultRequest.model_construct(api="")
"""The fault of a call that does not fail. It has no kind, so it is made without validation, which requires a kind."""


def as_wechat_does(answer: dict[str, Any], api: Api) -> Response:
    """Return a JSON response of an API, with the Content-Type that WeChat uses for this API."""
    media_type = "application/json; encoding=utf-8" if api == "getwxacodeunlimit" else "text/plain"
    return Response(to_json(answer), media_type=media_type)


async def apply_fault(request: Request, fault: FaultRequest) -> Response | None:
    """Apply a fault to a call. Return the faulty response, or None if the caller must send the right response.

    A fault of the kind `hang` or `drop` ends only when the client disconnects. The kinds `cut_off` and `json_type`
    change the right response, so this function returns None, and the caller must change its response itself.
    """
    if fault.errcode is not None:
        return as_wechat_does(CallRefused(fault.errcode).answer(fault.api), fault.api)
    if fault.slow is not None:
        await asyncio.sleep(fault.slow)
    elif fault.status is not None:
        return PlainTextResponse("", status_code=fault.status)
    elif fault.hang or fault.drop:
        if fault.drop:
            # ASGI cannot close a connection without a response. uvicorn's object can, and its method is the original
            # `receive`, which `LimitedBody` wraps. Without uvicorn, for example in a test, there is no such object.
            connection = getattr(unwrap(request.receive), "__self__", None)
            if connection is None:
                raise ConnectionResetError("dropped")
            connection.transport.abort()
        while (await request.receive())["type"] != "http.disconnect":
            pass
        return Response()  # nobody receives it, but the caller must not carry out the call
    elif fault.garbage:
        return PlainTextResponse('{"openid": "o')
    elif fault.html:
        # The status is 200 so that only the body reveals the failure. The fault `status` covers all other statuses.
        return Response("<html><body><h1>502 Bad Gateway</h1></body></html>", media_type="text/html")
    return None
