"""Verifies access tokens in Python without wxauth. It needs `pip install "pyjwt[crypto]>=2.15"`."""

from typing import Any

import jwt


class AccessTokens:
    """Verifies the tokens of one issuer. It fetches the issuer's keys at most once every five minutes."""

    def __init__(self, issuer: str, audience: str = "wxauth") -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = jwt.PyJWKClient(f"{issuer}/.well-known/jwks.json", timeout=5)

    def claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a valid token. Call it from a thread, because it sometimes accesses the network.

        Raises: jwt.PyJWKClientConnectionError if the keys can't be fetched (return 503), otherwise jwt.PyJWTError
        (return 401).
        """
        checked = jwt.decode_complete(
            token,
            self._keys.get_signing_key_from_jwt(token),
            algorithms=["ES256"],
            issuer=self._issuer,
            audience=self._audience,
            leeway=30,
            options={"require": ["iss", "sub", "aud", "exp", "iat", "jti", "client_id", "sid", "openid"]},
        )
        if str(checked["header"].get("typ")).lower() not in {"at+jwt", "application/at+jwt"}:
            raise jwt.InvalidTokenError("not an access token")
        return checked["payload"]
