"""`/` of the service under `wxauth dev`. In production there is nothing at this path."""

from starlette.datastructures import URL
from starlette.responses import RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send


class FrontPage:
    """Redirects `/` to a page, and leaves everything else to the service."""

    def __init__(self, app: ASGIApp, page: URL) -> None:
        self._app = app
        self._page = page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        is_asked = scope["type"] == "http" and scope["path"] == "/" and scope["method"] in ("GET", "HEAD")
        await (RedirectResponse(self._page) if is_asked else self._app)(scope, receive, send)
