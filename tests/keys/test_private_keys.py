"""A private key's name is its thumbprint, and only suitable keys are loaded."""

import base64
import hashlib
import json

import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from wxauth.tokens import SigningKey
from wxauth_guard.keys import InvalidKey

pytestmark = pytest.mark.no_database


def test_a_key_is_named_by_its_thumbprint() -> None:
    key = SigningKey.generate()
    # RFC 7638, section 3.2, lists these members
    members = {name: key.public_jwk[name] for name in ("crv", "kty", "x", "y")}
    digest = hashlib.sha256(json.dumps(members, separators=(",", ":")).encode()).digest()
    assert key.kid == base64.urlsafe_b64encode(digest).rstrip(b"=").decode()
    assert repr(key) == str(key) == f"<SigningKey {key.kid}>", "which is all that is printed"


def test_a_key_of_another_kind_is_not_loaded() -> None:
    other = ed25519.Ed25519PrivateKey.generate()
    with pytest.raises(InvalidKey):
        SigningKey.from_der(other.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption()))
