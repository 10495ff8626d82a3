"""The simulated WeChat over HTTP, and its front page: how to use it."""

import asyncio
from collections.abc import Awaitable, Callable
from inspect import isawaitable
from typing import Any, Final, TypeVar

import httpx
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json, to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from wxauth.server.dev.wechat.calls import CallRefused, Wires, answer_wrongly
from wxauth.server.dev.wechat.connect import connect_routes
from wxauth.server.dev.wechat.controls import (
    Account,
    Api,
    CodeRequest,
    FaultRequest,
    PhoneCodeRequest,
    SealRequest,
    Visitor,
)
from wxauth.server.dev.wechat.desk import DESK_PATH, WebViewRequest, WebViews, desk_routes
from wxauth.server.dev.wechat.issued import APP_KEYS, PayRequest, answer_of
from wxauth.server.dev.wechat.push import WEBHOOK_PATH, Behaviour, PushRequest, PushSender, Receiver
from wxauth.server.dev.wechat.simulator import API_PATHS, DrawnCode, Simulator

ABOUT: Final = """\
This is a simulated WeChat for development, started by 'wxauth dev'. It answers as api.weixin.qq.com does.
The phone on the desk, a page that logs in and shows every request, is at /desk/.

  GET  /sns/jscode2session    POST /cgi-bin/stable_token     POST /wxa/business/getuserphonenumber
  GET  /wxa/checksession      GET  /wxa/resetusersessionkey  GET  /sns/oauth2/access_token
  POST /wxa/getuserriskrank   POST /wxa/msg_sec_check       POST /wxa/getwxacodeunlimit
  POST /wxa/media_check_async  POST /wxa/generate_urllink
  POST /cgi-bin/openapi/quota/get   POST /cgi-bin/openapi/rid/get   POST /cgi-bin/clear_quota/v2

Names. Any plain name is a login code (alice, 张三): the same person each time and in every app.
phone-13800138000 is a phone code for that number, phone-+85291234567 for one abroad.
A person named risky-0 to risky-4 has that risk rank, everybody else 0.
A mini-program code is an ordinary QR code of wxa:<appid>?page=<page>&scene=<scene>&env=<env>.
A text with "risky" or "违规" is risky, one with "review" or "可疑" is for review, any other passes.

Apps. wxauth has the mini-programs wxdev00000000000a1 and wxdev00000000000b2, the service account
wxdevaccount0000d4 and the website wxdevwebsite0000e5 in its settings. A third mini-program, wxdev00000000000c3, is
there to be added at run time; the phone on the desk says how. So is the mobile app wxdevmobile00000f6
(dev-secret-of-the-mobile-app).
Their codes, also plain names, are exchanged by /sns/oauth2/access_token; no code is of use to another kind.

Codes that are trouble, of both kinds:
  errcode-40029   that errcode                garbage      an answer that is no JSON
  slow-2          after two seconds           html         a page, as a proxy in between would send it
  hang            no answer, ever             status-500   that HTTP status
  drop            the connection closes

Real codes, single-use, for five minutes (website and mobile apps: ten); more than 100 logins of a person in a minute
are 45011:
  POST /codes          {"person": "alice", "app_id": "wxdev00000000000a1"}
  POST /phone-codes    {"person": "alice", "app_id": "wxdev00000000000a1", "phone": "13800138000"}
    and "busy": 2 (so many times -1 first), "busy_burns": true (that spends the code),
    "has_unionid": false, "watermark_app_id": "wx..." (phone codes),
    "snapshot": "shown" (made up, and told), "hidden" (made up, and not told) or "false_alarm" (not of a mini-program)
Encrypted data, with the session_key of the person's last login:
  POST /encrypted-data {"person": "alice", "app_id": "wxdev00000000000a1", "data": {"any": "thing"}}

Message push, as WeChat sends it, to the service:
  POST /push           {"person": "alice", "event": "user_authorization_revoke", "revoke_info": "6"}
    "event": or "user_authorization_cancellation"; "revoke_info": 6 name and picture, 8 phone number;
    "app_id"; "mode": "plain" or "aes" (which the second app requires); "format": "json" or "xml"; "url"

Virtual payment: what wx.requestVirtualPayment is given, and who pays:
  POST /pay            {"person": "alice", "signData": "...", "paySig": "...", "signature": "..."}
    answers "errCode": 0, -15005 (signature: also of an older session_key), -15006 (paySig) or -15016 (signData); the
    notice xpay_goods_deliver_notify is pushed at once ("is_taken"), and again after 15 s, 15 s, 30 s, 3 min, 10 min...
    until it is answered {"ErrCode": 0}. The AppKey is {app_key}, in the sandbox
    (env 1) {sandbox_key}.

Faults of any call, by the last part of its path (code2session for the login):
  POST   /faults       {"api": "stable_token", "errcode": 45009}
    "errcode": 45009, "slow": 2, "status": 503, or one of "hang", "drop", "garbage", "html", "cut_off",
    "json_type" (a picture that says it is JSON): true;
    "app_id": for one app alone; "times": 1, or null for ever; "work_is_done": true (only the answer goes wrong)
  DELETE /faults       all goes right again
How an app stands with WeChat; what is not named stays:
  POST   /accounts     {"app_id": "wxdev00000000000a1", "is_whitelisted": false}
    "is_whitelisted": false (40164), "is_frozen": true (40243), "has_unionids": false,
    "denied": ["getuserriskrank"] (48001), "openid_check": "on", "ignored" or "refused",
    "country_code": "text" or "number", "daily_quota": {"stable_token": 3} (then 45009),
    "pages": ["pages/index/index"] (those published; 41030 for a mini-program code of another one)
    "push_format": "json" or "xml" (of the notices about payments)
    "picture_verdict": "pass", "review", "risky" (pushed to the service after each picture) or null (never)
    "callback_domains": ["127.0.0.1"] (10003 for a callback at another host)
WeChat's own pages are /connect/oauth2/authorize (in WeChat's browser alone) and /connect/qrconnect. They ask who it is,
and show WeChat's number for each fault. How a person stands with the app of such a page:
  POST   /visitors     {"person": "alice", "app_id": "wxdevaccount0000d4"}
    "is_bound": false (no unionid), "follows": true (is not asked), "snapshot": "on", "hidden_once" or "false_alarm",
    "refusal": "returns" (to the site, without a code; otherwise it stays on WeChat's page),
    "comes_twice": 0.3 (the browsers on the desk send the callback again, so many seconds later)

A receiver of webhooks: '.wxauth/wxauth webhooks add desk {here}/webhook' sends it events.
  GET  /webhook/messages   what came, the newest first, and whether its signature holds
  POST /webhook/behaviour  {"secret": "whsec_...", "answer": 500}
    "answer": a status (410 disables the webhook, 429), or "hang"; what is not named stays

这是 wxauth dev 启动的模拟微信，仅供开发，响应方式与 api.weixin.qq.com 一致，接口见上。
/desk/ 是网页版模拟手机：在网页中登录，查看每个请求。

名字：任意名字（alice、张三）都可作为登录 code，同名即同一用户，各应用共用一个 unionid。
phone-13800138000 是该号码的手机号 code，境外号码写作 phone-+85291234567。
名为 risky-0 至 risky-4 的用户风险等级即该数字，其余为 0。
小程序码是内容为 wxa:<appid>?page=<page>&scene=<scene>&env=<env> 的普通二维码。
文本含 risky 或“违规”判为 risky，含 review 或“可疑”判为 review，其余为 pass。

应用：小程序 wxdev00000000000a1 与 wxdev00000000000b2、服务号 wxdevaccount0000d4、网站应用 wxdevwebsite0000e5 在
wxauth 的配置中；第三个小程序 wxdev00000000000c3 供运行时添加，方法见网页版模拟手机；移动应用 wxdevmobile00000f6
同样供添加。

故障 code（登录、手机号均可）：errcode-40029 返回该错误码；slow-2 两秒后响应；hang 永不响应；drop 断开连接；
garbage 返回非 JSON；html 返回网页；status-500 返回该 HTTP 状态码。

POST /codes 像 wx.login 一样、POST /phone-codes 像手机号按钮一样发放一次性 code，五分钟内有效
（网站应用和移动应用为十分钟），同一用户每分钟登录超过 100 次返回 45011；
“busy”先返回若干次 -1，“busy_burns”表示 -1 也会使 code 失效，“has_unionid”、“watermark_app_id”同上，
“snapshot”为快照页的虚拟用户：shown 有标记，hidden 无标记，false_alarm 为误报。
POST /encrypted-data 用该用户最近一次登录的 session_key 加密数据，返回 encryptedData 与 iv。
POST /push 向服务推送消息：“event”为事件，“revoke_info”为撤回的资料（6 昵称头像，8 手机号），
“mode”为 plain 或 aes（第二个小程序只收 aes），“format”为 json 或 xml，“url”为接收地址。
POST /pay 模拟 wx.requestVirtualPayment：“errCode”为 0、-15005（signature 不对，或 session_key 已更新）、-15006
（paySig 不对）或 -15016（signData 格式不对）；随即推送 xpay_goods_deliver_notify（“is_taken”表示已被接收），未返回
{"ErrCode": 0} 则于 15 秒、15 秒、30 秒、3 分钟、10 分钟……后重推。AppKey 见上。
POST /faults 让某个接口出错：“errcode”、“slow”、“status”、“hang”、“drop”、“garbage”、“html”、“cut_off”（截断）、
“json_type”（图片却标为 JSON）任选其一；
“app_id”只影响该应用，“times”为次数（null 为一直出错），“work_is_done”表示微信已处理、只是响应丢失。
DELETE /faults 恢复正常。
POST /accounts 设置应用的状态：是否在 IP 白名单、secret 是否冻结、有无 unionid、无权限的接口、
手机号接口如何对待 openid、countryCode 是文本还是数字、各接口每日额度、已发布的页面、回调域名、
头像检测结果（“picture_verdict”，每次检测后推送，null 为不推送）、支付通知的格式（“push_format”）；未写的项保持不变。
/connect/oauth2/authorize 与 /connect/qrconnect 是微信的登录页，询问是谁，出错时显示微信的错误编号。
POST /visitors 设置某人与服务号、网站应用的关系：“is_bound”有无 unionid，“follows”是否已关注，“snapshot”快照页
（on 每次，hidden_once 首次无标记，false_alarm 误报），“refusal”为 returns 时拒绝后返回网站（不带 code），
“comes_twice”回调重复到达的间隔秒数。
/webhook 是 Webhook 的接收端：.wxauth/wxauth webhooks add desk {here}/webhook 即向它发送事件。
GET /webhook/messages 列出收到的消息及签名是否有效；POST /webhook/behaviour 设置密钥“secret”与响应“answer”
（状态码，410 会停用 Webhook；或 hang 永不响应）。
""".replace("{app_key}", APP_KEYS[0]).replace("{sandbox_key}", APP_KEYS[1])

