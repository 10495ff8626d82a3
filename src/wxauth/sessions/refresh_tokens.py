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


class RefreshToken(NamedTuple):
    """The content of a genuine refresh token."""

    session_id: UUID
    generation: int  # 0 for the token from the login


class RefreshTokens:
    """The maker and verifier of refresh tokens.

    Args:
        secret_keys: The current secret key, which signs, and the previous ones, whose tokens are still valid.
    """

    # A subclass for other tokens sets another prefix and another purpose.
    PREFIX: ClassVar = "wxr_"
    PURPOSE: ClassVar = "refresh-token"

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        self._keys = [derive_key(key, self.PURPOSE) for key in secret_keys]
        self._form = re.compile(re.escape(self.PREFIX) + _FORM, re.ASCII)

    def issue(self, session_id: UUID, generation: int) -> str:
        """Return the token of this generation, which is the same until the secret key changes."""
        signed = session_id.bytes + generation.to_bytes(_GENERATION_BYTES, "big")
        mac = hmac.digest(self._keys[0], signed, "sha256")
        return self.PREFIX + urlsafe_b64encode(signed + mac).decode().removesuffix(_PADDING)

    def parse(self, token: str) -> RefreshToken | None:
        """Return the content of a token; None if it is malformed, or if no key has signed it."""
        if self._form.fullmatch(token) is None:
            return None
        raw = urlsafe_b64decode(token.removeprefix(self.PREFIX) + _PADDING)
        signed, mac = raw[:_SIGNED_BYTES], raw[_SIGNED_BYTES:]
        if not any(hmac.compare_digest(mac, hmac.digest(key, signed, "sha256")) for key in self._keys):
            return None
        return RefreshToken(UUID(bytes=signed[:_ID_BYTES]), int.from_bytes(signed[_ID_BYTES:], "big"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """The lifetimes of a session and of its refresh tokens, in seconds."""

    max_unused: int
    max_age: int
    reuse_grace: int  # in which the old token is still exchanged for the new one, unless that was used

    @property
    def unrefreshed(self) -> int:
        """The lifetime of a new session that is never refreshed."""
        return min(self.max_unused, self.max_age)


def session_lifetimes(settings: Settings, *, is_web_session: bool = False) -> Lifetimes:
    """Return the lifetimes in the settings. A web session is a website's session that is for no resource."""
    max_unused, max_age = settings.refresh_token_ttl, settings.session_max_age
    if is_web_session:
        max_unused, max_age = settings.web_session_ttl, settings.web_session_max_age
    return Lifetimes(max_unused=max_unused, max_age=max_age, reuse_grace=settings.refresh_reuse_grace)
