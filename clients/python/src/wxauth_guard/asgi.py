"""The guard as ASGI middleware, for Starlette, Litestar and apps without a framework."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING
from urllib.parse import unquote

from wxauth_guard.bearer import Guard, authorizations_of
from wxauth_guard.entry import Entry
from wxauth_guard.errors import WxAuthError
from wxauth_guard.problems import POLICY_VIOLATION, WEBSOCKET_DENIAL, asgi_problem

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send


class BearerMiddleware:
    """Middleware that passes on HTTP requests and WebSockets with a valid access token.

    It refuses all others, unless `public` or `optional` admits them.

    The middleware stores the `Principal` in `scope["user"]`, which is `request.user` in Starlette and Litestar. Put
    CORS middleware outside this middleware, because a browser's preflight contains no token, and a refusal needs the
    CORS headers, too.

    Args:
        app: The app to guard.
        guard: The guard that checks the tokens.
        roles: The required roles. The user must have all of them.
        public: Paths that need no token, each as written in the routes of `app`, and compared exactly. There are no
            patterns. Tokens on these paths are ignored. The path of the guard's resource metadata is public, too. If
            the server does not pass on the path as it was sent (ASGI's `raw_path`), no path is public.
        optional: Whether requests without a Bearer token also pass, for apps that have open pages or another login. For
            such requests, `scope["user"]` stays unchanged, or becomes None if it is missing. Therefore, call
            `require_roles` where a user is needed. If a request contains a token, the token must be valid.
    """

    def __init__(
        self,
        app: ASGIApp,
        guard: Guard,
        *,
        roles: Iterable[str] = (),
        public: Iterable[str] = (),
        optional: bool = False,
    ) -> None:
        self._app = app
        self._entry = Entry(guard, roles, optional=optional)
        self._public = guard.public_paths(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, one WebSocket, or the app's lifespan."""
        if scope["type"] != "lifespan" and not self._is_public(scope):
            try:
                principal = await self._entry.find_user(*authorizations_of(scope))
            except WxAuthError as refusal:
                await _refuse(refusal, scope, send)
                return
            if principal is not None:
                scope["user"] = principal
            scope.setdefault("user", None)
        await self._app(scope, receive, send)

    def _is_public(self, scope: Scope) -> bool:
        path = _path_in_app(scope, scope["path"])
        if path not in self._public:
            return False
        # Litestar and other dispatchers remove a handler's mount point from the path, and the rest might look like a
        # public path. Therefore the path that the client sent must be public, too.
        raw_path = scope.get("raw_path")
        return raw_path is not None and _path_in_app(scope, unquote(raw_path)) == path


def _path_in_app(scope: Scope, path: str) -> str:
    # Some servers leave the mount point out, so a path that does not begin with it is already relative.
    root_path: str = scope.get("root_path", "")
    return path.removeprefix(root_path) if path.startswith(f"{root_path}/") else path


async def _refuse(refusal: WxAuthError, scope: Scope, send: Send) -> None:
    is_websocket = scope["type"] == "websocket"
    if is_websocket and WEBSOCKET_DENIAL not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": POLICY_VIOLATION, "reason": refusal.code})
        return
    response = asgi_problem(refusal, scope)
    headers = {**response.headers, "Content-Length": str(len(response.body))}
    raw_headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()]
    response_type = WEBSOCKET_DENIAL if is_websocket else "http.response"
    await send({"type": f"{response_type}.start", "status": response.status, "headers": raw_headers})
    await send({"type": f"{response_type}.body", "body": response.body})
