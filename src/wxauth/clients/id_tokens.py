"""The id_tokens for sites (OpenID Connect Core, section 2), and the id_tokens that sites send back as hints."""

import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from typing import Any, Final
from uuid import UUID

from pydantic_core import to_json

from wxauth.clients.assertions import COMPACT_JWS
from wxauth.clients.models import Client, claims_of
from wxauth.clients.oauth_requests import MAX_TOKEN_LENGTH
from wxauth.core.database import Database
from wxauth.core.services import part
from wxauth.core.users import UserInSession
from wxauth.keys.keyring import KeyRing
from wxauth.settings.settings import Settings
from wxauth.tokens import base64url, sign
from wxauth.users.user_queries import CURRENT_USER_ID
from wxauth_guard.errors import InvalidToken
from wxauth_guard.verifier import decoded, json_object

# These claims are independent of the scopes.
PROTOCOL_CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat", "auth_time", "nonce", "sid", "at_hash", "amr")
# The id of each of wxauth's keys is its thumbprint (RFC 7638).
_KID: Final = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)


@dataclass(frozen=True, slots=True)
class IdTokenHint:
    """The client, the session and the user in an id_token of this service, which may have expired."""

    client_id: str
    session_id: UUID
    user_id: UUID  # After a merge, the remaining user has a different id.


@part
class IdTokens:
    """The part that signs id_tokens for sites, and reads the id_tokens that sites send as `id_token_hint`."""

    settings: Settings
    database: Database
    keys: KeyRing

    async def issue(
        self,
        client: Client,
        user: UserInSession,
        scopes: Collection[str],
        *,
        session_id: UUID | None = None,
        access_token: str | None = None,
        nonce: str | None,
        authenticated_at: datetime,
        authenticated_by: str,
        now: datetime,
        expires_in: int,
    ) -> str:
        """Return an id_token that is valid for `expires_in` seconds.

        A phone's id_token for another back end has neither a session nor an access token. `authenticated_by` is for
        `amr`.
        """
        key = await self.keys.id_token_key(client.id_token_alg, now)
        issued_at = int(now.timestamp())
        claims: dict[str, Any] = {
            "iss": self.settings.issuer,
            "sub": str(user.id),
            "aud": client.name,
            "exp": issued_at + expires_in,
            "iat": issued_at,
            "auth_time": int(authenticated_at.timestamp()),
        }
        if session_id is not None:
            claims["sid"] = str(session_id)
        if access_token is not None:
            digest = sha256(access_token.encode()).digest()
            claims["at_hash"] = base64url(digest[: len(digest) // 2]).decode()  # the left half of the hash
        claims |= {"amr": [authenticated_by], **claims_of(user, client, scopes)}
        if nonce is not None:
            claims["nonce"] = nonce
        # ES256 keys also sign access tokens. An id_token is none, because its `typ` and its audience, the site, differ.
        header = {"alg": key.alg, "kid": key.kid, "typ": "JWT"}
        return sign(key.signer, base64url(to_json(header)), to_json(claims))

    async def read(self, token: str) -> IdTokenHint | None:
        """Return the content of an id_token of this service, even if it has expired; None for any other text."""
        jws = COMPACT_JWS.fullmatch(token) if len(token) <= MAX_TOKEN_LENGTH else None
        if jws is None:
            return None
        try:
            header = json_object(jws[1])
            if header["typ"] != "JWT" or not _KID.fullmatch(header["kid"]):  # not an id_token of wxauth
                return None
            verifier = await self.keys.id_token_verifier(header["alg"], header["kid"])
            if verifier is None or not verifier.verify(f"{jws[1]}.{jws[2]}".encode(), decoded(jws[3])):
                return None
            claims = json_object(jws[2])
        except (InvalidToken, KeyError, TypeError):
            return None
        # wxauth has signed the claims, so they are well-formed. wxauth may have issued the id_token under a previous
        # issuer URL, or to a mini-program or mobile app, without a session.
        if claims["iss"] != self.settings.issuer or "sid" not in claims:
            return None
        return IdTokenHint(claims["aud"], UUID(claims["sid"]), UUID(claims["sub"]))

    async def user_in(self, token: str, *, client_id: str) -> UUID | None:
        """Return the current id of the user in a client's id_token, which may have expired; None for any other text.

        If the user no longer exists, it is the id in the id_token.
        """
        hint = await self.read(token)
        if hint is None or hint.client_id != client_id:
            return None
        return await self.database.value(CURRENT_USER_ID, user_id=hint.user_id) or hint.user_id
