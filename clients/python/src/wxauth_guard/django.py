"""The guard in Django, for functions, methods and classes of views, synchronous or not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, wraps
from typing import Any, Final, TypeVar

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.conf import settings
from django.db import connections
from django.http import HttpRequest, HttpResponse
from django.http.response import HttpResponseBase
from django.middleware.csrf import CsrfViewMiddleware
from django.utils.module_loading import import_string

from wxauth_guard.bearer import Guard
from wxauth_guard.claims import Principal
from wxauth_guard.entry import ABOUT_USER, Entry, guard_views_of, is_preflight
from wxauth_guard.errors import WxAuthError
from wxauth_guard.problems import problem

_View = TypeVar("_View", bound=Callable[..., Any])

# The value of a view's attribute `csrf_exempt` if only the guard has set it.
_BY_GUARD: Final = "a verified bearer token"


def bearer(guard: Guard, *roles: str, optional: bool = False) -> Callable[[_View], _View]:
    """Return a decorator that admits users with all of these roles to a view, or to a class of views.

    `request.wxauth` is then the user, or None. Django's check against forged requests is left out only for requests
    with a verified token. Guard the class, and not its `post` alone, because Django makes the check before it calls the
    method.

    If the setting `WXAUTH_REFUSE` names a function, it answers refusals in place of the guard. It takes the request and
    the `WxAuthError`, and returns a response.

    Args:
        guard: The guard that checks the token, for example `guard.current`.
        roles: The required roles. The user must have all of them.
        optional: Whether to admit requests without a Bearer token, too.
    """
    entry = Entry(guard, roles, optional=optional)

    def decorate(view: Any) -> Any:
        if isinstance(view, type):
            return guard_views_of(view, decorate)

        def respond(*args: Any, **captured: Any) -> Any:
            request: Any = next(arg for arg in args[:2] if isinstance(arg, HttpRequest))
            view_class = _class_of(view, args)
            if is_preflight(request.method, request.headers) and _answers_as_django_does(view_class):
                return view(*args, **captured)
            if iscoroutinefunction(view) or getattr(view_class, "view_is_async", False):
                return respond_later(request, args, captured)
            try:
                user = entry.find_user_sync(request.headers.get("Authorization"))
            except WxAuthError as refusal:
                return _refuse(request, refusal)
            try:
                return _check_guest(request, user, view) or view(*args, **captured)
            except ABOUT_USER as refusal:
                _roll_back()
                return _refuse(request, refusal)

        async def respond_later(request: Any, args: Any, captured: Any) -> Any:
            try:
                user = await entry.find_user(request.headers.get("Authorization"))
            except WxAuthError as refusal:
                return _refuse(request, refusal)
            try:
                return _check_guest(request, user, view) or await view(*args, **captured)
            except ABOUT_USER as refusal:
                return _refuse(request, refusal)

        guarded: Any = wraps(view)(respond)
        if iscoroutinefunction(view):
            guarded = markcoroutinefunction(guarded)
        if not getattr(view, "csrf_exempt", False):
            guarded.csrf_exempt = _BY_GUARD
        return guarded

    return decorate


def _class_of(view: Any, args: tuple[Any, ...]) -> Any:
    """Return the class of views whose method, or whose `as_view`, this is."""
    if args and not isinstance(args[0], HttpRequest):
        return type(args[0]) if view.__name__ == "dispatch" else None
    method = getattr(view, "func", view)  # `method_decorator` passes a partial of the bound method
    if getattr(method, "__name__", "") == "dispatch" and hasattr(method, "__self__"):
        return type(method.__self__)
    return getattr(view, "view_class", None)


def _answers_as_django_does(view_class: Any) -> bool:
    # A project's own `dispatch` might answer a preflight like any other request.
    methods = [getattr(view_class, name, None) for name in ("dispatch", "options")]
    return all(getattr(method, "__module__", "").startswith(("django.", "rest_framework.")) for method in methods)


def _check_guest(request: Any, user: Principal | None, view: Callable[..., Any]) -> HttpResponseBase | None:
    """Store the user, and make the check against forged requests that Django has left out because of the guard."""
    request.wxauth = user
    called = getattr(request.resolver_match, "func", None)
    middleware = _csrf_middleware()
    if user is not None or middleware is None or getattr(called, "csrf_exempt", None) is not _BY_GUARD:
        return None
    response: Any = middleware(_unused).process_view(request, view, (), {})
    return response


@cache
def _csrf_middleware() -> type[CsrfViewMiddleware] | None:
    for path in settings.MIDDLEWARE:
        middleware = import_string(path)
        if isinstance(middleware, type) and issubclass(middleware, CsrfViewMiddleware):
            return middleware
    return None


def _unused(request: HttpRequest) -> HttpResponseBase:
    raise NotImplementedError


def _roll_back() -> None:
    # With ATOMIC_REQUESTS, Django stores what the view has written unless an error leaves the view.
    for connection in connections.all():
        if connection.settings_dict["ATOMIC_REQUESTS"] and connection.in_atomic_block:
            connection.set_rollback(True)


def _refuse(request: HttpRequest, refusal: WxAuthError) -> HttpResponseBase:
    path: str | None = getattr(settings, "WXAUTH_REFUSE", None)
    if path is not None:
        response: HttpResponseBase = import_string(path)(request, refusal)
        return response
    return problem_response(request, refusal)


def problem_response(request: Any, refusal: WxAuthError) -> HttpResponse:
    """Return the guard's own answer to a refused request."""
    body, status, headers = problem(refusal, request.headers)
    return HttpResponse(body, status=status, headers=headers)
