"""Tokens that every verifier must reject. Each is made from a valid token and, if possible, correctly signed."""

from __future__ import annotations

import base64
import hmac
import json
import zlib
from collections.abc import Callable
from operator import methodcaller
from typing import Any, Protocol

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from wxauth_guard.keys import VerificationKey
from wxauth_guard.testing import TestKey

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""The order `n` of P-256's group."""
FIELD = 0xFFFFFFFF00000001000000000000000000000000FFFFFFFFFFFFFFFFFFFFFFFF
"""The prime `p` of P-256's coordinates."""
LONGER_THAN_A_HEAD = "100,000 bytes"
"""The name of a token that the service never reads, because it rejects a request with such a large head."""
ABSENT = "absent"
"""A value that means that the claim is left out."""


def encode(part: bytes | str | dict[str, Any] | list[Any]) -> str:
    if isinstance(part, (dict, list)):
        part = json.dumps(part)
    return base64.urlsafe_b64encode(part.encode() if isinstance(part, str) else part).rstrip(b"=").decode()


def decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "==")


class AnyKey(Protocol):
    """A private key of a test or of a running service."""

    kid: str
    public_jwk: dict[str, str]


def signature_by(key: Any, signed: bytes) -> bytes:
    """Return the raw signature that a test's key, or a running service's key, makes."""
    raw: bytes = key.signature_of(signed) if isinstance(key, TestKey) else key.signer.sign(signed)
    return raw


class Forger:
    """An attacker with a valid token.

    Unlike a real attacker, it also has the signing key, so that each forged token breaks only one rule.
    """

    def __init__(self, token: str, key: AnyKey) -> None:
        self.token = token
        self.parts = token.split(".")
        self.header: dict[str, Any] = json.loads(decode(self.parts[0]))
        self.claims: dict[str, Any] = json.loads(decode(self.parts[1]))
        self.signature = decode(self.parts[2])
        self.key = key

    def sign(self, header: Any, payload: Any) -> str:
        return self.sign_parts(encode(header), encode(payload))

    def sign_parts(self, header: str, payload: str) -> str:
        signing_input = f"{header}.{payload}"
        return f"{signing_input}.{encode(signature_by(self.key, signing_input.encode()))}"

    def sign_otherwise(self, algorithm: str, sign: Callable[[bytes], bytes]) -> str:
        """Name another algorithm in the header, and sign with it."""
        signing_input = f"{encode(self.header | {'alg': algorithm})}.{self.parts[1]}"
        return f"{signing_input}.{encode(sign(signing_input.encode()))}"

    def with_header(self, **members: Any) -> str:
        return self.sign(self.header | members, self.claims)

    def without_header(self, name: str) -> str:
        return self.sign({key: value for key, value in self.header.items() if key != name}, self.claims)

    def with_claims(self, **claims: Any) -> str:
        return self.sign(self.header, self.claims | claims)

    def by_document(self, **claims: Any) -> str:
        """Make a token of a client that is known by its metadata document. The given claims can make it invalid."""
        document = {"client_id": "https://agent.test/client.json", "scope": "orders:read"}
        own = {name: value for name, value in self.claims.items() if name not in ("openid", "roles")}
        all_of = own | document | claims
        return self.sign(self.header, {name: value for name, value in all_of.items() if value != ABSENT})

    def with_raw_header(self, name: str, literal: str) -> str:
        """Add a header member whose value is raw text, such as a number that Python can't express or invalid JSON."""
        return self.sign(_ending_with(name, literal.encode(), self.header), self.claims)

    def with_raw_claim(self, name: str, literal: str | bytes) -> str:
        content = literal if isinstance(literal, bytes) else literal.encode()
        return self.sign(self.header, _ending_with(name, content, self.claims))

    def without_claim(self, name: str) -> str:
        return self.sign(self.header, {key: value for key, value in self.claims.items() if key != name})

    def with_header_twice(self, name: str, *, spelling: str = "") -> str:
        return self.sign(_beginning_with(spelling or name, self.header, of=name), self.claims)

    def with_claim_twice(self, name: str, *, spelling: str = "") -> str:
        return self.sign(self.header, _beginning_with(spelling or name, self.claims, of=name))

    @property
    def numbers(self) -> tuple[int, int]:
        """Return the signature's `r` and `s`."""
        return int.from_bytes(self.signature[:32], "big"), int.from_bytes(self.signature[32:], "big")

    def with_numbers(self, r: int, s: int) -> str:
        return self.with_signature(r.to_bytes(32, "big") + s.to_bytes(32, "big"))

    def with_signature(self, signature: bytes | str) -> str:
        return f"{self.parts[0]}.{self.parts[1]}.{signature if isinstance(signature, str) else encode(signature)}"


