"""What the browser routes share: documentation of parameters, redirects, and the cookie that identifies a browser."""

from typing import Any, Final

from starlette.responses import Response

from wxauth.errors import NotFound, RateLimited, StorageUnavailable
from wxauth.server.core.settings import Settings

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
    """`openapi_extra` for parameters that the endpoint parses itself, because FastAPI would answer 422 for mistakes."""
    return {"parameters": [{"name": name, "in": "query", "schema": {"type": "string"}} for name in names]}


def cookie_name(settings: Settings) -> str:
    """The name of the cookie that identifies a browser."""
    return _cookie_name(settings, "wxauth-browser")


def login_cookie_name(settings: Settings) -> str:
    """The name of the cookie of a browser's login."""
    return _cookie_name(settings, "wxauth-login")


def set_cookie(response: Response, settings: Settings, name: str, value: str) -> None:
    """Set a cookie that the browser keeps until it is closed."""
    response.set_cookie(name, value, path="/", secure=_is_secure(settings), httponly=True, samesite="lax")


def redirect_to(url: str) -> Response:
    """Redirect the browser to a URL, without a referrer."""
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return Response(status_code=SEE_OTHER, headers={**headers, "Location": url})


def _cookie_name(settings: Settings, name: str) -> str:
    # With this prefix, browsers accept the cookie only from this host and over https (RFC 6265bis, 4.1.3.2).
    return f"__Host-{name}" if _is_secure(settings) else name


def _is_secure(settings: Settings) -> bool:
    return settings.issuer.startswith("https:")
