"""What is handed out and stored as a hash: scenes, codes, cookies.

SHA-256 is enough for what has 128 bits and more of randomness. A user code has 34, so its hash wants a key: who reads
the database must not find out by trying which code it is.
"""

import hmac
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Final

from wxauth.core.sealing import derive

SCENE: Final = re.compile(r"[A-Za-z0-9_-]{22}", re.ASCII)
"""What a scene looks like, and what names a request of the page."""

_USER_CODE_ALPHABET: Final = "BCDFGHJKLMNPQRSTVWXZ"  # no vowel, so no word (RFC 8628, section 6.1)
_USER_CODE_LENGTH: Final = 8
_SCENE_BYTES: Final = 16
_SECRET_BYTES: Final = 32


def new_scene() -> str:
    """128 bits, in characters that every scanner leaves as they are."""
    return urlsafe_b64encode(secrets.token_bytes(_SCENE_BYTES)).rstrip(b"=").decode()


def new_secret() -> str:
    """256 bits."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_of(secret: str) -> bytes:
    """What is stored of a secret."""
    return sha256(secret.encode()).digest()


class UserCodes:
    """Makes and recognises user codes; the first secret key makes their hashes, each of them is looked for."""

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        self._keys = [derive(key, "user-code") for key in secret_keys]

    def new(self) -> tuple[str, bytes]:
        """A code as it is shown, and what is stored of it."""
        letters = "".join(secrets.choice(_USER_CODE_ALPHABET) for _ in range(_USER_CODE_LENGTH))
        return f"{letters[:4]}-{letters[4:]}", self._hashes(letters)[0]

    def hashes(self, typed: str) -> Sequence[bytes]:
        """What may be stored of a code as it was typed; nothing, for what cannot be one."""
        letters = re.sub(r"[\s\-_.]", "", typed).upper()
        is_one = len(letters) == _USER_CODE_LENGTH and set(letters) <= set(_USER_CODE_ALPHABET)
        return self._hashes(letters) if is_one else []

    def _hashes(self, letters: str) -> list[bytes]:
        return [hmac.digest(key, letters.encode(), "sha256") for key in self._keys]
