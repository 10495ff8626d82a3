"""The guard in Litestar, as one of a route's or an app's `guards`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from litestar import Request, Response
from litestar.connection import ASGIConnection
from litestar.exceptions import WebSocketException
from litestar.handlers import BaseRouteHandler
from litestar.utils.scope.state import ScopeState

from wxauth_guard.bearer import Guard, authorizations_of
from wxauth_guard.entry import ABOUT_USER, Entry, handled_classes, is_preflight
from wxauth_guard.errors import WxAuthError
from wxauth_guard.problems import POLICY_VIOLATION, asgi_problem

_Connection = ASGIConnection[Any, Any, Any, Any]


def bearer(
    guard: Guard, *roles: str, optional: bool = False
) -> Callable[[_Connection, BaseRouteHandler], Awaitable[None]]:
    """Return a function for `guards`, which admits users with all of these roles.

    `request.user` is then the user, or None. A handler for `WxAuthError` in `exception_handlers` answers refusals in
    place of the guard.

    Args:
        guard: The guard that checks the token, for example `guard.current`.
        roles: The required roles. The user must have all of them.
        optional: Whether to admit requests without a Bearer token, too.
    """
    entry = Entry(guard, roles, optional=optional)

    async def guarded(connection: _Connection, handler: BaseRouteHandler) -> None:
        scope: Any = connection.scope
        if is_preflight(scope.get("method"), connection.headers) and handler.fn.__module__.startswith("litestar."):
            return
        try:
            scope["user"] = await entry.find_user(*authorizations_of(scope))
        except WxAuthError as refusal:
            if scope["type"] == "websocket":
                raise WebSocketException(detail=refusal.code, code=POLICY_VIOLATION) from refusal
            _answer(scope, type(refusal))
            raise
        for error_class in ABOUT_USER:
            _answer(scope, error_class)

    return guarded


def _answer(scope: Any, error_class: type[WxAuthError]) -> None:
    """Answer errors of this class in this request, unless the app has a handler for them."""
    state: Any = ScopeState.from_scope(scope)
    handlers = state.exception_handlers
    if not any(each in handlers for each in handled_classes(error_class)):
        state.exception_handlers = {**handlers, error_class: _refuse}


def _refuse(request: Request[Any, Any, Any], refusal: Exception) -> Response[bytes]:
    assert isinstance(refusal, WxAuthError)
    body, status, headers = asgi_problem(refusal, request.scope)
    return Response(body, status_code=status, headers=headers, media_type=headers.pop("Content-Type"))
