"""The guard in Flask, for functions, methods and classes of views."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar
from weakref import WeakSet

from flask import Flask, Response, current_app, g, request, request_started
from werkzeug.local import LocalProxy

from wxauth_guard.bearer import Guard
from wxauth_guard.claims import Principal
from wxauth_guard.entry import ABOUT_USER, Entry, check_not_open, guard_views_of, handled_classes, note_guard
from wxauth_guard.errors import WxAuthError
from wxauth_guard.problems import problem

_View = TypeVar("_View", bound=Callable[..., Any])

_checked_apps: Final[WeakSet[Flask]] = WeakSet()

current_user: Principal = LocalProxy(lambda: g.get("wxauth"))  # type: ignore[assignment]
"""The user of this request, which is also `g.wxauth`. It is false if nobody is logged in."""


def bearer(guard: Guard, *roles: str, optional: bool = False) -> Callable[[_View], _View]:
    """Return a decorator that admits users with all of these roles to a view, or to a class of views.

    Place it below the decorator that registers the route. Otherwise, the app's first request raises RuntimeError. A
    handler that the app or the blueprint registers for `WxAuthError` answers refusals in place of the guard.

    Args:
        guard: The guard that checks the token, for example `guard.current`.
        roles: The required roles. The user must have all of them.
        optional: Whether to admit requests without a Bearer token, too.
    """
    entry = Entry(guard, roles, optional=optional)

    def decorate(view: Any) -> Any:
        if isinstance(view, type):
            return guard_views_of(view, decorate)

        @wraps(view)
        def guarded(*args: Any, **captured: Any) -> Any:
            try:
                g.wxauth = entry.find_user_sync(request.headers.get("Authorization"))
            except WxAuthError as refusal:
                return _refuse(refusal)
            try:
                return current_app.ensure_sync(view)(*args, **captured)
            except ABOUT_USER as refusal:
                return _refuse(refusal)

        note_guard(view, guarded)
        return guarded

    return decorate


def _refuse(refusal: WxAuthError) -> Response:
    handlers = current_app.error_handler_spec
    for error_class in handled_classes(type(refusal)):
        for name in (*request.blueprints, None):
            handler = handlers[name][None].get(error_class)
            if handler is not None:
                return current_app.make_response(current_app.ensure_sync(handler)(refusal))
    return current_app.make_response(problem(refusal, request.headers))


def _refuse_open_views(app: Flask, **_: Any) -> None:
    if app in _checked_apps:
        return
    for view in app.view_functions.values():
        check_not_open(view)
    _checked_apps.add(app)


request_started.connect(_refuse_open_views)
