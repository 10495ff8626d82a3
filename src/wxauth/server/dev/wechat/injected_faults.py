"""Faults of the simulated WeChat, and how they appear to the caller."""

import asyncio
import re
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from wxauth.server.dev.wechat.controls import Api, FaultRequest

_IN_A_CODE: Final = re.compile(
    r"errcode-(?P<errcode>-?\d{1,9})|slow-(?P<slow>\d{1,2}(?:\.\d{1,2})?)|status-(?P<status>[2-5]\d\d)"
    r"|(?P<hang>hang)|(?P<drop>drop)|(?P<garbage>garbage)|(?P<html>html)"
)


class Faults:
    """The requested faults, in order."""

    def __init__(self) -> None:
        self._waiting: list[FaultRequest] = []

    def add(self, fault: FaultRequest) -> None:
        """Add a fault after the others."""
        self._waiting.append(fault.model_copy())

    def clear(self) -> None:
        """Drop all faults: everything works again."""
        self._waiting.clear()

    @property
    def waiting(self) -> list[dict[str, Any]]:
        """The faults still to come, in the form in which they were requested."""
        return [fault.model_dump(mode="json", exclude_none=True) for fault in self._waiting]

    def take_next(self, api: Api, app_id: str | None) -> FaultRequest | None:
        """Use up the fault for this call, and return it; None if there is none."""
        for fault in self._waiting:
            if fault.api == api and fault.app_id in (None, app_id):
                if fault.times is not None:
                    fault.times -= 1
                    if fault.times == 0:
                        self._waiting.remove(fault)
                return fault
        return None


def fault_in(code: str, api: Api) -> FaultRequest | None:
    """The fault that a code such as `errcode-40029` or `slow-2` names; None if it names none."""
    found = _IN_A_CODE.fullmatch(code)
    if found is None:
        return None
    kind = found.lastgroup
    assert kind is not None
    text = found[kind]
    return FaultRequest.model_validate({"api": api, kind: True if text == kind else text})


async def answer_wrongly(request: Request, fault: FaultRequest) -> Response | None:
    """Do what the fault says. Returns the answer to give, or None to continue."""
    if fault.slow is not None:
        await asyncio.sleep(fault.slow)
    elif fault.status is not None:
        return PlainTextResponse("", status_code=fault.status)
    elif fault.hang:
        while (await request.receive())["type"] != "http.disconnect":
            pass
    elif fault.drop:
        # ASGI cannot close a connection without an answer. uvicorn's own object can.
        connection = getattr(request.receive, "__self__", None)
        if connection is None:
            raise ConnectionResetError("dropped")
        connection.transport.abort()
    elif fault.garbage:
        return PlainTextResponse('{"openid": "o')
    elif fault.html:
        return Response("<html><body><h1>502 Bad Gateway</h1></body></html>", media_type="text/html")
    return None
