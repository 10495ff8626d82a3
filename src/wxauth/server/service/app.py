"""The app: all routes, the answers to failures, and the middleware around them."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from copy import copy
from datetime import timedelta
from functools import partial
from typing import Any, Final, cast, get_args
from urllib.parse import urlsplit

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Scope

from wxauth import __version__
from wxauth.errors import (
    AccountDisabled,
    InternalError,
    InvalidRequest,
    MethodNotAllowed,
    NotFound,
    StorageUnavailable,
    WxAuthError,
)
from wxauth.guard import BearerGuard
from wxauth.problems import REQUEST_ID_KEY, problem_response
from wxauth.server.apps import routes as app_routes
from wxauth.server.apps.registry import Apps
from wxauth.server.checks import routes as check_routes
from wxauth.server.checks.rows import missing_limits
from wxauth.server.clients import routes as client_routes
from wxauth.server.clients.service_clients import SERVICE_CLIENT_SCHEME
from wxauth.server.console.routes import add_console
from wxauth.server.console.sessions import ConsoleSessions
from wxauth.server.core.clock import DatabaseClock, correct_clock, keep_time
from wxauth.server.core.logs import get_logger
from wxauth.server.core.outages import DatabaseUrlRefused
from wxauth.server.core.services import Services
from wxauth.server.events import feed_routes, webhook_routes
from wxauth.server.events.webhook_deliveries import Deliveries, keep_placing
from wxauth.server.housekeeping.housekeeping import keep_erasing, keep_replacing_sessions, keep_sweeping
from wxauth.server.keys import routes as key_routes
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.login import record_routes
from wxauth.server.login import routes as login_routes
from wxauth.server.login.login import LoginRequest
from wxauth.server.login.records import Numbers, Refusals
from wxauth.server.login_pages import logout_routes
from wxauth.server.login_pages import routes as page_routes
from wxauth.server.merging import routes as merging_routes
from wxauth.server.oauth import routes as oauth_routes
from wxauth.server.oauth.cors import Cors
from wxauth.server.phones import routes as phone_routes
from wxauth.server.pictures import routes as picture_routes
from wxauth.server.push import routes as push_routes
from wxauth.server.service import metrics, probes
from wxauth.server.service.tracing import Tracing
from wxauth.server.session_keys import routes as session_key_routes
from wxauth.server.siblings import token_routes, user_routes, wechat_routes
from wxauth.server.site_logins import scan_routes
from wxauth.server.users import account_routes, admin_routes, own_data
from wxauth.server.users.staff_rows import StaffReads
from wxauth.server.web.answers import Problem
from wxauth.server.web.bodies import json_form
from wxauth.server.web.direct import DirectRoutes, Shortcut
from wxauth.server.web.docs import add_docs
from wxauth.server.web.edge import PROBLEM_KEY, Edge
from wxauth.server.web.proxies import BehindProxies, UnderPath

_DESCRIPTION = """
WeChat mini-program login: post a `wx.login` code, get tokens, send them as `Authorization: Bearer`.

