"""The refresh tokens, and the lifetimes of the sessions that they refresh."""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Final, NamedTuple
from uuid import UUID

from wxauth.core.sealing import derive_key
from wxauth.settings.settings import Settings

# A token contains the session's id, the token's generation and a MAC of both (SHA-256, 32 bytes).
_ID_BYTES: Final = 16
_GENERATION_BYTES: Final = 4
_SIGNED_BYTES: Final = _ID_BYTES + _GENERATION_BYTES
# 52 bytes make 70 characters of base64url, without the padding. The last character carries only two bits, so the
# pattern allows four characters there, and each token has only one spelling.
_FORM: Final = r"[A-Za-z0-9_-]{69}[AQgw]"
_PADDING: Final = "=="
"""The base64 padding that tokens leave out."""


class RefreshToken(NamedTuple):
    """The content of a genuine refresh token."""

    session_id: UUID
    generation: int
    """The number of the session's earlier refresh tokens, so the token from the login has the generation 0."""


class RefreshTokens:
    """The maker and verifier of refresh tokens.

    Args:
        secret_keys: The current secret key, which signs new tokens, and then the previous keys, whose tokens are still
            valid.
    """

    PREFIX: ClassVar = "wxr_"
    """The beginning of each token. A subclass for other tokens sets another prefix and another purpose."""
    PURPOSE: ClassVar = "refresh-token"
    """The purpose of the keys that are derived from the secret keys."""

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        self._keys = [derive_key(key, self.PURPOSE) for key in secret_keys]
        self._form = re.compile(re.escape(self.PREFIX) + _FORM, re.ASCII)

    def issue(self, session_id: UUID, generation: int) -> str:
        """Return the refresh token for this session and generation.

        Each call returns the same token until the secret key changes.
        """
        signed = session_id.bytes + generation.to_bytes(_GENERATION_BYTES, "big")
        mac = hmac.digest(self._keys[0], signed, "sha256")
        return self.PREFIX + urlsafe_b64encode(signed + mac).decode().removesuffix(_PADDING)

    def parse(self, token: str) -> RefreshToken | None:
        """Verify a token, and return its content. Return None if it is malformed, or if no key has signed it."""
        if self._form.fullmatch(token) is None:
            return None
        raw = urlsafe_b64decode(token.removeprefix(self.PREFIX) + _PADDING)
        signed, mac = raw[:_SIGNED_BYTES], raw[_SIGNED_BYTES:]
        if not any(hmac.compare_digest(mac, hmac.digest(key, signed, "sha256")) for key in self._keys):
            return None
        return RefreshToken(UUID(bytes=signed[:_ID_BYTES]), int.from_bytes(signed[_ID_BYTES:], "big"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """The lifetimes of a session, and the grace period of its refresh tokens, in seconds."""

    max_unused: int
    """The time since the login or the last refresh after which the session expires."""
    max_age: int
    """The time since the login after which the session expires, even if it is refreshed."""
    reuse_grace: int
    """The time after a refresh during which the old token can still be exchanged for the same new token.

    This time ends early if the new token is used.
    """

    @property
    def unrefreshed(self) -> int:
        """The lifetime of a new session that is never refreshed."""
        return min(self.max_unused, self.max_age)


def session_lifetimes(settings: Settings, *, is_web_session: bool = False) -> Lifetimes:
    """Return the lifetimes of a session.

    A web session is a website's session that is for no resource. It has settings of its own.
    """
    max_unused, max_age = settings.refresh_token_ttl, settings.session_max_age
    if is_web_session:
        max_unused, max_age = settings.web_session_ttl, settings.web_session_max_age
    return Lifetimes(max_unused=max_unused, max_age=max_age, reuse_grace=settings.refresh_reuse_grace)
