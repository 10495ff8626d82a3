"""Verifies access tokens in Python without wxauth. It needs `pip install "pyjwt[crypto]>=2.15"`."""

from typing import Any

import jwt


class InsufficientScope(jwt.InvalidTokenError):
    """The token was issued to a website or an agent."""


class AccessTokens:
    """Verifies the tokens of one issuer. It fetches the issuer's keys at most once every five minutes.

    If `websites` is true, tokens of websites and agents are accepted, too. These tokens have a `scope`.
    """

    def __init__(self, issuer: str, audience: str = "wxauth", *, websites: bool = False) -> None:
        self._issuer = issuer
        self._audience = audience
        self._websites = websites
        self._keys = jwt.PyJWKClient(f"{issuer}/.well-known/jwks.json", timeout=5)

    def claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a valid token. Call it from a thread, because it sometimes accesses the network.

        Raises: jwt.PyJWKClientConnectionError if the keys can't be fetched (return 503), InsufficientScope (return 403
        with `WWW-Authenticate: Bearer error="insufficient_scope"`), otherwise jwt.PyJWTError (return 401).
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
        if "scope" in checked["payload"] and not self._websites:
            raise InsufficientScope("the token of a website or an agent")
        return checked["payload"]