HINTS: Final = {
    40029: (
        "this WeChat is simulated, and knows no code of a phone or of the developer tools: send a plain name such as "
        "alice (phone-13800138000 for the phone button), or start 'wxauth dev' with WXAUTH_APP_ID"
    )
}
"""Hints for the developer by errcode of the simulated WeChat, appended to `detail`."""
UNKNOWN_APP_HINT: Final = (
    "this WeChat is simulated: add another of its own apps by 'wxauth apps add', or start 'wxauth dev' with "
    "WXAUTH_APP_ID for your mini-program"
)
"""The hint for an unknown app."""


Body = TypeVar("Body", bound=BaseModel)


def create_simulator(
    simulator: Simulator | None = None,
    *,
    push_transport: httpx.AsyncBaseTransport | None = None,
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep,
    service_url: str = "http://127.0.0.1:8000",
    site_url: str = "http://127.0.0.1:8004",
    shop_url: str | None = None,
) -> Starlette:
    """The simulated WeChat as an ASGI app.

    Args:
        simulator: Its state.
        push_transport: Messages are pushed to the service over it instead of HTTP.
        pause: Waits for so many seconds, before a notice about a payment is repeated.
        service_url: The URL of the service.
        site_url: The URL of the example sites.
        shop_url: The URL of the back end that sells. By default, the one beside the example sites.
    """
    wechat = simulator or Simulator()
    wires, receiver = Wires(), Receiver()
    sender = PushSender(wechat.now, service_url=service_url, transport=push_transport, wires=wires, pause=pause)

    def add_fault(body: FaultRequest) -> dict[str, Any]:
        wechat.faults.add(body)
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
        errcode, notice = wechat.pay(body)
        return answer_of(errcode, is_taken=notice is not None and await sender.send_once(*notice))

    async def about(request: Request) -> Response:
        is_browser = request.url.path == "/" and "text/html" in request.headers.get("accept", "")
        here = str(request.base_url).removesuffix("/")
        return RedirectResponse(DESK_PATH) if is_browser else PlainTextResponse(ABOUT.replace("{here}", here))

    async def clear_faults(_: Request) -> Response:
        wechat.faults.clear()
        return Response(status_code=204)

    return Starlette(
        routes=[
            Route("/", about),
            Route("/about", about),
            *(
                Route(path, wires.noting(_api(wechat, api, push_verdicts)), methods=[method])
                for path, (method, api) in API_PATHS.items()
            ),
            _control("/codes", CodeRequest, lambda body: {"code": wechat.make_code(body)}),
            _control("/phone-codes", PhoneCodeRequest, lambda body: {"code": wechat.make_phone_code(body)}),
            _control("/encrypted-data", SealRequest, wechat.seal),
            _control("/push", PushRequest, push),
            _control("/pay", PayRequest, pay),
            _control("/faults", FaultRequest, add_fault),
            Route("/faults", clear_faults, methods=["DELETE"]),
            _control("/accounts", Account, change_account),
            _control("/visitors", Visitor, change_visitor),
            *connect_routes(wechat),
            *receiver.routes(),
            _control(f"{WEBHOOK_PATH}/behaviour", Behaviour, receiver.behave),
            _control(f"{DESK_PATH}web-view", WebViewRequest, WebViews().open),
            *desk_routes(wires, wechat.faults, service_url=service_url, site_url=site_url, shop_url=shop_url),
        ]
    )


