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

_VERSION: Final = b"\x01"  # of the format
_KEY_ID_BYTES: Final = 4
_NONCE_BYTES: Final = 12  # of AES-GCM-SIV
_PREFIX_BYTES: Final = len(_VERSION) + _KEY_ID_BYTES

WRONG_SECRET_KEY: Final = _(
    "WXAUTH_SECRET_KEY: must be the key that encrypted the stored values. After you change this key, "
    "set WXAUTH_SECRET_KEY_PREVIOUS to the previous key. If the previous key is permanently lost, "
    "'wxauth secret forget' erases the values that can't be decrypted"
)


class CannotOpen(Exception):
    """The value was sealed with another key or in another context, or has been altered."""


def derive_key(secret_key: bytes, purpose: str, *, length: int = 32) -> bytes:
    """Derive a key for one purpose (HKDF-SHA256, RFC 5869)."""
    return HKDF(SHA256(), length, salt=None, info=b"wxauth/" + purpose.encode()).derive(secret_key)


# `Sealer.open` fails for a value that was copied from another place or row, because its context differs.
def _context(place: bytes, *row_key: str | bytes | UUID) -> bytes:
    parts = [place]
    for part in row_key:
        if isinstance(part, UUID):
            parts.append(part.bytes)
        else:
            parts.append(part.encode() if isinstance(part, str) else part)
    return b"\0".join(parts)


# A website's authorization response is only in the URL of a page. It is never stored, so it is never sealed again with
# a new key.
FORM_POST_CONTEXT: Final = b"form_post"
# Links on pages contain the sealed user instead of the `id_token_hint` that names the user. A sealed user is never
# stored. The context has the site's name.
hinted_user_context: Final = partial(_context, b"hinted_user")
session_key_context: Final = partial(_context, b"session_key")  # from the app's id and the openid
signing_key_context: Final = partial(_context, b"signing_keys")  # from the kid
phone_answer_context: Final = partial(_context, b"phone_answer")  # from the code's hash
app_context: Final = partial(_context, b"apps")  # from the app's id
# The context has the app's id. A ticket lives for two hours, so it is never sealed again.
js_ticket_context: Final = partial(_context, b"js_tickets")
webhook_secret_context: Final = partial(_context, b"webhooks")  # from the webhook's id
# The context has the login's id. A number lives for two minutes, so it is never sealed again.
link_number_context: Final = partial(_context, b"links")


def _prefix_of(secret_key: bytes) -> bytes:
    return _VERSION + derive_key(secret_key, "seal/id", length=_KEY_ID_BYTES)


class Sealer:
    """Encrypts values with the current secret key, and decrypts them with the current or a previous key.

    The algorithm is AES-256-GCM-SIV (RFC 8452), because plain GCM with random nonces is safe only for up to 2^32 values
    per key, and wxauth may seal more. A sealed value consists of version, key id, nonce and ciphertext. The first of
    the `secret_keys` is the current key.
    """

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        self._ciphers = {_prefix_of(key): AESGCMSIV(derive_key(key, "seal")) for key in secret_keys}
        self.prefix = _prefix_of(secret_keys[0])  # of values that were sealed with the current key
        self._current = self._ciphers[self.prefix]

    def seal(self, plaintext: bytes, *, context: bytes) -> bytes:
        """Encrypt a value. To decrypt the result, pass the same context to `open`."""
        nonce = os.urandom(_NONCE_BYTES)
        return self.prefix + nonce + self._current.encrypt(nonce, plaintext, context)

    def seal_session_key(self, session_key: bytes | None, app_id: str, openid: str) -> bytes | None:
        """Encrypt the session_key that WeChat has returned for a login code, if it has returned one."""
        return None if session_key is None else self.seal(session_key, context=session_key_context(app_id, openid))

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
        try:
            self.open(sealed, context=context)
        except CannotOpen:
            return False
        return True
