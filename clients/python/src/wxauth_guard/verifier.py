"""Verification of access tokens as RFC 8725 and RFC 9068 require, in wxauth's own routes and in other services.

Libraries accept too much (`crit`, any `typ`, a missing `aud`, an `iat` in the future, any size), so this module checks
every rule itself. See docs/contribute/decisions/0002-python-jose-only-signs.md.
"""

from __future__ import annotations

import json
import re
import sys
from collections import OrderedDict
from functools import lru_cache
from math import isfinite
from string import ascii_letters, digits
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast
from uuid import UUID

from wxauth_guard.claims import ALGORITHM, TOKEN_TYPE, Claims, Principal, is_document_url
from wxauth_guard.errors import InsufficientScope, InvalidToken, TokenExpired
from wxauth_guard.json_texts import from_base64url, has_too_many_containers, refuse_constant
from wxauth_guard.keys import KeySource, SyncKeySource, VerificationKey

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import TypeGuard

# A token of wxauth has about 600 characters.
MAX_TOKEN_LENGTH: Final = 8192
CLOCK_SKEW: Final = 30  # seconds, for `exp`, `iat` and `nbf`
# wxauth's own claims contain at most two objects and lists. This also limits the depth of nesting, which Python's
# parser does not always limit.
MAX_CONTAINERS: Final = 64
REMEMBERED_TOKENS: Final = 4096
# All remembered tokens and their users together take 12 MiB, or up to 200 MiB if each has hundreds of roles or scopes.
MAX_REMEMBERED_LENGTH: Final = 2048

_MAX_SHOWN: Final = 200
_NOT_TEXT: Final = "app_id, external_id or scope is missing or not a string"
_BY_OUR_CLOCK: Final = "by this machine's clock"
# Each integer with fewer digits is within the range of a float.
_FINITE_DIGITS: Final = sys.float_info.max_10_exp
# A JWS in compact form (RFC 7515, section 7.1) with an ES256 signature, whose 64 bytes are encoded as 86 characters.
_COMPACT_FORM: Final = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]{86})")
# A part may end with these characters, by its length modulo four, which is never 1 in base64. The unused bits of the
# last one must be zero (RFC 4648, section 3.5). Otherwise, several spellings would decode to the same bytes.
_LAST_CHARACTERS: Final = (ascii_letters + digits + "-_", "", "AQgw", "AEIMQUYcgkosw048")
_UUID: Final = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE | re.ASCII)
# Programs write these for a missing value, or for a value that is not a string.
_PLACEHOLDER: Final = re.compile(r"undefined|null|None|nil|NaN|true|false|\[object [A-Za-z]{1,32}\]")
# Some clients put them around a token by mistake.
_QUOTES: Final = "\"'`"
_TOKEN_TYPES: Final = frozenset({TOKEN_TYPE, f"application/{TOKEN_TYPE}"})  # in lower case (RFC 9068, section 4)


class _Known(NamedTuple):
    key: VerificationKey
    principal: Principal