def _ending_with(name: str, literal: bytes, members: dict[str, Any]) -> bytes:
    """Return JSON whose last member has this raw value. It replaces a previous value of this member."""
    others = {key: value for key, value in members.items() if key != name}
    return json.dumps(others)[:-1].encode() + f', "{name}": '.encode() + literal + b"}"


def _beginning_with(spelling: str, members: dict[str, Any], *, of: str) -> str:
    """Return JSON that contains a name twice, the first time in this spelling."""
    return f'{{"{spelling}": "other", {json.dumps({of: "other", **members})[1:]}'


Forgery = Callable[[Forger], str]


def _unsigned(algorithm: str) -> Forgery:
    return lambda forger: f"{encode(forger.header | {'alg': algorithm})}.{forger.parts[1]}."


def _hmac(secret_of: Callable[[AnyKey], bytes]) -> Forgery:
    return lambda forger: forger.sign_otherwise(
        "HS256", lambda text: hmac.digest(secret_of(forger.key), text, "sha256")
    )


def _public_pem(key: AnyKey) -> bytes:
    public_key = VerificationKey.from_jwk(key.public_jwk).public_key
    return public_key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)


def _rs256(forger: Forger) -> str:
    key = rsa.generate_private_key(65537, 2048)
    return forger.sign_otherwise("RS256", lambda text: key.sign(text, padding.PKCS1v15(), hashes.SHA256()))


def _signed_by_another_key(forger: Forger) -> str:
    forger.key = TestKey()
    return forger.with_header()


def _naming_its_own_key(member: str, value_of: Callable[[AnyKey], Any], *, own_kid: bool = False) -> Forgery:
    def forge(forger: Forger) -> str:
        forger.key = TestKey()
        kid = forger.key.kid if own_kid else forger.header["kid"]
        return forger.with_header(**{member: value_of(forger.key), "kid": kid})

    return forge


def _respelt(part: str) -> str:
    """Return another spelling that decodes to the same bytes, by setting unused bits of the part's last character."""
    assert len(part) % 4 in (2, 3)
    spelling = part[:-1] + DIGITS[DIGITS.index(part[-1]) + 1]
    assert decode(spelling) == decode(part)
    return spelling


def _respelt_part(which: int) -> Forgery:
    def forge(forger: Forger) -> str:
        members = [forger.header, forger.claims]
        while len(encode(members[which])) % 4 == 0:
            members[which]["x"] = members[which].get("x", "") + "x"
        parts = [encode(part) for part in members]
        parts[which] = _respelt(parts[which])
        return forger.sign_parts(*parts)

    return forge


def _one_bit_off(forger: Forger) -> str:
    return forger.with_signature(bytes([forger.signature[0] ^ 1]) + forger.signature[1:])


def _another_payload(forger: Forger) -> str:
    return f"{forger.parts[0]}.{encode(forger.claims | {'roles': ['admin']})}.{forger.parts[2]}"


def _flattened_json(forger: Forger) -> str:
    protected, payload, signature = forger.parts
    return json.dumps({"protected": protected, "payload": payload, "signature": signature}, separators=(",", ":"))


def _general_json(forger: Forger) -> str:
    protected, payload, signature = forger.parts
    signatures = [{"protected": protected, "signature": signature}]
    return json.dumps({"payload": payload, "signatures": signatures}, separators=(",", ":"))


def _compressed(forger: Forger) -> str:
    deflate = zlib.compressobj(wbits=-15)
    return forger.sign(
        forger.header | {"zip": "DEF"}, deflate.compress(json.dumps(forger.claims).encode()) + deflate.flush()
    )


def _with_numbers(r: int | None, s: int | None) -> Forgery:
    """Replace the numbers in the signature. A number that is None stays as it is."""
    return lambda forger: forger.with_numbers(
        forger.numbers[0] if r is None else r, forger.numbers[1] if s is None else s
    )


