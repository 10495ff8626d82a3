"""Access tokens checked in Python without wxauth: `pip install "pyjwt[crypto]>=2.15"`."""

from typing import Any

import jwt


class AccessTokens:
    """Verifies tokens of one issuer. Its keys are fetched once in five minutes, however many tokens are checked."""

    def __init__(self, issuer: str, audience: str = "wxauth") -> None:
        self._issuer = issuer
        self._audience = audience
        self._keys = jwt.PyJWKClient(f"{issuer}/.well-known/jwks.json", timeout=5)

    def claims(self, token: str) -> dict[str, Any]:
        """The claims of a valid token. Accesses the network now and then: call it from a thread.

        Raises: jwt.PyJWTError, to be answered with 401; among these jwt.PyJWKClientConnectionError, without keys, with
        503.
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
