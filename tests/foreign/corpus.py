"""Tokens that every good verifier accepts or rejects if it knows the issuer, the audience, the algorithm and the type.

wxauth's own guard rejects some tokens that foreign libraries accept. Such a token has repeated names, any size, no
`kid` if there is only one key, claims of other types or forms (for example, `sub` that isn't a UUID, times out of
range, or `roles` that isn't a list), `iat` in the future, a signature that is padded or spelt differently, or JSON with
a byte order mark. Only the issuer can sign such tokens. The libraries also allow less clock skew, from none to a few
seconds.
"""

from operator import methodcaller
from typing import Final

from tests.guard.hostile import EXPIRED, GOOD, HOSTILE, Forgery

# Only a verifier that has been told so accepts tokens of websites and agents, whatever the value of the claim is.
_SCOPES: Final[tuple[object, ...]] = ("openid profile", "orders:read", "", None, [], ["openid"], {}, 0, False)
SCOPED: dict[str, Forgery] = {f"scope {scope!r}": methodcaller("with_claims", scope=scope) for scope in _SCOPES}

ACCEPTED: dict[str, Forgery] = {
    name: GOOD[name]
    for name in (
        "as issued",
        "typ application/at+jwt",
        "typ in capitals",
        "a header member that is not ours",
        "a claim that is not ours",
        "aud a list with ours",
        "an openid in Chinese",
    )
}

REFUSED: dict[str, Forgery] = {
    **{
        name: HOSTILE[name]
        for name in (
            "alg none",
            "alg none with a signature",
            "alg HS256 with the public key as secret",
            "alg HS256 with the published x as secret",
            "alg RS256",
            "alg RS256 with an ES256 signature",
            "alg ES384",
            "alg in lower case",
            "no alg",
            "no typ",
            "typ JWT",
            "an id_token by the key of access tokens",
            "typ of a logout token",
            "kid unknown",
            "crit",
            "crit b64",
            "another key under our kid",
            "a key in the header",
            "a key set's address in the header",
            "a certificate in the header",
            *(f"no {claim}" for claim in ("iss", "sub", "aud", "exp", "iat", "jti", "client_id", "sid", "openid")),
            "exp a string",
            "exp null",
            "exp NaN",
            "iss with a slash",
            "iss in capitals",
            "aud another",
            "aud longer",
            "aud a list without ours",
            "one bit off",
            "another payload",
            "r and s zero",
            "r and s the group's order",
            "r and s all ones",
            "signature in DER",
            "signature a byte short",
            "signature a byte long",
            "no signature",
            "two parts",
            "four parts",
            "five parts, as a JWE",
            "JSON serialisation",
            "only dots",
            "a word",
            "header a list",
            "header not JSON",
            "header not UTF-8",
            "payload a list",
            "payload not JSON",
            "payload not UTF-8",
        )
    },
    "iss another": lambda forger: forger.with_claims(iss="https://auth.evil.test"),
    "nbf an hour ahead": lambda forger: forger.with_claims(nbf=forger.claims["iat"] + 3600),
    "exp long ago": EXPIRED["exp long ago"],
    "exp 30 seconds ago": EXPIRED["exp 30 seconds ago"],
}
