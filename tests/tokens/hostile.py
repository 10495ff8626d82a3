"""Tokens that no verifier may take, each made from a good one, whatever the signature says."""

import base64
import hashlib
import hmac
import json
from collections.abc import Callable
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

from wxauth.tokens.keys import SigningKey

DIGITS = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"


def encode(part: bytes | str | dict[str, Any] | list[Any]) -> str:
    if isinstance(part, (dict, list)):
        part = json.dumps(part)
    return base64.urlsafe_b64encode(part.encode() if isinstance(part, str) else part).rstrip(b"=").decode()


def decode(part: str) -> bytes:
    return base64.urlsafe_b64decode(part + "==")


class Forger:
    """Has a good token and, unlike a real forger, the key that signed it: only the rule in question is broken."""

    def __init__(self, token: str, key: SigningKey) -> None:
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
        return f"{signing_input}.{encode(self.key.signer.sign(signing_input.encode()))}"

    def with_header(self, **members: Any) -> str:
        return self.sign(self.header | members, self.claims)

    def without_header(self, name: str) -> str:
        return self.sign({key: value for key, value in self.header.items() if key != name}, self.claims)

    def with_claims(self, **claims: Any) -> str:
        return self.sign(self.header, self.claims | claims)

    def with_raw_claim(self, name: str, literal: str) -> str:
        """A claim whose value is spelt as only JSON, or not even JSON, can spell it."""
        others = {key: value for key, value in self.claims.items() if key != name}
        return self.sign(self.header, json.dumps(others)[:-1] + f', "{name}": {literal}}}')

    def without_claim(self, name: str) -> str:
        return self.sign(self.header, {key: value for key, value in self.claims.items() if key != name})

    def with_signature(self, signature: bytes | str) -> str:
        return f"{self.parts[0]}.{self.parts[1]}.{signature if isinstance(signature, str) else encode(signature)}"


Forgery = Callable[[Forger], str]


def _unsigned(forger: Forger) -> str:
    return f"{encode(forger.header | {'alg': 'none'})}.{forger.parts[1]}."


def _hs256(secret_of: Callable[[SigningKey], bytes]) -> Forgery:
    def forge(forger: Forger) -> str:
        signing_input = f"{encode(forger.header | {'alg': 'HS256'})}.{forger.parts[1]}"
        mac = hmac.new(secret_of(forger.key), signing_input.encode(), hashlib.sha256).digest()
        return f"{signing_input}.{encode(mac)}"

    return forge


def _public_pem(key: SigningKey) -> bytes:
    return key.signer.public_key().to_pem()


def _rs256(forger: Forger) -> str:
    signing_input = f"{encode(forger.header | {'alg': 'RS256'})}.{forger.parts[1]}"
    key = rsa.generate_private_key(65537, 2048)
    return f"{signing_input}.{encode(key.sign(signing_input.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


def _signed_by_another_key(forger: Forger) -> str:
    forger.key = SigningKey.generate()
    return forger.with_header()


def _naming_its_own_key(member: str, value_of: Callable[[SigningKey], Any]) -> Forgery:
    def forge(forger: Forger) -> str:
        forger.key = SigningKey.generate()
        return forger.with_header(**{member: value_of(forger.key)})

    return forge


def _der(forger: Forger) -> str:
    r, s = forger.signature[:32], forger.signature[32:]
    return forger.with_signature(encode_dss_signature(int.from_bytes(r), int.from_bytes(s)))


def _another_last_character(forger: Forger) -> str:
    # 86 characters carry 516 bits, four more than the signature has: the next digit decodes to the same bytes.
    spelling = forger.parts[2][:-1] + DIGITS[DIGITS.index(forger.parts[2][-1]) + 1]
    assert decode(spelling) == forger.signature
    return forger.with_signature(spelling)


def _one_bit_off(forger: Forger) -> str:
    return forger.with_signature(bytes([forger.signature[0] ^ 1]) + forger.signature[1:])


