"""The simulated WeChat over HTTP, and its front page, which explains how to use it."""

import asyncio
from collections.abc import Awaitable, Callable
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
from wxauth_desk.wechat.api_calls import Answer
from wxauth_desk.wechat.calls import CallRecord, CallRefused, answer_wrongly, as_wechat_does
from wxauth_desk.wechat.coins import MAX_PURSES
from wxauth_desk.wechat.connect import connect_routes
from wxauth_desk.wechat.controls import (
    API_PATHS,
    Account,
    Api,
    CodeRequest,
    FaceRequest,
    FaultRequest,
    PhoneCodeRequest,
    SealRequest,
    Visitor,
)
from wxauth_desk.wechat.desk import DESK_PATH, SHOP_PATH, FailureOf, WebViewRequest, WebViews, desk_routes, no_service
from wxauth_desk.wechat.payments import APP_KEYS, NoticeRequest, PayRequest, answer_of
from wxauth_desk.wechat.pictures import CodePicture
from wxauth_desk.wechat.push import PushRequest, PushSender
from wxauth_desk.wechat.simulator import Simulator
from wxauth_desk.wechat.webhook_receiver import WEBHOOK_PATH, Behaviour, Receiver

_MANUAL: Final = Path(__file__).with_name("about.txt")

HINTS: Final = {
    40029: (
        "this WeChat is simulated, and knows no code of a phone or of the developer tools: send a plain name such as "
        "alice (phone-13800138000 for the phone button), or start 'wxauth-desk dev' with WXAUTH_APP_ID"
    )
}
"""The hints that wxauth appends to `detail` in its responses, by the errcode of the simulated WeChat."""
UNKNOWN_APP_HINT: Final = (
    "this WeChat is simulated: add another of its own apps by 'wxauth apps add', or start 'wxauth-desk dev' with "
    "WXAUTH_APP_ID for your mini-program"
)
"""The hint that wxauth appends to `detail` if a request names an unknown app."""

Body = TypeVar("Body", bound=BaseModel)


def create_simulator(
    simulator: Simulator | None = None,
    *,
    push_transport: httpx.AsyncBaseTransport | None = None,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    service_url: str = "http://127.0.0.1:8000",
    site_url: str = "http://127.0.0.1:8004",
    shop_url: str = f"http://127.0.0.1:8004{SHOP_PATH}",
    mcp_url: str | None = None,
    is_alone: bool = False,
    failure_of: FailureOf = no_service,
) -> Starlette:
    """Return the simulated WeChat as an ASGI app, with its controls and the desk.

    If `push_transport` is given, messages are pushed to the service over this transport instead of HTTP. `pause` waits
    for a number of seconds before a notice about a payment is repeated. With `is_alone`, no wxauth runs next to the
    simulated WeChat, so the desk shows only the parts that work without wxauth.
    """
    wechat = simulator or Simulator()
    call_record, receiver = CallRecord(), Receiver()
    sender = PushSender(
        wechat.now,
        service_url=service_url,
        push_url_of=lambda app_id: wechat.account(app_id).push_url,
        transport=push_transport,
        call_record=call_record,
        pause=pause,
    )

    def add_fault(body: FaultRequest) -> dict[str, Any]:
        wechat.faults.append(body.model_copy())
        return body.model_dump(mode="json", exclude_none=True)

    def change_account(body: Account) -> dict[str, Any]:
        account = wechat.account(body.app_id)
        for name in body.model_fields_set:
            setattr(account, name, getattr(body, name))
        return account.model_dump(mode="json")

    def change_visitor(body: Visitor) -> dict[str, Any]:
        wechat.visitors[body.person, body.app_id] = body
        return body.model_dump(mode="json")

    async def push(body: PushRequest) -> dict[str, Any]:
        return await sender.send(body, wechat.push_message(body))

    def push_verdicts() -> None:
        while wechat.verdicts:
            sender.send_later(*wechat.verdicts.popleft())

    async def pay(body: PayRequest) -> dict[str, Any]:
        errcode, notice = wechat.payments.pay(body)
        return answer_of(errcode, is_taken=notice is not None and await sender.send_and_repeat(*notice))

    async def notify(body: NoticeRequest) -> dict[str, Any]:
        return {"is_taken": await sender.send_and_repeat(*wechat.payments.notice(body))}

    async def about(request: Request) -> Response:
        is_browser = request.url.path == "/" and "text/html" in request.headers.get("accept", "")
        if is_browser:
            return RedirectResponse(DESK_PATH)
        values = {
            "{here}": str(request.base_url).removesuffix("/"),
            "{purses}": str(MAX_PURSES),
            "{app_key}": APP_KEYS[0],
            "{sandbox_key}": APP_KEYS[1],
        }
        manual = _MANUAL.read_text("utf-8")
        for placeholder, value in values.items():
            manual = manual.replace(placeholder, value)  # not str.format, because the manual contains JSON
        return PlainTextResponse(manual)

    async def clear_faults(_: Request) -> Response:
        wechat.faults.clear()
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/", about),
            Route("/about", about),
            *(
                Route(path, call_record.recorded(_api(wechat, api, push_verdicts)), methods=methods.split())
                for api, (methods, path) in API_PATHS.items()
            ),
            _control("/codes", CodeRequest, lambda body: {"code": wechat.make_code(body)}),
            _control("/phone-codes", PhoneCodeRequest, lambda body: {"code": wechat.make_phone_code(body)}),
            _control("/encrypted-data", SealRequest, wechat.seal),
            _control("/push", PushRequest, push),
            _control("/pay", PayRequest, pay),
            _control("/notices", NoticeRequest, notify),
            _control("/faces", FaceRequest, wechat.show_face),
            _control("/faults", FaultRequest, add_fault),
            Route("/faults", clear_faults, methods=["DELETE"]),
            _control("/accounts", Account, change_account),
            _control("/visitors", Visitor, change_visitor),
            *connect_routes(wechat),
            *receiver.routes(),
            _control(f"{WEBHOOK_PATH}/behaviour", Behaviour, receiver.behave),
            _control(f"{DESK_PATH}web-view", WebViewRequest, WebViews().open),
            *desk_routes(
                call_record,
                wechat.faults,
                service_url=service_url,
                site_url=site_url,
                shop_url=shop_url,
                mcp_url=mcp_url,
                is_alone=is_alone,
                failure_of=failure_of,
            ),
        ],
        middleware=[Middleware(LimitedBody)],
        exception_handlers={HTTPStatus.NOT_FOUND: _refuse_url, HTTPStatus.METHOD_NOT_ALLOWED: _refuse_url},
    )


