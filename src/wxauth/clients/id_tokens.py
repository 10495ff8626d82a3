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
from wxauth.clients.models import Client, added_claims, granted_claims
from wxauth.core.database import Database
from wxauth.core.logs import get_logger
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

# Sites send an id_token in the URL of a logout, and most proxies refuse URLs of more than 8,192 characters.
_MAX_LENGTH: Final = 7168
_OTHER_TYPES: Final = {"at+jwt": "an access token", "logout+jwt": "a logout token"}

log = get_logger()


class InvalidHint(Exception):
    """The reason why a text is no id_token of this installation, for the log."""

    def __init__(self, reason: str, *, client_id: object = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.client_id = client_id  # as the text says; nobody has verified it


@dataclass(frozen=True, slots=True)
class IdTokenHint:
    """The content of an id_token of this installation, which may have expired."""

    issuer: str  # differs from the setting after a move to another URL
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
        # ES256 keys also sign access tokens. An id_token is none, because its `typ` and its audience, the site, differ.
        header = base64url(to_json({"alg": key.alg, "kid": key.kid, "typ": "JWT"}))
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
        claims["amr"] = [authenticated_by]
        if nonce is not None:
            claims["nonce"] = nonce
        granted, added = granted_claims(user, client, scopes), added_claims(user, client, scopes)
        without_picture = {name: value for name, value in granted.items() if name != "picture"}
        # `/v1/userinfo` returns all of them. The picture's URL is the longest claim that few sites need.
        for about_user in (granted | added, without_picture | added, without_picture, {}):
            token = sign(key.signer, header, to_json(claims | about_user))
            if len(token) <= _MAX_LENGTH:
                break
        if left_out := sorted((granted | added).keys() - about_user.keys()):
            reason = "too much for one id_token"
            log.error("claims_left_out", user_id=user.id, client_id=client.name, claims=left_out, reason=reason)
        return token

    async def read(self, token: str) -> IdTokenHint:
        """Return the content of a site's id_token, even if it has expired or names a previous URL of this service.

        Raises: InvalidHint, for any other text, and if its key was withdrawn.
        """
        jws = COMPACT_JWS.fullmatch(token)
        if jws is None:
            raise InvalidHint("it is no token")
        try:
            header, claims = json_object(jws[1]), json_object(jws[2])
            signature = decoded(jws[3])
        except InvalidToken as exc:
            raise InvalidHint(f"it is no token: {exc}") from None
        client_id, kid, typ = claims.get("aud"), header.get("kid"), header.get("typ")
        if typ != "JWT" or "events" in claims:
            kind = _OTHER_TYPES.get(typ) if isinstance(typ, str) else None
            raise InvalidHint(f"it is {kind or 'another kind of token'}", client_id=client_id)
        verifier = None
        if isinstance(kid, str) and _KID.fullmatch(kid):
            verifier = await self.keys.id_token_verifier(header.get("alg"), kid)
        if verifier is None:
            raise InvalidHint("its key was withdrawn, or another service signed it", client_id=client_id)
        if not verifier.verify(f"{jws[1]}.{jws[2]}".encode(), signature):
            raise InvalidHint("its signature is wrong", client_id=client_id)
        # wxauth has signed the claims, so they are well-formed.
        if "sid" not in claims:
            raise InvalidHint("it was issued to a phone, without a session", client_id=client_id)
        return IdTokenHint(claims["iss"], claims["aud"], UUID(claims["sid"]), UUID(claims["sub"]))

    async def user_in(self, token: str, *, client_id: str) -> UUID | None:
        """Return the current id of the user in a client's id_token, which may have expired; None for any other text.

        If the user no longer exists, it is the id in the id_token.
        """
        try:
            hint = await self.read(token)
        except InvalidHint:
            return None
        if hint.issuer != self.settings.issuer or hint.client_id != client_id:
            return None
        return await self.database.value(CURRENT_USER_ID, user_id=hint.user_id) or hint.user_id
