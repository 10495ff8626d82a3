"""What siblings may ask about tokens, and how service clients among them prove who they are."""

import re
import secrets
from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final, NamedTuple

from wxauth.core.database import Database
from wxauth.core.services import Services
from wxauth.core.tables import CLIENT_NAME, ServiceClient
from wxauth.core.trail import OPERATOR, SYSTEM, WECHAT
from wxauth.errors import InvalidClient, InvalidToken
from wxauth.people.callers import ROLES_SCOPE
from wxauth.people.session_rows import user_in_session
from wxauth.siblings import rows

ACTORS: Final = (SYSTEM.name, OPERATOR.name, WECHAT.name)
"""Whom the audit trail tells of beside users and clients, so that no client may have these names."""

_SECRET_BYTES: Final = 32
_NAME: Final = re.compile(CLIENT_NAME)
_NO_HASH: Final = bytes(sha256().digest_size)
_CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat", "jti", "client_id", "sid", "openid")
_CLAIMS_OF_WEBSITES: Final = ("app_id", "scope")


class NameTaken(Exception):
    """There is a client of this name."""


class NoSuchClient(Exception):
    """There is no client of this name."""


class Credentials(NamedTuple):
    """What a client sends with each request (RFC 6749, section 2.3.1)."""

    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"Credentials(client_id={self.client_id!r})"


async def introspect(services: Services, token: str) -> dict[str, Any] | None:
    """What a token says, its roles as they are by now; None where it is not, or no longer, a good access token.

    One indexed read, and none for what is not a token of ours.

    Raises: KeysUnavailable, StorageUnavailable.
    """
    try:
        principal = await services.guard.verify(token)
    except InvalidToken:
        return None
    user = await user_in_session(services.database, session_id=principal.session_id, user_id=principal.id)
    if user is None:
        return None
    claims = {name: principal.claims[name] for name in _CLAIMS}
    claims |= {name: principal.claims[name] for name in _CLAIMS_OF_WEBSITES if name in principal.claims}
    tells_roles = principal.scopes is None or ROLES_SCOPE in principal.scopes
    return {**claims, "roles": user["roles"]} if user["roles"] and tells_roles else claims


def is_name(text: str) -> bool:
    """Whether a client may have this name."""
    return _NAME.fullmatch(text) is not None and text not in ACTORS


async def add_client(database: Database, name: str, *, now: datetime) -> Credentials:
    """A new client; its secret is known from now on to the caller alone. Raises: NameTaken, StorageUnavailable."""
    secret, secret_hash = new_secret()
    if not await rows.store_client(database, name=name, secret_hash=secret_hash, now=now):
        raise NameTaken(name)
    return Credentials(name, secret)


def new_secret() -> tuple[str, bytes]:
    """A secret, and what is stored of it."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    return secret, _hash(secret)


async def list_clients(database: Database) -> Sequence[ServiceClient]:
    """Every client, by name. Raises: StorageUnavailable."""
    return await rows.all_clients(database)


async def remove_client(database: Database, name: str, *, now: datetime) -> None:
    """Refuse this client from now on. Raises: NoSuchClient, StorageUnavailable."""
    if not await rows.delete_client(database, name, now=now):
        raise NoSuchClient(name)


async def authenticate(database: Database, credentials: Credentials) -> None:
    """See that these are the credentials of a client. One indexed read; none for what cannot be a name.

    Raises: InvalidClient, StorageUnavailable.
    """
    name, secret = credentials
    stored = await rows.secret_hash_of(database, name) if is_name(name) else None
    # An unknown name takes the same steps as a wrong secret.
    is_right = compare_digest(_hash(secret), stored or _NO_HASH)
    if stored is None or not is_right:
        raise InvalidClient("there is no service client with this name and secret")


def _hash(secret: str) -> bytes:
    # A slow hash is for what people choose. These are 32 random bytes: nobody gets through them by guessing,
    # however fast, and a client sends them with every request.
    return sha256(secret.encode()).digest()
