"""Authenticated encryption of stored secrets, with keys derived from `WXAUTH_SECRET_KEY`."""

import os
from collections.abc import Sequence
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wxauth.errors import Title

SECRET_KEY_BYTES: Final = 32

_VERSION = b"\x01"
_KEY_ID_BYTES = 4
_NONCE_BYTES = 12
_PREFIX_BYTES = len(_VERSION) + _KEY_ID_BYTES


WRONG_SECRET_KEY: Final = Title(
    "WXAUTH_SECRET_KEY: must be the key that encrypted what is stored; after a change of keys, put the former one into "
    "WXAUTH_SECRET_KEY_PREVIOUS; if that is lost for good, 'wxauth secret forget' erases what cannot be decrypted",
    "WXAUTH_SECRET_KEY：须为加密已存内容所用的密钥；更换后请将旧密钥填入 WXAUTH_SECRET_KEY_PREVIOUS；"
    "旧密钥若已丢失，'wxauth secret forget' 会删除无法解密的内容",
)
"""What to change if stored values cannot be decrypted."""
FORM_POST_CONTEXT: Final = b"form_post"
"""The context of a site's answer in the URL of the page that posts it. It is not stored, so it is never resealed."""


class CannotOpen(Exception):
    """The value was sealed with another key or in another context, or has been altered."""


def derive_key(secret_key: bytes, purpose: str, *, length: int = 32) -> bytes:
    """Derive a key for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(SHA256(), length, salt=None, info=b"wxauth/" + purpose.encode()).derive(secret_key)


# The contexts. Each sealed value is bound to its place in the database, and opens in no other.


def session_key_context(app_id: str, openid: str) -> bytes:
    """The context of an identity's session_key."""
    return b"\0".join((b"session_key", app_id.encode(), openid.encode()))


def signing_key_context(kid: str) -> bytes:
    """The context of a signing key's private key."""
    return b"signing_keys\0" + kid.encode()


def phone_answer_context(code_hash: bytes) -> bytes:
    """The context of WeChat's answer to a phone code."""
    return b"phone_answer\0" + code_hash


def app_context(app_id: str) -> bytes:
    """The context of an app's secrets."""
    return b"apps\0" + app_id.encode()


def js_ticket_context(app_id: str) -> bytes:
    """The context of an app's ticket of the JS-SDK. It lives for two hours, so it is never resealed."""
    return b"js_tickets\0" + app_id.encode()


def webhook_secret_context(webhook_id: UUID) -> bytes:
    """The context of a webhook's secret."""
    return b"webhooks\0" + webhook_id.bytes


def link_number_context(link_id: UUID) -> bytes:
    """The context of the number that confirms a link to WeChat. It lives for two minutes, so it is never resealed."""
    return b"links\0" + link_id.bytes


class Sealer:
    """Seals with the current secret key, and opens with it or a previous one.

    It uses AES-256-GCM-SIV (RFC 8452): plain GCM with random nonces is safe only up to 2^32 values per key, and there
    may be more. A sealed value is version, key id, nonce, ciphertext.
    """

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        ciphers = [(derive_key(key, "seal/id", length=_KEY_ID_BYTES), derive_key(key, "seal")) for key in secret_keys]
        self._ciphers = {_VERSION + key_id: AESGCMSIV(key) for key_id, key in ciphers}
        self.prefix = _VERSION + ciphers[0][0]
        """The beginning of every value that was sealed with the current key."""
        self._current = self._ciphers[self.prefix]

    def seal(self, plaintext: bytes, *, context: bytes) -> bytes:
        """Encrypt. `open` must be given the same context."""
        nonce = os.urandom(_NONCE_BYTES)
        return self.prefix + nonce + self._current.encrypt(nonce, plaintext, context)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """The plaintext. Raises: CannotOpen."""
        cipher = self._ciphers.get(sealed[:_PREFIX_BYTES])
        if cipher is None:
            raise CannotOpen("encrypted with an unknown key")
        nonce, ciphertext = sealed[_PREFIX_BYTES:][:_NONCE_BYTES], sealed[_PREFIX_BYTES + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, ciphertext, context)
        except (InvalidTag, ValueError) as exc:
            raise CannotOpen("altered, or encrypted for another place") from exc

    def opens(self, sealed: bytes, *, context: bytes) -> bool:
        """Whether `open` succeeds."""
        try:
            self.open(sealed, context=context)
        except CannotOpen:
            return False
        return True