def of_length(length: int) -> Forgery:
    def forge(forger: Forger) -> str:
        # A base64 text can't be one character longer than a multiple of four, so the header gets a few characters too.
        about = (length - len(forger.token)) * 3 // 4 - 48
        tokens = (
            forger.sign(forger.header | {"x": "x" * some}, forger.claims | {"x": "x" * most})
            for some in range(3)
            for most in range(about, about + 48)
        )
        return next(token for token in tokens if len(token) == length)

    return forge


def _nested(depth: int) -> str:
    return "[" * depth + "]" * depth


CLAIMS = ("iss", "sub", "aud", "exp", "iat", "jti", "client_id", "sid", "openid")
NOT_TIMES = {
    "a string": '"1795161600"',
    "null": "null",
    "true": "true",
    "a list": "[1795161600]",
    "NaN": "NaN",
    "Infinity": "Infinity",
    "-Infinity": "-Infinity",
    "1e999": "1e999",
    "-1e999": "-1e999",
    "400 digits": "9" * 400,
    "minus 400 digits": "-" + "9" * 400,
    "5,000 digits": "9" * 5000,
}
SPECIAL_NUMBERS = {
    "as it was": None,
    "zero": 0,
    "one": 1,
    "n": ORDER,
    "n - 1": ORDER - 1,
    "n + 1": ORDER + 1,
    "p": FIELD,
}
RFC_7515_ES256 = (
    "eyJhbGciOiJFUzI1NiJ9"
    ".eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
    ".DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"
)
NOT_BY_DOCUMENT: dict[str, dict[str, Any]] = {
    "without scope": {"scope": ABSENT},
    "with a scope that is a list": {"scope": ["orders:read"]},
    "with an app_id": {"app_id": "wxother"},
    "with an openid of null": {"openid": None},
    "by plain http": {"client_id": "http://agent.test/client.json"},
    "by a URL in capitals": {"client_id": "HTTPS://agent.test/client.json"},
    "by a URL after a space": {"client_id": " https://agent.test/client.json"},
    "by a name": {"client_id": "shop"},
    "by a list": {"client_id": ["https://agent.test/client.json"]},
    "without client_id": {"client_id": ABSENT},
}
NOT_UUIDS: dict[str, object] = {
    "a number": 7,
    "null": None,
    "a list": [],
    "a list of a UUID": ["0192f0c1-2b3c-7d4e-8f50-123456789abc"],
    "empty": "",
    "a word": "alice",
    "a UUID in braces": "{0192f0c1-2b3c-7d4e-8f50-123456789abc}",
    "a UUID without hyphens": "0192f0c12b3c7d4e8f50123456789abc",
    "a URN": "urn:uuid:0192f0c1-2b3c-7d4e-8f50-123456789abc",
    "a UUID and a line feed": "0192f0c1-2b3c-7d4e-8f50-123456789abc\n",
    "a UUID in other digits": "٠192f0c1-2b3c-7d4e-8f50-123456789abc",
}

