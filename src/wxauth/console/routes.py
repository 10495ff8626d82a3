"""The routes of the console: its page `/admin/`, and the session that the page keeps in a cookie.

The API documentation does not contain these routes, because only the page uses them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from wxauth.console.links import CONSOLE_PATH
from wxauth.console.sessions import ConsoleSessions, OpenedConsole
from wxauth.core.services import Services
from wxauth.core.trail import EventType
from wxauth.core.users import PROFILE_FIELDS
from wxauth.errors import NotFound, SessionRevoked
from wxauth.i18n import Text, pgettext
from wxauth.login_pages.rendering import host_cookie, is_https
from wxauth.settings.settings import Settings
from wxauth.users.callers import device_of
from wxauth.users.status_queries import ADMIN, SUPPORT
from wxauth.web.cookies import cookie_in
from wxauth.web.dependencies import services_of
from wxauth.web.direct import DirectRoute
from wxauth.web.page_texts import page_texts
from wxauth_guard.errors import InsufficientRole, InvalidRequest
from wxauth_guard.problems import problem_response

CONSOLE_PAGE: Final = Path(__file__).parent / "page"
"""The folder with the files of the console's page."""

_HEADER: Final = "x-wxauth-console"
"""The header that the console's page sends with each request about its session."""
# The page loads pictures of users only from wxauth itself and from WeChat's hosts. Another host could belong to a user,
# who would then learn the IP address of the staff member who views the picture. The logos of apps and clients are
# `data:` URLs.
_PICTURES: Final = "data: https://thirdwx.qlogo.cn https://wx.qlogo.cn"
_PAGE_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' {_PICTURES}; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
_NO_STORE: Final = {"Cache-Control": "no-store"}


class LinkRequest(BaseModel):
    """The secret of a link that opens the console."""

    model_config = ConfigDict(hide_input_in_errors=True, extra="forbid")

    secret: str = Field(min_length=1, max_length=128)


class ScanRequest(BaseModel):
    """The authorization code that the browser brought back from `/v1/authorize`, and the code verifier.

    A verifier has 43 to 128 characters (RFC 7636, section 4.1).
    """

    model_config = ConfigDict(hide_input_in_errors=True, extra="forbid")

    code: str = Field(min_length=1, max_length=128)
    code_verifier: str = Field(min_length=43, max_length=128)


_OPENING: Final = TypeAdapter[LinkRequest | ScanRequest](LinkRequest | ScanRequest)
"""The parser of the body of a request that opens a session."""


def add_console(app: FastAPI) -> None:
    """Add the console's routes to an app, which must already have all other routes.

    The order matters, because the page's texts include the summaries of the other routes for staff. If `ADMIN_PAGE` is
    false, the console's routes return 404.
    """
    files = StaticFiles(directory=CONSOLE_PAGE)
    declared = declared_texts(app)

    async def page(request: Request) -> Response:
        await _services_if_enabled(request)
        response = await files.get_response(request.path_params.get("name", "index.html"), request.scope)
        response.headers.update(_PAGE_HEADERS)
        return response

    async def texts(request: Request) -> Response:
        await _services_if_enabled(request)
        response = page_texts(CONSOLE_PAGE, request, declared)
        response.headers.update(_PAGE_HEADERS)
        return response

    async def add_slash(request: Request) -> Response:
        services = await _services_if_enabled(request)
        return RedirectResponse(urlsplit(services.settings.issuer).path + CONSOLE_PATH)

    app.add_route(CONSOLE_PATH.rstrip("/"), add_slash, include_in_schema=False)
    app.add_route(CONSOLE_PATH, page, include_in_schema=False)
    app.add_route(CONSOLE_PATH + "session", _open, methods=["POST"], include_in_schema=False)
    app.add_route(CONSOLE_PATH + "session", _resume, methods=["PUT"], include_in_schema=False)
    app.add_route(CONSOLE_PATH + "session", _end, methods=["DELETE"], include_in_schema=False)
    app.add_route(CONSOLE_PATH + "texts.json", texts, include_in_schema=False)
    # This route comes last, because its path also matches the paths of the session and of the texts.
    app.add_route(CONSOLE_PATH + "{name}", page, include_in_schema=False)


def declared_texts(app: FastAPI) -> Mapping[str, Callable[[str], str]]:
    """Return the texts of the console that other modules declare, each as a function that translates the text.

    The key is the name under which the page's scripts know the text, and the function takes a language. The texts are
    the meanings of events, the names of profile fields, and the summaries of the operations for staff.
    """
    operations = [route for route in app.routes if isinstance(route, DirectRoute) and "admin" in route.tags]
    return {
        **{f"event_{kind}": kind.meaning.translated for kind in EventType},
        **{f"profile_{name}": partial(pgettext, "word", name) for name in PROFILE_FIELDS},
        **{f"operation_{route.name}": Text(route.summary or "").translated for route in operations},
    }


