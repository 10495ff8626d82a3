"""The mini-program's web-view on the desk: a small browser, for a page can choose neither user agent nor cookies."""

from collections import OrderedDict
from typing import Any, Final

import httpx
from pydantic import BaseModel, ConfigDict, Field

from wxauth.server.dev.wechat.controls import Person

MOST_PEOPLE: Final = 50
"""How many people's cookies are kept; the oldest go first."""
MOST_REDIRECTS: Final = 10

_HERE: Final = frozenset({"127.0.0.1", "localhost"})
_TIMEOUT: Final = 10
"""Seconds."""


class PageRequest(BaseModel):
    """What `POST /desk/web-view` takes: the page that a person's web-view is to open."""

    model_config = ConfigDict(extra="forbid")

    person: Person
    url: str
    user_agent: str = Field(max_length=512)


class WebViews:
    """The web-views of all people. Each has cookies of its own."""

    def __init__(self) -> None:
        self._cookies = OrderedDict[str, httpx.Cookies]()

    async def open(self, wanted: PageRequest) -> dict[str, Any]:
        """Open a page of this machine; what the web-view shows after all redirects. Raises: ValueError."""
        headers = {"user-agent": f"{wanted.user_agent} miniProgram/wxdev", "accept": "text/html"}
        async with httpx.AsyncClient(
            cookies=self._cookies.pop(wanted.person, None),
            event_hooks={"request": [_see_that_it_is_here]},
            follow_redirects=True,
            headers=headers,
            max_redirects=MOST_REDIRECTS,
            timeout=_TIMEOUT,
            trust_env=False,
        ) as browser:
            try:
                page = await browser.get(wanted.url)
            except (httpx.HTTPError, httpx.InvalidURL) as exc:
                raise ValueError(f"url: {type(exc).__name__}") from None
            finally:
                self._cookies[wanted.person] = browser.cookies
                while len(self._cookies) > MOST_PEOPLE:
                    self._cookies.popitem(last=False)
        return {"url": str(page.url), "status": page.status_code, "html": page.text}


async def _see_that_it_is_here(request: httpx.Request) -> None:
    if request.url.scheme != "http" or request.url.host not in _HERE:
        raise ValueError(f"url: {request.url.host} is not this machine")
