"""The stored clients."""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Final, LiteralString

from wxauth.server.clients.models import AddedClient, Client
from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.statements import Nothing, Statement, columns_of, model_of, part
from wxauth.server.core.trail import Actor, EventType, record_event
from wxauth.server.sessions.rows import end_sessions_of_client, lock_users_of_client


@dataclass(frozen=True, slots=True, kw_only=True)
class Secrets:
    """The hashes of a client's secrets, its scopes, and its resources."""

    secret_hash: bytes | None = field(repr=False)
    former_secret_hash: bytes | None = field(repr=False)
    former_secret_until: datetime | None
    scopes: list[str]
    resources: list[str]

    def is_former_good(self, now: datetime) -> bool:
        """Whether the former secret still works."""
        return self.former_secret_until is not None and now < self.former_secret_until


class _WithSecrets(AddedClient):
    secret_hash: bytes | None
    former_secret_hash: bytes | None


def _select(*columns: LiteralString) -> LiteralString:
    return f"SELECT {', '.join(columns)} FROM clients"


SECRETS: Final = ", ".join(f"clients.{part(each.name)}" for each in fields(Secrets))
"""The columns of `Secrets`, for a statement's SELECT."""
_FIND_SECRETS: Final = Statement[Secrets](f"{_select(SECRETS)} WHERE name = :name")
_FIND_WITH_SECRETS: Final = Statement[_WithSecrets](f"{_select(*columns_of(_WithSecrets))} WHERE name = :name")
_FIND_SITE: Final = Statement[Client](f"{_select(*columns_of(Client))} WHERE name = :name AND title IS NOT NULL")
_ALL: Final = Statement[AddedClient](f"{_select(*columns_of(AddedClient))} ORDER BY name")
# Decides the race of two changes of a client: the second waits here, and sees what the first has stored. NO KEY: logins
# that open sessions meanwhile do not wait.
_LOCK: Final = Statement[AddedClient](f"{_select(*columns_of(AddedClient))} WHERE name = :name FOR NO KEY UPDATE")
_SITES_NAMED: Final = Statement[str](
    f"{_select('name')} WHERE name = ANY (:names::text[]) AND title IS NOT NULL ORDER BY name"
)
_DELETE: Final = Statement[str]("DELETE FROM clients WHERE name = :name RETURNING name")
_DELETE_LOGOUTS: Final = Statement[Nothing]("DELETE FROM backchannel_logouts WHERE client_id = :name")
_PUBLIC_REDIRECT_URIS: Final = Statement[str](f"{_select('DISTINCT unnest(redirect_uris) AS uri')} WHERE is_public")
_COLUMNS: Final = ", ".join(columns_of(Client))
_ADDED_PART: Final = f"""
INSERT INTO clients ({_COLUMNS}, secret_hash, created_at)
SELECT {_COLUMNS}, :secret_hash, :now FROM jsonb_populate_record(NULL::clients, :client)"""


def _all_but_the_name(given: LiteralString) -> LiteralString:
    # Setting the key, even to the same value, would lock it against new requests and grants, which refer to it.
    return ", ".join(f"{column} = {given}.{column}" for column in columns_of(Client) if column != "name")


# Of several concurrent requests for one name, one wins.
_ADD: Final = Statement[str](f"{_ADDED_PART} ON CONFLICT DO NOTHING RETURNING name")
_ADD_OR_REPLACE: Final = Statement[Nothing](
    f"{_ADDED_PART} ON CONFLICT (name) DO UPDATE SET {_all_but_the_name('excluded')}"
)
_CHANGE: Final = Statement[Nothing](f"""
UPDATE clients SET {_all_but_the_name("given")}
  FROM jsonb_populate_record(NULL::clients, :client) AS given WHERE clients.name = given.name
""")
# The present secret replaces the former one, of which there is at most one. A public client gets no secret.
_RENEW: Final = Statement[list[str]]("""
UPDATE clients
   SET secret_hash = :secret_hash,
       former_secret_hash = CASE WHEN :former_until::timestamptz IS NOT NULL THEN secret_hash END,
       former_secret_until = :former_until
 WHERE name = :name AND NOT is_public
RETURNING scopes
""")