async def _open(request: Request) -> Response:
    """Open a console session with the secret of a link, or with the authorization code after a scan.

    After that, end the earlier session that the cookie contains, if any. If no session can be opened, the earlier
    session stays open.
    """
    services = await _services_for_own_page(request)
    # The cookie is read first. If there are several, the request fails before it uses up the link or the code.
    earlier_cookie = _cookie_in(request, services.settings)
    device = await device_of(request)
    match await _parse_opening(request):
        case LinkRequest(secret=secret):
            opened = await services[ConsoleSessions].open_by_link(secret, device=device)
        case ScanRequest(code=code, code_verifier=verifier):
            opened = await services[ConsoleSessions].open_by_scan(code, verifier, device=device)
    await services[ConsoleSessions].end(earlier_cookie)
    return _session_response(opened, services.settings)


async def _resume(request: Request) -> Response:
    """Continue the session in the cookie, and return a new access token. Return 204 if there is no cookie.

    If the cookie is not valid, if the session has ended, or if its user is no longer staff, return the error, and
    delete the cookie.
    """
    services = await _services_for_own_page(request)
    cookie = _cookie_in(request, services.settings)
    if not cookie:
        return Response(status_code=204, headers=_NO_STORE)
    try:
        opened = await services[ConsoleSessions].resume(cookie, device=await device_of(request))
    except (SessionRevoked, InsufficientRole) as exc:
        return _without_cookie(problem_response(exc, request.scope), services.settings)
    return _session_response(opened, services.settings)


async def _end(request: Request) -> Response:
    """End the session in the cookie, if there is one, and delete the cookie."""
    services = await _services_for_own_page(request)
    await services[ConsoleSessions].end(_cookie_in(request, services.settings))
    return _without_cookie(Response(status_code=204, headers=_NO_STORE), services.settings)


async def _services_if_enabled(request: Request) -> Services:
    """Return the services if the console is enabled. Raises: NotFound, if it is disabled."""
    services = await services_of(request)
    if not services.settings.admin_page:
        raise NotFound("this path doesn't exist")
    return services


async def _services_for_own_page(request: Request) -> Services:
    """Return the services if the console's own page sent the request.

    This check is necessary because a browser sends the cookie not only with the requests of this page, but also with
    requests of pages on other hosts under the same domain. Such a page cannot set the console's header without a CORS
    preflight, which the service refuses. `Origin` and `Sec-Fetch-Site` are a second barrier. These headers may be
    missing, because some browsers do not send them. In addition to the issuer's origin, this function accepts the
    origin of `Host`, so that the console also works at another address of the service. A page cannot forge `Host`,
    because browsers take it from the request's URL.

    Raises: InvalidRequest, if another page sent the request; NotFound, if the console is disabled.
    """
    services = await _services_if_enabled(request)
    issuer = urlsplit(services.settings.issuer)
    own_origins = {f"{issuer.scheme}://{issuer.netloc}", f"{request.url.scheme}://{request.headers.get('host', '')}"}
    origin = request.headers.get("origin")
    is_from_own_origin = origin is None or origin in own_origins
    is_from_own_site = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    if _HEADER not in request.headers or not is_from_own_origin or not is_from_own_site:
        raise InvalidRequest("only the console's own page can send this request", status=403)
    return services


async def _parse_opening(request: Request) -> LinkRequest | ScanRequest:
    """Parse the body of a request that opens a session.

    The body contains the secret of a link, or the authorization code and the code verifier of a scan.

    Raises: InvalidRequest, if the body contains neither, or arrives too late; PayloadTooLarge, if it is too large.
    """
    try:
        return _OPENING.validate_json(await request.body())
    except ValidationError:
        raise InvalidRequest.of("secret", "Must be a link's secret or, for a scan, code and code_verifier") from None


def _cookie_in(request: Request, settings: Settings) -> str:
    """Return the value of the session's cookie, or an empty string if there is no cookie.

    Raises: InvalidRequest, if there are several cookies of this name.
    """
    return cookie_in(request, _cookie_options(settings)["key"]) or ""


def _session_response(opened: OpenedConsole, settings: Settings) -> Response:
    """Return the response that gives an access token to the page, and sets the session's cookie."""
    user = opened.user
    body: dict[str, Any] = {
        "access_token": opened.access_token,
        "token_type": "Bearer",
        "expires_in": opened.expires_in,
        "role": ADMIN if ADMIN in user.roles else SUPPORT,
        "user": {"id": str(user.id), "nickname": user.nickname, "avatar_url": user.avatar_url},
    }
    response = JSONResponse(body, headers=_NO_STORE)
    response.set_cookie(**_cookie_options(settings), value=opened.cookie, max_age=opened.cookie_seconds)
    return response


def _without_cookie(response: Response, settings: Settings) -> Response:
    """Make a response delete the session's cookie, and return the response."""
    response.delete_cookie(**_cookie_options(settings))
    return response


def _cookie_options(settings: Settings) -> dict[str, Any]:
    """Return the arguments that make a response set or delete the session's cookie."""
    name, is_secure = host_cookie(settings, "wxauth-console"), is_https(settings)
    # A cookie with the prefix `__Host-` requires the path "/".
    path = "/" if is_secure else urlsplit(settings.issuer).path + CONSOLE_PATH
    return {"key": name, "path": path, "secure": is_secure, "httponly": True, "samesite": "strict"}
