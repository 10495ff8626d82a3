"""The session_key of each person in each app, made by the last login."""

import secrets
from base64 import b64decode, b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from hmac import compare_digest, new
from typing import Any, Final

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.padding import PKCS7
from pydantic_core import to_json

from wxauth.server.dev.wechat.refused_calls import CallRefused

SESSION_KEY_LIFETIME: Final = 3 * 86400.0
"""Seconds. WeChat documents no lifetime, only that frequent use extends it."""
_ACTIVE: Final = 2 * 3600.0


@dataclass(slots=True)
class _IssuedKey:
    person: str
    session_key: str
    expires_at: float
    logged_in_at: float


class IssuedSessionKeys:
    """The session_keys by openid, and when each person last logged in.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._issued: dict[str, _IssuedKey] = {}

    def replace(self, openid: str, person: str) -> str:
        """Make the key of a new login. The former key no longer works."""
        now = self._clock()
        self._issued[openid] = _IssuedKey(person, _new_key(), now + SESSION_KEY_LIFETIME, now)
        return self._issued[openid].session_key

    def current(self, openid: str) -> str | None:
        """The current key; None if there is none, or it has expired."""
        issued = self._issued.get(openid)
        return issued.session_key if issued is not None and self._clock() < issued.expires_at else None

    def reset(self, openid: str) -> str:
        """Replace the key. The new one expires when the former one would have."""
        self._issued[openid].session_key = _new_key()
        return self._issued[openid].session_key

    def active_person(self, openid: str) -> str:
        """The person, who must have logged in within two hours. Raises: CallRefused."""
        issued = self._issued.get(openid)
        if issued is None or self._clock() - issued.logged_in_at >= _ACTIVE:
            raise CallRefused(61010)
        return issued.person

    def is_signed(self, openid: str, signature: str, data: str = "") -> bool:
        """Whether the signature is the HMAC-SHA256 of the data, keyed with the current key's base64 text."""
        key = self.current(openid)
        return key is not None and is_hmac(signature, key, data)

    def seal(self, openid: str, data: dict[str, Any]) -> dict[str, str]:
        """Data as `wx` gives it to the page: AES-128-CBC with the decoded key. Raises: KeyError, without a login."""
        key = self.current(openid)
        if key is None:
            raise KeyError(openid)
        iv = secrets.token_bytes(16)
        padder = PKCS7(128).padder()
        padded = padder.update(to_json(data)) + padder.finalize()
        encryptor = Cipher(algorithms.AES(b64decode(key)), modes.CBC(iv)).encryptor()
        encrypted = encryptor.update(padded) + encryptor.finalize()
        return {"encryptedData": b64encode(encrypted).decode(), "iv": b64encode(iv).decode()}


def is_hmac(signature: str, key: str, data: str) -> bool:
    """Whether the signature is the HMAC-SHA256, in lower case, of the data."""
    return compare_digest(new(key.encode(), data.encode(), sha256).hexdigest().encode(), signature.encode())


def _new_key() -> str:
    return b64encode(secrets.token_bytes(16)).decode()
