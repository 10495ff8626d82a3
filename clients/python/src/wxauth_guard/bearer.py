"""The guard, which turns a bearer token (RFC 6750) into a `Principal` in any framework."""

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
from wxauth_guard.json_texts import to_json
from wxauth_guard.keys import KeySource
from wxauth_guard.problems import header_values
from wxauth_guard.urls import is_http_url, is_secure
from wxauth_guard.verifier import Verifier

if TYPE_CHECKING:
    from typing import Self

    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import Route

LOG_PAUSE_SECONDS: Final = 60.0
"""The shortest time, in seconds, between two log lines about the same cause."""

METADATA_PATH: Final = "/.well-known/oauth-protected-resource"
"""The beginning of the path of a resource's metadata. The resource's own path follows (RFC 9728, section 3.1)."""

_log = logging.getLogger("wxauth_guard")

_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")
"""The pattern of a scope (RFC 6749, section 3.3)."""
_HOW_TO_SEND: Final = "send the access token as 'Authorization: Bearer ...'"
_NO_METADATA: Final = "a resource's metadata needs an audience that is an https URL, or http on loopback"
_SECOND_HEADER: Final = re.compile(r",\s*[A-Za-z][A-Za-z0-9-]* ")
"""The pattern of the beginning of a second `Authorization` header, joined to the first one: a comma and a scheme."""


