"""The app, which consists of all routes and the middleware around them."""

from copy import copy
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Scope

from wxauth import __version__
from wxauth.apps import routes as app_routes
from wxauth.checks import routes as check_routes
from wxauth.clients import routes as client_routes
from wxauth.clients.service_clients import SERVICE_CLIENT_SCHEME
from wxauth.console.routes import add_console
from wxauth.core.services import Services
from wxauth.errors import AccountDisabled
from wxauth.events import feed_routes, webhook_routes
from wxauth.i18n import lazy_gettext as _
from wxauth.keys import routes as key_routes
from wxauth.login import routes as login_routes, staff_routes
from wxauth.login.refusals import Refusals
from wxauth.login.schemas import LoginRequest
from wxauth.merging import routes as merging_routes
from wxauth.phones import routes as phone_routes
from wxauth.pictures import routes as picture_routes
from wxauth.push import routes as push_routes
from wxauth.service import metrics, probes
from wxauth.service.build import Tracing
from wxauth.service.lifespan import lifespan
from wxauth.session_keys import routes as session_key_routes
from wxauth.settings.apps import PUSH_PATH
from wxauth.siblings import introspection_routes, user_routes, verify_routes, wechat_routes
from wxauth.sites import metadata_routes, oauth_routes
from wxauth.sites.cors import Cors
from wxauth.sites.doors import routes as door_routes
from wxauth.sites.pages import logout_routes, routes as page_routes
from wxauth.sites.pages.front_page import add_front_page
from wxauth.users import account_routes, admin_routes, own_data_routes
from wxauth.web.direct import DirectRoute, DirectRoutes, Shortcut
from wxauth.web.docs import add_docs, openapi_of
from wxauth.web.edge import Edge
from wxauth.web.failures import add_failures
from wxauth.web.proxies import BehindProxies
from wxauth_guard.errors import WxAuthError
from wxauth_guard.problems import REQUEST_ID_KEY

_DESCRIPTION: Final = _("""
Lets users of WeChat mini-programs log in. Exchange a `wx.login` code for tokens, and send the access token in the
`Authorization: Bearer` header.

A failed request returns `application/problem+json` (RFC 9457). Your program handles `code` and shows `title` to the
user. In wxauth's repository, `docs/reference/errors.md` explains each `code` and what to do next.
""")

_ROUTERS: Final = (
    login_routes.router,
    account_routes.router,
    own_data_routes.router,
    phone_routes.router,
    picture_routes.router,
    session_key_routes.router,
    admin_routes.router,
    merging_routes.router,
    staff_routes.router,
    app_routes.router,
    key_routes.admin_router,
    check_routes.router,
    key_routes.router,
    metadata_routes.router,
    probes.router,
    metrics.router,
    verify_routes.router,
    introspection_routes.router,
    user_routes.router,
    wechat_routes.router,
    client_routes.router,
    feed_routes.router,
    door_routes.router,
    oauth_routes.router,
    page_routes.router,
    logout_routes.router,
    webhook_routes.router,
    push_routes.router,
)  # in the order of the API's documentation


def _head_of(route: DirectRoute) -> DirectRoute:
    # FastAPI serves HEAD only if it is declared. The server omits the body of the response.
    head = copy(route)
    head.methods = {"HEAD"}
    head.include_in_schema = False
    return head


_DECLARED_ROUTES: Final = [route for router in _ROUTERS for route in router.routes]
_HEAD_ROUTES: Final = [_head_of(route) for route in _DECLARED_ROUTES if "GET" in (route.methods or ())]
_FIXED_ROUTES: Final = [*_DECLARED_ROUTES, *_HEAD_ROUTES]  # do not depend on the settings
# `Shortcut` calls them without matching the routes before them.
_DIRECT_ROUTES: Final = DirectRoutes(_FIXED_ROUTES, with_parameters=[wechat_routes.SIGNATURES_PATH, PUSH_PATH])


