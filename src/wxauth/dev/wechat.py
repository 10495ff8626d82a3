"""WeChat, simulated, for laptops and tests. Behaves as WeChat's server API pages say.

Any plain name is a code: `alice` or `张三` is the same person each time and in every app. `POST /codes`
hands out real single-use codes, as `wx.login` does. And some codes are trouble:

    errcode-40029   that errcode                     garbage     an answer that is no JSON
    slow-2          a login, after two seconds       html        a page, as a proxy in between would send it
    hang            no answer, ever                  status-500  that HTTP status
    drop            the connection closes
"""

import asyncio
import re
import secrets
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from time import time
from typing import Annotated, Any, Final

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import from_json, to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

APPS: Final = (
    {"app_id": "wxdev00000000000a1", "app_secret": "dev-secret-of-the-first-app"},
    {"app_id": "wxdev00000000000b2", "app_secret": "dev-secret-of-the-second-app"},
)
CODE_LIFETIME: Final = 300.0
"""Seconds."""

_SECRETS: Final = {app["app_id"]: app["app_secret"] for app in APPS}

_ABOUT = """\
This is a simulated WeChat for development, started by 'wxauth dev'. It answers GET /sns/jscode2session as
api.weixin.qq.com does. Any plain name is a code (alice, 张三), the same person each time and in every app;
errcode-40029 gets that errcode; slow-2, hang, drop, garbage, html and status-500 are what they say.
POST /codes {"person": "alice", "app_id": "wxdev00000000000a1"} gives a single-use code, as wx.login does.
这是 wxauth dev 启动的模拟微信,仅供开发。任意名字(alice、张三)都可作为 code,同名即同一用户,各小程序共用一个 unionid;
errcode-40029 返回该错误码;slow-2、hang、drop、garbage、html、status-500 模拟各种故障;
POST /codes 像 wx.login 一样发放一次性 code。
"""

_PLAIN_NAME = re.compile(r"[^\W\d_][\w.-]{0,31}")
_ERRCODE = re.compile(r"errcode-(-?\d{1,9})")
_SLOW = re.compile(r"slow-(\d{1,2}(?:\.\d{1,2})?)")
_STATUS = re.compile(r"status-([2-5]\d\d)")

_MESSAGES: Final = {
    -1: "system error",
    0: "ok",
    40002: "invalid grant_type",
    40013: "invalid appid",
    40029: "invalid code",
    40125: "invalid appsecret",
    40163: "code been used",
    40164: "invalid ip 127.0.0.1 ipv6 ::ffff:127.0.0.1, not in whitelist",
    40226: "code blocked",
    40243: "invalid appsecret, the appsecret is frozen",
    41002: "appid missing",
    41004: "appsecret missing",
    41008: "missing code",
    45009: "reach max api daily quota limit",
    45011: "api minute-quota reach limit, must slower, retry next minute",
    48001: "api unauthorized",
    50002: "user limited",
    89503: "this ip needs the administrator's confirmation",
}


class _Refusal(Exception):
    def __init__(self, errcode: int) -> None:
        self.errcode = errcode


def _check_person(value: str) -> str:
    if not _PLAIN_NAME.fullmatch(value):
        raise ValueError("wants a plain name: a letter, then letters, digits, '_', '.', '-', 32 in all")
    return value


def _check_app_id(value: str) -> str:
    if value not in _SECRETS:
        raise ValueError(f"wants {' or '.join(_SECRETS)}")
    return value


class CodeRequest(BaseModel):
    """What `POST /codes` takes."""

    model_config = ConfigDict(extra="forbid")

    person: Annotated[str, AfterValidator(_check_person)]
    app_id: Annotated[str, AfterValidator(_check_app_id)] = APPS[0]["app_id"]
    busy: Annotated[int, Field(ge=0, le=100)] = 0
    """So many times the code is answered with -1 first."""
    busy_burns: bool = False
    """Whether that spends it; what WeChat does is not settled."""
    has_unionid: bool = True
    """False is an app that is not bound to an Open Platform account."""


@dataclass(slots=True)
class _Code:
    wanted: CodeRequest
    expires_at: float
    busy: int
    is_used: bool = False


