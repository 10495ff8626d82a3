"""The guard: turns a bearer token into a `Principal` (RFC 6750), in any framework."""

from __future__ import annotations

import copy
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlsplit

from wxauth_guard.claims import Principal
from wxauth_guard.errors import (
    BearerError,
    InsufficientRole,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    MissingToken,
)
from wxauth_guard.keys import KeySource
from wxauth_guard.problems import values_of
from wxauth_guard.texts import is_http_url, is_secure, to_json
from wxauth_guard.verifier import Verifier

if TYPE_CHECKING:
    from typing import Self

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

PAUSE: Final = 60.0
"""Seconds between two lines about the same cause."""

METADATA_PATH: Final = "/.well-known/oauth-protected-resource"
"""Where a resource has its metadata (RFC 9728, section 3.1): between its host and its path."""

_log = logging.getLogger("wxauth_guard")

_SCOPE = re.compile(r"[!#-\[\]-~]+")
_HOW_TO_SEND = "send the access token as 'Authorization: Bearer ...'"
_ANOTHER_HEADER = re.compile(r",\s*[A-Za-z][A-Za-z0-9-]* ")


class Guard:
    """Checks access tokens. Where FastAPI is installed, `wxauth_guard.BearerGuard` is a dependency, too.

    Tokens are checked offline: the guard fetches the issuer's public keys now and then, and never asks about a token.
    The logger `wxauth_guard` logs why a token is refused, once per cause and minute, with the token's value and the one
    that is expected.

    Args:
        issuer: The issuer's public URL, compared exactly with `iss`. https, or http on loopback.
        audience: The audience that `aud` must name. If it is the URL of a resource (`RESOURCES`), a 401 and a refusal
            for a missing scope name the resource's metadata.
        scopes: The token must have been granted every one of these.
        internal_url: URL inside your own network from which the issuer's keys are read, such as `http://wxauth:8000`.
            Plain http is allowed. The metadata there must still name the public issuer.
        keys: Source of verification keys, in place of the issuer's metadata.
        clock: The time, in epoch seconds.

    Raises: ValueError, if issuer or audience is not a non-empty string, if a URL has more than host and path, if the
        issuer is neither https nor on loopback, if a scope is malformed, or if both internal_url and keys are given.
    """

    def __init__(
        self,
        issuer: str,
        audience: str = "wxauth",
        *,
        scopes: Iterable[str] = (),
        internal_url: str | None = None,
        keys: KeySource | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if keys is None:
            from wxauth_guard.jwks import RemoteKeys  # not above: with other keys, httpx need not be imported

            keys = RemoteKeys(issuer, internal_url=internal_url)
        elif internal_url is not None:
            raise ValueError("internal_url is where keys are read: with keys it must be left out")
        self._verifier = Verifier(issuer=issuer, audience=audience, keys=keys)
        self._clock = clock
        self._issuer, self._audience = issuer, audience
        self._metadata_path = _metadata_path(audience)
        self._scopes = frozenset(_checked_scopes(scopes))
        self._trusting = self
        """The guard whose keys and clock count: of one made by `requires`, the one that it was made from."""
        self._logged_at: dict[str, float] = {}
        """By cause of a refusal: the few fixed details of the verifier."""

    async def verify(self, token: str) -> Principal:
        """Check a token, and return its user. Needed only for tokens outside a request's header.

        The guard does not turn these errors into an answer, not even in a route: catch them, or register
        `wxauth_guard.problems.answer_problem` for `WxAuthError`.

        Raises: InvalidToken, TokenExpired, InsufficientScope, KeysUnavailable.
        """
        with self._refusing() as now:
            principal = await self._trusting._verifier.verify(token, now=now)
        self.check_scopes(principal)
        return principal

    def verify_sync(self, token: str) -> Principal:
        """As `verify`, for threads and WSGI: it needs no event loop, and shares its keys with `verify`.

        It may block while the issuer answers: in a coroutine, call `verify`. If the guard was given `keys`, they must
        have `find_sync`.

        Raises: InvalidToken, TokenExpired, InsufficientScope, KeysUnavailable.
        """
        with self._refusing() as now:
            principal = self._trusting._verifier.verify_sync(token, now=now)
        self.check_scopes(principal)
        return principal

    async def find_user(self, *authorizations: str | None) -> Principal | None:
        """The user of a request with these `Authorization` headers, or None if there is no Bearer token in them.

        It is for whatever runs before every request of an app that has open pages, or logins of its own.

        Raises: as `verify` and `bearer_token`, but for MissingToken.
        """
        token = self._token_or_none(authorizations)
        return None if token is None else await self.verify(token)

    def find_user_sync(self, *authorizations: str | None) -> Principal | None:
        """As `find_user`, for threads and WSGI."""
        token = self._token_or_none(authorizations)
        return None if token is None else self.verify_sync(token)

    def _token_or_none(self, authorizations: Iterable[str | None]) -> str | None:
        try:
            return self.bearer_token(*authorizations)
        except MissingToken:
            return None

    def bearer_token(self, *authorizations: str | None) -> str:
        """As the function `bearer_token`; a missing token's refusal also names the resource's metadata."""
        with self._refusing():
            return bearer_token(*authorizations)

    def requires(self, scope: str, *others: str) -> Self:
        """A guard that needs these scopes too. It shares everything else with this one.

        Raises: ValueError, for a malformed scope.
        """
        guard = copy.copy(self)
        guard._scopes = self._scopes.union(_checked_scopes((scope, *others)))
        return guard

    def check_scopes(self, principal: Principal, *scopes: str) -> None:
        """Require these scopes too, for what is no route of its own, such as a tool of MCP.

        As of `verify`, the error is the caller's to answer.

        Raises: InsufficientScope; ValueError, for a malformed scope.
        """
        needed = self._scopes.union(_checked_scopes(scopes))
        if not needed <= principal.scope:
            scope = " ".join(sorted(needed))  # in any order, but each time the same one
            with self._refusing():
                raise InsufficientScope(f"this needs the scope {scope}", scope=scope)

    @property
    def resource_metadata_path(self) -> str:
        """The path of the resource's metadata, on the host of the audience. Raises: ValueError, if that is no URL."""
        if self._metadata_path is None:
            raise ValueError("a resource's metadata needs an audience that is an https URL, or http on loopback")
        return self._metadata_path

    def resource_metadata(
        self, *, scopes_supported: Iterable[str] | None = None, resource_name: str | None = None
    ) -> dict[str, Any]:
        """The resource's metadata (RFC 9728, section 2): where clients get tokens, and which scopes they can ask for.

        Raises: ValueError, if the audience is no URL, or a scope is malformed.
        """
        assert self.resource_metadata_path
        document = {
            "resource": self._audience,
            "authorization_servers": [self._issuer],
            "scopes_supported": None if scopes_supported is None else _checked_scopes(scopes_supported),
            "bearer_methods_supported": ["header"],
            "resource_name": resource_name,
        }
        return {name: value for name, value in document.items() if value is not None}

    def metadata_route(
        self, *, scopes_supported: Iterable[str] | None = None, resource_name: str | None = None
    ) -> Route:
        """A route with the resource's metadata, for FastAPI and Starlette. A page of any origin may read it."""
        from starlette.responses import Response
        from starlette.routing import Route

        document = to_json(self.resource_metadata(scopes_supported=scopes_supported, resource_name=resource_name))
        # Also the answer to a preflight, which browsers send where a client adds headers of its own.
        headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}

        async def answer(_: Request) -> Response:
            return Response(document, media_type="application/json", headers=headers)

        return Route(unquote(self.resource_metadata_path), answer, methods=["GET", "OPTIONS"])

    def public_paths(self, paths: Iterable[str]) -> frozenset[str]:
        """These paths and that of the resource's metadata, which clients read before they have a token.

        Raises: ValueError, for one that does not begin with a slash.
        """
        public = all_of(paths)
        if not all(path.startswith("/") for path in public):
            raise ValueError("a public path begins with a slash")
        return public if self._metadata_path is None else public | {unquote(self._metadata_path)}

    @contextmanager
    def _refusing(self) -> Iterator[float]:
        """Add to refusals what only the guard knows, and log them. Yields the time."""
        now = self._trusting._clock()
        try:
            yield now
        except BearerError as refusal:
            if self._metadata_path is not None:
                parts = urlsplit(self._audience)
                refusal.resource_metadata = f"{parts.scheme}://{parts.netloc}{self._metadata_path}"
            if isinstance(refusal, InvalidToken):
                self._log_cause(refusal, now)
            raise

    def _log_cause(self, refusal: InvalidToken, now: float) -> None:
        """Log what the answer does not show, except for a malformed token, or twice in a minute."""
        logged_at = self._logged_at.get(refusal.detail)
        if refusal.for_log and (logged_at is None or abs(now - logged_at) >= PAUSE):  # the clock may be set back
            self._logged_at[refusal.detail] = now
            _log.warning("A token was refused: %s", refusal.for_log)


