"""Signing access tokens (RFC 9068)."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

from wxauth.json_text import to_json
from wxauth.tokens.keys import SigningKey, base64url


class TokenIssuer:
    """Signs access tokens.

    Args:
        issuer: `iss`.
        audience: `aud`.
        encode: Writes the claims as JSON. The service has pydantic-core's, which takes 2 µs, the default 8.
    """

    def __init__(self, *, issuer: str, audience: str, encode: Callable[[Any], bytes] = to_json) -> None:
        self.issuer = issuer
        self.audience = audience
        self._encode = encode

    def issue(
        self,
        key: SigningKey,
        *,
        user_id: UUID,
        session_id: UUID,
        app_id: str,
        openid: str,
        roles: Sequence[str],
        now: int,
        expires_in: int,
        external_id: str | None = None,
        client_id: str | None = None,
        scope: str = "",
        added: Mapping[str, Any] | None = None,
    ) -> str:
        """Sign an access token. `now` is in epoch seconds, `expires_in` in seconds.

        In a website's token, `client_id` is the site, `app_id` the mini-program, and `scope` the scopes granted,
        separated by spaces. Without it, the claim `client_id` is `app_id`. `added` are more claims of other names.
        """
        claims: dict[str, Any] = {
            "iss": self.issuer,
            "sub": str(user_id),
            "aud": self.audience,
            "exp": now + expires_in,
            "iat": now,
            "jti": os.urandom(16).hex(),
            "client_id": app_id,
            "sid": str(session_id),
            "openid": openid,
        }
        if client_id is not None:
            claims |= {"client_id": client_id, "app_id": app_id, "scope": scope}
        if roles:
            claims["roles"] = list(roles)
        if external_id is not None:
            claims["external_id"] = external_id
        if added:
            claims |= added
        return sign(key.signer, key.header, self._encode(claims))


def sign(signer: Any, header: bytes, payload: bytes) -> str:
    """A compact JWS (RFC 7515, section 3.1). `signer` is python-jose's key object, `header` is in base64url already."""
    signing_input = header + b"." + base64url(payload)
    signature: bytes = signer.sign(signing_input)
    return (signing_input + b"." + base64url(signature)).decode()