Failures are `application/problem+json` (RFC 9457); look at `code`, show `title`.
"""

_CHECK_PAUSE_SECONDS: Final = 1.0
"""Seconds between two checks whether the database is there."""
_CONTACT_LASTS: Final = timedelta(days=360)
"""RFC 9116, section 2.5.5: less than a year."""

_ROUTERS: Final = (
    login_routes.router,
    account_routes.router,
    own_data.router,
    phone_routes.router,
    picture_routes.router,
    admin_routes.router,
    merging_routes.router,
    record_routes.router,
    session_key_routes.router,
    app_routes.router,
    key_routes.admin_router,
    check_routes.router,
    key_routes.router,
    oauth_routes.metadata_router,
    probes.router,
    metrics.router,
    token_routes.router,
    user_routes.router,
    wechat_routes.router,
    client_routes.router,
    feed_routes.router,
    scan_routes.router,
    scan_routes.id_token_router,
    oauth_routes.router,
    page_routes.router,
    logout_routes.router,
    webhook_routes.router,
    push_routes.router,
)

_READ_FIRST: Final = (
    "/v1/login",
    "/v1/refresh",
    "/v1/logout",
    "/v1/me",
    "/v1/me/phone",
    "/v1/me/decrypt",
    "/v1/me/sessions",
    "/v1/me/sessions/{session_id}",
    "/v1/me/avatar",
    "/v1/me/consents",
    "/v1/me/consents/{document}",
    "/v1/me/export",
)
"""The paths that come first in the documentation. The others follow in the order of their rooms."""

log = get_logger()


def create_app(services: Services, *, example_code: str | None = None) -> ASGIApp:
    """The whole service as an ASGI app. It can serve at once; the lifespan runs the background tasks and closes all.

    Args:
        services: The parts.
        example_code: A code with which the documented example of a login succeeds; None if there is none.
    """
    return surround(create_api(services, example_code=example_code), services)


def surround(api: FastAPI, services: Services) -> ASGIApp:
    """Put the middleware around the routes. A test may set `api.dependency_overrides` before or after."""
    settings = services.settings
    services[metrics.PrometheusMetrics].routes = [route for route in api.routes if isinstance(route, Route)]
    # Around everything, so that browsers can read the answer to a fault, too.
    app: ASGIApp = Cors(Shortcut(api, _DIRECT_ROUTES), settings, services.database)
    app = Edge(
        app,
        larger_bodies={
            picture_routes.UPLOAD_PATH: picture_routes.MAX_UPLOAD,
            wechat_routes.SIGNATURES_PATH: wechat_routes.MAX_SIGNATURE_BODY,
            push_routes.PUSH_PATH: push_routes.MAX_MESSAGE,
        },
        refused=partial(_note_refusal, services),
    )
    app = services[Tracing].app(app)
    if root_path := urlsplit(settings.issuer).path:
        app = UnderPath(app, root_path)
    return BehindProxies(app, settings.trusted_proxies)


def create_api(services: Services | None = None, *, example_code: str | None = None) -> FastAPI:
    """The routes and their documentation. Without services, it can only be read.

    Args:
        services: The parts, which dependencies give to the routes.
        example_code: As in `create_app`.
    """
    root_path = "" if services is None else urlsplit(services.settings.issuer).path
    api = FastAPI(
        title="wxauth",
        version=__version__,
        description=_DESCRIPTION,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        servers=[{"url": root_path}] if root_path else None,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,  # `add_docs` adds it
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=None if services is None else partial(_lifespan, services),
    )
    for kind in (WxAuthError, HTTPException, ClientDisconnect, Exception):
        api.add_exception_handler(kind, _answer_failure)
    api.router.routes.extend(_ROUTES)  # not `include_router`: each request would be matched against one more router
    add_docs(api)
    add_console(api)
    if services is not None:
        api.state.services = services
        api.router.routes.extend(_route_of_text(*value.split(":", 1)) for value in services.settings.check_files)
        if contact := services.settings.security_contact:
            text = f"Contact: {contact}\nExpires: {services.clock() + _CONTACT_LASTS:%Y-%m-%dT%H:%M:%SZ}\n"
            api.router.routes.append(_route_of_text(".well-known/security.txt", text))
    api.openapi = lambda: _openapi(api, example_code)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return api


def _route_of_text(path: str, text: str) -> Route:
    async def read(_: Request) -> Response:
        return PlainTextResponse(text, headers={"Cache-Control": "no-store"})

    return Route(f"/{path}", read)


@asynccontextmanager
async def _lifespan(services: Services, _: FastAPI) -> AsyncIterator[None]:
    if is_there := await _is_migrated(services):
        await _read_what_is_stored(services)
    keeping = asyncio.create_task(_run_background_tasks(services, is_read=is_there), name="keeping")
    log.info("started", version=__version__, issuer=services.settings.issuer, apps=len(services[Apps].all()))
    if is_there and not services[Apps].all():
        log.warning("no_app", consequence="nobody can log in", what_to_do="'wxauth apps add APP_ID', or WXAUTH_APPS")
    if services.settings.avatar_check != "off":
        for it in services[Apps].all():
            if it.is_enabled and it.app.is_mini_program and it.app.push_token is None:
                log.warning(
                    "no_push",
                    app_id=it.app.app_id,
                    consequence="AVATAR_CHECK gets no verdict",
                    what_to_do="set push_token, and message push in WeChat's console",
                )
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        await services.aclose()
        log.info("stopped")


async def _run_background_tasks(services: Services, *, is_read: bool) -> None:
    """Run the background tasks forever. They would fail without the database and its schema, so they wait for both."""
    if not is_read:
        while not await _is_migrated(services):  # noqa: ASYNC110 - another process migrates
            await asyncio.sleep(_CHECK_PAUSE_SECONDS)
        await _read_what_is_stored(services)
    tasks = [
        services[KeyRing].keep_fresh(),
        services[Apps].keep_fresh(),
        services[Numbers].keep_storing(),
        services[Refusals].keep_storing(),
        services[StaffReads].keep_storing(),
        keep_sweeping(services),
        keep_erasing(services),
        keep_replacing_sessions(services),
        keep_placing(services),
        services[Deliveries].keep_delivering(),
    ]
    if isinstance(services.clock, DatabaseClock):
        tasks.append(keep_time(services.clock, services.database))
    await asyncio.gather(*tasks)


async def _is_migrated(services: Services) -> bool:
    with suppress(DatabaseUrlRefused):  # `serve` has already refused it
        return await probes.is_migrated(services.database)
    return False


async def _read_what_is_stored(services: Services) -> None:
    if isinstance(services.clock, DatabaseClock):
        await correct_clock(services.clock, services.database)
    await services[KeyRing].try_refresh()
    await services[Apps].try_refresh()
    await services[ConsoleSessions].add_as_site()
    with suppress(StorageUnavailable):
        if limits := await missing_limits(services.database):
            text = "one locked row can hold up every login"
            log.error("database_without_limits", consequence=text, what_to_change="; ".join(limits))


def _note_refusal(services: Services, scope: Scope, error: WxAuthError) -> None:
    """Note a refused login for support staff."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    # A refused refresh is noted only if the user is banned: after any other refusal the phone logs in again, unnoticed.
    if scope["method"] != "POST" or not (
        path == login_routes.LOGIN or (path == login_routes.REFRESH and isinstance(error, AccountDisabled))
    ):
        return
    client = scope.get("client")
    services[Refusals].note(error, ip=client and client[0], request_id=scope[REQUEST_ID_KEY])


