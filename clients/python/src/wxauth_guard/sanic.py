"""The guard in Sanic, for functions, methods and classes of views."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import isawaitable
from typing import Any, TypeVar

from sanic import Request, Sanic, raw
from sanic.server.websockets.impl import WebsocketImplProtocol

from wxauth_guard.bearer import Guard
from wxauth_guard.entry import ABOUT_USER, Entry, check_not_open, guard_views_of, handled_classes, note_guard, open_view
from wxauth_guard.errors import WxAuthError
from wxauth_guard.problems import POLICY_VIOLATION, problem

_View = TypeVar("_View", bound=Callable[..., Any])


def bearer(guard: Guard, *roles: str, optional: bool = False) -> Callable[[_View], _View]:
    """Return a decorator that admits users with all of these roles to a handler, or to a class of views.

    `request.ctx.wxauth` is then the user, or None. Place the decorator below the one that registers the route.
    Otherwise, it raises RuntimeError or, if the route belongs to a blueprint, the app does so when it starts. A handler
    that the app registers for `WxAuthError` answers refusals in place of the guard.

    Args:
        guard: The guard that checks the token, for example `guard.current`.
        roles: The required roles. The user must have all of them.
        optional: Whether to admit requests without a Bearer token, too.
    """
    entry = Entry(guard, roles, optional=optional)

    def decorate(view: Any) -> Any:
        for app in Sanic._app_registry.values():
            if any(view in (each.handler, getattr(each.handler, "view_class", None)) for each in app._future_routes):
                raise open_view(view)
        if isinstance(view, type):
            return guard_views_of(view, decorate)

        @wraps(view)
        async def guarded(*args: Any, **captured: Any) -> Any:
            request = next(arg for arg in args[:2] if isinstance(arg, Request))
            try:
                request.ctx.wxauth = await entry.find_user(*request.headers.getall("Authorization", ()))
            except WxAuthError as refusal:
                return await _refuse(request, refusal, args)
            try:
                response = view(*args, **captured)
                return await response if isawaitable(response) else response
            except ABOUT_USER as refusal:
                return await _refuse(request, refusal, args)

        note_guard(view, guarded)
        return guarded

    return decorate


async def _refuse(request: Request, refusal: WxAuthError, args: tuple[Any, ...]) -> Any:
    for websocket in args[1:3]:
        if isinstance(websocket, WebsocketImplProtocol):
            await websocket.close(POLICY_VIOLATION, refusal.code)
            return None
    handlers = request.app.error_handler.cached_handlers
    for error_class in handled_classes(type(refusal)):
        for name in (request.name, None):
            handler = handlers.get((error_class, name))
            # Sanic also stores here which handler of a base class, such as Exception, it has once found for a class.
            if handler is not None and handler not in (
                handlers.get((Exception, each)) for each in (request.name, None)
            ):
                response = handler(request, refusal)
                return await response if isawaitable(response) else response
    return raw(*problem(refusal, request.headers))


def _finalize_checked(app: Sanic[Any, Any]) -> None:
    _finalize(app)
    for route in app.router.routes:
        check_not_open(route.handler)


# Sanic tells nobody about a blueprint before an app registers it, and nobody when an app starts.
_finalize = Sanic.finalize
Sanic.finalize = _finalize_checked  # type: ignore[assignment, method-assign]
