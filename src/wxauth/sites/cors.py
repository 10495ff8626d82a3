"""The CORS headers for web pages at the origins in `CORS_ORIGINS`, and for the pages of public clients."""

from contextlib import suppress
from typing import Final
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wxauth.clients.queries import PUBLIC_REDIRECT_URIS
from wxauth.clients.redirect_uris import is_registered, origin_of
from wxauth.core.database import Database
from wxauth.errors import StorageUnavailable
from wxauth.keys.models import JWKS_PATH
from wxauth.settings.settings import Settings
from wxauth.sites.oauth_routes import OPENID_METADATA_PATH, REVOKE_PATH, TOKEN_PATH, USERINFO_PATH
from wxauth_guard.issuer import METADATA_PATH

# A public client calls these paths from its web page.
CORS_PATHS: Final = frozenset(
    {
        TOKEN_PATH,
        REVOKE_PATH,
        USERINFO_PATH,
        OPENID_METADATA_PATH,
        METADATA_PATH,
        JWKS_PATH,
    }
)
# Unregistered clients call these paths. wxauth does not know their origins.
_ANY_ORIGIN_PATHS: Final = CORS_PATHS - {USERINFO_PATH, JWKS_PATH}
_REQUEST_HEADERS: Final = ("Authorization", "Content-Type", "X-Request-ID")
_EXPOSED_HEADERS: Final = ("X-Request-ID", "Retry-After", "WWW-Authenticate")


class Cors:
    """Middleware that allows web pages of other origins to call the service.

    Pages at the origins in `CORS_ORIGINS` may call every route except those with PUT, which only services use. Pages of
    public clients, whose origins are read from the database for each request, may call only `CORS_PATHS`. If the
    settings allow clients with documents, all pages may call `_ANY_ORIGIN_PATHS`.
    """

    def __init__(self, app: ASGIApp, settings: Settings, database: Database) -> None:
        self._database = database
        self._origins = frozenset(settings.cors_origins)
        # Clients insert the well-known path between the host and the path of the issuer (RFC 8414, section 3.1).
        at_root = {METADATA_PATH + urlsplit(settings.issuer).path}
        self._cors_paths = CORS_PATHS | at_root
        self._any_origin_paths = frozenset[str]()
        if settings.client_documents:
            self._any_origin_paths = _ANY_ORIGIN_PATHS | at_root
        self._app_for_configured_origins = app
        if self._origins:
            self._app_for_configured_origins = CORSMiddleware(
                app,
                allow_origins=settings.cors_origins,
                allow_methods=["GET", "POST", "PATCH", "DELETE"],
                allow_headers=_REQUEST_HEADERS,
                expose_headers=_EXPOSED_HEADERS,
            )
        # This middleware allows any origin, because it gets only the requests for which `_is_for_client_pages` is true.
        self._app_for_client_pages = CORSMiddleware(
            app,
            allow_origin_regex=".*",
            allow_methods=["GET", "POST"],
            # MCP clients send the last of these headers when they read metadata.
            allow_headers=[*_REQUEST_HEADERS, "MCP-Protocol-Version"],
            expose_headers=_EXPOSED_HEADERS,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = ""  # for the lifespan, for which the server also calls the app
        if scope["type"] == "http":
            path = scope["path"].removeprefix(scope.get("root_path", ""))
        if path not in self._cors_paths:
            await self._app_for_configured_origins(scope, receive, send)
            return

        # A response without CORS headers needs `Vary`, too, so that no cache returns it to pages of other origins.
        async def send_with_vary(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if "Origin" not in headers.get("vary", ""):
                    headers.add_vary_header("Origin")
            await send(message)

        origin = Headers(scope=scope).get("origin")
        is_for_client_pages = origin is not None and await self._is_for_client_pages(path, origin)
        app = self._app_for_client_pages if is_for_client_pages else self._app_for_configured_origins
        await app(scope, receive, send_with_vary)

    async def _is_for_client_pages(self, path: str, origin: str) -> bool:
        if path in self._any_origin_paths:
            return True
        if self._origins.isdisjoint(("*", origin)):  # `*` in `CORS_ORIGINS` allows any origin
            with suppress(StorageUnavailable):  # then the clients' origins are not known
                redirect_uris = await self._database.values(PUBLIC_REDIRECT_URIS)
                # On a loopback address, the page's port is allowed to differ from the port in the redirect URI.
                return is_registered(origin, map(origin_of, redirect_uris))
        return False
