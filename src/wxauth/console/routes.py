"""The routes of the console: its page `/admin/`, and the session that the page keeps in a cookie.

The API documentation does not contain these routes, because only the page uses them.
"""

from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.staticfiles import StaticFiles

from wxauth.console.links import CONSOLE_PATH
from wxauth.console.sessions import ConsoleSessions, OpenedConsole
from wxauth.core.services import Services
from wxauth.core.trail import EventType
from wxauth.core.users import PROFILE_FIELDS
from wxauth.errors import NotFound, SessionRevoked
from wxauth.i18n import SOURCE, Text, find_language, languages, own_name, pgettext
from wxauth.settings.roles import ADMIN, SUPPORT
from wxauth.settings.settings import Settings
from wxauth.sites.pages.rendering import host_cookie, is_https
from wxauth.users.callers import device_of
from wxauth.web.cookies import cookie_in
from wxauth.web.dependencies import services_of
from wxauth.web.direct import DirectRoute
from wxauth_guard.errors import InsufficientRole, InvalidRequest
from wxauth_guard.problems import problem_response

CONSOLE_PAGE: Final = Path(__file__).parent / "page"

_CONSOLE_HEADER: Final = "x-wxauth-console"  # the console's page sends it with each request about its session
# The page loads pictures of users only from wxauth itself and from WeChat's hosts. Another host could belong to a user,
# who would then learn the IP address of the staff member who views the picture. The logos of apps and clients are
# `data:` URLs.
_PICTURE_SOURCES: Final = "data: https://thirdwx.qlogo.cn https://wx.qlogo.cn"
_PAGE_HEADERS: Final = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": (
        f"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' {_PICTURE_SOURCES}; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
        "require-trusted-types-for 'script'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
}
_NO_STORE: Final = {"Cache-Control": "no-store"}
_MAX_LANGUAGE_TAG: Final = 32  # characters: callers may send any text, and all tags in use are shorter


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


def add_console(app: FastAPI) -> None:
    """Add the console's routes to an app, whose other routes come first: the page's texts include their summaries."""
    files = StaticFiles(directory=CONSOLE_PAGE)
    declared = declared_texts(app)

    async def page(request: Request) -> Response:
        await _services_if_enabled(request)
        response = await files.get_response(request.path_params.get("name", "index.html"), request.scope)
        response.headers.update(_PAGE_HEADERS)
        return response

    async def texts(request: Request) -> Response:
        await _services_if_enabled(request)
        response = _page_texts(request, declared)
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
    """Return the texts of the console that other modules declare, each as a function that takes a language.

    The key is the name under which the page's scripts know the text.
    """
    operations = [route for route in app.routes if isinstance(route, DirectRoute) and "admin" in route.tags]
    return {
        **{f"event_{kind}": kind.meaning.translated for kind in EventType},
        **{f"profile_{name}": partial(pgettext, "word", name) for name in PROFILE_FIELDS},
        **{f"operation_{route.name}": Text(route.summary or "").translated for route in operations},
    }


async def _open(request: Request) -> Response:
    services = await _services_for_own_page(request)
    # The cookie is read first. If there are several, the request fails before it uses up the link or the code.
    earlier_cookie = _cookie_in(request, services.settings)
    device = await device_of(request)
    match await _parse_opening(request):
        case LinkRequest(secret=secret):
            opened = await services[ConsoleSessions].open_by_link(secret, device=device)
        case ScanRequest(code=code, code_verifier=verifier):
            opened = await services[ConsoleSessions].open_by_scan(code, verifier, device=device)
    await services[ConsoleSessions].end(earlier_cookie)  # last, so that it stays open if no session can be opened
    return _session_response(opened, services.settings)


async def _resume(request: Request) -> Response:
    services = await _services_for_own_page(request)
    cookie = _cookie_in(request, services.settings)
    if not cookie:
        return Response(status_code=HTTPStatus.NO_CONTENT, headers=_NO_STORE)
    try:
        opened = await services[ConsoleSessions].resume(cookie, device=await device_of(request))
    except (SessionRevoked, InsufficientRole) as exc:
        return _without_cookie(problem_response(exc, request.scope), services.settings)
    return _session_response(opened, services.settings)


async def _end(request: Request) -> Response:
    services = await _services_for_own_page(request)
    await services[ConsoleSessions].end(_cookie_in(request, services.settings))
    return _without_cookie(Response(status_code=HTTPStatus.NO_CONTENT, headers=_NO_STORE), services.settings)


async def _services_if_enabled(request: Request) -> Services:
    services = await services_of(request)
    if not services.settings.admin_page:
        raise NotFound("this path doesn't exist")
    return services


async def _services_for_own_page(request: Request) -> Services:
    services = await _services_if_enabled(request)
    issuer = urlsplit(services.settings.issuer)
    # The origin of `Host` counts, so that the console also works at another address of the service. A page cannot forge
    # it, because browsers take it from the request's URL.
    own_origins = {f"{issuer.scheme}://{issuer.netloc}", f"{request.url.scheme}://{request.headers.get('host', '')}"}
    # `Origin` and `Sec-Fetch-Site` are a second barrier. Some browsers do not send them.
    origin = request.headers.get("origin")
    is_from_own_origin = origin is None or origin in own_origins
    is_from_own_site = request.headers.get("sec-fetch-site", "same-origin") == "same-origin"
    # A browser also sends the cookie with requests of pages on other hosts under the same domain. Such a page cannot
    # set the console's header without a CORS preflight, which the service refuses.
    if _CONSOLE_HEADER not in request.headers or not is_from_own_origin or not is_from_own_site:
        raise InvalidRequest("only the console's own page can send this request", status=HTTPStatus.FORBIDDEN)
    return services


async def _parse_opening(request: Request) -> LinkRequest | ScanRequest:
    try:
        return _OPENING.validate_json(await request.body())
    except ValidationError:
        raise InvalidRequest.of("secret", "Must be a link's secret or, for a scan, code and code_verifier") from None


def _cookie_in(request: Request, settings: Settings) -> str:
    return cookie_in(request, _cookie_options(settings)["key"]) or ""


def _session_response(opened: OpenedConsole, settings: Settings) -> Response:
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
    response.delete_cookie(**_cookie_options(settings))
    return response


def _cookie_options(settings: Settings) -> dict[str, Any]:
    name, is_secure = host_cookie(settings, "wxauth-console"), is_https(settings)
    # A cookie with the prefix `__Host-` requires the path "/".
    path = "/" if is_secure else urlsplit(settings.issuer).path + CONSOLE_PATH
    return {"key": name, "path": path, "secure": is_secure, "httponly": True, "samesite": "strict"}


def _page_texts(request: Request, declared: Mapping[str, Callable[[str], str]]) -> JSONResponse:
    language = find_language(request.query_params.get("language", "")[:_MAX_LANGUAGE_TAG]) or SOURCE
    english: dict[str, str] = from_json((CONSOLE_PAGE / "texts.json").read_bytes())
    # The context of a translation is, for example, `console.searchedBy`.
    texts = {name: pgettext(f"console.{name}", text, language) for name, text in english.items()}
    answer: dict[str, Any] = {
        "language": language,
        "languages": {tag: own_name(tag) for tag in languages()},
        "texts": texts | {name: translated(language) for name, translated in declared.items()},
    }
    return JSONResponse(answer, headers={"Cache-Control": "no-cache"})
