"""What the routes for browsers share: how they document their answers, redirects, the cookie that names a browser."""

from typing import Any, Final

from starlette.responses import Response

from wxauth.errors import NotFound, RateLimited, StorageUnavailable
from wxauth.server.core.services import Services

SEE_OTHER: Final = 303

HTML: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "A page", "content": {"text/html": {"example": "<!doctype html>…"}}}
}
MISTAKE: Final[dict[int | str, dict[str, Any]]] = {
    400: {"description": "A page that says what is wrong", "content": HTML[200]["content"]}
}
NO_PAGE: Final[dict[int | str, dict[str, Any]]] = {
    NotFound.status: {"description": "A page that says to begin anew", "content": HTML[200]["content"]}
}
TRY_LATER: Final[dict[int | str, dict[str, Any]]] = {
    status: {"description": "A page that says to try again later", "content": HTML[200]["content"]}
    for status in (RateLimited.status, StorageUnavailable.status)
}
REDIRECT: Final[dict[int | str, dict[str, Any]]] = {303: {"description": "To WeChat, or back to the site"}}


def text_parameters(*names: str) -> dict[str, Any]:
    """Parameters of a query that the endpoint reads by itself: FastAPI would refuse faults by 422."""
    return {"parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]}


def cookie_name(services: Services) -> str:
    """The name of the cookie that names a browser."""
    # With this prefix, browsers accept the cookie only from this very host, and by https (RFC 6265bis, 4.1.3.2).
    is_secure = services.settings.issuer.startswith("https:")
    return "__Host-wxauth-browser" if is_secure else "wxauth-browser"


def sent_to(url: str) -> Response:
    """Send the browser on, without telling the next place where it came from."""
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return Response(status_code=SEE_OTHER, headers={**headers, "Location": url})
