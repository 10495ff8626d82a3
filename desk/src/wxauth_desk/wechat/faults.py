"""The faults that make calls to the simulated WeChat fail. `POST /faults` requests them, or a code names them."""

import asyncio
import re
from collections import deque
from inspect import unwrap
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from wxauth_desk.wechat.api_calls import CallRefused, json_response
from wxauth_desk.wechat.controls import Api, FaultRequest

MAX_FAULTS: Final = 100
# Each group is a field of `FaultRequest`. A code cannot name the kinds `cut_off` and `json_type`.
_FAULT_IN_CODE: Final = re.compile(
    r"errcode-(?P<errcode>-?\d{1,9})|slow-(?P<slow>60|[0-5]?\d(?:\.\d{1,2})?)|status-(?P<status>[2-5]\d\d)"
    r"|(?P<hang>hang)|(?P<drop>drop)|(?P<garbage>garbage)|(?P<html>html)"
)
# This fault has no kind, so it is made without validation, which requires a kind.
NO_FAULT: Final = FaultRequest.model_construct(api="")


class Faults(deque[FaultRequest]):
    """The requested faults that can still occur, in the order of the requests."""

    def __init__(self) -> None:
        super().__init__(maxlen=MAX_FAULTS)

    @property
    def shown(self) -> list[dict[str, Any]]:
        """The faults as JSON, in the form of a request. `times` is the number of calls that are still to fail."""
        return [fault.model_dump(mode="json", exclude_none=True) for fault in self]

    def take_next(self, api: Api, app_id: str | None) -> FaultRequest | None:
        """Use one of a fault's `times` for an app's call to this API, and return the fault, if there is one."""
        fault = next((each for each in self if each.api == api and each.app_id in (None, app_id)), None)
        if fault is not None and fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self.remove(fault)
        return fault


def fault_in(code: str, api: Api) -> FaultRequest | None:
    """Return the fault that a code such as `errcode-40029` or `slow-2` names; None if it names none."""
    match = _FAULT_IN_CODE.fullmatch(code)
    if match is None:
        return None
    # For a kind without a number, such as `hang`, the text is the name of the kind.
    fields = {kind: True if text == kind else text for kind, text in match.groupdict().items() if text is not None}
    return FaultRequest.model_validate({"api": api, **fields})


async def apply_fault(request: Request, fault: FaultRequest) -> Response | None:
    """Apply a fault to a call. Return the faulty response, or None if the caller must send the right response.

    The kinds `cut_off` and `json_type` change the right response, so the caller must apply them. A fault of the kind
    `hang` or `drop` ends only when the client disconnects. Nobody then receives the faulty response, whose only purpose
    is that the caller does not carry out the call.
    """
    if fault.errcode is not None:
        return json_response(CallRefused(fault.errcode).answer(fault.api), fault.api)
    if fault.status is not None:
        return PlainTextResponse("", status_code=fault.status)
    if fault.garbage:
        return PlainTextResponse('{"openid": "o')
    if fault.html:
        # The status is 200 so that only the body reveals the failure. The fault `status` covers all other statuses.
        return Response("<html><body><h1>502 Bad Gateway</h1></body></html>", media_type="text/html")
    if fault.drop:
        _drop_connection(request)
    if fault.hang or fault.drop:
        while (await request.receive())["type"] != "http.disconnect":
            pass
        return Response()
    if fault.slow is not None:
        await asyncio.sleep(fault.slow)
    return None


def _drop_connection(request: Request) -> None:
    """Close the connection of a request, which ASGI cannot do without a response, but uvicorn's object can.

    The original `receive`, which `LimitedBody` wraps, is a method of this object. Without uvicorn, for example in a
    test, there is no such object.
    """
    uvicorn_request = getattr(unwrap(request.receive), "__self__", None)
    if uvicorn_request is None:
        raise ConnectionResetError("dropped")
    uvicorn_request.transport.abort()