class Simulator:
    """What WeChat knows.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._codes: dict[str, _Code] = {}

    def make_code(self, wanted: CodeRequest) -> str:
        """A code as `wx.login` gives it: single-use, five minutes."""
        self._forget_expired()
        code = "0" + secrets.token_hex(16)[:31]
        self._codes[code] = _Code(wanted, self._clock() + CODE_LIFETIME, busy=wanted.busy)
        return code

    def code2session(self, query: Mapping[str, str]) -> dict[str, Any]:
        """The answer's body."""
        try:
            return self._code2session(query)
        except _Refusal as refusal:
            rid = "-".join(secrets.token_hex(4) for _ in range(3))
            message = _MESSAGES.get(refusal.errcode, "error")
            return {"errcode": refusal.errcode, "errmsg": f"{message}, rid: {rid}"}

    def _code2session(self, query: Mapping[str, str]) -> dict[str, Any]:
        for name, errcode in (("appid", 41002), ("secret", 41004), ("js_code", 41008)):
            if not query.get(name):
                raise _Refusal(errcode)
        app_id, code = query["appid"], query["js_code"]
        if query.get("grant_type") != "authorization_code":
            raise _Refusal(40002)
        if app_id not in _SECRETS:
            raise _Refusal(40013)
        if query["secret"] != _SECRETS[app_id]:
            raise _Refusal(40125)
        if asked_for := _ERRCODE.fullmatch(code):
            raise _Refusal(int(asked_for[1]))
        if code in self._codes:
            wanted = self._spend(self._codes[code], app_id)
            return _session(wanted.person, app_id, has_unionid=wanted.has_unionid)
        if _PLAIN_NAME.fullmatch(code):
            return _session(code, app_id, has_unionid=True)
        raise _Refusal(40029)

    def _spend(self, code: _Code, app_id: str) -> CodeRequest:
        if code.expires_at <= self._clock():
            raise _Refusal(40029)
        if code.is_used:
            raise _Refusal(40163)
        if code.busy > 0:
            code.busy -= 1
            code.is_used = code.wanted.busy_burns
            raise _Refusal(-1)
        code.is_used = True  # by a failed exchange too
        if code.wanted.app_id != app_id:
            raise _Refusal(40029)
        return code.wanted

    def _forget_expired(self) -> None:
        # All live equally long, so the oldest come first.
        while self._codes and next(iter(self._codes.values())).expires_at <= self._clock():
            del self._codes[next(iter(self._codes))]


def create_simulator(simulator: Simulator | None = None) -> Starlette:
    """The simulated WeChat as an ASGI app."""
    wechat = simulator or Simulator()

    async def code2session(request: Request) -> Response:
        code = request.query_params.get("js_code", "")
        if trouble := await _trouble(request, code):
            return trouble
        return Response(to_json(wechat.code2session(request.query_params)), media_type="text/plain")

    async def codes(request: Request) -> Response:
        try:
            wanted = CodeRequest.model_validate(from_json(await request.body()))
            return JSONResponse({"code": wechat.make_code(wanted)})
        except ValidationError as exc:  # before ValueError, which it is
            problem = exc.errors()[0]
            where = "".join(f"{part}: " for part in problem["loc"])
            return JSONResponse({"error": where + problem["msg"].removeprefix("Value error, ")}, status_code=422)
        except ValueError:
            return JSONResponse({"error": 'wants JSON like {"person": "alice"}'}, status_code=400)

    async def about(_: Request) -> Response:
        return PlainTextResponse(_ABOUT)

    return Starlette(
        routes=[
            Route("/", about),
            Route("/sns/jscode2session", code2session),
            Route("/codes", codes, methods=["POST"]),
        ]
    )


async def _trouble(request: Request, code: str) -> Response | None:
    """What a trouble code gets instead of a proper answer; None for all others, in their own time."""
    if slow := _SLOW.fullmatch(code):
        await asyncio.sleep(float(slow[1]))
    elif status := _STATUS.fullmatch(code):
        return PlainTextResponse("", status_code=int(status[1]))
    match code:
        case "hang":
            while (await request.receive())["type"] != "http.disconnect":
                pass
        case "drop":
            # ASGI knows no way to close a connection without an answer; uvicorn's own object has one.
            request.receive.__self__.transport.abort()  # type: ignore[attr-defined]
        case "garbage":
            return PlainTextResponse('{"openid": "o')
        case "html":
            return Response("<html><body><h1>502 Bad Gateway</h1></body></html>", media_type="text/html")
    return None


def _session(person: str, app_id: str, *, has_unionid: bool) -> dict[str, Any]:
    session = {
        "session_key": b64encode(secrets.token_bytes(16)).decode(),
        "openid": "o" + _digest(app_id)[:5] + _digest(app_id, person)[:22],  # those of an app begin alike
    }
    return session | {"unionid": "o6_bm" + _digest(person)[:23]} if has_unionid else session


def _digest(*parts: str) -> str:
    return urlsafe_b64encode(sha256("\0".join(parts).encode()).digest()).decode()
