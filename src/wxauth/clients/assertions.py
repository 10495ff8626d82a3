"""The authentication of clients with signed assertions (`private_key_jwt`, RFC 7523), and their keys (RFC 7517).

From python-jose, wxauth uses only the key objects. This module itself checks the assertion's header and claims.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Self

from jose import jwk
from jose.exceptions import JOSEError

from wxauth_guard.errors import InvalidToken
from wxauth_guard.keys import InvalidKey, VerificationKey
from wxauth_guard.verifier import CLOCK_SKEW, decoded, json_object

ASSERTION_TYPE: Final = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
PRIVATE_KEY_JWT: Final = "private_key_jwt"
SIGNING_ALGS: Final = ("RS256", "ES256")
_MAX_ASSERTION_LENGTH: Final = 8192
_MAX_LIFETIME: Final = timedelta(minutes=5)  # from now until an assertion's `exp`
_MAX_JTI_LENGTH: Final = 256
_RSA_BITS: Final = range(2048, 8192 + 1)  # A shorter key is weak, and verification with a longer key takes too long.
# FIPS 186-5 forbids smaller exponents, and verification with a larger one takes too long.
_EXPONENTS: Final = range(2**16 + 1, 2**32, 2)
_PRIVATE_MEMBERS: Final = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})  # of private and symmetric keys only
COMPACT_JWS: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)", re.ASCII)
# In base64url, 8192 bits have 1366 characters, and further ones can only be leading zeros.
_NUMBER: Final = re.compile(r"[A-Za-z0-9_-]{1,1400}", re.ASCII)
_MAX_KID_LENGTH: Final = 256  # as in `VerificationKey`, for EC keys
_TYPES: Final = frozenset({"jwt", "client-authentication+jwt"})  # in lower case and without `application/`


class InvalidAssertion(Exception):
    """The error for an assertion that authenticates no client. The message does not quote the assertion."""


@dataclass(frozen=True, slots=True)
class ClientKey:
    kid: str | None
    alg: str
    verify: Callable[[bytes, bytes], bool]

    @classmethod
    def from_jwk(cls, document: Mapping[str, Any]) -> Self:
        """Build a key from a JWK. Raises: InvalidKey, if it is not a strong public key for signatures."""
        if _PRIVATE_MEMBERS & document.keys():
            raise InvalidKey("the key isn't public")
        operations = document.get("key_ops", ["verify"])
        if not isinstance(operations, list) or "verify" not in operations:
            raise InvalidKey("the key isn't for signatures")
        if document.get("kty") == "RSA":
            return cls._from_rsa_jwk(document)
        return cls._from_ec_jwk(document)  # this also refuses keys of other types

    @classmethod
    def _from_ec_jwk(cls, document: Mapping[str, Any]) -> Self:
        kid = document.get("kid")
        # A client may omit the id of its key, but VerificationKey requires one.
        with_kid = {**document, "kid": "-" if kid is None else kid}
        return cls(kid, "ES256", VerificationKey.from_jwk(with_kid).verify)

    @classmethod
    def _from_rsa_jwk(cls, document: Mapping[str, Any]) -> Self:
        kid = document.get("kid")
        if not (kid is None or (isinstance(kid, str) and 0 < len(kid) <= _MAX_KID_LENGTH)):
            raise InvalidKey(f"kid must be a string of 1 to {_MAX_KID_LENGTH} characters")
        if document.get("use", "sig") != "sig" or document.get("alg", "RS256") != "RS256":
            raise InvalidKey("the key isn't for RS256 signatures")
        n, e = document.get("n"), document.get("e")
        if _number(n).bit_length() not in _RSA_BITS or _number(e) not in _EXPONENTS:
            raise InvalidKey("the key's numbers are too small or too large")
        try:
            return cls(kid, "RS256", jwk.construct({"kty": "RSA", "n": n, "e": e}, "RS256").verify)
        except (JOSEError, ValueError) as exc:
            raise InvalidKey("the key's numbers don't match") from exc


def _number(text: object) -> int:
    if not isinstance(text, str) or not _NUMBER.fullmatch(text):
        raise InvalidKey("n or e is missing or malformed")
    try:
        return int.from_bytes(decoded(text), "big")
    except InvalidToken:
        raise InvalidKey("a number isn't base64url") from None


@dataclass(frozen=True, slots=True)
class ClientKeys:
    keys: tuple[ClientKey, ...]

    @classmethod
    def read(cls, jwks: object) -> Self:
        """Return the usable keys of a JWK set.

        Keys that share an algorithm and a `kid` are left out, because the `kid` does not say which of them has signed.

        Raises: InvalidKey, if `jwks` is not a JWK set.
        """
        documents = _jwks_in(jwks)
        if documents is None:
            raise InvalidKey("the value isn't a JWK set")
        usable = list(_usable_keys(documents))
        counts = Counter((each.alg, each.kid) for each in usable)
        return cls(tuple(each for each in usable if each.kid is None or counts[each.alg, each.kid] == 1))

    def find(self, alg: str, kid: str | None) -> ClientKey | None:
        """Return the key with this algorithm and `kid` or, without a `kid`, the only key with this algorithm."""
        matching = [each for each in self.keys if each.alg == alg and (kid is None or each.kid == kid)]
        return matching[0] if len(matching) == 1 else None


def _jwks_in(jwks: object) -> list[object] | None:
    documents = jwks.get("keys") if isinstance(jwks, Mapping) else None
    return documents if isinstance(documents, list) else None


def _usable_keys(documents: Iterable[object]) -> Iterable[ClientKey]:
    """Yield the usable keys of a JWK set, and ignore other keys, as RFC 7517 (section 5) recommends."""
    for document in documents:
        if isinstance(document, Mapping):
            with suppress(InvalidKey):
                yield ClientKey.from_jwk(document)


def has_private_keys(jwks: object) -> bool:
    """Return whether a JWK set contains private or symmetric keys."""
    documents = _jwks_in(jwks) or []
    return any(isinstance(each, Mapping) and not _PRIVATE_MEMBERS.isdisjoint(each) for each in documents)


@dataclass(frozen=True, slots=True)
class Assertion:
    """An assertion with valid claims, whose signature has not been checked yet."""

    alg: str
    kid: str | None
    client_id: str
    jti: str
    _signed: bytes  # the encoded header and payload with the dot between them
    _signature: bytes

    @classmethod
    def read(cls, text: str, *, issuer: str, endpoints: Collection[str], now: datetime) -> Self:
        """Check the form and the claims of an assertion. The audience must be `issuer` or one of `endpoints`.

        Raises: InvalidAssertion.
        """
        jws = COMPACT_JWS.fullmatch(text) if len(text) <= _MAX_ASSERTION_LENGTH else None
        if jws is None:
            raise InvalidAssertion("client_assertion isn't a JWS in compact form")
        try:
            header, claims, signature = json_object(jws[1]), json_object(jws[2]), decoded(jws[3])
        except InvalidToken:
            raise InvalidAssertion("a part of client_assertion isn't a base64url-encoded JSON object") from None
        _check_header(header)
        _check_claims(claims, issuer=issuer, endpoints=endpoints, now=now.timestamp())
        return cls(
            alg=header["alg"],
            kid=header.get("kid"),
            client_id=claims["sub"],
            jti=claims["jti"],
            _signed=text[: jws.end(2)].encode(),
            _signature=signature,
        )

    def is_signed_by(self, key: ClientKey) -> bool:
        return key.alg == self.alg and key.verify(self._signed, self._signature)


def _check_header(header: Mapping[str, Any]) -> None:
    kid, typ = header.get("kid"), header.get("typ", "JWT")
    if header.get("alg") not in SIGNING_ALGS:
        raise InvalidAssertion(f"alg must be one of {', '.join(SIGNING_ALGS)}")
    if not isinstance(typ, str) or typ.lower().removeprefix("application/") not in _TYPES:
        raise InvalidAssertion("typ must be JWT or client-authentication+jwt")
    if "crit" in header or "b64" in header:
        raise InvalidAssertion("crit or b64 requires an extension that isn't supported")
    if not (kid is None or (isinstance(kid, str) and kid)):
        raise InvalidAssertion("kid must be a string that isn't empty")


def _check_claims(claims: Mapping[str, Any], *, issuer: str, endpoints: Collection[str], now: float) -> None:
    client_id, jti = claims.get("sub"), claims.get("jti")
    if not isinstance(client_id, str) or claims.get("iss") != client_id:
        raise InvalidAssertion("iss and sub must be the client_id")
    if not _is_only_for(claims.get("aud"), issuer, endpoints):
        raise InvalidAssertion(f"aud must be the issuer or the endpoint: {issuer}, {', '.join(endpoints)}")
    # `exp` has no CLOCK_SKEW, because the client chooses it: halfway to _MAX_LIFETIME, its clock may be minutes off.
    expires_at = _time(claims, "exp")
    if expires_at is None or expires_at <= now:
        raise InvalidAssertion("exp is missing or past")
    if expires_at > now + _MAX_LIFETIME.total_seconds():
        raise InvalidAssertion(f"exp is more than {_MAX_LIFETIME // timedelta(minutes=1)} minutes ahead")
    for name in ("iat", "nbf"):
        time = _time(claims, name)
        if time is not None and time > now + CLOCK_SKEW:
            raise InvalidAssertion(f"{name} is in the future")
    if not (isinstance(jti, str) and 0 < len(jti) <= _MAX_JTI_LENGTH):
        raise InvalidAssertion(f"jti must have 1 to {_MAX_JTI_LENGTH} characters")


def _is_only_for(audience: object, issuer: str, endpoints: Collection[str]) -> bool:
    """Return whether the audience names this server, and no other server, which could use the assertion here."""
    audiences = audience if isinstance(audience, list) else [audience]
    with_slash = f"{issuer}/"  # each endpoint begins with this text, and some clients add a slash to the issuer
    for each in audiences:
        if not isinstance(each, str) or not (each == issuer or each.startswith(with_slash)):
            return False
    return not {issuer, with_slash, *endpoints}.isdisjoint(audiences)


def _time(claims: Mapping[str, Any], name: str) -> float | None:
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, int | float) and not isinstance(value, bool):
        return value  # the number is finite, because the decoder refuses NaN and infinity
    raise InvalidAssertion(f"{name} is not a number")