def _another_payload(forger: Forger) -> str:
    return f"{forger.parts[0]}.{encode(forger.claims | {'roles': ['admin']})}.{forger.parts[2]}"


def _json_serialisation(forger: Forger) -> str:
    protected, payload, signature = forger.parts
    return json.dumps({"protected": protected, "payload": payload, "signature": signature}, separators=(",", ":"))


def _twice(name: str, members: dict[str, Any]) -> str:
    return f'{{"{name}": "other", {json.dumps(members)[1:]}'


def of_length(length: int) -> Forgery:
    def forge(forger: Forger) -> str:
        # Base64 has no text of one character more than a multiple of four, so the header takes a few as well.
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
NOT_UUIDS = {
    "a number": 7,
    "null": None,
    "a list": [],
    "empty": "",
    "a word": "alice",
    "a UUID in braces": "{0192f0c1-2b3c-7d4e-8f50-123456789abc}",
    "a UUID without hyphens": "0192f0c12b3c7d4e8f50123456789abc",
    "a URN": "urn:uuid:0192f0c1-2b3c-7d4e-8f50-123456789abc",
    "a UUID and a line feed": "0192f0c1-2b3c-7d4e-8f50-123456789abc\n",
    "a UUID in other digits": "٠192f0c1-2b3c-7d4e-8f50-123456789abc",
}

