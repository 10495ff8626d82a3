"""The simulated WeChat over HTTP: its APIs, its pages, the requests that control it, and its manual."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from inspect import isawaitable
from pathlib import Path
from typing import Any, Final, TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from wxauth_desk.middleware import LimitedBody
from wxauth_desk.wechat.api_calls import Answer, Call, CallRefused, CodePicture, json_response
from wxauth_desk.wechat.browsers import BrowserRequest, Browsers
from wxauth_desk.wechat.call_record import CallRecord, Handler
from wxauth_desk.wechat.coins import MAX_PURSES
from wxauth_desk.wechat.connect import connect_routes
from wxauth_desk.wechat.controls import (
    ENDPOINTS,
    Api,
    AppState,
    CodeRequest,
    FaceRequest,
    FaultRequest,
    PhoneCodeRequest,
    SealRequest,
    Visitor,
)
from wxauth_desk.wechat.desk import DESK_PATH, Surroundings, desk_routes
from wxauth_desk.wechat.errcodes import Errcode
from wxauth_desk.wechat.faults import apply_fault
from wxauth_desk.wechat.payments import APP_KEYS, NoticeRequest, PayRequest, payment_result
from wxauth_desk.wechat.push import PushRequest, PushSender
from wxauth_desk.wechat.simulator import Simulator
from wxauth_desk.wechat.webhook_receiver import WEBHOOK_PATH, Behaviour, Receiver

_MANUAL: Final = Path(__file__).with_name("about.txt")

# wxauth appends them to `detail` in its responses.
HINTS: Final[Mapping[int, str]] = {
    Errcode.WRONG_CODE: (
        "this WeChat is simulated, and knows no code of a phone or of the developer tools: send a plain name such as "
        "alice (phone-13800138000 for the phone button), or start 'wxauth-desk dev' with WXAUTH_APP_ID"
    )
}
# wxauth appends it to `detail` if a request names an unknown app.
UNKNOWN_APP_HINT: Final = (
    "this WeChat is simulated: add another of its own apps with 'wxauth apps add', or start 'wxauth-desk dev' with "
    "WXAUTH_APP_ID for your mini-program"
)

Body = TypeVar("Body", bound=BaseModel)


def create_simulator(
    simulator: Simulator | None = None,
    *,
    around: Surroundings | None = None,
    call_record: CallRecord | None = None,
    push_transport: httpx.AsyncBaseTransport | None = None,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Starlette:
    """Return the simulated WeChat as an ASGI app, with its controls and the desk, a page that simulates a phone.

    Messages are pushed to the service over `push_transport`, by default over HTTP. `pause` waits for a number of
    seconds before a notice about a payment is repeated.
    """
    wechat, around = simulator or Simulator(), around or Surroundings()
    call_record, receiver = call_record or CallRecord(), Receiver()
    sender = PushSender(
        wechat.now,
        service_url=around.service_url,
        push_url_of=lambda app_id: wechat.account(app_id).push_url,
        transport=push_transport,
        call_record=call_record,
        pause=pause,
    )

    return Starlette(
        routes=[
            Route("/", _about),
            Route("/about", _about),
            *(
                Route(path, call_record.recorded(_api_endpoint(wechat, api, sender)), methods=methods.split())
                for api, (methods, path) in ENDPOINTS.items()
            ),
            *_Controls(wechat, sender).routes(),
            *connect_routes(wechat),
            *receiver.routes(),
            _control(f"{WEBHOOK_PATH}/behaviour", Behaviour, receiver.change_behaviour),
            _control(f"{DESK_PATH}web-view", BrowserRequest, Browsers().open),
            *desk_routes(call_record, wechat.faults, around),
        ],
        middleware=[Middleware(LimitedBody)],
        exception_handlers={HTTPStatus.NOT_FOUND: _refuse_url, HTTPStatus.METHOD_NOT_ALLOWED: _refuse_url},
    )


async def _about(request: Request) -> Response:
    is_browser = "text/html" in request.headers.get("accept", "")
    if is_browser and request.url.path == "/":
        return RedirectResponse(DESK_PATH)
    app_key, sandbox_key = APP_KEYS
    values = {
        "{here}": str(request.base_url).removesuffix("/"),
        "{purses}": str(MAX_PURSES),
        "{app_key}": app_key,
        "{sandbox_key}": sandbox_key,
    }
    manual = _MANUAL.read_text("utf-8")
    for placeholder, value in values.items():
        manual = manual.replace(placeholder, value)  # not str.format, because the manual contains JSON
    return PlainTextResponse(manual)


class _Controls:
    def __init__(self, wechat: Simulator, sender: PushSender) -> None:
        self._wechat = wechat
        self._sender = sender

    def routes(self) -> list[Route]:
        wechat = self._wechat
        return [
            _control("/codes", CodeRequest, lambda body: {"code": wechat.make_code(body)}),
            _control("/phone-codes", PhoneCodeRequest, lambda body: {"code": wechat.make_phone_code(body)}),
            _control("/encrypted-data", SealRequest, wechat.seal),
            _control("/push", PushRequest, self._push),
            _control("/pay", PayRequest, self._pay),
            _control("/notices", NoticeRequest, self._notify),
            _control("/faces", FaceRequest, wechat.end_face_verification),
            _control("/faults", FaultRequest, self._add_fault),
            Route("/faults", self._clear_faults, methods=["DELETE"]),
            _control("/accounts", AppState, self._change_account),
            _control("/visitors", Visitor, self._change_visitor),
        ]

    async def _push(self, body: PushRequest) -> dict[str, Any]:
        return await self._sender.send(self._wechat.make_push(body))

    async def _pay(self, body: PayRequest) -> dict[str, Any]:
        errcode, notice = self._wechat.payments.pay(body)
        is_taken = False if notice is None else await self._sender.send_and_repeat(notice)
        return payment_result(errcode, is_taken=is_taken)

    async def _notify(self, body: NoticeRequest) -> dict[str, Any]:
        return {"is_taken": await self._sender.send_and_repeat(self._wechat.payments.make_notice(body))}

    def _add_fault(self, body: FaultRequest) -> dict[str, Any]:
        self._wechat.faults.append(body)
        return body.model_dump(mode="json", exclude_none=True)

    async def _clear_faults(self, _request: Request) -> Response:
        self._wechat.faults.clear()
        return Response(status_code=HTTPStatus.NO_CONTENT)

    def _change_account(self, body: AppState) -> dict[str, Any]:
        account = self._wechat.account(body.app_id)
        for name in body.model_fields_set:
            setattr(account, name, getattr(body, name))
        return account.model_dump(mode="json")

    def _change_visitor(self, body: Visitor) -> dict[str, Any]:
        self._wechat.visitors[body.person, body.app_id] = body
        return body.model_dump(mode="json")


def _api_endpoint(wechat: Simulator, api: Api, sender: PushSender) -> Handler:
    def carry_out(call: Call) -> Answer:
        answer = wechat.answer(call)
        while wechat.verdicts:
            sender.send_later(wechat.verdicts.popleft())
        return answer

    async def serve(request: Request) -> Response:
        call, fault = wechat.receive(api, dict(request.query_params), await request.body())
        # With `work_is_done`, WeChat carries out the call, although the response then fails.
        answer = carry_out(call) if fault.work_is_done else None
        faulty_response = await apply_fault(request, fault)
        if faulty_response is not None:
            return faulty_response
        # If the fault has a time `slow`, `apply_fault` has waited. Without `work_is_done`, the call is carried out only
        # now.
        if answer is None:
            answer = carry_out(call)
        response = _response(answer, api)
        if fault.cut_off:
            return Response(bytes(response.body)[: len(response.body) // 2], media_type=response.media_type)
        if fault.json_type:
            return Response(response.body, media_type="application/json")
        return response

    return serve


def _response(answer: Answer, api: Api) -> Response:
    if isinstance(answer, CodePicture):
        return Response(answer.content, media_type=answer.content_type)
    return json_response(answer, api)


async def _refuse_url(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)  # Starlette's type of a handler allows no narrower parameter
    path = request.url.path
    # WeChat, too, returns an errcode for a wrong method of an API, and for an unknown path.
    for api, (methods, path_of_api) in ENDPOINTS.items():
        if path == path_of_api:
            errcode = Errcode.GET_REQUIRED if methods == "GET" else Errcode.POST_REQUIRED
            return json_response(CallRefused(errcode).answer(api), api)
    if exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED or path.startswith(DESK_PATH):
        return PlainTextResponse(exc.detail, exc.status_code, headers=exc.headers)
    return json_response(CallRefused(Errcode.UNKNOWN_URL).answer(), "")  # an unknown path belongs to no API


def _control(
    path: str, model: type[Body], answer: Callable[[Body], dict[str, Any] | Awaitable[dict[str, Any]]]
) -> Route:
    async def serve(request: Request) -> Response:
        try:
            body = from_json(await request.body())
        except ValueError:
            error = 'must be JSON like {"person": "alice"}'
            return JSONResponse({"error": error}, status_code=HTTPStatus.BAD_REQUEST)
        try:
            result = answer(model.model_validate(body))
            return JSONResponse(await result if isawaitable(result) else result)
        except ValidationError as exc:  # caught before ValueError, because a ValidationError is a ValueError
            problem = exc.errors()[0]
            where = "".join(f"{part}: " for part in problem["loc"])
            error = where + problem["msg"].removeprefix("Value error, ")  # pydantic's prefix for a ValueError
        except ValueError as exc:
            error = str(exc)
        return JSONResponse({"error": error}, status_code=HTTPStatus.UNPROCESSABLE_ENTITY)

    return Route(path, serve, methods=["POST"])
