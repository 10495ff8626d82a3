"""CORS for the pages of public clients."""

from contextlib import suppress
from typing import Final

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wxauth.errors import StorageUnavailable
from wxauth.server.clients.clients import is_registered, origin_of
from wxauth.server.clients.rows import public_redirect_uris
from wxauth.server.core.database import Database
from wxauth.server.core.settings import Settings

CORS_PATHS: Final = frozenset(
    {
        "/v1/token",
        "/v1/revoke",
        "/v1/userinfo",
        "/.well-known/openid-configuration",
        "/.well-known/oauth-authorization-server",
        "/.well-known/jwks.json",
    }
)
"""The endpoints that a public client calls from its own page."""
_FOR_ANY_ORIGIN: Final = CORS_PATHS - {"/v1/userinfo", "/.well-known/jwks.json"}
"""Those that a client calls which nobody has registered, so that its origin is unknown."""
_METHODS: Final = "GET, POST"
_HEADERS: Final = "Authorization, Content-Type, MCP-Protocol-Version, X-Request-ID"
_EXPOSED: Final = "X-Request-ID, Retry-After, WWW-Authenticate"
_PREFLIGHT_MAX_AGE: Final = 600


class SiteCors:
    """Allows pages of public clients. The middleware for `CORS_ORIGINS` runs inside this one.

    A change of the clients takes effect at once: every origin outside `CORS_ORIGINS` is looked up in the database.
    """

    def __init__(self, app: ASGIApp, settings: Settings, database: Database) -> None:
        self._app = app
        self._database = database
        self._origins = frozenset(settings.cors_origins)
        self._for_any_origin = _FOR_ANY_ORIGIN if settings.client_documents else frozenset[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        path = scope["path"].removeprefix(scope.get("root_path", "")) if scope["type"] == "http" else ""
        if path not in CORS_PATHS:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        origin = headers.get("origin")
        is_admitted = origin is not None and path in self._for_any_origin
        if origin is not None and not is_admitted and self._origins.isdisjoint(("*", origin)):
            with suppress(StorageUnavailable):  # during an outage no page is allowed
                uris = await public_redirect_uris(self._database)
                is_admitted = is_registered(origin, [origin_of(uri) for uri in uris])

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                answer = MutableHeaders(scope=message)
                answer.add_vary_header("Origin")
                if is_admitted and origin is not None:
                    answer["Access-Control-Allow-Origin"] = origin
                    answer["Access-Control-Expose-Headers"] = _EXPOSED
            await send(message)

        if is_admitted and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
            preflight = {
                "Access-Control-Allow-Methods": _METHODS,
                "Access-Control-Allow-Headers": _HEADERS,
                "Access-Control-Max-Age": str(_PREFLIGHT_MAX_AGE),
            }
            await PlainTextResponse("OK", headers=preflight)(scope, receive, send_with_headers)
            return
        await self._app(scope, receive, send_with_headers)
