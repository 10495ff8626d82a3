"""The guard as ASGI middleware, for Starlette, Litestar and apps without a framework."""

from collections.abc import Iterable
from urllib.parse import unquote

from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket

from wxauth.errors import WxAuthError
from wxauth.guard.bearer import BearerGuard, all_of, authorizations_of, bearer_token, public_paths, require_roles
from wxauth.problems import answer_problem


class BearerMiddleware:
    """Passes on HTTP requests and WebSockets that carry a valid access token, and refuses others as the guard does.

    The `Principal` is `scope["user"]`, which is `request.user` in Starlette and Litestar. CORS middleware belongs
    outside this one: a browser's preflight carries no token, and a refusal needs the CORS headers, too.

    Args:
        app: The app to guard.
        guard: Checks the tokens.
        roles: The user must have every one of these.
        public: Paths that need no token, each as written in the routes of `app`, and compared exactly. There are no
            patterns. If the server does not pass on the path as it was sent (ASGI's `raw_path`), no path is public.

    Raises: ValueError, for a public path that does not begin with a slash.
    """

    def __init__(
        self, app: ASGIApp, guard: BearerGuard, *, roles: Iterable[str] = (), public: Iterable[str] = ()
    ) -> None:
        self._app = app
        self._guard = guard
        self._roles = all_of(roles)
        self._public = public_paths(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, one WebSocket, or the app's lifespan."""
        if scope["type"] != "lifespan" and not self._is_public(scope):
            try:
                principal = await self._guard.verify(bearer_token(*authorizations_of(scope)))
                require_roles(principal, *self._roles)
            except WxAuthError as refusal:
                await _refuse(refusal, scope, receive, send)
                return
            scope["user"] = principal
        await self._app(scope, receive, send)

    def _is_public(self, scope: Scope) -> bool:
        path = _path_in_app(scope, scope["path"])
        if path not in self._public:
            return False
        # Litestar and other dispatchers cut a handler's mount point off the path, and the rest may look like a public
        # path. So the path as it was sent must be public, too.
        sent = scope.get("raw_path")
        return sent is not None and _path_in_app(scope, unquote(sent)) == path


def _path_in_app(scope: Scope, path: str) -> str:
    root_path: str = scope.get("root_path", "")
    return path.removeprefix(root_path) if path.startswith(f"{root_path}/") else path


async def _refuse(refusal: WxAuthError, scope: Scope, receive: Receive, send: Send) -> None:
    is_websocket = scope["type"] == "websocket"
    answer = await answer_problem(WebSocket(scope, receive, send) if is_websocket else HTTPConnection(scope), refusal)
    if answer is not None:
        await answer(scope, receive, send)