def _api(wechat: Simulator, api: Api, push_verdicts: Callable[[], None]) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint of an API, which also applies the faults that were requested."""

    async def serve(request: Request) -> Response:
        call, fault = wechat.call(api, dict(request.query_params), await request.body())
        answer = wechat.answer(call) if fault.work_is_done else None
        if (wrong := await answer_wrongly(request, fault)) is not None:
            return wrong
        right = _response(answer or wechat.answer(call), api)
        push_verdicts()
        if fault.cut_off:
            return Response(bytes(right.body)[: len(right.body) // 2], media_type=right.media_type)
        if fault.json_type:
            return Response(right.body, media_type="application/json")
        return right

    return serve


def _response(answer: Answer, api: Api) -> Response:
    """Return the response with a picture or with JSON, as WeChat sends it."""
    if isinstance(answer, CodePicture):
        return Response(answer.content, media_type=answer.content_type)
    return as_wechat_does(answer, api)


async def _refuse_url(request: Request, exc: Exception) -> Response:
    """Refuse a path or a method that does not exist with an errcode, as WeChat does.

    A path of the desk, or a wrong method for a control, gets the HTTP status instead.
    """
    assert isinstance(exc, HTTPException)
    path = request.url.path
    api, methods = next(((api, methods) for api, (methods, known) in API_PATHS.items() if known == path), ("", None))
    if methods is None and (exc.status_code == HTTPStatus.METHOD_NOT_ALLOWED or path.startswith(DESK_PATH)):
        return PlainTextResponse(exc.detail, exc.status_code, headers=exc.headers)
    if methods is None:
        return as_wechat_does(CallRefused(40066).answer(api), api)
    errcode_of_method = 43001 if methods == "GET" else 43002  # the API requires GET, or requires POST
    return as_wechat_does(CallRefused(errcode_of_method).answer(api), api)


def _control(
    path: str, model: type[Body], answer: Callable[[Body], dict[str, Any] | Awaitable[dict[str, Any]]]
) -> Route:
    """Return the route of a control, whose body has the form of `model`. A ValueError of `answer` becomes a 422."""

    async def serve(request: Request) -> Response:
        try:
            body = from_json(await request.body())
        except ValueError:
            return JSONResponse({"error": 'must be JSON like {"person": "alice"}'}, status_code=400)
        try:
            result = answer(model.model_validate(body))
            return JSONResponse(await result if isawaitable(result) else result)
        except ValidationError as exc:  # caught before ValueError, because a ValidationError is a ValueError
            problem = exc.errors()[0]
            where = "".join(f"{part}: " for part in problem["loc"])
            return JSONResponse({"error": where + problem["msg"].removeprefix("Value error, ")}, status_code=422)
        except ValueError as exc:
            return JSONResponse({"error": str(exc)}, status_code=422)

    return Route(path, serve, methods=["POST"])
