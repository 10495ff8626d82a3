"""The guard in Tornado, as the base class of handlers."""

from __future__ import annotations

from functools import wraps
from inspect import isawaitable, iscoroutinefunction
from typing import Any, ClassVar

from tornado.web import RequestHandler

from wxauth_guard.bearer import Guard
from wxauth_guard.claims import Principal
from wxauth_guard.entry import ABOUT_USER, Entry, is_preflight
from wxauth_guard.errors import WxAuthError
from wxauth_guard.problems import problem


class BearerHandler(RequestHandler):
    """A handler that admits only users, which `self.wxauth` then contains.

    The guard comes before the `prepare` of subclasses. To answer refusals yourself, override `refuse`, which must not
    be a coroutine function. A preflight reaches `options`, without `prepare`, if another class than a `BearerHandler`
    defines it.
    """

    guard: ClassVar[Guard]
    roles: ClassVar[tuple[str, ...]] = ()
    """The required roles. The user must have all of them."""
    optional: ClassVar[bool] = False
    """Whether to admit requests without a Bearer token, too, with None as the user."""

    wxauth: Principal | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if iscoroutinefunction(cls.refuse):
            raise TypeError(f"{cls.__qualname__}.refuse must not be a coroutine function")
        prepare = cls.prepare
        if prepare is not BearerHandler.prepare and not hasattr(prepare, "_wxauth_guarded"):
            cls.prepare = _guarded(prepare)  # type: ignore[method-assign]

    async def prepare(self) -> None:
        """Find the user of the request, or refuse it."""
        if not await _admit(self):
            return
        prepared = super().prepare()
        if isawaitable(prepared):
            await prepared

    def refuse(self, refusal: WxAuthError) -> Any:
        """Finish the request with a problem document."""
        body, status, headers = problem(refusal, self.request.headers)
        self.clear()
        self.set_status(status)
        for name, value in headers.items():
            self.set_header(name, value)
        return self.finish(body)

    def send_error(self, status_code: int = 500, **kwargs: Any) -> None:
        """Refuse a user about whom the handler has raised an error."""
        error = (kwargs.get("exc_info") or (None, None))[1]
        if isinstance(error, ABOUT_USER) and not self._headers_written:
            _refuse(self, error)
        else:
            super().send_error(status_code, **kwargs)

    def log_exception(self, typ: Any, value: BaseException | None, tb: Any) -> None:
        """Leave refusals out of the log."""
        if not isinstance(value, ABOUT_USER):
            super().log_exception(typ, value, tb)


def _guarded(prepare: Any) -> Any:
    @wraps(prepare)
    async def guarded(self: BearerHandler) -> None:
        if await _admit(self):
            prepared = prepare(self)
            if isawaitable(prepared):
                await prepared

    guarded._wxauth_guarded = True  # type: ignore[attr-defined]
    return guarded


def _refuse(handler: BearerHandler, refusal: WxAuthError) -> None:
    handler.refuse(refusal)
    if not handler._finished:  # otherwise, Tornado would call the view
        handler.finish()  # type: ignore[unused-awaitable]


async def _admit(handler: BearerHandler) -> bool:
    """Return whether `prepare` goes on. Where `prepare` of two classes call each other, only the first one asks."""
    request = handler.request
    if hasattr(request, "_wxauth_is_admitted"):
        return True
    own = next(each for each in type(handler).__mro__ if "options" in each.__dict__)
    if is_preflight(request.method, request.headers) and not issubclass(own, BearerHandler):
        return False
    entry = Entry(handler.guard, handler.roles, optional=handler.optional)
    try:
        handler.wxauth = await entry.find_user(*request.headers.get_list("Authorization"))
    except WxAuthError as refusal:
        _refuse(handler, refusal)
        return False
    request._wxauth_is_admitted = True  # type: ignore[attr-defined]
    return True