def _api(wechat: Simulator, api: Api, push_verdicts: Callable[[], None]) -> Callable[[Request], Awaitable[Response]]:
    async def serve(request: Request) -> Response:
        call, fault = wechat.call(api, dict(request.query_params), await request.body())
        answer = None
        if fault is not None:
            if fault.work_is_done:
                answer = wechat.answer(call)
            if fault.errcode is not None:
                return _as_wechat_does(CallRefused(fault.errcode).answer())
            if (wrong := await answer_wrongly(request, fault)) is not None:
                return wrong
        right = _as_wechat_does(answer or wechat.answer(call))
        push_verdicts()
        if fault is not None and fault.cut_off:
            return Response(bytes(right.body)[: len(right.body) // 2], media_type=right.media_type)
        if fault is not None and fault.json_type:
            return Response(right.body, media_type="application/json")
        return right

    return serve


def _as_wechat_does(answer: dict[str, Any] | DrawnCode) -> Response:
    if isinstance(answer, DrawnCode):
        return Response(answer.content, media_type=answer.content_type)
    return Response(to_json(answer), media_type="text/plain")


def _control(
    path: str, model: type[Body], answer: Callable[[Body], dict[str, Any] | Awaitable[dict[str, Any]]]
) -> Route:
    async def serve(request: Request) -> Response:
        try:
            body = from_json(await request.body())
        except ValueError:
            return JSONResponse({"error": 'must be JSON like {"person": "alice"}'}, status_code=400)
        try:
            given = answer(model.model_validate(body))
            return JSONResponse(await given if isawaitable(given) else given)
        except ValidationError as exc:  # before ValueError, of which it is a subclass
            problem = exc.errors()[0]
            where = "".join(f"{part}: " for part in problem["loc"])
            return JSONResponse({"error": where + problem["msg"].removeprefix("Value error, ")}, status_code=422)
        except ValueError as exc:
            return JSONResponse({"error": str(exc)}, status_code=422)

    return Route(path, serve, methods=["POST"])
