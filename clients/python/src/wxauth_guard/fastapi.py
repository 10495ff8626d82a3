"""The guard as a FastAPI dependency."""

from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from inspect import Parameter, getclosurevars, isasyncgen, isawaitable, isgenerator, isroutine, signature
from typing import Annotated, Any, Final, Optional, get_type_hints

from fastapi import Depends, params
from fastapi.dependencies.models import Dependant
from fastapi.openapi.models import HTTPBearer
from fastapi.routing import APIRoute
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response
from starlette.types import Scope

from wxauth_guard.bearer import Guard, authorizations_of, require_roles
from wxauth_guard.claims import Principal
from wxauth_guard.errors import InsufficientRole, InsufficientScope, MissingToken, WxAuthError
from wxauth_guard.problems import answer_problem

# This key in the ASGI scope marks a request of a route with a guard.
_GUARDED: Final = "wxauth_guard.guarded"
# Under this key in the ASGI scope, `BearerRoute` stores what the guards of the route have returned.
_CHECKED: Final = "wxauth_guard.checked"
_OVERRIDE_CURRENT: Final = (
    "this override of the guard yields, or takes more than the request: override guard.current, too"
)


class BearerGuard(Guard, SecurityBase):
    """A guard that is a FastAPI dependency, for HTTP and WebSocket routes.

    If a request has no valid access token, the guard rejects it with `application/problem+json`. To reject a user in
    the same form, code in a guarded route can raise `InsufficientScope`, or call `require_roles` or `check_scopes`. The
    app need not register a handler for these responses. For the arguments and everything else, see `Guard`.
    """

    # FastAPI reads these two attributes, and describes the guard in the OpenAPI document with them.
    model = HTTPBearer(bearerFormat="JWT", description="An access token of wxauth, for example from `POST /v1/login`.")
    scheme_name = "wxauth"

    async def __call__(self, connection: HTTPConnection) -> Principal:
        """Return the user behind the request. FastAPI calls this method when the guard is a dependency."""
        checked = connection.scope.get(_CHECKED, ())
        if self in checked:
            user: Principal = checked[self]
            return user
        override = _overrides(connection.scope).get(self._origin)
        is_plain_current = self._asks and self._scopes == self._origin._scopes
        if is_plain_current and override is not None and not isinstance(override, Guard):
            # FastAPI replaces the guard itself, but does not know that `current` belongs to it.
            return await _user_of(override, connection)
        guard = self._guard_in_use(connection.scope)
        with _answering(connection.scope):
            return await guard.verify(guard.bearer_token(*authorizations_of(connection.scope)))

    async def optional(self, connection: HTTPConnection) -> Optional[Principal]:  # Python 3.9 evaluates this type
        """Return the user, or None if the request has no Bearer token. This dependency is for open pages."""
        checked = connection.scope.get(_CHECKED, ())
        if self.optional in checked:
            user: Optional[Principal] = checked[self.optional]
            return user
        guard = self._guard_in_use(connection.scope)
        with _answering(connection.scope):
            return await guard.find_user(*authorizations_of(connection.scope))

    def require_role(self, role: str, *others: str) -> Callable[..., Coroutine[Any, Any, Principal]]:
        """Return a dependency that checks the token, requires all of these roles, and returns the `Principal`."""
        required = frozenset((role, *others))

        async def with_roles(connection: HTTPConnection, user: Annotated[Principal, Depends(self)]) -> Principal:
            with _answering(connection.scope):
                require_roles(user, *required)
            return user

        with_roles.guard = self  # type: ignore[attr-defined]  # for `BearerRoute`
        return with_roles

    def _guard_in_use(self, scope: Scope) -> Guard:
        """Return the guard that checks this request.

        If a test overrides a guard in `dependency_overrides`, FastAPI replaces that guard, but not the guards that its
        `current` and `requires` made. An override that is a `Guard` replaces those, too. Any other, such as
        `lambda: user`, replaces at most `current` (see `__call__`).
        """
        if self._origin is self:
            # FastAPI has already replaced this guard, if it is overridden. `optional` is a separate dependency, so an
            # override of the guard does not replace `optional`.
            return self
        override = _overrides(scope).get(self._origin)
        if not isinstance(override, Guard):
            return self
        guard = override.requires(*self._scopes) if self._scopes else override
        return guard.current if self._asks else guard