def create_app(services: Services, *, example_code: str | None = None) -> ASGIApp:
    """Create the whole service as an ASGI app.

    The lifespan runs the background tasks, and closes all parts at the end. If `example_code` is given, the example of
    a login in the documentation contains this code.
    """
    return with_middleware(create_api(services, example_code=example_code), services)


def with_middleware(api: FastAPI, services: Services) -> ASGIApp:
    """Return the app with the middleware around it, and give the routes to the metrics, which report each route.

    Tests may set `api.dependency_overrides` before or after this call.
    """
    settings, readiness = services.settings, services[probes.Readiness]
    services[metrics.PrometheusMetrics].routes = [route for route in api.routes if isinstance(route, Route)]
    # Each layer prepares the request for the layers inside it. `Cors` wraps the routes and the handlers of failures, so
    # that browsers can also read the responses to failures.
    app: ASGIApp = Cors(Shortcut(api, _DIRECT_ROUTES), settings, services.database)
    app = Edge(
        app,
        size_limits={
            picture_routes.UPLOAD_PATH: picture_routes.MAX_UPLOAD_BYTES,
            wechat_routes.SIGNATURES_PATH: wechat_routes.MAX_SIGNATURE_BODY,
            PUSH_PATH: push_routes.MAX_MESSAGE,
        },
        time_limits={picture_routes.UPLOAD_PATH: picture_routes.UPLOAD_TIMEOUT_SECONDS},
        on_refusal=partial(_note_refusal, services),
        leaving=readiness,
    )
    return BehindProxies(
        services[Tracing].app(app),  # if traces are enabled, opens a span
        settings.trusted_proxies,
        root_path=urlsplit(settings.issuer).path,
        gateway_path=verify_routes.VERIFY_PATH,
        as_question=verify_routes.as_plain_get,
    )


def create_api(services: Services | None = None, *, example_code: str | None = None) -> FastAPI:
    """Create the routes and their documentation.

    Without services, the documentation can be read, but no route can be called.
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
        openapi_url=None,  # `add_docs` adds this route, and the routes of the documentation
        redirect_slashes=False,
        # FastAPI's own spans, metrics and logs would duplicate wxauth's.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        lifespan=None if services is None else partial(lifespan, services),
    )
    add_failures(api)
    if root_path:
        api.router.routes.extend(metadata_routes.metadata_at_root(root_path))
    # With `include_router`, FastAPI would match each request against an additional router.
    api.router.routes.extend(_FIXED_ROUTES)
    add_docs(api)
    add_console(api)
    if services is not None:
        api.state.services = services
        # These routes come after the others, so that no file hides one of them.
        api.router.routes.extend(_route_of_check_file(value) for value in services.settings.check_files)
        add_front_page(api)
    api.openapi = partial(_openapi, api, example_code)  # type: ignore[method-assign]  # FastAPI's documented way to extend it
    return api


def _openapi(api: FastAPI, example_code: str | None) -> dict[str, Any]:
    document = openapi_of(api, schemes=SERVICE_CLIENT_SCHEME)
    if example_code is not None:
        document["components"]["schemas"][LoginRequest.__name__]["examples"] = [{"code": example_code}]
    return document


def _route_of_check_file(setting: str) -> Route:
    path, _colon, text = setting.partition(":")

    async def read_check_file(_request: Request) -> Response:
        return PlainTextResponse(text, headers={"Cache-Control": "no-store"})

    return Route(f"/{path}", read_check_file)


def _note_refusal(services: Services, scope: Scope, error: WxAuthError) -> None:
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    is_login = path == login_routes.LOGIN
    # A refused refresh is stored only if the user is banned. After any other refusal, the phone logs in again, and the
    # user notices nothing.
    is_refresh_of_banned_user = path == login_routes.REFRESH and isinstance(error, AccountDisabled)
    if scope["method"] != "POST" or not (is_login or is_refresh_of_banned_user):
        return
    client = scope.get("client")
    ip = None if client is None else client[0]
    # Support staff can then find the refusal.
    services[Refusals].note(error, ip=ip, request_id=scope[REQUEST_ID_KEY])
