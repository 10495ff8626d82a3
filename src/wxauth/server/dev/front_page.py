"""Middleware of `wxauth dev`: redirects `/`, and refuses pages that reach the service by a rebound name."""

from collections.abc import Iterable
from ipaddress import ip_address

from starlette.datastructures import URL, Headers
from starlette.responses import PlainTextResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from wxauth.problems import accepted_request_id


class FrontPage:
    """Redirects `/` to a page, and passes everything else to the service."""

    def __init__(self, app: ASGIApp, page: URL) -> None:
        self._app = app
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        app = self._app
        if scope["type"] == "http" and scope["path"] == "/" and scope["method"] in ("GET", "HEAD"):
            request_id = accepted_request_id(Headers(scope=scope).get("x-request-id"))
            app = RedirectResponse(self._page, headers={"X-Request-ID": request_id})
        await app(scope, receive, send)


class OwnNamesOnly:
    """Refuses web pages that reach this machine by another name (DNS rebinding).

    Such a page would have the service's own origin, and could log in as anybody in the simulated WeChat. Programs send
    no Origin, and may use any name.

    Args:
        app: The service.
        names: The allowed names, in addition to localhost and every address.
    """

    def __init__(self, app: ASGIApp, names: Iterable[str | None]) -> None:
        self._app = app
        self._names = {"localhost", *names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        app = self._app
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            host = headers.get("host", "")
            # With `Referrer-Policy: no-referrer`, a browser posts a page's form to its own server with the origin
            # "null".
            is_of_a_page = headers.get("origin") in (f"http://{host}", f"https://{host}", "null")
            if is_of_a_page and not self._is_own(URL(f"http://{host}").hostname):
                app = PlainTextResponse("Another name than WXAUTH_ISSUER's leads here.\n", status_code=403)
        await app(scope, receive, send)

    def _is_own(self, name: str | None) -> bool:
        try:
            return name in self._names or bool(ip_address(name or ""))
        except ValueError:
            return False
