"""The browsers on the desk: in WeChat, in a web-view, on a computer.

A web page could not set their headers or cookies.
"""

import asyncio
from collections import OrderedDict
from typing import Any, Final, Literal
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ConfigDict, Field

from wxauth.server.dev.wechat.connect import COMES_TWICE, PERSON
from wxauth.server.dev.wechat.controls import PersonName
from wxauth.server.dev.wechat.phone import trusted_certificates

MOST_BROWSERS: Final = 50
"""How many browsers' cookies are kept; the oldest are dropped first."""
MOST_REDIRECTS: Final = 10

_HERE: Final = frozenset({"127.0.0.1", "localhost"})
_TIMEOUT_SECONDS: Final = 10
_ON_A_COMPUTER: Final = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/141.0.0.0 Safari/537.36"


class WebViewRequest(BaseModel):
    """Body of `POST /desk/web-view`: the page to open in a person's browser."""

    model_config = ConfigDict(extra="forbid")

    person: PersonName
    url: str
    user_agent: str = Field(max_length=512)
    """The user agent of the person's phone."""
    browser: Literal["web_view", "wechat", "computer"] = "web_view"


class WebViews:
    """The browsers of all people, each with its own cookies."""

    def __init__(self) -> None:
        self._cookies = OrderedDict[tuple[str, str], httpx.Cookies]()

    async def open(self, request: WebViewRequest) -> dict[str, Any]:
        """Open a page of this machine, and return what the browser shows after all redirects. Raises: ValueError."""
        user_agents = {
            "web_view": f"{request.user_agent} miniProgram/wxdev",
            "wechat": request.user_agent,
            "computer": _ON_A_COMPUTER,
        }
        # The simulated WeChat pages know whose browser it is.
        headers = {
            "user-agent": user_agents[request.browser],
            "accept": "text/html",
            PERSON: quote(request.person),
        }
        key = (request.person, request.browser)
        async with httpx.AsyncClient(
            cookies=self._cookies.pop(key, None),
            event_hooks={"request": [_ensure_local]},
            headers=headers,
            timeout=_TIMEOUT_SECONDS,
            verify=trusted_certificates(),
            trust_env=False,
        ) as browser:
            try:
                page = await _open(browser, request.url)
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                raise ValueError(f"url: {type(exc).__name__}") from None
            finally:
                self._cookies[key] = browser.cookies
                while len(self._cookies) > MOST_BROWSERS:
                    self._cookies.popitem(last=False)
        return {"url": str(page.url), "status": page.status_code, "html": page.text}


async def _open(browser: httpx.AsyncClient, url: str) -> httpx.Response:
    """Follow all redirects. Raises: HTTPError."""
    page = await browser.get(url)
    for _ in range(MOST_REDIRECTS):
        if page.next_request is None:
            return page
        request, twice = page.next_request, page.headers.get(COMES_TWICE)
        if twice is None:
            page = await browser.send(request)
        else:
            _, page = await asyncio.gather(browser.send(request), _later(browser, str(request.url), float(twice)))
    raise httpx.TooManyRedirects("too many redirects")


async def _later(browser: httpx.AsyncClient, url: str, seconds: float) -> httpx.Response:
    await asyncio.sleep(seconds)
    return await browser.get(url)


async def _ensure_local(request: httpx.Request) -> None:
    if request.url.scheme != "http" or request.url.host not in _HERE:
        raise ValueError(f"url: {request.url.host} is not this machine")
