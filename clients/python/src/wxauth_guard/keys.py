"""Public keys for ES256 (RFC 7517), and the interfaces for looking them up."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from jose import jwk
from jose.exceptions import JOSEError

from wxauth_guard.claims import ALGORITHM

if TYPE_CHECKING:
    from typing import Self

_COORDINATE = re.compile(r"[A-Za-z0-9_-]{43}")
"""The pattern of a coordinate of P-256, which is 32 bytes as base64url."""
_MAX_KID_LENGTH = 256
"""The length limit of a key's id in characters."""


class InvalidKey(ValueError):
    """A JWK that ES256 cannot use."""


@dataclass(frozen=True)
class VerificationKey:
    """A parsed public key."""

    kid: str
    key: Any
    """The key object of python-jose. It is stored, because parsing a key takes as long as checking a signature."""

    @classmethod
    def from_jwk(cls, member: Mapping[str, Any]) -> Self:
        """Build a key from one member of a JWK set. The fields of a private key, such as `d`, are ignored.

        Raises: InvalidKey, for another type, curve, use or algorithm, or a point that is not on the curve.
        """
        kid, x, y = member.get("kid"), member.get("x"), member.get("y")
        if not isinstance(kid, str) or not 0 < len(kid) <= _MAX_KID_LENGTH:
            raise InvalidKey("kid is missing or has an invalid length")
        if member.get("kty") != "EC" or member.get("crv") != "P-256":
            raise InvalidKey("not an EC key on P-256")
        if member.get("use", "sig") != "sig" or member.get("alg", ALGORITHM) != ALGORITHM:
            raise InvalidKey("not a key for ES256 signatures")
        if not all(isinstance(value, str) and _COORDINATE.fullmatch(value) for value in (x, y)):
            raise InvalidKey("x or y is not a coordinate of P-256")
        try:
            key = jwk.construct({"kty": "EC", "crv": "P-256", "x": x, "y": y}, ALGORITHM)
        except (JOSEError, ValueError) as exc:
            raise InvalidKey("the point is not on the curve") from exc
        return cls(kid, key)


def verification_keys(members: Iterable[Any]) -> dict[str, VerificationKey]:
    """Return the usable keys of a JWK set, by kid. If two usable keys have the same kid, ignore both."""
    by_kid: dict[str, VerificationKey] = {}
    ambiguous: set[str] = set()
    for member in members:
        try:
            key = VerificationKey.from_jwk(member if isinstance(member, Mapping) else {})
        except InvalidKey:  # a key of another kind, which the issuer may add
            continue
        if key.kid in by_kid:
            ambiguous.add(key.kid)
        by_kid[key.kid] = key
    return {kid: key for kid, key in by_kid.items() if kid not in ambiguous}


class KeySource(Protocol):
    """A source of verification keys."""

    async def find(self, kid: str) -> VerificationKey | None:
        """Return the key with this id, or None. Raises: KeysUnavailable."""


class SyncKeySource(Protocol):
    """A source of verification keys for threads that have no event loop."""

    def find_sync(self, kid: str) -> VerificationKey | None:
        """Return the key, as `KeySource.find` does, but block the thread while the source fetches the key."""
