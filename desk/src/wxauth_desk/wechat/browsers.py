"""The simulated browsers of the people on the desk, which open pages of this machine for the desk's page."""

import asyncio
import ssl
from functools import cache
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

import httpx
from pydantic import Field

from wxauth_desk.bounded import BoundedDict
from wxauth_desk.wechat.connect import PERSON_HEADER, REPEAT_HEADER
from wxauth_desk.wechat.controls import Control, PersonName
from wxauth_desk.wechat.links import URL_LINK_HOST

_MAX_BROWSERS: Final = 50
_MAX_REDIRECTS: Final = 10
_MAX_FORM_FIELDS: Final = 20
_MAX_FIELD_LENGTH: Final = 8192
_LOCAL_HOSTS: Final = frozenset({"127.0.0.1", "localhost"})
_PAGE_TIMEOUT_SECONDS: Final = 10
_COMPUTER_USER_AGENT: Final = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/141.0.0.0 Safari/537.36"
)
_PHONE_USER_AGENT: Final = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) "
    "Version/17.1 Mobile/15E148 Safari/604.1"
)
FormText = Annotated[str, Field(max_length=_MAX_FIELD_LENGTH)]


@cache
def trusted_certificates() -> ssl.SSLContext:
    """Return an SSL context with the certificates that httpx trusts.

    The context is cached. Otherwise, httpx would read the certificates for each client, which takes 17 ms, even if the
    client never uses https.
    """
    return httpx.create_ssl_context(trust_env=False)


class BrowserRequest(Control):
    """The body of `POST /desk/web-view`: a page to open, or a form to post, in a person's browser."""

    person: PersonName
    url: str
    user_agent: str = Field(max_length=512)  # of WeChat on the person's phone, for `web_view` and `wechat`
    # The browsers are a mini-program's web-view, WeChat's browser, and another browser on a phone or a computer.
    browser: Literal["web_view", "wechat", "phone", "computer"] = "web_view"
    language: str = Field("zh-CN", max_length=32)
    form: dict[FormText, FormText] | None = Field(None, max_length=_MAX_FORM_FIELDS)


class Browsers:
    """The simulated browsers of all people, each with its own cookies."""

    def __init__(self) -> None:
        # The keys are a person and a kind of browser.
        self._cookies: BoundedDict[tuple[str, str], httpx.Cookies] = BoundedDict(_MAX_BROWSERS)

    async def open(self, request: BrowserRequest) -> dict[str, Any]:
        """Open a page of this machine, and return the page that the browser shows after all redirects.

        If the last redirect leads to a link that opens a mini-program in WeChat, `opens` is that link.

        Raises: ValueError, if a page is not on this machine, uses https, or cannot be loaded.
        """
        user_agents = {
            "web_view": f"{request.user_agent} miniProgram/wxdev",
            "wechat": request.user_agent,
            "phone": _PHONE_USER_AGENT,
            "computer": _COMPUTER_USER_AGENT,
        }
        headers = {
            "user-agent": user_agents[request.browser],
            "accept": "text/html",
            "accept-language": request.language,
            PERSON_HEADER: quote(request.person),  # tells the simulated pages of WeChat whose browser it is
        }
        key = (request.person, request.browser)
        async with httpx.AsyncClient(
            cookies=self._cookies.get(key),
            event_hooks={"request": [_ensure_local]},
            headers=headers,
            timeout=_PAGE_TIMEOUT_SECONDS,
            verify=trusted_certificates(),
            trust_env=False,  # so that no proxy gets these requests to this machine
        ) as browser:
            try:
                page = await _open(browser, request.url, request.form)
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                raise ValueError(f"url: {type(exc).__name__}") from None
            finally:
                self._cookies[key] = browser.cookies
        opens = None if page.next_request is None else str(page.next_request.url)
        return {"url": str(page.url), "status": page.status_code, "html": page.text, "opens": opens}


async def _open(browser: httpx.AsyncClient, url: str, form: dict[str, str] | None) -> httpx.Response:
    """Request a URL, or post a form to it, and follow all redirects, except to WeChat. Return the last response.

    If a response has `REPEAT_HEADER`, the browser follows the redirect twice, and the second response counts. This
    simulates a browser that sends the callback of a login again.
    """
    if form is None:
        page = await browser.get(url)
    else:
        origin = str(httpx.URL(url).join("/")).rstrip("/")
        page = await browser.post(url, data=form, headers={"origin": origin})
    redirects = 0
    # If a redirect leads to WeChat, the browser keeps its page.
    while (request := page.next_request) is not None and not _leads_to_wechat(request.url):
        redirects += 1
        if redirects > _MAX_REDIRECTS:
            raise httpx.TooManyRedirects("too many redirects")
        repeat_after = page.headers.get(REPEAT_HEADER)
        if repeat_after is None:
            page = await browser.send(request)
        else:
            repetition = _open_later(browser, request.url, seconds=float(repeat_after))
            _first_page, page = await asyncio.gather(browser.send(request), repetition)
    return page


async def _open_later(browser: httpx.AsyncClient, url: httpx.URL, *, seconds: float) -> httpx.Response:
    await asyncio.sleep(seconds)
    return await browser.get(url)


def _leads_to_wechat(url: httpx.URL) -> bool:
    return url.scheme == "weixin" or url.host == URL_LINK_HOST


async def _ensure_local(request: httpx.Request) -> None:
    # No page of `wxauth-desk dev` uses https.
    if request.url.scheme != "http" or request.url.host not in _LOCAL_HOSTS:
        raise ValueError(f"url: {request.url.host} is not this machine")
