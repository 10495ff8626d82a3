"""What wxauth asks of WeChat's servers.

Source: https://developers.weixin.qq.com/miniprogram/dev/OpenApiDoc/user-login/code2Session.html
"""

import asyncio
from collections.abc import Awaitable, Callable
from copy import copy
from dataclasses import dataclass, field
from typing import Any, Final, Protocol, TypeGuard
from urllib.parse import quote

import httpx
from pydantic import SecretStr
from pydantic_core import from_json

from wxauth.errors import WeChatBadResponse, WeChatMisconfigured, WeChatTimeout, WeChatUnavailable
from wxauth.logs import get_logger
from wxauth.wechat.errcodes import SYSTEM_BUSY, WHAT_TO_CHANGE, error_for

BUSY_PAUSES: Final = (0.1, 0.3)
"""Seconds before the second and the third try after errcode -1."""

_MAX_ID_LENGTH = 128
_MAX_ERRCODE = 10**9
_MAX_ERRMSG_LENGTH = 200
_HEADERS = httpx.Headers({"Accept": "*/*", "Accept-Encoding": "identity", "User-Agent": "wxauth"})

log = get_logger()


class App(Protocol):
    """A mini-program: its id and its secret."""

    @property
    def app_id(self) -> str: ...  # noqa: D102
    @property
    def app_secret(self) -> SecretStr: ...  # noqa: D102


@dataclass(frozen=True, slots=True)
class WeChatSession:
    """Who a code stands for."""

    openid: str
    unionid: str | None
    session_key: bytes = field(repr=False)
    """As WeChat sends it: base64 text, not decoded."""


class _Host:
    """A place where WeChat is. Its requests differ in their target alone, so they are copies of one."""

    def __init__(self, url: str) -> None:
        self._template = httpx.Request("GET", url, headers=_HEADERS)
        self._path = self._template.url.raw_path.rstrip(b"/")  # empty at WeChat's own hosts
        self.name = self._template.url.host

    def request(self, target: bytes) -> httpx.Request:
        request = copy(self._template)
        request.extensions = {"target": self._path + target}
        return request


class WeChat:
    """A client of WeChat's server API; one for each process.

    Args:
        transport: The way to the network; tests put theirs here.
        base_url: Where WeChat is.
        fallback_url: Where to go when `base_url` cannot be connected to.
        timeout: Seconds for a whole exchange, retries included.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport,
        *,
        base_url: str,
        fallback_url: str | None,
        timeout: float,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._transport = transport
        self._base = _Host(base_url)
        self._fallback = _Host(fallback_url or base_url)
        self._timeout = timeout
        self._sleep = sleep
        self._login_targets: dict[str, str] = {}

    async def code2session(self, app: App, code: str) -> WeChatSession:
        """Exchange a `wx.login` code for the person's identity.

        A code works once, for five minutes. WeChat answers 200 even to failures; `errcode` tells.

        Raises: InvalidCode (40029), CodeUsed (40163), WeChatUserBlocked (40226), WeChatRateLimited (45009,
            45011), WeChatMisconfigured (class C), WeChatUnavailable (-1 after two retries, no or a lost
            connection, 5xx), WeChatTimeout, WeChatBadResponse.
        """
        target = f"{self._login_target(app)}&js_code={quote(code, safe='')}".encode()
        try:
            async with asyncio.timeout(self._timeout) as running:
                answer = await self._ask_while_busy(target, running)
        except TimeoutError as exc:
            raise WeChatTimeout(f"code2session gave no answer in {self._timeout:g} s") from exc
        errcode = answer.get("errcode", 0)
        if type(errcode) is not int or abs(errcode) > _MAX_ERRCODE:
            raise WeChatBadResponse("WeChat's errcode is not a number that it gives")
        if errcode != 0:
            self._log_refusal(app, errcode, answer.get("errmsg"), code)
            raise error_for(errcode)
        return _wechat_session(answer)

    def _login_target(self, app: App) -> str:
        target = self._login_targets.get(app.app_id)
        if target is None:
            secret = quote(app.app_secret.get_secret_value(), safe="")
            target = f"/sns/jscode2session?grant_type=authorization_code&appid={quote(app.app_id)}&secret={secret}"
            self._login_targets[app.app_id] = target
        return target

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    async def _ask_while_busy(self, target: bytes, running: asyncio.Timeout) -> dict[str, Any]:
        answer = await self._get(target)
        for pause in BUSY_PAUSES:
            if answer.get("errcode") != SYSTEM_BUSY or not _has_time_for(pause, running):
                break
            await self._sleep(pause)
            answer = await self._get(target)
        return answer

    async def _get(self, target: bytes) -> dict[str, Any]:
        try:
            response = await self._send(target)
        except httpx.ReadTimeout as exc:
            raise WeChatTimeout("WeChat gave no answer in time") from exc
        except httpx.DecodingError as exc:
            raise WeChatBadResponse("WeChat's answer is not HTTP, or too large") from exc
        except httpx.TransportError as exc:
            raise WeChatUnavailable(f"no answer from WeChat: {type(exc).__name__}") from exc
        if response.status_code >= httpx.codes.INTERNAL_SERVER_ERROR:
            raise WeChatUnavailable(f"WeChat answered with status {response.status_code}")
        if response.status_code != httpx.codes.OK:
            raise WeChatBadResponse(f"WeChat answered with status {response.status_code}")
        try:
            answer = from_json(response.content)  # whatever its Content-Type says
        except ValueError as exc:
            raise WeChatBadResponse("WeChat's answer is not JSON") from exc
        if not isinstance(answer, dict):
            raise WeChatBadResponse("WeChat's answer is not a JSON object")
        return answer

    async def _send(self, target: bytes) -> httpx.Response:
        try:
            return await self._transport.handle_async_request(self._base.request(target))
        except (httpx.ConnectError, httpx.ConnectTimeout) as exc:
            # Not sent, so the code is not spent: once more, on the other host where there is one.
            hosts = {"host": self._base.name, "next_host": self._fallback.name}
            log.warning("wechat_not_connected", reason=str(exc), **hosts)
        return await self._transport.handle_async_request(self._fallback.request(target))

    def _log_refusal(self, app: App, errcode: int, errmsg: object, code: str) -> None:
        text = errmsg if isinstance(errmsg, str) else ""
        for secret in (app.app_secret.get_secret_value(), code):
            for form in (secret, quote(secret, safe=""), quote(secret)):
                text = text.replace(form, "***")
        fields = {"app_id": app.app_id, "errcode": errcode, "errmsg": text[:_MAX_ERRMSG_LENGTH]}
        if isinstance(error_for(errcode), WeChatMisconfigured):
            log.error("wechat_misconfigured", what_to_change=WHAT_TO_CHANGE[errcode], **fields)
        else:
            log.warning("wechat_refused", **fields)


def _has_time_for(pause: float, running: asyncio.Timeout) -> bool:
    deadline = running.when()
    return deadline is not None and asyncio.get_running_loop().time() + pause < deadline


def _wechat_session(answer: dict[str, Any]) -> WeChatSession:
    openid, session_key, unionid = answer.get("openid"), answer.get("session_key"), answer.get("unionid") or None
    if not _is_id(openid) or not _is_id(session_key) or not (unionid is None or _is_id(unionid)):
        raise WeChatBadResponse("WeChat's answer has no usable openid or session_key")
    return WeChatSession(openid=openid, unionid=unionid, session_key=session_key.encode())


def _is_id(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and 0 < len(value) <= _MAX_ID_LENGTH and value.isascii() and value.isprintable()
