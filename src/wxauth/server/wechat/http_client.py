"""The httpx client by which WeChat is asked.

Of what it offers, three things are left out: the jar that looks for cookies in each answer, which takes half of the
client's time and must stay empty; the search for a password in each URL; and the reading of a body that is in memory
already.
"""

from typing import Final

import httpx

BODY: Final = "body"
"""The extension of a response by which our transport gives the body, which it has read, as bytes."""


class _NoCookies(httpx.Cookies):
    """A jar that stays empty: a cookie of WeChat's would go along with the next person's request."""

    def extract_cookies(self, response: httpx.Response) -> None:
        """Keep none."""


class WeChatHttp(httpx.AsyncClient):
    """A client without cookies, redirects, and settings from the environment.

    Nothing is sent again by it. The caller limits the time, and makes the requests, whose URLs hold no secret: httpx
    logs them.
    """

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        super().__init__(transport=transport, auth=httpx.Auth(), follow_redirects=False, trust_env=False, timeout=None)

    @property  # type: ignore[misc]  # no other jar can be set
    def cookies(self) -> httpx.Cookies:
        """None, ever."""
        return _NO_COOKIES


_NO_COOKIES: Final = _NoCookies()


async def body_of(response: httpx.Response) -> bytes:
    """The body of an answer, without decoding if it comes from our transport. Raises: httpx.TransportError."""
    body: bytes | None = response.extensions.get(BODY)
    return await response.aread() if body is None else body
