"""WeChat, simulated, for laptops and tests. Behaves as WeChat's server API pages say.

Any plain name is a code: `alice` is the same person each time and in every app. `errcode-40029` gets
that error. `POST /codes` hands out real single-use codes, as `wx.login` does.
"""

import re
import secrets
from base64 import b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from time import time
from typing import Any, Final

from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

APPS: Final = (
    {"app_id": "wxdev00000000000a1", "app_secret": "dev-secret-of-the-first-app"},
    {"app_id": "wxdev00000000000b2", "app_secret": "dev-secret-of-the-second-app"},
)
CODE_LIFETIME: Final = 300.0
"""Seconds."""

_ERRCODE = re.compile(r"errcode-(-?\d{1,9})")
_PLAIN_NAME = re.compile(r"[^\W\d_][\w.-]{0,31}")
_MESSAGES = {-1: "system error", 40013: "invalid appid", 40029: "invalid code", 40125: "invalid appsecret"}
_MESSAGES |= {40163: "code been used", 41002: "appid missing", 41004: "appsecret missing", 41008: "missing code"}


@dataclass(slots=True)
class _Code:
    person: str
    app_id: str
    expires_at: float
    used: bool = False


class Simulator:
    """What WeChat knows."""

    def __init__(self, clock: Callable[[], float] = time) -> None:
        self._clock = clock
        self._codes: dict[str, _Code] = {}
        self._secrets = {app["app_id"]: app["app_secret"] for app in APPS}

    def make_code(self, person: str, app_id: str) -> str:
        """A code as `wx.login` gives it: single-use, five minutes."""
        code = "0" + secrets.token_urlsafe(24)[:31]
        self._codes[code] = _Code(person, app_id, self._clock() + CODE_LIFETIME)
        return code

    def code2session(self, query: Any) -> dict[str, Any]:
        """The answer's body."""
        for name, errcode in (("appid", 41002), ("secret", 41004), ("js_code", 41008)):
            if not query.get(name):
                return _error(errcode)
        app_id, code = query["appid"], query["js_code"]
        if app_id not in self._secrets:
            return _error(40013)
        if query["secret"] != self._secrets[app_id]:
            return _error(40125)
        if asked_for := _ERRCODE.fullmatch(code):
            return _error(int(asked_for[1]))
        person = self._spend(code, app_id)
        return _error(person) if isinstance(person, int) else self._session(person, app_id)

    def _spend(self, code: str, app_id: str) -> str | int:
        known = self._codes.get(code)
        if known is None:
            return code if _PLAIN_NAME.fullmatch(code) else 40029
        if known.used:
            return 40163
        known.used = True
        if known.app_id != app_id or known.expires_at <= self._clock():
            return 40029
        return known.person

    @staticmethod
    def _session(person: str, app_id: str) -> dict[str, Any]:
        return {
            "session_key": b64encode(secrets.token_bytes(16)).decode(),
            "openid": _id("o", app_id, person),
            "unionid": _id("u", person),
        }


def create_simulator(simulator: Simulator | None = None) -> Starlette:
    """The simulated WeChat as an ASGI app."""
    wechat = simulator or Simulator()

    async def code2session(request: Request) -> Response:
        return Response(to_json(wechat.code2session(request.query_params)), media_type="text/plain")

    async def codes(request: Request) -> Response:
        wanted = await request.json()
        app_id = wanted.get("app_id") or APPS[0]["app_id"]
        return JSONResponse({"code": wechat.make_code(wanted["person"], app_id)})

    return Starlette(routes=[Route("/sns/jscode2session", code2session), Route("/codes", codes, methods=["POST"])])


def _id(kind: str, *parts: str) -> str:
    return kind + sha256("\0".join(parts).encode()).hexdigest()[:27]


def _error(errcode: int) -> dict[str, Any]:
    rid = "-".join(secrets.token_hex(4) for _ in range(3))
    return {"errcode": errcode, "errmsg": f"{_MESSAGES.get(errcode, 'error')}, rid: {rid}"}