def bearer_token(*authorizations: str | None) -> str:
    """The token in the `Authorization` header.

    Args:
        authorizations: The header as the framework gives it: its value, None, or all its values.

    Raises: MissingToken, and InvalidRequest for two headers, even if the server has joined them with a comma.
    """
    scheme, _, token = single_authorization(*authorizations).partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token:
        raise MissingToken(_HOW_TO_SEND)
    return token


def single_authorization(*authorizations: str | None) -> str:
    """The one `Authorization` header among these, or "" if there is none.

    Raises: InvalidRequest for two headers, even if a server or a proxy has joined them with a comma (RFC 9110, 5.3).
    """
    values = [value for value in authorizations if value is not None]
    if len(values) > 1 or _ANOTHER_HEADER.search("".join(values)):
        raise InvalidRequest("there are two Authorization headers", status=400)
    return "".join(values)


def authorizations_of(scope: Mapping[str, Any]) -> list[str]:
    """The `Authorization` headers of an ASGI request."""
    return values_of(scope, b"authorization")


def require_roles(user: Principal | None, *roles: str) -> None:
    """Require a user, as `find_user` found them, with all of these roles. Raises: MissingToken, InsufficientRole."""
    if user is None:
        raise MissingToken(_HOW_TO_SEND)
    if not user.roles.issuperset(roles):
        raise InsufficientRole(f"this needs the role {', '.join(sorted(roles))}")


def all_of(names: Iterable[str]) -> frozenset[str]:
    """The names as a set. A string counts as one name."""
    return frozenset([names] if isinstance(names, str) else names)


def checked_roles(roles: Iterable[str], *, optional: bool) -> frozenset[str]:
    """The roles that middleware requires. Raises: ValueError, for roles of users that need not be there."""
    required = all_of(roles)
    if required and optional:
        raise ValueError("optional admits requests without a user, and so without roles")
    return required


def _checked_scopes(scopes: Iterable[str]) -> list[str]:
    """Raises: ValueError, for what is no scope (RFC 6749, section 3.3), and could end a header's quotes."""
    checked = [scopes] if isinstance(scopes, str) else list(scopes)
    if not all(isinstance(scope, str) and _SCOPE.fullmatch(scope) for scope in checked):
        raise ValueError("a scope must be printable ASCII, without space, quote and backslash, and not empty")
    return checked


def _metadata_path(audience: str) -> str | None:
    """Where the metadata of this audience is, if it is the URL of a resource."""
    if not is_http_url(audience) or not is_secure(audience) or re.search(r'["\\?#@]|[^!-~]', audience):
        return None
    path = urlsplit(audience).path
    return METADATA_PATH + ("" if path == "/" else path)
