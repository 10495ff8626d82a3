"""The session_key of each person in each app: the last login's."""

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

from wxauth.dev.wechat.refusals import Refusal

LIFETIME: Final = 3 * 86400.0
"""Seconds. WeChat tells nobody how long it is; with frequent use, longer."""
_ACTIVE: Final = 2 * 3600.0


@dataclass(slots=True)
class _Seen:
    person: str
    session_key: str
    expires_at: float
    at: float


class SessionKeys:
    """Who was there, by openid.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._seen: dict[str, _Seen] = {}

    def replace(self, openid: str, person: str) -> str:
        """The key of a new login; the one before is dead."""
        now = self._clock()
        self._seen[openid] = _Seen(person, _new_key(), now + LIFETIME, now)
        return self._seen[openid].session_key

    def current(self, openid: str) -> str | None:
        """The key that is good now."""
        seen = self._seen.get(openid)
        return seen.session_key if seen is not None and self._clock() < seen.expires_at else None

    def reset(self, openid: str) -> str:
        """Another key with the same end."""
        self._seen[openid].session_key = _new_key()
        return self._seen[openid].session_key

    def active_person(self, openid: str) -> str:
        """Who that is, who must have been there within two hours. Raises: Refusal."""
        seen = self._seen.get(openid)
        if seen is None or self._clock() - seen.at >= _ACTIVE:
            raise Refusal(61010)
        return seen.person

    def is_signed(self, openid: str, signature: str) -> bool:
        """Whether who signed has the key: HMAC over nothing, with the base64 text as it is."""
        key = self.current(openid)
        return key is not None and compare_digest(new(key.encode(), b"", sha256).hexdigest(), signature)

    def seal(self, openid: str, data: dict[str, Any]) -> dict[str, str]:
        """What `wx` hands to the page: AES-128-CBC under the decoded key. Raises: KeyError, without a login."""
        key = self.current(openid)
        if key is None:
            raise KeyError(openid)
        iv = secrets.token_bytes(16)
        padder = PKCS7(128).padder()
        padded = padder.update(to_json(data)) + padder.finalize()
        encryptor = Cipher(algorithms.AES(b64decode(key)), modes.CBC(iv)).encryptor()
        encrypted = encryptor.update(padded) + encryptor.finalize()
        return {"encryptedData": b64encode(encrypted).decode(), "iv": b64encode(iv).decode()}


def _new_key() -> str:
    return b64encode(secrets.token_bytes(16)).decode()
