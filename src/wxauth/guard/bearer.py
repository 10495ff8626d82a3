"""The guard: turns a bearer token into a `Principal` (RFC 6750), in any framework."""

import logging
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Final

from wxauth.errors import InsufficientRole, InvalidRequest, InvalidToken, MissingToken
from wxauth.problems import values_of
from wxauth.tokens.claims import Principal
from wxauth.tokens.keys import KeySource
from wxauth.tokens.verifier import Verifier

PAUSE: Final = 60.0
"""Seconds between two lines about the same cause."""

_log = logging.getLogger("wxauth.guard")


_ANOTHER_HEADER = re.compile(r",\s*[A-Za-z][A-Za-z0-9-]* ")


class Guard:
    """Checks access tokens. Where FastAPI is installed, `wxauth.guard.BearerGuard` is a dependency, too.

    Tokens are checked offline: the guard fetches the issuer's public keys now and then, and never asks about a token.
    The logger `wxauth.guard` says why a token is refused, once per cause and minute, with the token's value and the one
    that is expected.

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
        self._logged_at: dict[str, float] = {}
        """By cause of a refusal: the few fixed details of the verifier."""

    async def verify(self, token: str) -> Principal:
        """Check a token, and return its user. Needed only for tokens that do not come in a request's header.

        The guard does not turn these errors into an answer, not even in a route: catch them, or register
        `wxauth.problems.answer_problem` for `WxAuthError`.

        Raises: InvalidToken, TokenExpired, KeysUnavailable.
        """
        with self._logging_refusals() as now:
            return await self._verifier.verify(token, now=now)

    def verify_sync(self, token: str) -> Principal:
        """As `verify`, for threads and WSGI: it needs no event loop, and shares its keys with `verify`.

        It may block while the issuer answers: in a coroutine, call `verify`. If the guard was given `keys`, they must
        have `find_sync`.

        Raises: InvalidToken, TokenExpired, KeysUnavailable.
        """
        with self._logging_refusals() as now:
            return self._verifier.verify_sync(token, now=now)

    @contextmanager
    def _logging_refusals(self) -> Iterator[float]:
        """Log what the answer does not show, except for a malformed token, or twice in a minute. Yields the time."""
        now = self._clock()
        try:
            yield now
        except InvalidToken as refusal:
            logged_at = self._logged_at.get(refusal.detail)
            if refusal.for_log and (logged_at is None or abs(now - logged_at) >= PAUSE):  # the clock may be set back
                self._logged_at[refusal.detail] = now
                _log.warning("A token was refused: %s", refusal.for_log)
            raise


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


def authorizations_of(scope: Mapping[str, Any]) -> list[str]:
    """The `Authorization` headers of an ASGI request."""
    return values_of(scope, b"authorization")


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
