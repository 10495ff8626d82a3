"""The guard as WSGI middleware, for Flask, Django and apps without a framework."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Final

from wxauth_guard.bearer import Guard
from wxauth_guard.entry import Entry
from wxauth_guard.errors import WxAuthError
from wxauth_guard.problems import problem

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

USER_KEY: Final = "wxauth.user"


class BearerWSGIMiddleware:
    """Middleware that passes on requests with a valid access token, like `BearerMiddleware`.

    It refuses all others, unless `public` or `optional` admits them. The app finds the `Principal` in
    `environ["wxauth.user"]`.

    Args:
        app: The app to guard.
        guard: The guard that checks the tokens.
        roles: The required roles. The user must have all of them.
        public: Paths that need no token, each as written in the routes of `app` (`PATH_INFO`), and compared exactly.
            Tokens on these paths are ignored. The path of the guard's resource metadata is always public.
        optional: Whether requests without a Bearer token also pass, like `optional` of `BearerMiddleware`. The environ
            of such a request has no `wxauth.user`, so call `require_roles(environ.get("wxauth.user"))` where a user is
            needed.
    """

    def __init__(
        self,
        app: WSGIApplication,
        guard: Guard,
        *,
        roles: Iterable[str] = (),
        public: Iterable[str] = (),
        optional: bool = False,
    ) -> None:
        self._app = app
        self._entry = Entry(guard, roles, optional=optional)
        self._public = guard.public_paths(public)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        environ.pop(USER_KEY, None)  # an outer app must not decide who the user is
        if _path(environ) not in self._public:
            try:
                principal = self._entry.find_user_sync(environ.get("HTTP_AUTHORIZATION"))
            except WxAuthError as refusal:
                return _refuse(refusal, environ, start_response)
            if principal is not None:
                environ[USER_KEY] = principal
        return self._app(environ, start_response)


class _Headers:
    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ

    def get(self, name: str, /) -> str | None:
        value: str | None = self._environ.get(f"HTTP_{name.upper().replace('-', '_')}")
        return value


def _path(environ: WSGIEnvironment) -> str:
    path: str = environ.get("PATH_INFO", "")
    # WSGI decodes the path's bytes as Latin-1 (PEP 3333).
    return path.encode("latin-1", "replace").decode(errors="replace")


def _refuse(refusal: WxAuthError, environ: WSGIEnvironment, start_response: StartResponse) -> list[bytes]:
    response = problem(refusal, _Headers(environ))
    headers = [*response.headers.items(), ("Content-Length", str(len(response.body)))]
    start_response(f"{response.status} {HTTPStatus(response.status).phrase}", headers)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [response.body]