HOSTILE: dict[str, Forgery] = {
    # alg
    "alg none": _unsigned,
    "alg none with a signature": lambda forger: forger.with_header(alg="none"),
    "alg HS256 with the public key as secret": _hs256(_public_pem),
    "alg HS256 with the published x as secret": _hs256(lambda key: decode(key.public_jwk["x"])),
    "alg RS256": _rs256,
    "alg RS256 with an ES256 signature": lambda forger: forger.with_header(alg="RS256"),
    "alg ES384": lambda forger: forger.with_header(alg="ES384"),
    "alg in lower case": lambda forger: forger.with_header(alg="es256"),
    "alg a list": lambda forger: forger.with_header(alg=["ES256"]),
    "alg null": lambda forger: forger.with_header(alg=None),
    "no alg": lambda forger: forger.without_header("alg"),
    # typ
    "no typ": lambda forger: forger.without_header("typ"),
    "typ JWT": lambda forger: forger.with_header(typ="JWT"),
    "typ a list": lambda forger: forger.with_header(typ=["at+jwt"]),
    "typ null": lambda forger: forger.with_header(typ=None),
    "typ with a space": lambda forger: forger.with_header(typ=" at+jwt"),
    "typ of a logout token": lambda forger: forger.with_header(typ="logout+jwt"),
    # kid
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
    # other header members
    "crit": lambda forger: forger.with_header(crit=["exp"]),
    "crit b64": lambda forger: forger.with_header(crit=["b64"], b64=False),
    "crit empty": lambda forger: forger.with_header(crit=[]),
    "crit null": lambda forger: forger.with_header(crit=None),
    "another key under our kid": _signed_by_another_key,
    "a key in the header": _naming_its_own_key("jwk", lambda key: key.public_jwk),
    "a key set's address in the header": _naming_its_own_key("jku", lambda _: "https://evil.test/jwks.json"),
    "a certificate in the header": _naming_its_own_key("x5c", lambda key: [_public_pem(key).decode()]),
    "alg twice": lambda forger: forger.sign(_twice("alg", forger.header), forger.claims),
    "kid twice": lambda forger: forger.sign(_twice("kid", forger.header), forger.claims),
    "sub twice": lambda forger: forger.sign(forger.header, _twice("sub", forger.claims)),
    "exp twice": lambda forger: forger.sign(forger.header, _twice("exp", forger.claims)),
    "a name twice further down": lambda forger: forger.with_raw_claim("x", '{"a": 1, "a": 2}'),
    # claims
    **{f"no {name}": lambda forger, name=name: forger.without_claim(name) for name in CLAIMS},
    **{f"{name} null": lambda forger, name=name: forger.with_claims(**{name: None}) for name in CLAIMS},
    **{
        f"{name} {kind}": lambda forger, name=name, literal=literal: forger.with_raw_claim(name, literal)
        for name in ("exp", "iat", "nbf")
        for kind, literal in NOT_TIMES.items()
    },
    **{
        f"{name} {kind}": lambda forger, name=name, value=value: forger.with_claims(**{name: value})
        for name in ("sub", "sid")
        for kind, value in NOT_UUIDS.items()
    },
    **{
        f"{name} {kind}": lambda forger, name=name, value=value: forger.with_claims(**{name: value})
        for name in ("iss", "jti", "client_id", "openid")
        for kind, value in {"a number": 1, "a list": ["a"], "an object": {}, "false": False}.items()
    },
    "iss with a slash": lambda forger: forger.with_claims(iss=forger.claims["iss"] + "/"),
    "iss in capitals": lambda forger: forger.with_claims(iss=forger.claims["iss"].upper()),
    "iss a list with ours": lambda forger: forger.with_claims(iss=[forger.claims["iss"]]),
    "aud another": lambda forger: forger.with_claims(aud="other"),
    "aud longer": lambda forger: forger.with_claims(aud=forger.claims["aud"] + "x"),
    "aud a list without ours": lambda forger: forger.with_claims(aud=["other"]),
    "aud an empty list": lambda forger: forger.with_claims(aud=[]),
    "aud a list with ours and a number": lambda forger: forger.with_claims(aud=[forger.claims["aud"], 1]),
    "aud an object": lambda forger: forger.with_claims(aud={forger.claims["aud"]: True}),
    "roles a string": lambda forger: forger.with_claims(roles="admin"),
    "roles null": lambda forger: forger.with_claims(roles=None),
    "roles an object": lambda forger: forger.with_claims(roles={"admin": True}),
    "roles with a number": lambda forger: forger.with_claims(roles=["admin", 1]),
    "roles with a list": lambda forger: forger.with_claims(roles=[["admin"]]),
    "iat 31 seconds ahead": lambda forger: forger.with_claims(iat=forger.claims["iat"] + 31),
    "nbf 31 seconds ahead": lambda forger: forger.with_claims(nbf=forger.claims["iat"] + 31),
    # signature
    "one bit off": _one_bit_off,
    "another payload": _another_payload,
    "r and s zero": lambda forger: forger.with_signature(bytes(64)),
    "r and s the group's order": lambda forger: forger.with_signature(
        bytes.fromhex("ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551") * 2
    ),
    "r and s all ones": lambda forger: forger.with_signature(b"\xff" * 64),
    "signature in DER": _der,
    "signature a byte short": lambda forger: forger.with_signature(forger.signature[:-1]),
    "signature a byte long": lambda forger: forger.with_signature(forger.signature + b"\0"),
    "signature padded": lambda forger: forger.token + "==",
    "signature spelt another way": _another_last_character,
    "no signature": lambda forger: f"{forger.parts[0]}.{forger.parts[1]}.",
    # form
    "two parts": lambda forger: ".".join(forger.parts[:2]),
    "four parts": lambda forger: forger.token + ".e30",
    "five parts, as a JWE": lambda forger: ".".join((*forger.parts, "e30", "e30")),
    "JSON serialisation": _json_serialisation,
    "only dots": lambda _: "..",
    "empty header": lambda forger: f".{forger.parts[1]}.{forger.parts[2]}",
    "empty payload": lambda forger: f"{forger.parts[0]}..{forger.parts[2]}",
    "a word": lambda _: "hello",
    "padded header": lambda forger: f"{forger.parts[0]}=.{forger.parts[1]}.{forger.parts[2]}",
    "plain base64": lambda forger: f"{forger.parts[0]}.{forger.parts[1]}+/.{forger.parts[2]}",
    "impossible base64": lambda forger: forger.sign_parts(forger.parts[0], "e30e3"),
    "a space within": lambda forger: forger.token.replace(".", " .", 1),
    "a null byte": lambda forger: forger.token + "\0",
    "a letter that is not ASCII": lambda forger: forger.token[:-1] + "é",
    "8,193 bytes": of_length(8193),
    "100,000 bytes": lambda forger: forger.with_claims(padding="p" * 75000),
    # JSON
    "header a list": lambda forger: forger.sign([], forger.claims),
    "header a string": lambda forger: forger.sign('"ES256"', forger.claims),
    "header not JSON": lambda forger: forger.sign("{", forger.claims),
    "header nested deep": lambda forger: forger.sign(_nested(2500), forger.claims),
    "header not UTF-8": lambda forger: forger.sign(b'{"alg":"ES256","typ":"at+jwt","kid":"\xff"}', forger.claims),
    "header in UTF-16": lambda forger: forger.sign(json.dumps(forger.header).encode("utf-16"), forger.claims),
    "header with a BOM": lambda forger: forger.sign(json.dumps(forger.header).encode("utf-8-sig"), forger.claims),
    "payload a list": lambda forger: forger.sign(forger.header, [forger.claims]),
    "payload null": lambda forger: forger.sign(forger.header, "null"),
    "payload with NaN": lambda forger: forger.with_raw_claim("x", "NaN"),
    "payload not JSON": lambda forger: forger.sign(forger.header, "hello"),
    "payload nested deep": lambda forger: forger.with_raw_claim("x", _nested(2500)),
    "payload not UTF-8": lambda forger: forger.sign(forger.header, b'{"sub":"\xff"}'),
    "payload in UTF-16": lambda forger: forger.sign(forger.header, json.dumps(forger.claims).encode("utf-16")),
    "payload with a BOM": lambda forger: forger.sign(forger.header, json.dumps(forger.claims).encode("utf-8-sig")),
    "payload followed by more": lambda forger: forger.sign(forger.header, json.dumps(forger.claims) + "{}"),
    "payload with a null byte": lambda forger: forger.sign(forger.header, json.dumps(forger.claims) + "\0"),
}
"""By name; each is refused with `invalid_token`."""

