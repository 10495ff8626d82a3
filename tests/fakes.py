"""Fakes that the tests share: a WeChat with preset responses, and a collector of secrets."""

import asyncio
import base64
import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from io import BytesIO
from itertools import count
from typing import Any
from urllib.parse import quote

import httpx
import respx
from PIL import Image

from tests.clock import Clock as Clock
from wxauth_desk.wechat import APPS, LATER_APP, OTHER_APPS, Simulator, create_simulator

APP = {"app_id": "wxtest0000000000a1", "app_secret": "5f4dcc3b5aa765d61d8327deb882cf99"}
OTHER_APP = {"app_id": "wxtest0000000000b2", "app_secret": "7c6a180b36896a0a8c02787eeafb0e4c"}
SECRET_KEY = base64.b64encode(bytes(range(32))).decode()
OTHER_SECRET_KEY = "/" * 42 + "8="
START = datetime(2026, 11, 20, 8, 0, tzinfo=UTC)
"""The time that each test's clock shows at the start."""

_START = 12
_RUN = re.compile(rf"[^\s\"',;(){{}}\[\]<>]{{{_START},}}")
"""A run of text that might contain a secret, because it has no characters that secrets lack."""
_SHORTEST_PHONE = 8


def logo_of(side: int) -> str:
    """Return a picture for a login page, as a `data:` URL."""
    Image.new("L", (side, 1)).save(file := BytesIO(), "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


LOGO = logo_of(1)


def content_of(url: str) -> bytes:
    """Return the content of the file in a `data:` URL."""
    return base64.b64decode(url.partition(",")[2])


def service_env(database_url: str, *, apps: Sequence[Mapping[str, str]] = APPS, **settings: object) -> dict[str, str]:
    """Return the environment of a service's process, with all required settings and others by name."""
    values = {"database_url": database_url, "apps": json.dumps(apps), "secret_key": SECRET_KEY, **settings}
    return {f"WXAUTH_{name.upper()}": str(value) for name, value in values.items()}


_code_numbers = count(1)


class Secrets:
    """All secrets of the test run. Log lines must not contain any secret, and responses may contain only fresh tokens.

    The collector recognizes a secret by its first characters, plain or URL-encoded, because a truncated secret is a
    leak, too.
    """

    def __init__(self) -> None:
        self._starts: set[str] = set()
        self._starts_of_logged_tokens: set[str] = set()
        self._unlogged: set[str] = set()
        for secret in (APP["app_secret"], OTHER_APP["app_secret"], SECRET_KEY):
            self.add(secret)

    def add(self, secret: str) -> str:
        assert _RUN.match(secret), "too short to be distinguished from other text, or would not be searched for"
        self._starts |= {secret[:_START], quote(secret, safe="")[:_START]}
        return secret

    def add_unlogged(self, text: str) -> str:
        """Add a phone number, which responses may contain but log lines must not."""
        self._unlogged.add(text)
        return text

    async def check_answer(self, response: httpx.Response) -> None:
        text = (await response.aread()).decode(errors="replace")
        tokens = _tokens_in(response)
        for token in tokens:
            text = text.replace(token, "")
        assert not _has_any(self._starts, text + repr(response.headers)), "an answer holds a secret"
        for token in tokens:
            self.add(token.rpartition(".")[2])
            self._starts_of_logged_tokens.add(token[:_START])

    def check_log(self, log: str) -> None:
        starts = self._starts | self._starts_of_logged_tokens
        leaks = [
            line for line in log.splitlines() if _has_any(starts, line) or any(text in line for text in self._unlogged)
        ]
        assert not leaks, f"a log line holds a secret: {leaks[0]}"


def _has_any(starts: set[str], text: str) -> bool:
    return any(
        not starts.isdisjoint([run[i : i + _START] for i in range(len(run) - _START + 1)]) for run in _RUN.findall(text)
    )


def _tokens_in(response: httpx.Response) -> list[str]:
    if not response.content or response.headers.get("content-type") != "application/json":
        return []
    body = response.json()
    return [body[name] for name in ("access_token", "refresh_token") if name in body]


class WeChatByRespx:
    """WeChat's servers, faked with respx.

    `sessions[code]` is the response to a code. A test can set any other response on `route`.
    """

    def __init__(self, router: respx.MockRouter, secrets: Secrets) -> None:
        self._secrets = secrets
        self.sessions: dict[str, dict[str, Any]] = {}
        self.route = router.get("https://wechat.test/sns/jscode2session").mock(side_effect=self.answer_to)
        self.transport = _WithTarget(httpx.MockTransport(router.async_handler))

    @property
    def calls(self) -> list[httpx.QueryParams]:
        """The query parameters of all requests so far."""
        return [call.request.url.params for call in self.route.calls]

    def code_for(self, person: str, *, unionid: str | None = None, app_id: str = APP["app_id"]) -> str:
        """Return a new `wx.login` code of this user."""
        code = self._secrets.add(f"code-{next(_code_numbers):06}-{person}")
        session_key = self._secrets.add(base64.b64encode(code.encode().rjust(16)[-16:]).decode())
        self.sessions[code] = {"openid": f"openid-{app_id[-2:]}-{person}", "session_key": session_key}
        if unionid is not None:
            self.sessions[code]["unionid"] = unionid
        return code

    def answers(self, *responses: httpx.Response | Exception) -> None:
        """Return these responses one after the other."""
        self.route.mock(side_effect=list(responses))

    def answers_errcode(self, errcode: int, errmsg: str = "no, rid: 0-0-0") -> None:
        self.route.mock(return_value=httpx.Response(200, json={"errcode": errcode, "errmsg": errmsg}))

    def answer_to(self, request: httpx.Request) -> httpx.Response:
        code = request.url.params["js_code"]
        found = self.sessions.pop(code, None)
        if found is None and code.startswith("openid-"):  # an openid as a code proves that its user is present
            found = {"openid": code, "session_key": base64.b64encode(code.encode().rjust(16)[-16:]).decode()}
        body = found or {"errcode": 40029, "errmsg": "invalid code"}
        return httpx.Response(200, content=json.dumps(body).encode(), headers={"Content-Type": "text/plain"})


class _WithTarget(httpx.AsyncBaseTransport):
    """A transport that puts the request target back into the URL, because respx compares the URL."""

    def __init__(self, inner: httpx.AsyncBaseTransport) -> None:
        self._inner = inner

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        target = request.extensions.get("target", request.url.raw_path)
        url = request.url.copy_with(raw_path=target)
        return await self._inner.handle_async_request(
            httpx.Request(request.method, url, headers=request.headers, content=await request.aread())
        )


class WeChatBySimulator(httpx.AsyncBaseTransport):
    """A transport to a simulator in this process, which collects the secrets in the simulator's responses."""

    def __init__(self, simulator: Simulator, secrets: Secrets) -> None:
        self._inner = _WithTarget(httpx.ASGITransport(create_simulator(simulator)))
        self._secrets = secrets
        for app in (*APPS, LATER_APP, *OTHER_APPS):
            secrets.add(app["app_secret"])

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        try:
            async with asyncio.timeout_at(request.extensions.get("deadline")):
                response = await self._inner.handle_async_request(request)
        except TimeoutError as exc:
            raise httpx.ReadTimeout("late") from exc
        except ConnectionResetError as exc:
            raise httpx.ReadError("dropped") from exc
        with suppress(ValueError):
            self._collect(json.loads(await response.aread()))
        return response

    def _collect(self, answer: dict[str, Any]) -> None:
        for name in ("session_key", "access_token", "refresh_token"):
            if name in answer:
                self._secrets.add(answer[name])
        phone = answer.get("phone_info", {}).get("purePhoneNumber", "")
        if len(phone) >= _SHORTEST_PHONE and any(map(str.isdigit, phone)):
            self._secrets.add_unlogged(phone)
