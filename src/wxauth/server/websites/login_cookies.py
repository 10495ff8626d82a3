"""The cookie of a browser's login."""

from starlette.requests import Request
from starlette.responses import Response

from wxauth.server.core.settings import Settings
from wxauth.server.web.headers import cookie_in
from wxauth.server.websites.browser_answers import cookie_name, login_cookie_name, set_cookie
from wxauth.server.websites.browser_logins import BrowserCookies, Onward
from wxauth.server.websites.pages import is_in_web_view, language_of, send_to


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
