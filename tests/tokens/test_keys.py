"""Signing keys, as they are printed, published and stored."""

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from wxauth.tokens.keys import InvalidKey, SigningKey


def test_a_key_is_named_by_its_thumbprint() -> None:
    key = SigningKey.generate()
    members = {name: key.public_jwk[name] for name in ("crv", "kty", "x", "y")}  # RFC 7638, section 3.2
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
    assert key.kid == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def test_a_stored_key_is_the_same_key_again() -> None:
    key = SigningKey.generate()
    again = SigningKey.from_der(key.to_der())
    assert (again.kid, again.public_jwk) == (key.kid, key.public_jwk)
    assert key.verification_key.key.verify(b"text", again.signer.sign(b"text"))


def test_a_key_of_another_kind_is_not_loaded() -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(InvalidKey):
        SigningKey.from_der(other.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))


def test_a_printed_key_shows_only_its_name() -> None:
    key = SigningKey.generate()
    assert repr(key) == str(key) == f"<SigningKey {key.kid}>"