class Verifier:
    """A verifier of access tokens.

    The verifier remembers the users of signed tokens, because checking the signature and reading the claims take most
    of the time, and a user sends the same token with each call. For each call, it still checks the times and the scope,
    and that the issuer publishes the key.
    """

    def __init__(self, *, issuer: str, audience: str, keys: KeySource) -> None:
        # None would match a token without the claim.
        if not all(isinstance(name, str) and name for name in (issuer, audience)):
            raise ValueError("issuer and audience must be one string each, and not empty")
        self._issuer = issuer
        self._audience = audience
        self._keys = keys
        # The tokens are in the order in which they were first remembered.
        self._known: OrderedDict[str, _Known] = OrderedDict()

    async def verify(self, token: str, *, now: float, allows_scope: bool = True) -> Principal:
        """Verify a token and return its user. `now` is in epoch seconds.

        Raises: InvalidToken, TokenExpired, KeysUnavailable; InsufficientScope, if the token has a scope that
            `allows_scope` forbids.
        """
        known = self._known.get(token)
        # Another key object means that the keys have been read again. It might be another key with the same id.
        if known is not None and await self._keys.find(known.key.kid) is known.key:
            principal = known.principal
        else:
            jws = _compact_form(token)
            principal = self._signed_principal(jws, await self._keys.find(_key_id(jws[1])))
        _check_use(principal.claims, now=now, allows_scope=allows_scope)
        return principal

    def verify_sync(self, token: str, *, now: float, allows_scope: bool = True) -> Principal:
        """Verify a token in a thread, as `verify` does. The key source must also be a `SyncKeySource`."""
        keys = cast(SyncKeySource, self._keys)
        known = self._known.get(token)
        if known is not None and keys.find_sync(known.key.kid) is known.key:
            principal = known.principal
        else:
            jws = _compact_form(token)
            principal = self._signed_principal(jws, keys.find_sync(_key_id(jws[1])))
        _check_use(principal.claims, now=now, allows_scope=allows_scope)
        return principal

    def _signed_principal(self, jws: re.Match[str], key: VerificationKey | None) -> Principal:
        token = jws.string
        if key is None:
            raise InvalidToken(
                "the token names a key that is not known",
                for_log=f"its kid is {_shown(_key_id(jws[1]))}, which is no key of {_shown(self._issuer)}",
            )
        signed_part = token[: jws.end(2)]  # the header, a dot and the claims
        if not key.verify(signed_part.encode(), decoded(jws[3])):
            raise InvalidToken(
                "the signature does not fit",
                for_log=f"its signature does not fit the key {_shown(key.kid)} of {_shown(self._issuer)}",
            )
        principal = self._principal(json_object(jws[2]))
        if len(token) <= MAX_REMEMBERED_LENGTH:
            self._known[token] = _Known(key, principal)
            if len(self._known) > REMEMBERED_TOKENS:
                self._known.popitem(last=False)  # the oldest token usually expires first
        return principal

    def _accepts_audience(self, audience: object) -> bool:
        """The service's own verifier of resources' tokens overrides this method."""
        return audience == self._audience or (_is_text_list(audience) and self._audience in audience)

    def _check_issuer_and_audience(self, claims: dict[str, Any]) -> None:
        if claims.get("iss") != self._issuer:
            raise InvalidToken("iss is another issuer", for_log=_differing("iss", claims, self._issuer))
        if not self._accepts_audience(claims.get("aud")):
            raise InvalidToken("aud does not name this audience", for_log=_differing("aud", claims, self._audience))

    def _principal(self, claims: dict[str, Any]) -> Principal:
        self._check_issuer_and_audience(claims)
        client_id, token_id = claims.get("client_id"), claims.get("jti")
        # The token of a login in a mini-program or mobile app has an openid, but no app_id, because its client_id
        # names this app. A website's token has an openid, an app_id and a scope. The token of an unregistered client
        # has a scope, but neither an openid nor an app_id.
        openid, app_id = claims.get("openid"), claims.get("app_id", client_id)
        if _is_of_unregistered_client(claims):
            openid = app_id = ""
        if not (isinstance(client_id, str) and isinstance(openid, str) and isinstance(token_id, str)):
            raise InvalidToken("client_id, openid or jti is missing or not a string")
        external_id = claims.get("external_id")  # None if the claim is missing
        has_wrong_external_id = "external_id" in claims and not isinstance(external_id, str)  # also if it is null
        if has_wrong_external_id or not isinstance(app_id, str):
            raise InvalidToken(_NOT_TEXT)
        roles = claims.get("roles", [])
        if not _is_text_list(roles):
            raise InvalidToken("roles is not a list of strings")
        user_id, session_id = _uuid(claims, "sub"), _uuid(claims, "sid")
        scope = claims.get("scope", "")
        return Principal(
            id=user_id,
            app_id=app_id,
            openid=openid,
            session_id=session_id,
            roles=frozenset(roles),
            claims=Claims(claims),
            external_id=external_id,
            # The scope is split only at spaces (RFC 6749, section 3.3), as in the guard for Node.
            # `_check_use` refuses a scope that is no text.
            scope=frozenset(scope.split(" ")) - {""} if isinstance(scope, str) else frozenset(),
        )


@lru_cache(maxsize=16)  # all tokens signed with a key have the same header
def _key_id(header_part: str) -> str:
    """Check a token's header, and return the id of the key that it names."""
    header = json_object(header_part)
    if header.get("alg") != ALGORITHM:
        raise InvalidToken("alg is not ES256")
    token_type = header.get("typ")
    if not isinstance(token_type, str) or token_type.lower() not in _TOKEN_TYPES:
        raise InvalidToken("typ is not at+jwt")
    if "crit" in header:
        raise InvalidToken("crit names an extension that is not understood")
    kid = header.get("kid")
    if not isinstance(kid, str) or not kid:
        raise InvalidToken("kid is missing")
    return kid


def _compact_form(token: str) -> re.Match[str]:
    if len(token) > MAX_TOKEN_LENGTH:
        raise InvalidToken("the token is too long")
    jws = _COMPACT_FORM.fullmatch(token)
    if jws is None:
        raise InvalidToken(_fault_of(token))
    return jws