class Guard:
    """A guard, which checks access tokens. Services import it as `wxauth_guard.BearerGuard`.

    If FastAPI is installed, `BearerGuard` is a subclass that can also be used as a dependency.

    The guard checks tokens offline. It fetches the issuer's public keys from time to time, and never sends a token to
    the issuer. The logger `wxauth_guard` logs why a well-formed token is invalid, at most once per minute for each
    cause, with details such as the value in the token and the expected value.

    Args:
        issuer: The issuer's public URL, which must be https, or http on loopback. It is compared exactly with `iss`.
        audience: The audience that `aud` must name. It can be the URL of a resource that the issuer's setting
            `RESOURCES` lists. In this case, `WWW-Authenticate` names the resource's metadata in a 401 and in a refusal
            for a missing scope.
        scopes: The scopes that the token must have. All of them are required.
        internal_url: The URL inside your own network from which the guard reads the issuer's keys, for example
            `http://wxauth:8000`. Plain http is allowed. The metadata there must still name the public issuer.
        keys: The source of verification keys. By default, the guard finds the keys through the issuer's metadata.
        clock: A function that returns the time, in epoch seconds.

    Raises: ValueError, if issuer is empty, if audience is not a non-empty string, if a scope is malformed, or if both
        internal_url and keys are given. Without keys, also if `RemoteKeys` does not accept issuer or internal_url.
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
            # Imported here, because a guard with other keys does not need httpx.
            from wxauth_guard.jwks import RemoteKeys

            keys = RemoteKeys(issuer, internal_url=internal_url)
        elif internal_url is not None:
            raise ValueError("give either internal_url or keys, because internal_url is only for reading keys")
        self._verifier = Verifier(issuer=issuer, audience=audience, keys=keys)
        self._clock = clock
        self._issuer, self._audience = issuer, audience
        self._metadata_path = _metadata_path(audience)
        self._scopes = frozenset(_checked_scopes(scopes))
        self._origin = self
        """The guard whose keys and clock are used.

        If `requires` made this guard, it is the guard on which the first `requires` was called, so that a test that
        replaces the keys of that guard (`TestIssuer.trusted_by`) also replaces those of this guard. Otherwise, it is
        this guard itself.
        """
        self._logged_at: dict[str, float] = {}
        """The time of the last log line about each cause.

        The causes are the fixed details of the verifier's errors, so the dictionary stays small.
        """

    async def verify(self, token: str) -> Principal:
        """Check a token, and return its user. In FastAPI, call this method only for tokens outside the header.

        Unlike the dependency, this method does not turn an invalid token into a response, not even in a route. Catch
        the errors, or register `wxauth_guard.problems.answer_problem` for `WxAuthError`.

        Raises: InvalidToken, TokenExpired, InsufficientScope, KeysUnavailable.
        """
        with self._completing_refusals():
            principal = await self._origin._verifier.verify(token, now=self._origin._clock())
        self.check_scopes(principal)
        return principal

    def verify_sync(self, token: str) -> Principal:
        """Check a token in a thread or a WSGI app, without an event loop, and return its user.

        The method shares its keys with `verify`. It might block while it waits for the issuer, so call `verify` in a
        coroutine. If the guard was given `keys`, they must have `find_sync`.

        Raises: InvalidToken, TokenExpired, InsufficientScope, KeysUnavailable.
        """
        with self._completing_refusals():
            principal = self._origin._verifier.verify_sync(token, now=self._origin._clock())
        self.check_scopes(principal)
        return principal

    async def find_user(self, *authorizations: str | None) -> Principal | None:
        """Return the user of a request with these `Authorization` headers, or None if they contain no Bearer token.

        Use this method in code that runs before every request of an app with open pages or another kind of login.

        Raises: the errors of `verify` and `bearer_token`, except MissingToken.
        """
        token = self._token_or_none(authorizations)
        return None if token is None else await self.verify(token)

    def find_user_sync(self, *authorizations: str | None) -> Principal | None:
        """Return the user, or None, as `find_user` does, but for code in a thread or a WSGI app.

        Raises: the errors of `verify_sync` and `bearer_token`, except MissingToken.
        """
        token = self._token_or_none(authorizations)
        return None if token is None else self.verify_sync(token)

    def _token_or_none(self, authorizations: Iterable[str | None]) -> str | None:
        """Return the token in these headers, or None if they contain no Bearer token.

        Raises: InvalidRequest, if there is more than one header.
        """
        try:
            return self.bearer_token(*authorizations)
        except MissingToken:
            return None

    def bearer_token(self, *authorizations: str | None) -> str:
        """Return the token in the `Authorization` header, as the function `bearer_token` does.

        In addition, MissingToken contains the URL of the resource's metadata, if the audience is the URL of a resource.

        Raises: MissingToken; InvalidRequest, if there is more than one header.
        """
        with self._completing_refusals():
            return bearer_token(*authorizations)

    def requires(self, scope: str, *others: str) -> Self:
        """Return a guard that also requires these scopes. It shares keys, clock and log with this guard.

        Raises: ValueError, if a scope is malformed.
        """
        guard = copy.copy(self)  # so that `_origin` and the log's times are those of this guard
        guard._scopes = self._scopes.union(_checked_scopes((scope, *others)))
        return guard

    def check_scopes(self, principal: Principal, *scopes: str) -> None:
        """Require these scopes and the guard's own, for code that is not a route, for example a tool of an MCP server.

        In FastAPI, the guard turns the error into a response in routes that depend on it. Elsewhere, the caller must
        handle the error.

        Raises: InsufficientScope, if the user's token lacks a scope; ValueError, if a scope is malformed.
        """
        needed = self._scopes.union(_checked_scopes(scopes))
        if not needed <= principal.scope:
            scope = " ".join(sorted(needed))  # in a fixed order, so that equal refusals have equal texts
            with self._completing_refusals():
                raise InsufficientScope(f"this request requires the scope {scope}", scope=scope)

    @property
    def resource_metadata_path(self) -> str:
        """The path of the resource's metadata, on the host of the audience, percent-encoded as in the audience.

        Raises: ValueError, if the audience is not the URL of a resource.
        """
        if self._metadata_path is None:
            raise ValueError(_NO_METADATA)
        return self._metadata_path

    def resource_metadata(
        self, *, scopes_supported: Iterable[str] | None = None, resource_name: str | None = None
    ) -> dict[str, Any]:
        """Return the resource's metadata (RFC 9728, section 2).

        It tells clients where to get tokens, and which scopes they can request. `scopes_supported` and `resource_name`
        become members of the same name, and None omits the member.

        Raises: ValueError, if the audience is not the URL of a resource, or if a scope is malformed.
        """
        if self._metadata_path is None:
            raise ValueError(_NO_METADATA)
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
        """Return a route for FastAPI and Starlette with the resource's metadata, which pages of any origin may read.

        Raises: ValueError, in the same cases as `resource_metadata`.
        """
        from starlette.responses import Response
        from starlette.routing import Route

        document = to_json(self.resource_metadata(scopes_supported=scopes_supported, resource_name=resource_name))
        # These headers also allow the preflight request that a browser sends if a client adds its own headers.
        headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}

        async def answer(_: Request) -> Response:
            return Response(document, media_type="application/json", headers=headers)

        return Route(unquote(self.resource_metadata_path), answer, methods=["GET", "OPTIONS"])

    def public_paths(self, paths: Iterable[str]) -> frozenset[str]:
        """Return these paths and, if there is one, the path of the resource's metadata.

        Clients read the metadata before they have a token. The paths are not percent-encoded, because a server decodes
        the path of a request.

        Raises: ValueError, if a path does not begin with a slash.
        """
        public = _as_set(paths)
        if not all(path.startswith("/") for path in public):
            raise ValueError("a public path begins with a slash")
        return public if self._metadata_path is None else public | {unquote(self._metadata_path)}

    @contextmanager
    def _completing_refusals(self) -> Iterator[None]:
        """If the block raises a refusal, add the URL of the resource's metadata to it, if there is one.

        If the token is invalid, also log the reason.
        """
        try:
            yield
        except BearerError as refusal:
            if self._metadata_path is not None:
                parts = urlsplit(self._audience)
                refusal.resource_metadata = f"{parts.scheme}://{parts.netloc}{self._metadata_path}"
            if isinstance(refusal, InvalidToken):
                self._log_cause(refusal)
            raise

    def _log_cause(self, refusal: InvalidToken) -> None:
        """Log the details that the response omits, at most once a minute for each cause."""
        now = self._origin._clock()
        logged_at = self._logged_at.get(refusal.detail)
        # If the clock is set back, `logged_at` is in the future. Because of abs(), logging resumes soon anyway.
        is_due = logged_at is None or abs(now - logged_at) >= LOG_PAUSE_SECONDS
        if refusal.for_log and is_due:
            self._logged_at[refusal.detail] = now
            _log.warning("A token was refused: %s", refusal.for_log)


def bearer_token(*authorizations: str | None) -> str:
    """Return the token in the `Authorization` header.

    Args:
        authorizations: The header as the framework provides it: its value, None, or all its values.

    Raises: MissingToken; InvalidRequest, if there is more than one header, even if the server has joined them with a
        comma.
    """
    scheme, _, token = single_authorization(*authorizations).partition(" ")
    token = token.strip(" ")
    if scheme.lower() != "bearer" or not token:
        raise MissingToken(_HOW_TO_SEND)
    return token


def single_authorization(*authorizations: str | None) -> str:
    """Return the only `Authorization` header among these values, or "" if there is none.

    Raises: InvalidRequest, if there is more than one header, even if a server or a proxy has joined them with a comma,
        as RFC 9110 (section 5.3) allows.
    """
    values = [value for value in authorizations if value is not None]
    first = values[0] if values else ""
    if len(values) > 1 or _SECOND_HEADER.search(first):
        raise InvalidRequest("there are two Authorization headers", status=400)  # as RFC 6750, section 3.1, recommends
    return first


def authorizations_of(scope: Mapping[str, Any]) -> list[str]:
    """Return the `Authorization` headers of an ASGI request."""
    return header_values(scope, b"authorization")


def require_roles(user: Principal | None, *roles: str) -> None:
    """Require a user, as returned by `find_user`, with all of these roles.

    Raises: MissingToken, if `user` is None; InsufficientRole, if the user lacks a role.
    """
    if user is None:
        raise MissingToken(_HOW_TO_SEND)
    if not user.roles.issuperset(roles):
        raise InsufficientRole(f"this request requires the role {', '.join(sorted(roles))}")


def checked_roles(roles: Iterable[str], *, optional: bool) -> frozenset[str]:
    """Return the roles that a middleware requires. `optional` says whether it also admits requests without a user.

    Raises: ValueError, if there are roles although the user is optional.
    """
    required = _as_set(roles)
    if required and optional:
        raise ValueError("optional admits requests without a user, and so without roles")
    return required


def _as_set(names: Iterable[str]) -> frozenset[str]:
    """Return the names as a set. A string counts as one name."""
    return frozenset([names] if isinstance(names, str) else names)


def _checked_scopes(scopes: Iterable[str]) -> list[str]:
    """Return the scopes as a list. A string counts as one scope.

    Raises: ValueError, if a value is not a scope (RFC 6749, section 3.3). Such a value could contain the quote
        that ends the scope in the header `WWW-Authenticate`.
    """
    checked = [scopes] if isinstance(scopes, str) else list(scopes)
    if not all(isinstance(scope, str) and _SCOPE.fullmatch(scope) for scope in checked):
        raise ValueError("a scope must be printable ASCII, without space, quote and backslash, and not empty")
    return checked


def _metadata_path(audience: str) -> str | None:
    """Return the path of this audience's metadata; None if the audience is not the URL of a resource."""
    is_secure_url = is_http_url(audience) and is_secure(audience)
    # A resource's URL has no query, fragment or user. A quote or a backslash in it could end or change the quoted
    # value in `WWW-Authenticate`.
    if not is_secure_url or re.search(r'["\\?#@]|[^!-~]', audience):
        return None
    path = urlsplit(audience).path
    return METADATA_PATH + ("" if path == "/" else path)
