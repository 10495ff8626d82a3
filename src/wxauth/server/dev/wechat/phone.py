"""The network of the phone on the desk, and the browsers beside it.

They send requests as a phone or a browser does, with headers and cookies that a web page could not set.
"""

import asyncio
import ssl
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from functools import cache
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse

from wxauth.server.dev.wechat.connect import COMES_TWICE, PERSON
from wxauth.server.dev.wechat.controls import PersonName

MOST_BROWSERS: Final = 50
"""How many browsers' cookies are kept; the oldest are dropped first."""
MOST_REDIRECTS: Final = 10
MOST_FIELDS: Final = 20
LONGEST_FIELD: Final = 8192

_TAKEN: Final = ("authorization", "content-type", "x-request-id")
_LEFT_OUT: Final = frozenset(
    {"connection", "content-encoding", "content-length", "date", "server", "transfer-encoding"}
)
_TIMEOUT_SECONDS: Final = 60
"""As in `wx.request`."""
_HERE: Final = frozenset({"127.0.0.1", "localhost"})
_PAGE_TIMEOUT_SECONDS: Final = 10
_ON_A_COMPUTER: Final = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/141.0.0.0 Safari/537.36"
_ON_A_PHONE: Final = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.1 Mobile/15E148 Safari/604.1"
)
_URL_LINK_HOST: Final = "wxaurl.cn"


@cache
def trusted_certificates() -> ssl.SSLContext:
    """Those that httpx trusts. It would read them for each client, which takes 17 ms."""
    return httpx.create_ssl_context(trust_env=False)


def phone_network(*urls: str) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that forwards a page's requests to these URLs, and nowhere else. Answers come as they are sent.

    A browser does not allow a page to set the user agent, or to omit `Accept-Language`, as `wx.request` does. So the
    page sends the URL as `X-Phone-Url`, and the user agent as `X-Phone-User-Agent`.
    """

    async def send(request: Request) -> Response:
        url = request.headers.get("x-phone-url", "")
        if not url.startswith(tuple(f"{each}/" for each in urls)):
            return PlainTextResponse(f"X-Phone-Url: must be below {' or '.join(urls)}", status_code=422)
        headers = {name: request.headers[name] for name in _TAKEN if name in request.headers}
        headers["user-agent"] = request.headers.get("x-phone-user-agent", "")
        client = httpx.AsyncClient(verify=trusted_certificates(), trust_env=False, timeout=_TIMEOUT_SECONDS)
        sent = client.build_request(request.method, url, headers=headers, content=await request.body())
        try:
            answer = await client.send(sent, stream=True)
        except httpx.HTTPError as exc:
            await client.aclose()
            return PlainTextResponse(type(exc).__name__, status_code=502, headers={"X-Phone-Error": "1"})

        async def pieces() -> AsyncIterator[bytes]:
            async with aclosing(client), aclosing(answer):
                async for piece in answer.aiter_bytes():
                    yield piece

        passed_headers = {name: value for name, value in answer.headers.items() if name not in _LEFT_OUT}
        return StreamingResponse(pieces(), status_code=answer.status_code, headers=passed_headers)

    return send


Value = Annotated[str, Field(max_length=LONGEST_FIELD)]


class WebViewRequest(BaseModel):
    """Body of `POST /desk/web-view`: the page to open, or the form to post, in a person's browser."""

    model_config = ConfigDict(extra="forbid")

    person: PersonName
    url: str
    user_agent: str = Field(max_length=512)
    """The user agent of the person's phone."""
    browser: Literal["web_view", "wechat", "phone", "computer"] = "web_view"
    language: str = Field("zh-CN", max_length=32)
    """The language that the browser prefers."""
    form: dict[Value, Value] | None = Field(None, max_length=MOST_FIELDS)
    """The fields of a form to post to the URL."""


class WebViews:
    """The browsers of all people, each with its own cookies."""

    def __init__(self) -> None:
        self._cookies = OrderedDict[tuple[str, str], httpx.Cookies]()

    async def open(self, request: WebViewRequest) -> dict[str, Any]:
        """Open a page of this machine, and return what the browser shows after all redirects. Raises: ValueError.

        `opens` is the link that opens a mini-program in WeChat, if the last redirect leads there.
        """
        user_agents = {
            "web_view": f"{request.user_agent} miniProgram/wxdev",
            "wechat": request.user_agent,
            "phone": _ON_A_PHONE,
            "computer": _ON_A_COMPUTER,
        }
        # The simulated WeChat pages know whose browser it is.
        headers = {
            "user-agent": user_agents[request.browser],
            "accept": "text/html",
            "accept-language": request.language,
            PERSON: quote(request.person),
        }
        key = (request.person, request.browser)
        async with httpx.AsyncClient(
            cookies=self._cookies.pop(key, None),
            event_hooks={"request": [_ensure_local]},
            headers=headers,
            timeout=_PAGE_TIMEOUT_SECONDS,
            verify=trusted_certificates(),
            trust_env=False,
        ) as browser:
            try:
                page = await _open(browser, request.url, request.form)
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                raise ValueError(f"url: {type(exc).__name__}") from None
            finally:
                self._cookies[key] = browser.cookies
                while len(self._cookies) > MOST_BROWSERS:
                    self._cookies.popitem(last=False)
        opens = None if page.next_request is None else str(page.next_request.url)
        return {"url": str(page.url), "status": page.status_code, "html": page.text, "opens": opens}


async def _open(browser: httpx.AsyncClient, url: str, form: dict[str, str] | None) -> httpx.Response:
    """Follow all redirects, but not into WeChat. Raises: HTTPError."""
    page = await (browser.get(url) if form is None else browser.post(url, data=form, headers={"origin": _origin(url)}))
    for _ in range(MOST_REDIRECTS):
        if page.next_request is None or _opens_wechat(page.next_request.url):
            return page
        request, twice = page.next_request, page.headers.get(COMES_TWICE)
        if twice is None:
            page = await browser.send(request)
        else:
            _, page = await asyncio.gather(browser.send(request), _later(browser, str(request.url), float(twice)))
    raise httpx.TooManyRedirects("too many redirects")


def _opens_wechat(url: httpx.URL) -> bool:
    return url.scheme == "weixin" or url.host == _URL_LINK_HOST


def _origin(url: str) -> str:
    parsed = httpx.URL(url)
    return f"{parsed.scheme}://{parsed.netloc.decode()}"


async def _later(browser: httpx.AsyncClient, url: str, seconds: float) -> httpx.Response:
    await asyncio.sleep(seconds)
    return await browser.get(url)


async def _ensure_local(request: httpx.Request) -> None:
    if request.url.scheme != "http" or request.url.host not in _HERE:
        raise ValueError(f"url: {request.url.host} is not this machine")
