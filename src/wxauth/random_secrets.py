"""Random secrets, and the hashes that are stored in place of them."""

import secrets
from hashlib import sha256
from typing import Final

_SECRET_BYTES: Final = 32
SECRET_CHARACTERS: Final = (_SECRET_BYTES * 4 + 2) // 3  # in base64url without padding


def new_secret() -> str:
    """Return 256 random bits in base64url."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_of(secret: str) -> bytes:
    """Return the hash that is stored instead of a secret, which must have at least 128 random bits."""
    # Slow hashes protect passwords that people choose. Nobody can guess a random secret, however fast its hash is, and
    # a slow hash would delay every request with a secret.
    return sha256(secret.encode()).digest()
