"""Refresh tokens, and how long a session that they continue may last."""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, NamedTuple
from uuid import UUID

from fastapi import Depends

from wxauth.server.core.sealing import derive_key
from wxauth.server.core.settings import Settings
from wxauth.server.web.dependencies import provide

_ID_BYTES = 16
_GENERATION_BYTES = 4
_SIGNED_BYTES = _ID_BYTES + _GENERATION_BYTES
# 52 bytes make 70 characters. The last one carries two bits, and has only four spellings: so each token has just one.
_FORM = r"[A-Za-z0-9_-]{69}[AQgw]"


class RefreshToken(NamedTuple):
    """The content of a genuine refresh token."""

    session_id: UUID
    generation: int


class RefreshTokens:
    """Makes and verifies refresh tokens.

    Args:
        secret_keys: The current secret key, which signs, then the previous ones, which are still accepted.
    """

    PREFIX: ClassVar = "wxr_"
    PURPOSE: ClassVar = "refresh-token"
    """The purpose for which their keys are derived."""

    def __init__(self, secret_keys: Sequence[bytes]) -> None:
        self._keys = [derive_key(key, self.PURPOSE) for key in secret_keys]
        self._form = re.compile(re.escape(self.PREFIX) + _FORM, re.ASCII)

    def issue(self, session_id: UUID, generation: int) -> str:
        """Make the token of this session and generation. It is the same each time."""
        signed = session_id.bytes + generation.to_bytes(_GENERATION_BYTES, "big")
        mac = hmac.digest(self._keys[0], signed, "sha256")
        return self.PREFIX + urlsafe_b64encode(signed + mac).rstrip(b"=").decode()

    def parse(self, token: str) -> RefreshToken | None:
        """Verify a token, and return its content; None if it is not ours."""
        if self._form.fullmatch(token) is None:
            return None
        raw = urlsafe_b64decode(token[len(self.PREFIX) :] + "==")
        signed, mac = raw[:_SIGNED_BYTES], raw[_SIGNED_BYTES:]
        if not any(hmac.compare_digest(mac, hmac.digest(key, signed, "sha256")) for key in self._keys):
            return None
        return RefreshToken(UUID(bytes=signed[:_ID_BYTES]), int.from_bytes(signed[_ID_BYTES:], "big"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long a session lasts, in seconds."""

    unused: int
    at_most: int
    reuse_grace: int
    """For how long a rotated token still gets its successor."""

    @property
    def unrefreshed(self) -> int:
        """How long a new session lasts if it is never refreshed."""
        return min(self.unused, self.at_most)


def app_session_lifetimes(settings: Settings) -> Lifetimes:
    """The lifetimes of a session in an app."""
    return Lifetimes(
        unused=settings.refresh_token_ttl,
        at_most=settings.session_max_age,
        reuse_grace=settings.refresh_reuse_grace,
    )


def website_session_lifetimes(settings: Settings) -> Lifetimes:
    """The lifetimes of a website's session."""
    return Lifetimes(
        unused=settings.web_session_ttl,
        at_most=settings.web_session_max_age,
        reuse_grace=settings.refresh_reuse_grace,
    )


RefreshTokensDep = Annotated[RefreshTokens, Depends(provide(RefreshTokens))]
