"""Cookies of ours. No library parses a request's cookies.

`http.cookies` takes seconds for some kilobytes of backslashes (CVE-2024-7592, in Python before 3.11.10 and 3.12.6).
FastAPI has it parse the cookies of each request, whether or not a route reads them.
"""

from typing import Final

from starlette.requests import Request

COOKIES_KEY: Final = "wxauth.cookies"
"""Where the edge puts the `Cookie` header in the ASGI scope. It takes it out of the headers."""
MAX_COOKIES: Final = 4096
"""Bytes of all `Cookie` headers of a request. A longer one is not read."""


def cookie_in(request: Request, name: str) -> str | None:
    """The value of this cookie as it was sent, without unquoting: ours need none. The last of several counts."""
    header: bytes = request.scope.get(COOKIES_KEY, b"")
    if len(header) > MAX_COOKIES:
        return None
    pairs = (pair.partition("=") for pair in header.decode("latin-1").split(";"))
    return {key.strip(): value.strip() for key, _, value in pairs}.get(name)
