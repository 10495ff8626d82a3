"""Middleware of `wxauth dev`: redirects `/` to a page for people."""

from starlette.datastructures import URL, Headers
from starlette.responses import RedirectResponse
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
