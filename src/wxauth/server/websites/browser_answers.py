"""What the routes for browsers share: documentation of parameters and redirects, and the cookies of a browser."""

from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from wxauth.errors import NotFound, RateLimited, StorageUnavailable
from wxauth.server.core.settings import Settings
from wxauth.server.web.headers import cookie_in
from wxauth.server.websites.browser_logins import BrowserCookies, Onward
from wxauth.server.websites.pages import is_in_web_view, language_of, send_to

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


def _cookie_name(settings: Settings, name: str) -> str:
    # With this prefix, browsers accept the cookie only from this host and over https (RFC 6265bis, 4.1.3.2).
    return f"__Host-{name}" if _is_secure(settings) else name


def _is_secure(settings: Settings) -> bool:
    return settings.issuer.startswith("https:")


def browser_cookies(request: Request, settings: Settings) -> BrowserCookies:
    """The cookies that a browser sends. A web-view has no login. Raises: InvalidRequest."""
    browser = cookie_in(request, cookie_name(settings))
    if is_in_web_view(request):
        return BrowserCookies(browser, None, keeps_login=False)
    return BrowserCookies(browser, cookie_in(request, login_cookie_name(settings)))


def go_on(request: Request, onward: Onward, settings: Settings) -> Response:
    """Send the browser on. If it has a new login, it keeps the value until it is closed."""
    response = send_to(request, onward.to, language_of(request))
    if onward.login is not None:
        set_cookie(response, settings, login_cookie_name(settings), onward.login)
    return response
