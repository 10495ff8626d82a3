"""The guard: a FastAPI dependency that turns a bearer token into a `Principal` (RFC 6750)."""

import re
import time
from collections.abc import Callable, Coroutine, Iterable
from typing import Annotated, Any

from fastapi import Depends
from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import Scope

from wxauth.errors import InsufficientRole, InvalidRequest, InvalidToken, MissingToken, WxAuthError
from wxauth.guard.reasons import Reasons
from wxauth.problems import answer_problem
from wxauth.tokens.claims import Principal
from wxauth.tokens.keys import KeySource
from wxauth.tokens.verifier import Verifier

_ANOTHER_HEADER = re.compile(r",\s*[A-Za-z][A-Za-z0-9-]* ")


class BearerGuard(SecurityBase):
    """Admits requests with a valid access token, in HTTP and WebSocket routes.

    Tokens are checked offline: the guard fetches the issuer's public keys now and then, and never asks about a token.
    A refusal is answered as `application/problem+json`. The app need not register a handler for it. The logger
    `wxauth.guard` says why, once per cause and minute, with the token's value and the one that is expected.

    Args:
        issuer: The issuer's public URL, compared exactly with `iss`. https, or http on loopback.
        audience: The audience that `aud` must name.
        internal_url: URL inside your own network from which the issuer's keys are read, such as `http://wxauth:8000`.
            Plain http is allowed. The metadata there must still name the public issuer.
        keys: Source of verification keys, in place of the issuer's metadata.
        clock: The time, in epoch seconds.

    Raises: ValueError, if issuer or audience is not a non-empty string, if a URL has more than host and path, if the
        issuer is neither https nor on loopback, or if both internal_url and keys are given.
    """

    model = HTTPBearer(bearerFormat="JWT", description="The access token that `POST /v1/login` answers.")
    scheme_name = "wxauth"

    def __init__(
        self,
        issuer: str,
        audience: str = "wxauth",
        *,
        internal_url: str | None = None,
        keys: KeySource | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if keys is None:
            from wxauth.guard.jwks import RemoteKeys  # not above: with other keys, httpx need not be imported

            keys = RemoteKeys(issuer, internal_url=internal_url)
        elif internal_url is not None:
            raise ValueError("internal_url is where keys are read: with keys it must be left out")
        self._verifier = Verifier(issuer=issuer, audience=audience, keys=keys)
        self._clock = clock
        self._reasons = Reasons()

    async def verify(self, token: str) -> Principal:
        """Check a token, and return its user. Needed only for tokens that do not come in a request's header.

        The guard does not turn these errors into an answer, not even in a route: catch them, or register
        `wxauth.problems.answer_problem` for `WxAuthError`.

        Raises: InvalidToken, TokenExpired, KeysUnavailable.
        """
        now = self._clock()
        try:
            return await self._verifier.verify(token, now=now)
        except InvalidToken as refusal:
            self._reasons.tell(refusal, now=now)
            raise

    def verify_sync(self, token: str) -> Principal:
        """As `verify`, for threads and WSGI: it needs no event loop, and shares its keys with `verify`.

        It may block while the issuer answers: in a coroutine, call `verify`. If the guard was given `keys`, they must
        have `find_sync`.

        Raises: InvalidToken, TokenExpired, KeysUnavailable.
        """
        now = self._clock()
        try:
            return self._verifier.verify_sync(token, now=now)
        except InvalidToken as refusal:
            self._reasons.tell(refusal, now=now)
            raise

    async def __call__(self, connection: HTTPConnection) -> Principal:
        """The user behind the request.

        Raises: MissingToken, InvalidToken, TokenExpired, KeysUnavailable, and InvalidRequest for two
            `Authorization` headers.
        """
        try:
            return await self.verify(bearer_token(*authorizations_of(connection.scope)))
        except WxAuthError as refusal:
            _ensure_answer(refusal, connection.scope)
            raise

    def require_role(self, role: str, *others: str) -> Callable[..., Coroutine[Any, Any, Principal]]:
        """A dependency that checks the token and requires all of these roles. It returns the `Principal`."""
        required = frozenset((role, *others))

        async def with_roles(connection: HTTPConnection, user: Annotated[Principal, Depends(self)]) -> Principal:
            try:
                require_roles(user, *required)
            except InsufficientRole as refusal:
                _ensure_answer(refusal, connection.scope)
                raise
            return user

        return with_roles


def bearer_token(*authorizations: str | None) -> str:
    """The token in the `Authorization` header.

    Args:
        authorizations: The header as the framework gives it: its value, None, or all its values.

    Raises: MissingToken, and InvalidRequest for two headers, even if the server has joined them with a comma.
    """
    scheme, _, token = single_authorization(*authorizations).partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token:
        raise MissingToken("send the access token as 'Authorization: Bearer ...'")
    return token


def single_authorization(*authorizations: str | None) -> str:
    """The one `Authorization` header among these, or "" if there is none.

    Raises: InvalidRequest for two headers, even if a server or a proxy has joined them with a comma (RFC 9110, 5.3).
    """
    values = [value for value in authorizations if value is not None]
    if len(values) > 1 or _ANOTHER_HEADER.search("".join(values)):
        raise InvalidRequest("there are two Authorization headers", status=400)
    return "".join(values)


def authorizations_of(scope: Scope) -> list[str]:
    """The `Authorization` headers of an ASGI request."""
    return [value.decode("latin-1") for name, value in scope["headers"] if name == b"authorization"]


def require_roles(user: Principal, *roles: str) -> None:
    """Require all of these roles. Raises: InsufficientRole."""
    if not user.roles.issuperset(roles):
        raise InsufficientRole(f"this needs the role {', '.join(sorted(roles))}")


def all_of(names: Iterable[str]) -> frozenset[str]:
    """The names as a set. A string counts as one name."""
    return frozenset([names] if isinstance(names, str) else names)


def public_paths(paths: Iterable[str]) -> frozenset[str]:
    """The paths that need no token. Raises: ValueError, for one that does not begin with a slash."""
    public = all_of(paths)
    if not all(path.startswith("/") for path in public):
        raise ValueError("a public path begins with a slash")
    return public


def _ensure_answer(refusal: WxAuthError, scope: Scope) -> None:
    # Starlette looks up handlers of exceptions in this mapping. The app that uses the guard need not register one. If
    # it has one for WxAuthError, that one stays.
    handlers = scope.get("starlette.exception_handlers")
    if handlers is not None:
        handlers[0].setdefault(WxAuthError, _answer_own)
        refusal.is_answered_by_guard = True


async def _answer_own(connection: HTTPConnection, error: Exception) -> Response | None:
    # Other WxAuthErrors in the app, such as those of `verify`, are raised again. Otherwise their answer would depend on
    # whether the guard has refused a request before.
    if not (isinstance(error, WxAuthError) and error.is_answered_by_guard):
        raise error
    return await answer_problem(connection, error)