HOSTILE: dict[str, Forgery] = {
    # The algorithm.
    "alg none": _unsigned("none"),
    "alg empty, unsigned": _unsigned(""),
    "alg ES256, unsigned": _unsigned("ES256"),
    "alg none with a signature": lambda forger: forger.with_header(alg="none"),
    "alg HS256 with the public key as secret": _hmac(_public_pem),
    "alg HS256 with the published x as secret": _hmac(lambda key: decode(key.public_jwk["x"])),
    "alg HS256 with the kid as secret": _hmac(lambda key: key.kid.encode()),
    "alg HS256 with an empty secret": _hmac(lambda _: b""),
    "alg RS256": _rs256,
    "alg RS256 with an ES256 signature": lambda forger: forger.with_header(alg="RS256"),
    "alg ES384": lambda forger: forger.with_header(alg="ES384"),
    "alg in lower case": lambda forger: forger.with_header(alg="es256"),
    "alg with a null byte": lambda forger: forger.with_header(alg="ES256\0"),
    "alg in full-width letters": lambda forger: forger.with_header(alg="ＥＳ２５６"),
    "alg an object": lambda forger: forger.with_header(alg={"ES256": True}),
    "alg a list": lambda forger: forger.with_header(alg=["ES256"]),
    "alg null": lambda forger: forger.with_header(alg=None),
    "no alg": lambda forger: forger.without_header("alg"),
    # The type of the token.
    "no typ": lambda forger: forger.without_header("typ"),
    "typ JWT": lambda forger: forger.with_header(typ="JWT"),
    "an id_token by the key of access tokens": lambda forger: forger.sign(
        forger.header | {"typ": "JWT"},
        {name: forger.claims[name] for name in ("iss", "sub", "exp", "iat", "sid")} | {"aud": "shop"},
    ),
    "typ a list": lambda forger: forger.with_header(typ=["at+jwt"]),
    "typ null": lambda forger: forger.with_header(typ=None),
    "typ with a space": lambda forger: forger.with_header(typ=" at+jwt"),
    "typ of a logout token": lambda forger: forger.with_header(typ="logout+jwt"),
    # The key's id.
    "no kid": lambda forger: forger.without_header("kid"),
    "kid unknown": lambda forger: forger.with_header(kid="unknown"),
    "kid empty": lambda forger: forger.with_header(kid=""),
    "kid null": lambda forger: forger.with_header(kid=None),
    "kid a number": lambda forger: forger.with_header(kid=1),
    "kid a list": lambda forger: forger.with_header(kid=[forger.header["kid"]]),
    "kid an object": lambda forger: forger.with_header(kid={"kid": forger.header["kid"]}),
    "kid a lone surrogate": lambda forger: forger.sign('{"alg":"ES256","typ":"at+jwt","kid":"\\ud800"}', forger.claims),
    "kid with a null byte": lambda forger: forger.with_header(kid=forger.header["kid"] + "\0"),
    "kid a path": lambda forger: forger.with_header(kid="../../dev/null"),
    "kid SQL": lambda forger: forger.with_header(kid=f"x' UNION SELECT '{forger.header['kid']}' --"),
    "kid a format": lambda forger: forger.with_header(kid="%s%n{0.__class__}"),
    "kid an address": lambda forger: forger.with_header(kid="https://evil.test/jwks.json"),
    "kid of 5,000 characters": lambda forger: forger.with_header(kid="k" * 5000),
    "kid in another case": lambda forger: forger.with_header(kid=forger.header["kid"].swapcase()),
    "kid followed by a combining accent": lambda forger: forger.with_header(kid=forger.header["kid"] + "\u0301"),
    "kid with a line feed": lambda forger: forger.with_header(kid=forger.header["kid"] + "\n"),
    "kid true": lambda forger: forger.with_header(kid=True),
    "kid beyond any float": lambda forger: forger.sign('{"alg":"ES256","typ":"at+jwt","kid":1e400}', forger.claims),
    # Other members of the header.
    "crit": lambda forger: forger.with_header(crit=["exp"]),
    "crit b64": lambda forger: forger.with_header(crit=["b64"], b64=False),
    "crit empty": lambda forger: forger.with_header(crit=[]),
    "crit null": lambda forger: forger.with_header(crit=None),
    "another key under our kid": _signed_by_another_key,
    "a key in the header": _naming_its_own_key("jwk", lambda key: key.public_jwk),
    "a key set's address in the header": _naming_its_own_key("jku", lambda _: "https://evil.test/jwks.json"),
    "a key in the header, under its own kid": _naming_its_own_key("jwk", lambda key: key.public_jwk, own_kid=True),
    "a certificate in the header": _naming_its_own_key("x5c", lambda key: [_public_pem(key).decode()]),
    "a certificate's address in the header": _naming_its_own_key("x5u", lambda _: "https://evil.test/key.pem"),
    "zip, and a deflated payload": _compressed,
    "cty JWT, and a token for payload": lambda forger: forger.sign(forger.header | {"cty": "JWT"}, forger.token),
    **{f"{name} twice": methodcaller("with_header_twice", name) for name in ("alg", "typ", "kid", "x")},
    **{f"{name} twice": methodcaller("with_claim_twice", name) for name in (*CLAIMS, "roles", "nbf")},
    "alg twice, once escaped": methodcaller("with_header_twice", "alg", spelling="\\u0061lg"),
    "sub twice, once escaped": methodcaller("with_claim_twice", "sub", spelling="s\\u0075b"),
    "a name twice further down": lambda forger: forger.with_raw_claim("x", '{"a": 1, "a": 2}'),
    # The claims.
    **{f"no {name}": methodcaller("without_claim", name) for name in CLAIMS},
    **{f"{name} null": methodcaller("with_claims", **{name: None}) for name in CLAIMS},
    **{
        f"{name} {kind}": methodcaller("with_raw_claim", name, literal)
        for name in ("exp", "iat", "nbf")
        for kind, literal in NOT_TIMES.items()
    },
    **{
        f"{name} {kind}": methodcaller("with_claims", **{name: value})
        for name in ("sub", "sid")
        for kind, value in NOT_UUIDS.items()
    },
    **{
        f"{name} {kind}": methodcaller("with_claims", **{name: value})
        for name in ("iss", "jti", "client_id", "openid")
        for kind, value in {"a number": 1, "a list": ["a"], "an object": {}, "false": False}.items()
    },
    "iss empty": lambda forger: forger.with_claims(iss=""),
    "iss with a null byte": lambda forger: forger.with_claims(iss=forger.claims["iss"] + "\0"),
    "iss with a slash": lambda forger: forger.with_claims(iss=forger.claims["iss"] + "/"),
    "iss in capitals": lambda forger: forger.with_claims(iss=forger.claims["iss"].upper()),
    "iss a list with ours": lambda forger: forger.with_claims(iss=[forger.claims["iss"]]),
    "aud another": lambda forger: forger.with_claims(aud="other"),
    "aud longer": lambda forger: forger.with_claims(aud=forger.claims["aud"] + "x"),
    "aud a list without ours": lambda forger: forger.with_claims(aud=["other"]),
    "aud an empty list": lambda forger: forger.with_claims(aud=[]),
    "aud a list with ours and a number": lambda forger: forger.with_claims(aud=[forger.claims["aud"], 1]),
    "aud empty": lambda forger: forger.with_claims(aud=""),
    "aud true": lambda forger: forger.with_claims(aud=True),
    "aud a list within a list": lambda forger: forger.with_claims(aud=[[forger.claims["aud"]]]),
    "aud in capitals": lambda forger: forger.with_claims(aud=forger.claims["aud"].upper()),
    "aud two in one string": lambda forger: forger.with_claims(aud=f"{forger.claims['aud']} other"),
    "aud an object": lambda forger: forger.with_claims(aud={forger.claims["aud"]: True}),
    "roles a string": lambda forger: forger.with_claims(roles="admin"),
    "roles null": lambda forger: forger.with_claims(roles=None),
    "roles an object": lambda forger: forger.with_claims(roles={"admin": True}),
    "roles with a number": lambda forger: forger.with_claims(roles=["admin", 1]),
    "roles with null": lambda forger: forger.with_claims(roles=["admin", None]),
    "roles true": lambda forger: forger.with_claims(roles=True),
    "roles with a list": lambda forger: forger.with_claims(roles=[["admin"]]),
    **{
        f"{name} {kind}": methodcaller("with_claims", **{name: value})
        for name in ("app_id", "external_id", "scope")
        for kind, value in {"null": None, "a number": 1, "a list": ["a"], "false": False}.items()
    },
    **{
        f"a document's client, {kind}": methodcaller("by_document", **claims)
        for kind, claims in NOT_BY_DOCUMENT.items()
    },
    **{
        f"a website's, app_id {kind}": methodcaller("with_claims", client_id="shop", scope="openid", app_id=value)
        for kind, value in {"null": None, "a number": 1, "a list": ["wxother"], "false": False}.items()
    },
    "app_id without scope": lambda forger: forger.with_claims(app_id="wxother"),
    "iat 31 seconds ahead": lambda forger: forger.with_claims(iat=forger.claims["iat"] + 31),
    "nbf 31 seconds ahead": lambda forger: forger.with_claims(nbf=forger.claims["iat"] + 31),
    # The signature.
    "one bit off": _one_bit_off,
    "another payload": _another_payload,
    "r and s zero": lambda forger: forger.with_numbers(0, 0),
    "r and s the group's order": lambda forger: forger.with_numbers(ORDER, ORDER),
    "r and s all ones": lambda forger: forger.with_signature(b"\xff" * 64),
    **{
        f"r {r_name}, s {s_name}": _with_numbers(r, s)
        for r_name, r in SPECIAL_NUMBERS.items()
        for s_name, s in SPECIAL_NUMBERS.items()
        if (r, s) not in ((None, None), (0, 0), (ORDER, ORDER))
    },
    "r negated": lambda forger: forger.with_numbers(ORDER - forger.numbers[0], forger.numbers[1]),
    "r and s in each other's place": lambda forger: forger.with_numbers(*reversed(forger.numbers)),
    "r and s, last byte first": lambda forger: forger.with_signature(forger.signature[::-1]),
    "signature in DER": lambda forger: forger.with_signature(encode_dss_signature(*forger.numbers)),
    "signature in hexadecimal": lambda forger: forger.with_signature(forger.signature.hex()),
    "signature a byte short": lambda forger: forger.with_signature(forger.signature[:-1]),
    "signature a byte long": lambda forger: forger.with_signature(forger.signature + b"\0"),
    "r alone": lambda forger: forger.with_signature(forger.signature[:32]),
    "r and s in 33 bytes each": lambda forger: forger.with_signature(
        b"\0" + forger.signature[:32] + b"\0" + forger.signature[32:]
    ),
    "signature twice": lambda forger: forger.with_signature(forger.signature * 2),
    "signature padded": lambda forger: forger.token + "==",
    "signature spelt another way": lambda forger: forger.with_signature(_respelt(forger.parts[2])),
    "signature over the parts without their dot": lambda forger: forger.with_signature(
        signature_by(forger.key, "".join(forger.parts[:2]).encode())
    ),
    "signature over the parts decoded": lambda forger: forger.with_signature(
        signature_by(forger.key, b".".join(map(decode, forger.parts[:2])))
    ),
    "the example of RFC 7515, A.3": lambda _: RFC_7515_ES256,
    "no signature": lambda forger: f"{forger.parts[0]}.{forger.parts[1]}.",
    # The form of the token.
    "two parts": lambda forger: ".".join(forger.parts[:2]),
    "four parts": lambda forger: forger.token + ".e30",
    "five parts, as a JWE": lambda forger: ".".join((*forger.parts, "e30", "e30")),
    "JSON serialisation": _flattened_json,
    "general JSON serialisation": _general_json,
    "a JWE": lambda forger: ".".join(
        [encode({"alg": "dir", "enc": "A128GCM", "zip": "DEF", "kid": forger.header["kid"]}), "", *["AAAA"] * 3]
    ),
    "a payload that is not encoded": lambda forger: forger.sign_parts(
        encode(forger.header | {"b64": False, "crit": ["b64"]}), json.dumps(forger.claims)
    ),
    "a payload that is not encoded, nor named crit": lambda forger: forger.sign_parts(
        encode(forger.header | {"b64": False}), json.dumps(forger.claims)
    ),
    "only dots": lambda _: "..",
    "empty header": lambda forger: f".{forger.parts[1]}.{forger.parts[2]}",
    "empty payload": lambda forger: f"{forger.parts[0]}..{forger.parts[2]}",
    "a word": lambda _: "hello",
    "padded header": lambda forger: f"{forger.parts[0]}=.{forger.parts[1]}.{forger.parts[2]}",
    "padded header, signed so": lambda forger: forger.sign_parts(f"{forger.parts[0]}==", forger.parts[1]),
    "padded payload, signed so": lambda forger: forger.sign_parts(forger.parts[0], f"{forger.parts[1]}=="),
    "header spelt another way": _respelt_part(0),
    "payload spelt another way": _respelt_part(1),
    "two tokens": lambda forger: f"{forger.token}, {forger.token}",
    "a token in quotes": lambda forger: f'"{forger.token}"',
    "Bearer twice": lambda forger: f"Bearer {forger.token}",
    "plain base64": lambda forger: f"{forger.parts[0]}.{forger.parts[1]}+/.{forger.parts[2]}",
    "impossible base64": lambda forger: forger.sign_parts(forger.parts[0], "e30e3"),
    "a space within": lambda forger: forger.token.replace(".", " .", 1),
    "a null byte": lambda forger: forger.token + "\0",
    "a letter that is not ASCII": lambda forger: forger.token[:-1] + "é",
    "8,193 bytes": of_length(8193),
    "8,192 bytes, one bit off": lambda forger: _one_bit_off(Forger(of_length(8192)(forger), forger.key)),
    "a header of 10,000 bytes": lambda forger: forger.with_header(x="x" * 10_000),
    LONGER_THAN_A_HEAD: lambda forger: forger.with_claims(padding="p" * 75000),
    # The JSON of the header and the payload.
    "header a list": lambda forger: forger.sign([], forger.claims),
    "header a string": lambda forger: forger.sign('"ES256"', forger.claims),
    "header not JSON": lambda forger: forger.sign("{", forger.claims),
    "header nested deep": lambda forger: forger.sign(_nested(2500), forger.claims),
    "header with a nested member": lambda forger: forger.with_raw_header("x", _nested(2500)),
    "header with half a surrogate pair": lambda forger: forger.with_header(x="\ud800"),
    "header with a number beyond any float": lambda forger: forger.with_raw_header("x", "1e400"),
    "header not UTF-8": lambda forger: forger.sign(b'{"alg":"ES256","typ":"at+jwt","kid":"\xff"}', forger.claims),
    "header in UTF-16": lambda forger: forger.sign(json.dumps(forger.header).encode("utf-16"), forger.claims),
    "header with a BOM": lambda forger: forger.sign(json.dumps(forger.header).encode("utf-8-sig"), forger.claims),
    "payload a list": lambda forger: forger.sign(forger.header, [forger.claims]),
    "payload null": lambda forger: forger.sign(forger.header, "null"),
    "payload with NaN": lambda forger: forger.with_raw_claim("x", "NaN"),
    "payload not JSON": lambda forger: forger.sign(forger.header, "hello"),
    "payload nested deep": lambda forger: forger.with_raw_claim("x", _nested(2500)),
    "payload nested 300 deep": lambda forger: forger.with_raw_claim("x", _nested(300)),
    "payload of objects nested deep": lambda forger: forger.with_raw_claim("x", '{"x":' * 900 + "1" + "}" * 900),
    "payload nested in openid": lambda forger: forger.with_raw_claim("openid", _nested(2500)),
    "payload with a number beyond any float": lambda forger: forger.with_raw_claim("x", "1e400"),
    "payload with a number below any float": lambda forger: forger.with_raw_claim("x", "-1e400"),
    "payload with a number of 400 digits": lambda forger: forger.with_raw_claim("x", "9" * 400),
    "payload with minus a number of 400 digits": lambda forger: forger.with_raw_claim("x", "-" + "9" * 400),
    "payload with a number of 400 digits in a list": lambda forger: forger.with_raw_claim("x", f"[1, {'9' * 400}]"),
    "header with a number of 400 digits": lambda forger: forger.with_raw_header("x", "9" * 400),
    "payload with a number of 5,000 digits": lambda forger: forger.with_raw_claim("x", "9" * 5000),
    "payload with Infinity": lambda forger: forger.with_raw_claim("x", "[Infinity]"),
    "payload with half a surrogate pair": lambda forger: forger.with_claims(x="\ud83d"),
    "payload with a surrogate pair the wrong way round": lambda forger: forger.with_claims(x="\ude00\ud83d"),
    "payload with half a surrogate pair for a name": lambda forger: forger.with_claims(**{"\udfff": 1}),
    "openid half a surrogate pair": lambda forger: forger.with_claims(openid="\ud800"),
    "payload with a surrogate in UTF-8": lambda forger: forger.with_raw_claim("x", b'"\xed\xa0\x80"'),
    "payload with UTF-8 of more bytes than needed": lambda forger: forger.with_raw_claim("x", b'"\xc1\xa1"'),
    "payload with a bare control character": lambda forger: forger.with_raw_claim("x", '"\x00"'),
    "payload in Latin-1": lambda forger: forger.sign(
        forger.header, json.dumps(forger.claims | {"openid": "é"}, ensure_ascii=False).encode("latin-1")
    ),
    "payload in UTF-32": lambda forger: forger.sign(forger.header, json.dumps(forger.claims).encode("utf-32")),
    "payload with a comment": lambda forger: forger.sign(forger.header, json.dumps(forger.claims) + "//"),
    "payload in quotes that JSON does not know": lambda forger: forger.sign(forger.header, str(forger.claims)),
    "payload with a comma too many": lambda forger: forger.sign(forger.header, json.dumps(forger.claims)[:-1] + ",}"),
    "payload not UTF-8": lambda forger: forger.sign(forger.header, b'{"sub":"\xff"}'),
    "payload in UTF-16": lambda forger: forger.sign(forger.header, json.dumps(forger.claims).encode("utf-16")),
    "payload with a BOM": lambda forger: forger.sign(forger.header, json.dumps(forger.claims).encode("utf-8-sig")),
    "payload followed by more": lambda forger: forger.sign(forger.header, json.dumps(forger.claims) + "{}"),
    "payload with a null byte": lambda forger: forger.sign(forger.header, json.dumps(forger.claims) + "\0"),
}
"""Forgeries by name. A guard rejects each with `invalid_token`."""