EXPIRED: dict[str, Forgery] = {
    "exp long ago": lambda forger: forger.with_claims(exp=0),
    "exp negative": lambda forger: forger.with_claims(exp=-1),
    "exp 30 seconds ago": lambda forger: forger.with_claims(exp=forger.claims["iat"] - 30),
    "exp a float": lambda forger: forger.with_claims(exp=forger.claims["iat"] - 30.5),
}
"""By name; each is refused with `token_expired` at the moment that the good token was issued."""

GOOD: dict[str, Forgery] = {
    "as issued": lambda forger: forger.token,
    "typ application/at+jwt": lambda forger: forger.with_header(typ="application/at+jwt"),
    "typ in capitals": lambda forger: forger.with_header(typ="AT+JWT"),
    "typ in mixed case": lambda forger: forger.with_header(typ="Application/At+JWT"),
    "a header member that is not ours": lambda forger: forger.with_header(cty="x"),
    "a claim that is not ours": lambda forger: forger.with_claims(scope="orders"),
    "aud a list with ours": lambda forger: forger.with_claims(aud=["other", forger.claims["aud"]]),
    "no roles": lambda forger: forger.with_claims(roles=[]),
    "exp 29 seconds ago": lambda forger: forger.with_claims(exp=forger.claims["iat"] - 29),
    "exp a float, 29.5 seconds ago": lambda forger: forger.with_claims(exp=forger.claims["iat"] - 29.5),
    "iat 30 seconds ahead": lambda forger: forger.with_claims(iat=forger.claims["iat"] + 30),
    "nbf 30 seconds ahead": lambda forger: forger.with_claims(nbf=forger.claims["iat"] + 30),
    "UUIDs in capitals": lambda forger: forger.with_claims(sub=forger.claims["sub"].upper()),
    "8,192 bytes": of_length(8192),
    "an openid in Chinese": lambda forger: forger.with_claims(openid="小明"),
}
"""By name; each is taken at the moment that the good token was issued."""
