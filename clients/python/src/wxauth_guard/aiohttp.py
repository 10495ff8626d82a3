"""The guard in aiohttp's server, for functions, methods and classes of views."""

from __future__ import annotations

import warnings
from collections.abc import Awaitable, Callable, Generator
from functools import wraps
from inspect import isawaitable
from typing import Any, Final, TypeVar, cast

from aiohttp import web

from wxauth_guard.bearer import Guard
from wxauth_guard.entry import ABOUT_USER, Entry, is_preflight
from wxauth_guard.errors import WxAuthError
from wxauth_guard.problems import problem

_View = TypeVar("_View", bound=Callable[..., Any])

# aiohttp recommends typed keys, but handlers shall find the user without an import.
warnings.filterwarnings("ignore", category=web.NotAppKeyWarning, module=__name__)

_Refuse = Callable[[web.Request, WxAuthError], Awaitable[web.StreamResponse]]
REFUSE: Final[web.AppKey[_Refuse]] = web.AppKey("wxauth_refuse", cast(Any, object))
"""The key of a function in the app, or in one around it, that answers refusals in place of the guard."""


def bearer(guard: Guard, *roles: str, optional: bool = False) -> Callable[[_View], _View]:
    """Return a decorator that admits users with all of these roles to a handler, or to a `web.View`.

    `request["wxauth"]` is then the user, or None. Place the decorator below the one of a `RouteTableDef`, because a
    decorator above it guards nothing.

    Args:
        guard: The guard that checks the token, for example `guard.current`.
        roles: The required roles. The user must have all of them.
        optional: Whether to admit requests without a Bearer token, too.
    """
    entry = Entry(guard, roles, optional=optional)

    async def admit(request: web.Request) -> web.StreamResponse | None:
        try:
            request["wxauth"] = await entry.find_user(*request.headers.getall("Authorization", ()))
        except WxAuthError as refusal:
            return await _refuse(request, refusal)
        return None

    def decorate(view: Any) -> Any:
        if isinstance(view, type):
            return guard_view_class(view)

        @wraps(view)
        async def guarded(*args: Any, **kwargs: Any) -> Any:
            request = _request_of(args)
            refused = await admit(request)
            if refused is not None:
                return refused
            try:
                response = view(*args, **kwargs)
                return await response if isawaitable(response) else response
            except ABOUT_USER as refusal:
                return await _refuse(request, refusal)

        return guarded

    def guard_view_class(view_class: Any) -> Any:
        respond = view_class.__await__

        def guarded(self: web.View) -> Generator[Any, None, web.StreamResponse]:
            request = self.request
            # Without a method for it, aiohttp itself answers a preflight.
            if not (is_preflight(request.method, request.headers) and not hasattr(self, "options")):
                refused = yield from admit(request).__await__()
                if refused is not None:
                    return refused
            try:
                response: web.StreamResponse = yield from respond(self)
            except ABOUT_USER as refusal:
                response = yield from _refuse(request, refusal).__await__()
            return response

        view_class.__await__ = guarded
        return view_class

    return decorate


def _request_of(args: tuple[Any, ...]) -> web.Request:
    for arg in args[:2]:
        if isinstance(arg, web.Request):
            return arg
        if isinstance(arg, web.View):
            return arg.request
    raise TypeError("the guarded function is not a handler of a request")


async def _refuse(request: web.Request, refusal: WxAuthError) -> web.StreamResponse:
    if request.writer.output_size:  # the view has begun to respond, so aiohttp closes the connection
        raise refusal
    refuse: _Refuse | None = request.config_dict.get(REFUSE)
    if refuse is not None:
        return await refuse(request, refusal)
    return web.Response(**problem(refusal, request.headers)._asdict())