async def find_secrets(database: Database, name: str) -> Secrets | None:
    """The hashes and scopes of a client, or None."""
    return await database.row(_FIND_SECRETS, name=name)


async def find_with_secrets(database: Database, name: str) -> tuple[Client, Secrets] | None:
    """The client of this name with the hashes of its secrets, or None."""
    row = await database.row(_FIND_WITH_SECRETS, name=name)
    if row is None:
        return None
    columns = vars(row)
    secrets = Secrets(**{each.name: columns[each.name] for each in fields(Secrets)})
    return model_of(Client, {column: columns[column] for column in Client.model_fields}), secrets


async def find_site(asked: Database | Transaction, name: str) -> Client | None:
    """The site of this name, or None."""
    return await asked.row(_FIND_SITE, name=name)


async def all_clients(database: Database) -> Sequence[AddedClient]:
    """Every client, by name."""
    return await database.rows(_ALL)


async def sites_named(database: Database, names: Sequence[str]) -> Sequence[str]:
    """Those of these names that belong to sites."""
    return await database.values(_SITES_NAMED, names=names)


async def public_redirect_uris(database: Database) -> Sequence[str]:
    """The redirect URIs of all public clients."""
    return await database.values(_PUBLIC_REDIRECT_URIS)


async def store_client(
    database: Database, client: Client, *, secret_hash: bytes | None, by: Actor, now: datetime
) -> bool:
    """Store a new client. Returns False if its name is taken."""
    async with database.begin() as transaction:
        if await transaction.value(_ADD, client=client, secret_hash=secret_hash, now=now) is None:
            return False
        data = {"name": client.name, "scopes": client.scopes}
        await record_event(transaction, EventType.CLIENT_ADDED, by=by, at=now, data=data)
        return True


async def ensure_public_client(database: Database, client: Client, *, now: datetime) -> None:
    """Add or replace a public client."""
    async with database.begin() as transaction:
        await transaction.run(_ADD_OR_REPLACE, client=client, secret_hash=None, now=now)


async def lock_client(transaction: Transaction, name: str) -> AddedClient | None:
    """Lock and read a client until the transaction ends; None if there is none of this name."""
    return await transaction.row(_LOCK, name=name)


async def store_change(transaction: Transaction, client: Client) -> None:
    """Store the changed fields of a locked client."""
    await transaction.run(_CHANGE, client=client)


async def renew_secret(
    database: Database, name: str, *, secret_hash: bytes, former_until: datetime | None, by: Actor, now: datetime
) -> Sequence[str] | None:
    """Replace a client's secret. Returns its scopes, or None if no client of this name has a secret."""
    async with database.begin() as transaction:
        scopes = await transaction.value(_RENEW, name=name, secret_hash=secret_hash, former_until=former_until)
        if scopes is not None:
            await record_event(transaction, EventType.CLIENT_SECRET_RENEWED, by=by, at=now, data={"name": name})
    return scopes


async def delete_client(database: Database, name: str, *, by: Actor, now: datetime) -> bool:
    """Delete a client, and end its sessions. Returns False if there is none."""
    async with database.begin() as transaction:
        # Before the client's own row, as when a login opens a session of this client.
        await lock_users_of_client(transaction, name)
        if await transaction.value(_DELETE, name=name) is None:
            return False
        # After the DELETE, which waits for logins that are opening a session of this client.
        await end_sessions_of_client(transaction, name, by=by, now=now)
        await transaction.run(_DELETE_LOGOUTS, name=name)
        await record_event(transaction, EventType.CLIENT_REMOVED, by=by, at=now, data={"name": name})
        return True
