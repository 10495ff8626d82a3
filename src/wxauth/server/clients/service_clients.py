"""Service clients: their names, secrets and scopes; and introspection, with which they ask about a token."""

import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from hmac import compare_digest
from typing import Any, Final, NamedTuple

from wxauth.errors import ClientLacksScope, InvalidClient, InvalidRequest, InvalidToken, NameTaken, NotFound
from wxauth.server.clients import service_rows as rows
from wxauth.server.core.database import Database
from wxauth.server.core.services import Services
from wxauth.server.core.tables import CLIENT_NAME
from wxauth.server.core.trail import OPERATOR, SYSTEM, WECHAT, Actor
from wxauth.server.sessions.rows import user_in_session
from wxauth.server.users.callers import ROLES_SCOPE

ACTORS: Final = (SYSTEM.name, OPERATOR.name, WECHAT.name)
"""Actors of the audit trail that are neither users nor clients. A client of such a name could not be told apart."""

FORMER_SECRET_KEPT: Final = timedelta(hours=24)
"""How long a renewed secret's former one still works: a sibling's replicas get the new one one by one."""

_SECRET_BYTES: Final = 32
_NAME: Final = re.compile(CLIENT_NAME)
_USER_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_NO_HASH: Final = bytes(sha256().digest_size)
_CLAIMS: Final = ("iss", "sub", "aud", "exp", "iat", "jti", "client_id", "sid", "openid")
_CLAIMS_OF_WEBSITES: Final = ("app_id", "scope")


class Scope(StrEnum):
    """What a service client may do."""

    INTROSPECT = "introspect"
    """Ask whether an access token is good."""
    ACCESS_TOKEN = "access_token"  # noqa: S105 - the name of a scope
    """Have an app's WeChat token."""
    USERS = "users"
    """Look users up."""
    PHONES = "phones"
    """See their phone numbers too."""
    EVENTS = "events"
    """Read the feed."""


DEFAULT_SCOPES: Final = (Scope.INTROSPECT,)
"""The scopes of a client that is added without naming any."""

NO_SUCH_CLIENT: Final = "there is no such service client"
NAME_TAKEN: Final = "there is a service client of this name already"
HAS_NO_SECRET: Final = ("name", "is a public client's, which has no secret")


class Credentials(NamedTuple):
    """What a client sends with each request (RFC 6749, section 2.3.1)."""

    client_id: str
    client_secret: str

    def __repr__(self) -> str:
        return f"Credentials(client_id={self.client_id!r})"


async def introspect(services: Services, token: str) -> dict[str, Any] | None:
    """A token's claims, with the user's present roles; None if the token is not, or no longer, a good access token.

    A token of ours costs one indexed read, anything else none.

    Raises: KeysUnavailable, StorageUnavailable.
    """
    try:
        principal = await services.guard.verify(token)
    except InvalidToken:
        return None
    user = await user_in_session(
        services.database, session_id=principal.session_id, user_id=principal.id, now=services.clock()
    )
    if user is None:
        return None
    claims = {name: principal.claims[name] for name in _CLAIMS}
    claims |= {name: principal.claims[name] for name in _CLAIMS_OF_WEBSITES if name in principal.claims}
    if user["roles"] and (principal.scopes is None or ROLES_SCOPE in principal.scopes):
        claims["roles"] = user["roles"]
    if user["external_id"] is not None:
        claims["external_id"] = user["external_id"]
    return claims


def is_name(text: str) -> bool:
    """Whether a client may have this name. As an actor of the trail, it must not be taken for a user."""
    return _NAME.fullmatch(text) is not None and text not in ACTORS and _USER_ID.fullmatch(text) is None


def is_own_name(text: str) -> bool:
    """Whether a client of this name is one of wxauth's own pages, which no administrator makes or changes."""
    return text.startswith("wxauth")


async def add_client(
    database: Database,
    name: str,
    *,
    scopes: Collection[Scope] = DEFAULT_SCOPES,
    by: Actor = OPERATOR,
    now: datetime,
) -> Credentials:
    """Add a client. Its secret is returned and not stored. Raises: NameTaken, StorageUnavailable."""
    secret, secret_hash = new_secret()
    if not await rows.store_client(
        database, name=name, secret_hash=secret_hash, scopes=in_order(scopes), by=by, now=now
    ):
        raise NameTaken(NAME_TAKEN)
    return Credentials(name, secret)


def new_secret() -> tuple[str, bytes]:
    """A secret, and the hash that is stored."""
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    return secret, _hash(secret)


def in_order(scopes: Collection[str]) -> list[Scope]:
    """Each of these scopes once, in the order of `Scope`."""
    return [scope for scope in Scope if scope in scopes]


async def renew_secret(
    database: Database, name: str, *, at_once: bool = False, by: Actor = OPERATOR, now: datetime
) -> tuple[Credentials, Sequence[str]]:
    """A new secret for a client, and its scopes. The former secret works for a day more, or no longer at all.

    There is one former secret at most: the one before it is refused from now on.

    Raises: NotFound; InvalidRequest, if the client is public; StorageUnavailable.
    """
    secret, secret_hash = new_secret()
    former_until = None if at_once else now + FORMER_SECRET_KEPT
    scopes = await rows.renew_secret(database, name, secret_hash=secret_hash, former_until=former_until, by=by, now=now)
    if scopes is None:
        is_there = await rows.find_secrets(database, name) is not None
        raise InvalidRequest.of(*HAS_NO_SECRET) if is_there else NotFound(NO_SUCH_CLIENT)
    return Credentials(name, secret), scopes


async def remove_client(database: Database, name: str, *, by: Actor = OPERATOR, now: datetime) -> None:
    """Refuse this client from now on. Raises: NotFound, StorageUnavailable."""
    if not await rows.delete_client(database, name, by=by, now=now):
        raise NotFound(NO_SUCH_CLIENT)


@dataclass(frozen=True, slots=True)
class Client:
    """A service client that has proved who it is."""

    name: str
    scopes: frozenset[Scope]


async def authenticate(
    database: Database, credentials: Credentials, needed: Scope | None = None, *, now: datetime
) -> Client:
    """The client of these credentials, if it has the needed scope. A name that no client can have costs no read.

    Raises: InvalidClient; ClientLacksScope; StorageUnavailable.
    """
    name, secret = credentials
    stored = await rows.find_secrets(database, name) if is_name(name) else None
    # An unknown name takes the same steps as a wrong secret.
    given = _hash(secret)
    is_right = compare_digest(given, stored.secret_hash if stored else _NO_HASH)
    is_former = compare_digest(given, (stored and stored.former_secret_hash) or _NO_HASH)
    if stored is None or not (is_right or (is_former and stored.is_former_good(now))):
        raise InvalidClient("there is no service client with this name and secret")
    if needed is not None and needed not in stored.scopes:
        raise ClientLacksScope(f"this needs the scope {needed}: wxauth clients set NAME --scope ...")
    return Client(name, frozenset(in_order(stored.scopes)))


def _hash(secret: str) -> bytes:
    # Slow hashes protect passwords that people choose. These are 32 random bytes, which no speed of guessing finds,
    # and a slow hash would cost its time with every request.
    return sha256(secret.encode()).digest()
