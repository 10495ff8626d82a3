"""Clients as they are stored."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from sqlalchemy import delete, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from wxauth.server.clients.tables import AddedClient, Client, StoredClient
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.sessions.rows import end_sessions_of_client

_SECRETS: Final = ("secret_hash", "former_secret_hash", "former_secret_until")


def _select(*columns: str) -> str:
    return f"SELECT {', '.join(columns)} FROM clients"  # noqa: S608 - constants


_FIND_SECRETS: Final = f"{_select(*_SECRETS, 'scopes')} WHERE name = $1"
_FIND_WITH_SECRETS: Final = f"{_select(*Client.model_fields, *_SECRETS)} WHERE name = $1"
_FIND_SITE: Final = f"{_select(*Client.model_fields)} WHERE name = $1 AND title IS NOT NULL"
_ALL: Final = f"{_select(*AddedClient.model_fields)} ORDER BY name"
# Two changes of one client at once: the second waits here, and sees what the first has stored. Sessions that are opened
# meanwhile do not wait.
_LOCK: Final = f"{_select(*AddedClient.model_fields)} WHERE name = $1 FOR NO KEY UPDATE"
_SITES_NAMED: Final = f"{_select('name')} WHERE name = ANY ($1::text[]) AND title IS NOT NULL ORDER BY name"
_PUBLIC_REDIRECT_URIS: Final = f"{_select('DISTINCT unnest(redirect_uris) AS uri')} WHERE is_public"
# There is one former secret at most: the present secret replaces it. A public client is given none.
# $1 name  $2 the new secret's hash  $3 until when the present secret works; NULL if it ends now
_RENEW: Final = """
UPDATE clients
   SET secret_hash = $2, former_secret_hash = CASE WHEN $3::timestamptz IS NOT NULL THEN secret_hash END,
       former_secret_until = $3
 WHERE name = $1 AND NOT is_public
RETURNING scopes
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The hashes of a client's secrets, and its scopes."""

    secret_hash: bytes | None = field(repr=False)
    former_secret_hash: bytes | None = field(repr=False)
    former_secret_until: datetime | None
    scopes: Sequence[str]

    def is_former_good(self, now: datetime) -> bool:
        """Whether the secret before this one still works."""
        return self.former_secret_until is not None and now < self.former_secret_until


async def find_secrets(database: Database, name: str) -> Secrets | None:
    """The hashes and scopes of this client. Raises: StorageUnavailable."""
    row = await database.fetchrow(_FIND_SECRETS, name)
    return None if row is None else Secrets(**row)


async def find_with_secrets(database: Database, name: str) -> tuple[Client, Secrets] | None:
    """The client of this name, and its secrets' hashes. Raises: StorageUnavailable."""
    row = await database.fetchrow(_FIND_WITH_SECRETS, name)
    if row is None:
        return None
    return Client(**row), Secrets(**{column: row[column] for column in (*_SECRETS, "scopes")})


async def find_site(database: Database, name: str) -> Client | None:
    """The site of this name. Raises: StorageUnavailable."""
    row = await database.fetchrow(_FIND_SITE, name)
    return None if row is None else Client(**row)


async def all_clients(database: Database) -> Sequence[AddedClient]:
    """Every client, by name. Raises: StorageUnavailable."""
    return [AddedClient(**row) for row in await database.fetch(_ALL)]


async def sites_named(database: Database, names: Sequence[str]) -> Sequence[str]:
    """Which of these names are sites'. Raises: StorageUnavailable."""
    return [row["name"] for row in await database.fetch(_SITES_NAMED, names)]


async def public_redirect_uris(database: Database) -> Sequence[str]:
    """The redirect URIs of all public clients. Raises: StorageUnavailable."""
    return [row["uri"] for row in await database.fetch(_PUBLIC_REDIRECT_URIS)]


async def store_client(
    database: Database, client: Client, *, secret_hash: bytes | None, by: Actor, now: datetime
) -> bool:
    """Store a new client; whether its name was free. Raises: StorageUnavailable."""
    values = {**client.model_dump(), "secret_hash": secret_hash, "created_at": now}
    # Of several requests for one name at once, one wins.
    statement = insert(StoredClient).values(values).on_conflict_do_nothing().returning(col(StoredClient.name))
    async with database.begin() as transaction:
        if await transaction.fetchval(statement) is None:
            return False
        data = {"name": client.name, "scopes": client.scopes}
        await record_event(transaction, EventType.CLIENT_ADDED, by=by, at=now, data=data)
        return True


async def ensure_public_client(database: Database, client: Client, *, now: datetime) -> None:
    """Store this public client, whatever was stored under its name before. Raises: StorageUnavailable."""
    statement = insert(StoredClient).values({**client.model_dump(), "created_at": now})
    statement = statement.on_conflict_do_update(index_elements=["name"], set_=_all_but_the_name(client))
    async with database.begin() as transaction:
        await transaction.execute(statement)


async def lock_client(transaction: Transaction, name: str) -> AddedClient | None:
    """The client of this name, which nobody else changes until the transaction ends."""
    row: Mapping[str, Any] | None = await transaction.fetchrow(_LOCK, name)
    return None if row is None else AddedClient(**row)


async def store_change(transaction: Transaction, client: Client) -> None:
    """Store a client that is locked as it is here."""
    statement = update(StoredClient).where(col(StoredClient.name) == client.name).values(_all_but_the_name(client))
    await transaction.execute(statement)


async def renew_secret(
    database: Database, name: str, *, secret_hash: bytes, former_until: datetime | None, by: Actor, now: datetime
) -> Sequence[str] | None:
    """Give a client another secret; its scopes, or None if no client of this name has a secret.

    Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        scopes: Sequence[str] | None = await transaction.fetchval(_RENEW, name, secret_hash, former_until)
        if scopes is not None:
            await record_event(transaction, EventType.CLIENT_SECRET_RENEWED, by=by, at=now, data={"name": name})
    return scopes


async def delete_client(database: Database, name: str, *, by: Actor, now: datetime) -> bool:
    """Delete a client and end its sessions; whether there was such a client. Raises: StorageUnavailable."""
    statement = delete(StoredClient).where(col(StoredClient.name) == name).returning(col(StoredClient.name))
    async with database.begin() as transaction:
        if await transaction.fetchval(statement) is None:
            return False
        # After the DELETE, which waits for logins that are just opening a session of this client.
        await end_sessions_of_client(transaction, name, by=by, now=now)
        await record_event(transaction, EventType.CLIENT_REMOVED, by=by, at=now, data={"name": name})
        return True


def _all_but_the_name(client: Client) -> dict[str, Any]:
    # A key that was set, even to what it is, would be locked against the scans that refer to it.
    return client.model_dump(exclude={"name"})
