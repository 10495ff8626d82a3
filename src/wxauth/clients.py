"""What siblings may ask about tokens, and how service clients among them prove who they are."""

import re
import secrets
from datetime import datetime, timedelta
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final, NamedTuple

from wxauth.core.database import Database
from wxauth.core.services import Services
from wxauth.core.tables import CLIENT_NAME, ServiceClient
from wxauth.core.trail import OPERATOR, SYSTEM, WECHAT
from wxauth.errors import InvalidClient, InvalidToken
from wxauth.store import service_clients
from wxauth.store.sessions import user_in_session
from wxauth.wechat.rows import record_reading
from wxauth.wechat.wechat_tokens import WeChatToken

ACTORS: Final = (SYSTEM, OPERATOR, WECHAT)
"""Whom the audit trail tells of beside users and clients, so that no client may have these names."""
LOOKED_WITHIN: Final = timedelta(minutes=1)
"""So long, at most, a client is given a WeChat token that WeChat has replaced."""

_SECRET_BYTES: Final = 32
_NAME: Final = re.compile(CLIENT_NAME)
_NO_HASH: Final = bytes(sha256().digest_size)
_CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat", "jti", "client_id", "sid", "openid")


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
    return {**claims, "roles": user["roles"]} if user["roles"] else claims


async def read_wechat_token(services: Services, client_id: str, app_id: str, *, ip: str | None) -> WeChatToken:
    """The app's WeChat token, for a service client.

    The trail tells of each token once that the client was given it, however often it asks: a sibling may well ask
    before every call of its own.

    Raises: UnknownApp, WeChatError, StorageUnavailable.
    """
    app = services.settings.app(app_id)
    with services.metrics.wechat_token_read(app.app_id):
        token = await services.wechat_tokens.get(app, looked_within=LOOKED_WITHIN)
    if client_id not in token.readers.names:
        async with services.database.answering(), token.readers.lock:
            if client_id not in token.readers.names:
                now = services.clock()
                await record_reading(services.database, app_id=app.app_id, client_id=client_id, ip=ip, now=now)
                token.readers.names.add(client_id)
    return token


def is_name(text: str) -> bool:
    """Whether a client may have this name."""
    return _NAME.fullmatch(text) is not None and text not in ACTORS


async def add_client(database: Database, name: str, *, now: datetime) -> Credentials:
    """A new client; its secret is known from now on to the caller alone. Raises: NameTaken, StorageUnavailable."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    if not await service_clients.store_client(database, name=name, secret_hash=_hash(secret), now=now):
        raise NameTaken(name)
    return Credentials(name, secret)


async def list_clients(database: Database) -> list[ServiceClient]:
    """Every client, by name. Raises: StorageUnavailable."""
    return await service_clients.all_clients(database)


async def remove_client(database: Database, name: str, *, now: datetime) -> None:
    """Refuse this client from now on. Raises: NoSuchClient, StorageUnavailable."""
    if not await service_clients.delete_client(database, name, now=now):
        raise NoSuchClient(name)


async def authenticate(database: Database, credentials: Credentials) -> None:
    """See that these are the credentials of a client. One indexed read; none for what cannot be a name.

    Raises: InvalidClient, StorageUnavailable.
    """
    name, secret = credentials
    stored = await service_clients.secret_hash_of(database, name) if is_name(name) else None
    # An unknown name takes the same steps as a wrong secret.
    is_right = compare_digest(_hash(secret), stored or _NO_HASH)
    if stored is None or not is_right:
        raise InvalidClient("there is no service client with this name and secret")


def _hash(secret: str) -> bytes:
    # A slow hash is for what people choose. These are 32 random bytes: nobody gets through them by guessing,
    # however fast, and a client sends them with every request.
    return sha256(secret.encode()).digest()
