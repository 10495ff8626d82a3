"""The authenticated encryption of secrets and other confidential values, with keys derived from `WXAUTH_SECRET_KEY`."""

import os
from collections.abc import Sequence
from functools import partial
from typing import Final
from uuid import UUID

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCMSIV
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from wxauth.i18n import lazy_gettext as _

_VERSION: Final = b"\x01"
"""The version of the format of a sealed value."""
_KEY_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12
_PREFIX_BYTES: Final = len(_VERSION) + _KEY_ID_BYTES

WRONG_SECRET_KEY: Final = _(
    "WXAUTH_SECRET_KEY: must be the key that encrypted the stored values. After you change this key, "
    "set WXAUTH_SECRET_KEY_PREVIOUS to the previous key. If the previous key is permanently lost, "
    "'wxauth secret forget' erases the values that can't be decrypted"
)
"""The instruction for operators if stored values cannot be decrypted."""
FORM_POST_CONTEXT: Final = b"form_post"
"""The context of a website's authorization response.

The URL of a page contains the sealed response, and the page posts the response to the website. The sealed response is
never stored, so it is never sealed again with a new key.
"""


class CannotOpen(Exception):
    """The value was sealed with another key or in another context, or has been altered."""


def derive_key(secret_key: bytes, purpose: str, *, length: int = 32) -> bytes:
    """Derive a key of `length` bytes for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(SHA256(), length, salt=None, info=b"wxauth/" + purpose.encode()).derive(secret_key)


def _context(place: bytes, *row_key: str | bytes | UUID) -> bytes:
    """Return the context of a value: the place where the value is stored, and the key of its row.

    `Sealer.open` fails for a value that was copied from another place or row, because its context differs.
    """
    return b"\0".join((place, *map(_to_bytes, row_key)))


def _to_bytes(part: str | bytes | UUID) -> bytes:
    if isinstance(part, UUID):
        return part.bytes
    return part.encode() if isinstance(part, str) else part


session_key_context: Final = partial(_context, b"session_key")
"""The context of an identity's session_key, built from the app's id and the openid."""
signing_key_context: Final = partial(_context, b"signing_keys")
"""The context of a private key that signs tokens, built from the key's id (kid)."""
phone_answer_context: Final = partial(_context, b"phone_answer")
"""The context of WeChat's response to a phone code, built from the code's hash."""
app_context: Final = partial(_context, b"apps")
"""The context of an app's secrets, built from the app's id."""
js_ticket_context: Final = partial(_context, b"js_tickets")
"""The context of an app's ticket for the JS-SDK, built from the app's id.

The ticket lives for two hours, so it is never sealed again with a new key.
"""
webhook_secret_context: Final = partial(_context, b"webhooks")
"""The context of a webhook's secret, built from the webhook's id."""
link_number_context: Final = partial(_context, b"links")
"""The context of the number that a user types to confirm a login by link, built from the login's id.

The number lives for two minutes, so it is never sealed again with a new key.
"""


def _prefix_of(secret_key: bytes) -> bytes:
    """Return the beginning of every value that is sealed with this key: the version and the key's id."""
    return _VERSION + derive_key(secret_key, "seal/id", length=_KEY_ID_BYTES)


class Sealer:
    """A part that seals values with the current secret key, and opens them with the current or a previous key.

    The algorithm is AES-256-GCM-SIV (RFC 8452), because plain GCM with random nonces is safe only for up to 2^32 values
    per key, and wxauth may seal more. A sealed value consists of version, key id, nonce and ciphertext. The first of
    the `secret_keys` is the current key.
    """

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        self._ciphers = {_prefix_of(key): AESGCMSIV(derive_key(key, "seal")) for key in secret_keys}
        self.prefix = _prefix_of(secret_keys[0])
        """The beginning of every value that was sealed with the current key."""
        self._current = self._ciphers[self.prefix]

    def seal(self, plaintext: bytes, *, context: bytes) -> bytes:
        """Encrypt a value. To decrypt the result, pass the same context to `open`."""
        nonce = os.urandom(_NONCE_BYTES)
        return self.prefix + nonce + self._current.encrypt(nonce, plaintext, context)

    def open(self, sealed: bytes, *, context: bytes) -> bytes:
        """Decrypt a value that `seal` has encrypted with the same context.

        Raises: CannotOpen, if the key or the context differs, or if the value has been altered.
        """
        prefix, nonce_and_ciphertext = sealed[:_PREFIX_BYTES], sealed[_PREFIX_BYTES:]
        cipher = self._ciphers.get(prefix)
        if cipher is None:
            raise CannotOpen("encrypted with an unknown key")
        nonce, ciphertext = nonce_and_ciphertext[:_NONCE_BYTES], nonce_and_ciphertext[_NONCE_BYTES:]
        try:
            return cipher.decrypt(nonce, ciphertext, context)
        except (InvalidTag, ValueError) as exc:  # ValueError for a nonce that was cut off
            raise CannotOpen("altered, or encrypted for another place") from exc

    def opens(self, sealed: bytes, *, context: bytes) -> bool:
        """Return whether `open` succeeds with this value and context."""
        try:
            self.open(sealed, context=context)
        except CannotOpen:
            return False
        return True