def _head_routes(routes: Iterable[BaseRoute]) -> Iterator[APIRoute]:
    # FastAPI answers HEAD only if it is declared. The HTTP protocol omits the body.
    for route in routes:
        if isinstance(route, APIRoute) and "GET" in (route.methods or ()):
            head = copy(route)
            head.methods, head.include_in_schema = {"HEAD"}, False
            yield head


def _routes() -> Iterator[BaseRoute]:
    routes = [route for router in _ROUTERS for route in router.routes]
    yield from routes
    yield from _head_routes(routes)


# The same for every app. Those that an app adds follow them, so they hide none of these.
_ROUTES: Final = tuple(_routes())
_DIRECT_ROUTES: Final = DirectRoutes(_ROUTES, also=[wechat_routes.SIGNATURES_PATH, push_routes.PUSH_PATH])


async def _answer_failure(request: Request, exc: Exception) -> Response:
    request.scope[PROBLEM_KEY] = error = _error_of(request, exc)
    return problem_response(error, request.scope)


def _error_of(request: Request, exc: Exception) -> WxAuthError:
    match exc:
        case WxAuthError():
            return exc
        case HTTPException(status_code=404):
            return NotFound("there is nothing at this path" + _path_meant(request))
        case HTTPException(status_code=405):
            allow = _allowed_methods(request)
            return MethodNotAllowed(f"this path takes {', '.join(allow)}{_body_meant(request)}", allow=allow)
        case HTTPException():
            return InvalidRequest("the request could not be read", status=exc.status_code)
        case ClientDisconnect():
            return InvalidRequest("the client left before its body was read", status=400)
        case _:
            return InternalError("the log has more under this request_id")