EXPIRED: dict[str, Forgery] = {
    "exp long ago": lambda forger: forger.with_claims(exp=0),
    "exp negative": lambda forger: forger.with_claims(exp=-1),
    "exp 30 seconds ago": lambda forger: forger.with_claims(exp=forger.claims["iat"] - 30),
    "exp a float": lambda forger: forger.with_claims(exp=forger.claims["iat"] - 30.5),
}
"""Forgeries by name. At the time when the valid token was issued, a guard rejects each with `token_expired`."""

WEBSITES = "a website's, with the mini-program beside its client"
"""The name of a token that guards accept, but that few of wxauth's own routes accept."""

GOOD: dict[str, Forgery] = {
    "as issued": lambda forger: forger.token,
    "typ application/at+jwt": lambda forger: forger.with_header(typ="application/at+jwt"),
    "typ in capitals": lambda forger: forger.with_header(typ="AT+JWT"),
    "typ in mixed case": lambda forger: forger.with_header(typ="Application/At+JWT"),
    "a header member that is not ours": lambda forger: forger.with_header(cty="x"),
    "a claim that is not ours": lambda forger: forger.with_claims(shop="orders"),
    "a number that is rounded to zero": lambda forger: forger.with_raw_claim("x", "1e-400"),
    "aud a list with ours": lambda forger: forger.with_claims(aud=["other", forger.claims["aud"]]),
    "no roles": lambda forger: forger.with_claims(roles=[]),
    WEBSITES: lambda forger: forger.with_claims(
        client_id="shop", app_id="wxother", scope="openid profile", external_id="old-7"
    ),
    "exp 29 seconds ago": lambda forger: forger.with_claims(exp=forger.claims["iat"] - 29),
    "exp a float, 29.5 seconds ago": lambda forger: forger.with_claims(exp=forger.claims["iat"] - 29.5),
    "iat 30 seconds ahead": lambda forger: forger.with_claims(iat=forger.claims["iat"] + 30),
    "nbf 30 seconds ahead": lambda forger: forger.with_claims(nbf=forger.claims["iat"] + 30),
    "UUIDs in capitals": lambda forger: forger.with_claims(
        sub=forger.claims["sub"].upper(), sid=forger.claims["sid"].upper()
    ),
    "8,192 bytes": of_length(8192),
    "an external_id of brackets": lambda forger: forger.with_claims(external_id='"\\[{' * 32),
    "an openid in Chinese": lambda forger: forger.with_claims(openid="小明"),
    "an openid beyond the basic plane, escaped": lambda forger: forger.with_claims(openid="😀"),
    "a name escaped": lambda forger: forger.sign(
        forger.header, json.dumps(forger.claims).replace('"sub"', '"\\u0073ub"')
    ),
    "spaces and lines in the JSON": lambda forger: forger.sign(
        json.dumps(forger.header, indent=1), json.dumps(forger.claims, indent=1)
    ),
    # From a signature (r, s), anybody can calculate (r, n - s). ECDSA accepts both, and RFC 7518, section 3.4, prefers
    # neither. So a list of revoked tokens must compare the signed claims `jti` or `sid`, and not the tokens' text.
    "the other s": lambda forger: forger.with_numbers(forger.numbers[0], ORDER - forger.numbers[1]),
    "the least s": lambda forger: forger.with_numbers(
        forger.numbers[0], min(forger.numbers[1], ORDER - forger.numbers[1])
    ),
}
"""Tokens by name. At the time when the valid token was issued, a guard accepts each."""

FOR_GUARDS: dict[str, Forgery] = {
    "a document's client": methodcaller("by_document"),
    "a document's client of several scopes": methodcaller("by_document", scope="orders:read  orders:write"),
    "a scope without app_id": lambda forger: forger.with_claims(scope="orders"),
}
"""Tokens by name. A guard accepts each, but wxauth issues no such token for its own audience."""
