"""The guard, which turns a bearer token (RFC 6750) into a `Principal` in any framework."""

from __future__ import annotations

import copy
import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote, urlencode, urlsplit

from wxauth_guard.claims import Principal
from wxauth_guard.errors import (
    BearerError,
    InsufficientRole,
    InsufficientScope,
    InvalidRequest,
    InvalidToken,
    MissingToken,
    VerificationUnavailable,
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

    from wxauth_guard.current import Authority

LOG_PAUSE_SECONDS: Final = 60.0

# The resource's own path follows (RFC 9728, section 3.1).
RESOURCE_METADATA_PATH: Final = "/.well-known/oauth-protected-resource"

_log = logging.getLogger("wxauth_guard")

_SCOPE: Final = re.compile(r"[!#-\[\]-~]+")  # RFC 6749, section 3.3
_HOW_TO_SEND: Final = "send the access token as 'Authorization: Bearer ...'"
_NO_METADATA: Final = "a resource's metadata needs an audience that is an https URL, or http on loopback"
# A second header begins with a scheme, and a server or proxy may have joined it to the first with a comma.
_SECOND_HEADER: Final = re.compile(r",[ \t]*[A-Za-z][A-Za-z0-9-]* ")


class Guard:
    """A guard, which checks access tokens. Services import it as `wxauth_guard.BearerGuard`.

    If FastAPI is installed, `BearerGuard` is a subclass that can also be used as a dependency.

    By default, the guard accepts only the tokens of the operator's own apps. The tokens of websites and agents, which
    have the claim `scope`, need `scopes`, `websites`, or the URL of a resource as the audience.

    The guard checks tokens offline. It fetches the issuer's public keys from time to time, and only `current` sends a
    token to the issuer. The logger `wxauth_guard` logs why a well-formed token is invalid, or why wxauth could not be
    asked, at most once per minute for each cause.

    Args:
        issuer: The issuer's public URL, which must be https, or http on loopback. It is compared exactly with `iss`.
        audience: The audience that `aud` must name. It can be the URL of a resource that the issuer's setting
            `RESOURCES` lists. In this case, `WWW-Authenticate` names the resource's metadata in a 401 and in a refusal
            for a missing scope.
        scopes: The scopes that the token must have. All of them are required, and a 401 names them.
        websites: Whether to accept the tokens of the operator's own apps as well as those of websites and agents.
            `scopes`, `requires` and `check_scopes` then bind only tokens that have a scope.
        or_offline: Whether `current` accepts a token by its signature while wxauth is away. The user's `is_current` is
            then False, and a ban counts only when the token expires. A process that is too busy to ask in time refuses
            the token.
        internal_url: The URL inside your own network at which the guard reads the issuer's keys, and asks wxauth, for
            example `http://wxauth:8000`. Plain http is allowed. The metadata there must still name the public issuer.
        keys: The source of verification keys. By default, the guard finds the keys through the issuer's metadata.
        clock: A function that returns the time, in epoch seconds.
    """

    def __init__(
        self,
        issuer: str,
        audience: str = "wxauth",
        *,
        scopes: Iterable[str] = (),
        websites: bool = False,
        or_offline: bool = False,
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
        self._websites = websites
        self._or_offline = or_offline
        self._asks = False
        self._current: Self | None = None
        self._authority: Authority | None = None
        self._keys = keys
        self._allows_scope = bool(self._scopes) or websites or is_http_url(audience)
        # The copies that `requires` and `current` make use the keys and the clock of the original guard. So a test that
        # replaces these (`TestIssuer.trusted_by`) replaces them in the copies, too.
        self._origin = self
        # The causes are the details of errors, which quote no token, so the dictionary stays small.
        self._logged_at: dict[str, float] = {}

    async def verify(self, token: str) -> Principal:
        """Check a token, and return its user. In FastAPI, call this method only for tokens outside the header.

        Unlike the dependency, this method does not turn an invalid token into a response, not even in a route. Catch
        the errors, or register `wxauth_guard.problems.answer_problem` for `WxAuthError`.

        Raises: InvalidToken, TokenExpired, InsufficientScope, KeysUnavailable. A guard that asks wxauth (`current`)
            also raises SessionRevoked and VerificationUnavailable.
        """
        with self._completing_refusals():
            principal = await self._origin._verifier.verify(
                token, now=self._origin._clock(), allows_scope=self._allows_scope
            )
            self.check_scopes(principal)
            if not self._asks:
                return principal
            try:
                roles = await self._authority_in_use().ask(token, principal, self._query())
            except VerificationUnavailable as failure:
                return self._unconfirmed(principal, failure)
        return replace(principal, roles=roles, is_current=True)

    def verify_sync(self, token: str) -> Principal:
        """Check a token in a thread or a WSGI app, as `verify` does.

        The method shares its keys with `verify`. It might block while it waits for the issuer, so call `verify` in a
        coroutine. If the guard was given `keys`, they must have `find_sync`.
        """
        with self._completing_refusals():
            principal = self._origin._verifier.verify_sync(
                token, now=self._origin._clock(), allows_scope=self._allows_scope
            )
            self.check_scopes(principal)
            if not self._asks:
                return principal
            try:
                roles = self._authority_in_use().ask_sync(token, principal, self._query())
            except VerificationUnavailable as failure:
                return self._unconfirmed(principal, failure)
        return replace(principal, roles=roles, is_current=True)

    @property
    def current(self) -> Self:
        """A guard that also asks wxauth about each token, so that bans, sign-outs and roles count at once.

        Each request then needs a response of wxauth within two seconds. A process asks about 64 tokens at once. Both
        guards share keys, clock and log.
        """
        if self._asks:
            return self
        if self._current is None:
            self._authority_in_use()  # so that an issuer that cannot be asked is a mistake at once
            current = self._copy()
            current._asks = True
            self._current = current
        return self._current

    def _authority_in_use(self) -> Authority:
        origin = self._origin
        if origin._authority is None:
            from wxauth_guard.current import RemoteAuthority
            from wxauth_guard.jwks import RemoteKeys

            keys = origin._keys
            if not isinstance(keys, RemoteKeys):
                keys = RemoteKeys(origin._issuer)
            origin._authority = RemoteAuthority(keys.issuer, or_offline=origin._or_offline)
        return origin._authority

    def _query(self) -> str:
        if is_http_url(self._audience):
            return "?" + urlencode({"resource": self._audience})
        return "?websites=true" if self._allows_scope else ""

    def _unconfirmed(self, principal: Principal, failure: VerificationUnavailable) -> Principal:
        """Return the user if this guard accepts a token by its signature alone. Otherwise, raise the failure."""
        self._log_cause(failure.detail, f"A token could not be verified at once: {failure.detail}")
        if not (self._or_offline and failure.is_unreachable):
            raise failure
        return replace(principal, is_current=False)

    def _copy(self) -> Self:
        guard = copy.copy(self)  # so that `_origin` and the log's times are those of this guard
        guard._current = None
        return guard

    async def find_user(self, *authorizations: str | None) -> Principal | None:
        """Return the user of a request with these `Authorization` headers, or None if they contain no Bearer token.

        Use this method in code that runs before every request of an app with open pages or another kind of login.

        Raises: the errors of `verify` and `bearer_token`, except MissingToken.
        """
        token = self._token_or_none(authorizations)
        return None if token is None else await self.verify(token)

    def find_user_sync(self, *authorizations: str | None) -> Principal | None:
        """Return the user, or None, as `find_user` does, but in a thread or a WSGI app."""
        token = self._token_or_none(authorizations)
        return None if token is None else self.verify_sync(token)

    def _token_or_none(self, authorizations: Iterable[str | None]) -> str | None:
        try:
            return self.bearer_token(*authorizations)
        except MissingToken:
            return None

    def bearer_token(self, *authorizations: str | None) -> str:
        """Return the token as the function `bearer_token` does. MissingToken also names scopes and metadata."""
        with self._completing_refusals():
            return bearer_token(*authorizations)

    def requires(self, scope: str, *others: str) -> Self:
        """Return a guard that also requires these scopes. It shares keys, clock and log with this guard."""
        guard = self._copy()
        guard._scopes = self._scopes.union(_checked_scopes((scope, *others)))
        guard._allows_scope = True
        return guard

    def check_scopes(self, principal: Principal, *scopes: str) -> None:
        """Require these scopes and the guard's own, for code that is not a route, for example a tool of an MCP server.

        In FastAPI, the guard turns the error into a response in routes that depend on it. Elsewhere, the caller must
        handle the error.

        Raises: InsufficientScope, if the user's token lacks a scope.
        """
        needed = self._scopes.union(_checked_scopes(scopes))
        if self._websites and "scope" not in principal.claims:
            return
        if not needed <= principal.scope:
            scope = _joined(needed)
            with self._completing_refusals():
                raise InsufficientScope(f"this request requires the scope {scope}", scope=scope)

    @property
    def resource_metadata_path(self) -> str:
        """The path of the resource's metadata, on the host of the audience, percent-encoded as in the audience."""
        if self._metadata_path is None:
            raise ValueError(_NO_METADATA)
        return self._metadata_path

    def resource_metadata(
        self, *, scopes_supported: Iterable[str] | None = None, resource_name: str | None = None
    ) -> dict[str, Any]:
        """Return the resource's metadata (RFC 9728, section 2), which tells clients where to get tokens.

        Raises: ValueError, if the audience is not the URL of a resource.
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
        """Return a route for FastAPI and Starlette with the resource's metadata, which pages of any origin may read."""
        from starlette.responses import Response
        from starlette.routing import Route

        document = to_json(self.resource_metadata(scopes_supported=scopes_supported, resource_name=resource_name))
        # These headers also allow the preflight request that a browser sends if a client adds its own headers.
        headers = {"Access-Control-Allow-Origin": "*", "Access-Control-Allow-Headers": "*"}

        async def answer(_: Request) -> Response:
            return Response(document, media_type="application/json", headers=headers)

        return Route(unquote(self.resource_metadata_path), answer, methods=["GET", "OPTIONS"])

    def public_paths(self, paths: Iterable[str]) -> frozenset[str]:
        """Return these paths and that of the resource's metadata, which clients read before they have a token.

        The paths are not percent-encoded, because a server decodes the path of a request.
        """
        public = as_set(paths)
        if not all(path.startswith("/") for path in public):
            raise ValueError("a public path begins with a slash")
        return public if self._metadata_path is None else public | {unquote(self._metadata_path)}

    @contextmanager
    def _completing_refusals(self) -> Iterator[None]:
        try:
            yield
        except BearerError as refusal:
            self._complete(refusal)
            raise

    def _complete(self, refusal: BearerError) -> None:
        if refusal.status == HTTPStatus.UNAUTHORIZED:
            refusal.scope = _joined(self._scopes)
        if self._metadata_path is not None:
            parts = urlsplit(self._audience)
            refusal.resource_metadata = f"{parts.scheme}://{parts.netloc}{self._metadata_path}"
        if isinstance(refusal, InvalidToken) and refusal.for_log:
            self._log_cause(refusal.detail, f"A token was refused: {refusal.for_log}")

    def _log_cause(self, cause: str, line: str) -> None:
        now = self._origin._clock()
        logged_at = self._logged_at.get(cause)
        # If the clock is set back, `logged_at` is in the future. Because of abs(), logging resumes soon anyway.
        is_due = logged_at is None or abs(now - logged_at) >= LOG_PAUSE_SECONDS
        if is_due:
            self._logged_at[cause] = now
            _log.warning("%s", line)


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


def as_set(names: Iterable[str]) -> frozenset[str]:
    return frozenset([names] if isinstance(names, str) else names)


def _joined(scopes: frozenset[str]) -> str:
    return " ".join(sorted(scopes))  # in a fixed order, so that equal refusals have equal texts


def _checked_scopes(scopes: Iterable[str]) -> list[str]:
    checked = [scopes] if isinstance(scopes, str) else list(scopes)
    # A quote would end the scope in the header `WWW-Authenticate`.
    if not all(isinstance(scope, str) and _SCOPE.fullmatch(scope) for scope in checked):
        raise ValueError("a scope must be printable ASCII, without space, quote and backslash, and not empty")
    return checked


def _metadata_path(audience: str) -> str | None:
    is_secure_url = is_http_url(audience) and is_secure(audience)
    # A resource's URL has no query, fragment or user. A quote or a backslash in it could end or change the quoted
    # value in `WWW-Authenticate`.
    if not is_secure_url or re.search(r'["\\?#@]|[^!-~]', audience):
        return None
    path = urlsplit(audience).path
    return RESOURCE_METADATA_PATH + ("" if path == "/" else path)
