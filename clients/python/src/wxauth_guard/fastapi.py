"""The guard as a FastAPI dependency."""

from collections.abc import Callable, Coroutine
from typing import Annotated, Any, Optional

from fastapi import Depends
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from wxauth_guard.bearer import Guard, authorizations_of, require_roles
from wxauth_guard.claims import Principal
from wxauth_guard.errors import InsufficientRole, WxAuthError
from wxauth_guard.problems import answer_problem


class BearerGuard(Guard, SecurityBase):
    """A guard that is a FastAPI dependency, for HTTP and WebSocket routes.

    It rejects a request without a valid access token with `application/problem+json`. The app need not register a
    handler for this response. For the arguments and everything else, see `Guard`.
    """

    model = HTTPBearer(bearerFormat="JWT", description="The access token that `POST /v1/login` answers.")
    scheme_name = "wxauth"

    async def __call__(self, connection: HTTPConnection) -> Principal:
        """Return the user behind the request.

        Raises: MissingToken, InvalidToken, TokenExpired, InsufficientScope, KeysUnavailable, and InvalidRequest for
            two `Authorization` headers.
        """
        guard = self._standing_in(connection.scope)
        try:
            return await guard.verify(guard.bearer_token(*authorizations_of(connection.scope)))
        except WxAuthError as refusal:
            _ensure_answer(refusal, connection.scope)
            raise

    async def optional(self, connection: HTTPConnection) -> Optional[Principal]:
        """Return the user behind the request, or None if the request has no Bearer token.

        This method is a dependency for open pages.

        Raises: the errors of the guard itself, except MissingToken.
        """
        guard = self._standing_in(connection.scope)
        try:
            return await guard.find_user(*authorizations_of(connection.scope))
        except WxAuthError as refusal:
            _ensure_answer(refusal, connection.scope)
            raise

    def require_role(self, role: str, *others: str) -> Callable[..., Coroutine[Any, Any, Principal]]:
        """Return a dependency that checks the token and requires all of these roles. It returns the `Principal`."""
        required = frozenset((role, *others))

        async def with_roles(connection: HTTPConnection, user: Annotated[Principal, Depends(self)]) -> Principal:
            try:
                require_roles(user, *required)
            except InsufficientRole as refusal:
                _ensure_answer(refusal, connection.scope)
                raise
            return user

        return with_roles

    def _standing_in(self, scope: Scope) -> Guard:
        """Return another guard if the app overrides the guard on which `requires` was called; otherwise this guard."""
        if self._trusting is self:
            return self
        overrides: dict[Any, Any] = getattr(scope.get("app"), "dependency_overrides", {})
        other = overrides.get(self._trusting)
        return other.requires(*self._scopes) if isinstance(other, Guard) else self


def _ensure_answer(refusal: WxAuthError, scope: Scope) -> None:
    # Starlette looks up exception handlers in this mapping, so the app that uses the guard need not register one. If
    # the app has its own handler for WxAuthError, that handler stays in use.
    handlers = scope.get("starlette.exception_handlers")
    if handlers is not None:
        handlers[0].setdefault(WxAuthError, _answer_own)
        refusal.is_answered_by_guard = True


async def _answer_own(connection: HTTPConnection, error: Exception) -> Optional[Response]:
    # Other WxAuthErrors, for example those of `verify`, are raised again. Otherwise the response to them would depend
    # on whether the guard has refused a request before.
    if not (isinstance(error, WxAuthError) and error.is_answered_by_guard):
        raise error
    return await answer_problem(connection, error)