def _fault_of(token: str) -> str:
    """Return why a text is no token. The reason echoes only words that match `_PLACEHOLDER`."""
    bare = token.strip(_QUOTES)
    if not bare or _PLACEHOLDER.fullmatch(bare):
        return f"the client sent {bare or 'empty quotation marks'} in place of a token"
    if bare != token:
        return "the client sent the token in quotation marks"
    return "the token is not a JWS in compact form with an ES256 signature"


def _is_of_unregistered_client(claims: dict[str, Any]) -> bool:
    """Return whether this is the token of a client that a document describes."""
    client_id = claims.get("client_id")
    has_document = isinstance(client_id, str) and is_document_url(client_id)
    return has_document and "scope" in claims and "openid" not in claims and "app_id" not in claims


def _check_use(claims: Mapping[str, Any], *, now: float, allows_scope: bool) -> None:
    """Check what may differ between two uses of a token, and last that its scope is a text."""
    _check_times(claims, now)
    if "scope" in claims:
        if not allows_scope:  # whatever its value is
            raise InsufficientScope("this service doesn't accept the tokens of websites and agents")
        if not isinstance(claims["scope"], str):
            raise InvalidToken(_NOT_TEXT)
    elif "app_id" in claims:  # of a website's token, which always has a scope
        raise InvalidToken(_NOT_TEXT)


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    beginnings = ("iat", "nbf") if "nbf" in claims else ("iat",)  # only `iat` is required
    for name in beginnings:
        ahead = _time(claims, name) - now
        if ahead > CLOCK_SKEW:
            for_log = f"{name} is {_seconds(ahead)} in the future {_BY_OUR_CLOCK}"
            raise InvalidToken(f"{name} is in the future", for_log=for_log)
    expired_for = now - _time(claims, "exp")
    if expired_for >= CLOCK_SKEW:  # not `>`, because a token expires at the time `exp` itself (RFC 7519)
        raise TokenExpired("the token has expired", for_log=f"expired {_seconds(expired_for)} ago {_BY_OUR_CLOCK}")


def _uuid(claims: dict[str, Any], name: str) -> UUID:
    value = claims.get(name)
    if not isinstance(value, str) or not _UUID.fullmatch(value):
        raise InvalidToken(f"{name} is missing or not a UUID")
    return UUID(value)


def _time(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return value  # finite, because the decoder refuses other numbers
    raise InvalidToken(f"{name} is missing or not a finite number")


def _differing(name: str, claims: dict[str, Any], expected: str) -> str:
    predicate = f"is {_shown(claims[name])}" if name in claims else "is missing"
    return f"{name} {predicate}, this guard expects {_shown(expected)}"


def _shown(value: object) -> str:
    return f"{value!a:.{_MAX_SHOWN}}"  # escaped, because a `kid` is read before the signature is checked


def _seconds(duration: float) -> str:
    return f"{duration:,.0f} s"


def _is_text_list(value: object) -> TypeGuard[list[str]]:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def json_object(part: str) -> dict[str, Any]:
    """Return the JSON object in a part of a JWS.

    Raises: InvalidToken, if the part is not base64url or not a JSON object, if it contains a name twice, a number that
        is not finite or a lone surrogate, or if it has more objects and lists than `MAX_CONTAINERS`.
    """
    try:
        text = decoded(part).decode()
        if has_too_many_containers(text, MAX_CONTAINERS):
            raise InvalidToken("a part of the token has too many objects and lists")
        value = _decoder.decode(text)
        if "\\u" in text:  # a lone escaped surrogate decodes to text that cannot be encoded
            json.dumps(value, ensure_ascii=False).encode()
    except ValueError as exc:
        raise InvalidToken("a part of the token is not JSON") from exc
    if not isinstance(value, dict):
        raise InvalidToken("a part of the token is not a JSON object")
    return value


def decoded(part: str) -> bytes:
    """Decode a part of a token from base64url. The part must not be empty."""
    if part[-1] not in _LAST_CHARACTERS[len(part) % 4]:
        raise InvalidToken("a part of the token is not base64url")
    return from_base64url(part)


def _object_of_unique_names(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):  # Parsers choose different values.
        raise ValueError("a name occurs twice")
    return value


def _finite(literal: str) -> float:
    number = float(literal)
    if not isfinite(number):
        raise ValueError("a number is beyond any float")
    return number


def _finite_integer(literal: str) -> int:
    # JavaScript reads every number as a float, and both guards must reach the same decision about a huge number.
    if len(literal) >= _FINITE_DIGITS:
        _finite(literal)
    return int(literal)


_decoder = json.JSONDecoder(
    object_pairs_hook=_object_of_unique_names,
    parse_float=_finite,
    parse_int=_finite_integer,
    parse_constant=refuse_constant,
)
