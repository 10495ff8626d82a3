"""Introspection: the claims of an access token, for services that cannot verify it themselves (RFC 7662)."""

from datetime import datetime
from typing import Any, Final

from wxauth.errors import InvalidToken
from wxauth.server.core.claims import RESERVED_CLAIMS
from wxauth.server.core.database import Database
from wxauth.server.sessions.rows import user_in_session
from wxauth.server.users.callers import sees_roles
from wxauth.tokens.verifier import Verifier

_CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat", "jti", "client_id", "sid", "openid")
_CLAIMS_OF_WEBSITES: Final = ("app_id", "scope")


async def introspect(verifier: Verifier, database: Database, token: str, *, now: datetime) -> dict[str, Any] | None:
    """A token's claims, with the user's current roles; None if it is not a valid access token.

    A token signed by this service costs one indexed read, any other costs none.

    Raises: KeysUnavailable.
    """
    try:
        principal = await verifier.verify(token, now=now.timestamp())
    except InvalidToken:
        return None
    user = await user_in_session(database, session_id=principal.session_id, user_id=principal.id, now=now)
    if user is None:
        return None
    claims = {name: principal.claims[name] for name in _CLAIMS}
    claims |= {name: principal.claims[name] for name in _CLAIMS_OF_WEBSITES if name in principal.claims}
    if user.roles and sees_roles(principal):
        claims["roles"] = user.roles
    if user.external_id is not None:
        claims["external_id"] = user.external_id
    return claims | {name: value for name, value in principal.claims.items() if name not in RESERVED_CLAIMS}