class BearerRoute(APIRoute):
    """A route whose guards run before the body is read. FastAPI itself first reads the whole body.

    Strangers then can't make the service store uploads, and an upload that began with a valid token ends well even if
    the token expires meanwhile. For a whole app, set `app.router.route_class` before you add routes. For a router,
    write `APIRouter(route_class=BearerRoute)`.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Return a function that asks the guards, and then answers the request."""
        answer = super().get_route_handler()
        # FastAPI gives the dependencies of an included router only to this function.
        dependant: Dependant = getclosurevars(answer).nonlocals.get("dependant", self.dependant)

        async def check_and_answer(request: Request) -> Response:
            request.scope[_CHECKED] = {}
            await _check_guards(dependant, request)
            return await answer(request)

        return check_and_answer


async def _check_guards(dependant: Dependant, request: Request) -> None:
    overrides, checked = _overrides(request.scope), request.scope[_CHECKED]
    for dependency in dependant.dependencies:
        original: Any = dependency.call
        call: Any = overrides.get(original, original)
        if call is original:  # otherwise, FastAPI leaves out what the original depends on
            await _check_guards(dependency, request)
        if isinstance(call, BearerGuard) or isinstance(getattr(call, "__self__", None), BearerGuard):
            checked[call] = await call(request)
        elif isinstance(guard := getattr(call, "guard", None), BearerGuard):
            guard = overrides.get(guard, guard)
            if guard in checked:  # otherwise, an override of the guard decides who the user is
                await call(request, checked[guard])


async def _user_of(override: Callable[..., Any], connection: HTTPConnection) -> Principal:
    """Call an override of the guard, which may take the request. Only FastAPI can solve other parameters."""
    hints = get_type_hints(override if isroutine(override) else type(override).__call__)
    arguments = {}
    for name, parameter in signature(override).parameters.items():
        if isinstance(hints.get(name), type) and isinstance(connection, hints[name]):
            arguments[name] = connection
        elif parameter.default is Parameter.empty or isinstance(parameter.default, params.Depends):
            raise TypeError(_OVERRIDE_CURRENT)
    user = override(**arguments)
    if isgenerator(user) or isasyncgen(user):
        raise TypeError(_OVERRIDE_CURRENT)
    principal: Principal = await user if isawaitable(user) else user
    return principal


def _overrides(scope: Scope) -> dict[Any, Any]:
    overrides: dict[Any, Any] = getattr(scope.get("app"), "dependency_overrides", {})
    return overrides


@contextmanager
def _answering(scope: Scope) -> Iterator[None]:
    """Have `_answer_error` respond to the errors in this block, and to the errors that the route raises about its user.

    If the app has its own handler for `WxAuthError`, that handler responds instead.
    """
    # Starlette stores two mappings here: the handlers by exception, and the handlers by status. They belong to the app,
    # so a handler that the guard adds stays registered after this request.
    handlers = scope.get("starlette.exception_handlers")
    if handlers is not None:
        handlers_by_exception = handlers[0]
        handlers_by_exception.setdefault(WxAuthError, _answer_error)
        scope[_GUARDED] = True
    try:
        yield
    except WxAuthError as refusal:
        refusal.is_answered_by_guard = handlers is not None
        raise


async def _answer_error(connection: HTTPConnection, error: Exception) -> Optional[Response]:
    # Other errors might be about a token that is not the request's, for example if the route itself calls `verify`.
    is_of_guard = isinstance(error, WxAuthError) and error.is_answered_by_guard
    is_about_user = isinstance(error, (MissingToken, InsufficientRole, InsufficientScope))
    # Without a guard on the route, the app has this handler only after another of its routes has used a guard.
    if is_of_guard or (is_about_user and _GUARDED in connection.scope):
        return await answer_problem(connection, error)
    raise error