def _routes_at(request: Request, path: str) -> Iterator[Route]:
    for route in cast(FastAPI, request.app).router.routes:
        if isinstance(route, Route) and route.matches({**request.scope, "path": path})[0] is not Match.NONE:
            yield route


def _allowed_methods(request: Request) -> list[str]:
    routes = _routes_at(request, request.scope["path"])
    return sorted({method for route in routes for method in route.methods or ()})


def _body_meant(request: Request) -> str:
    """The body of a path that takes nothing but one, of which a caller has sent the values elsewhere."""
    match list(_routes_at(request, request.scope["path"])):
        case [APIRoute(body_field=field)] if field is not None:
            kind = field.field_info.annotation
            return f", with {json_form((get_args(kind) or (kind,))[0])} as JSON"
    return ""


def _path_meant(request: Request) -> str:
    """The path of ours that a path with slashes at its end, or several in a row, was to be."""
    path = request.scope["path"]
    plain = "/" + "/".join(part for part in path.split("/") if part)
    route = next(_routes_at(request, plain), None) if plain != path else None
    return f": write {route.path}, with single slashes and none at the end" if route else ""


def _openapi(app: FastAPI, example_code: str | None) -> dict[str, Any]:
    if app.openapi_schema is None:
        schema = FastAPI.openapi(app)
        components = schema.setdefault("components", {})
        components.setdefault("schemas", {})["Problem"] = Problem.model_json_schema(
            ref_template="#/components/schemas/{model}"
        )
        components["schemas"].pop("HTTPValidationError", None)
        components["schemas"].pop("ValidationError", None)
        components["securitySchemes"] = {
            BearerGuard.scheme_name: BearerGuard.model.model_dump(mode="json", by_alias=True, exclude_none=True),
            **SERVICE_CLIENT_SCHEME,
        }
        _leave_out_fastapis_refusal(schema)
        _keep_nulls_of_examples(app, schema)
        if example_code is not None:
            components["schemas"][LoginRequest.__name__]["examples"] = [{"code": example_code}]
        schema["paths"] = _in_reading_order(schema["paths"])
    assert app.openapi_schema is not None
    return app.openapi_schema


def _in_reading_order(paths: dict[str, Any]) -> dict[str, Any]:
    """Put the operations on one's own account first, in a reading order, because several rooms declare them."""
    places = {path: place for place, path in enumerate(_READ_FIRST)}
    return {path: paths[path] for path in sorted(paths, key=lambda path: places.get(path, len(places)))}


def _leave_out_fastapis_refusal(schema: dict[str, Any]) -> None:
    """Remove the 422 that FastAPI documents for any parameter, although unvalidated text is never refused."""
    for operation in (operation for path in schema["paths"].values() for operation in path.values()):
        if "application/json" in operation["responses"].get("422", {}).get("content", {}):
            del operation["responses"]["422"]


def _keep_nulls_of_examples(app: FastAPI, schema: dict[str, Any]) -> None:
    """Restore the nulls that FastAPI omits from an answer's example."""
    for route in (route for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema):
        given = route.responses.get(200, {}).get("content", {}).get("application/json", {})
        for method in (route.methods or ()) if "example" in given else ():
            operation = schema["paths"][route.path_format][method.lower()]
            operation["responses"]["200"]["content"]["application/json"]["example"] = given["example"]
