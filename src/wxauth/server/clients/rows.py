"""OAuth clients as they are stored. Each has a row among the service clients, too."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal

from wxauth.server.core.database import Database, Transaction
from wxauth.server.core.ids import new_id
from wxauth.server.core.trail import Actor, EventType

IdTokenAlg = Literal["RS256", "ES256"]
"""What signs a site's id_tokens: keys of their own, or those of access tokens."""
ID_TOKEN_ALG: Final = "RS256"  # noqa: S105 - an algorithm
"""That of a site that says nothing else."""

_COLUMNS: Final = (
    "title, app_id, scopes, redirect_uris, logout_uris, is_public, may_scan, is_near, takes_user_codes, email_domain, "
    "id_token_alg"
)
_CLIENTS: Final = f"""
SELECT c.name, c.created_at, c.former_secret_until, c.scopes AS siblings_scopes,
       {_COLUMNS.replace("scopes", "o.scopes")}
  FROM service_clients c LEFT JOIN oauth_clients o USING (name)
"""  # noqa: S608 - a constant
_ALL_CLIENTS: Final = f"{_CLIENTS} ORDER BY c.name"
_CLIENT: Final = f"{_CLIENTS} WHERE c.name = $1"
# Two changes of one client at once: the second waits here. What it changes is read by a statement of its own, because a
# join that had waited would see the site as it was before. Sessions that are opened meanwhile do not wait.
_LOCK: Final = "SELECT name FROM service_clients WHERE name = $1 FOR NO KEY UPDATE"
_SET_SCOPES: Final = "UPDATE service_clients SET scopes = $2::text[] WHERE name = $1"
# $1 name  $2 to $12 the columns above
_PUT_SITE: Final = f"""
INSERT INTO oauth_clients (name, {_COLUMNS})
VALUES ($1, $2, $3, $4::text[], $5::text[], $6::text[], $7::boolean, $8::boolean, $9::boolean, $10::boolean, $11,
        $12)
ON CONFLICT (name) DO UPDATE SET ({_COLUMNS}) = ROW (excluded.{_COLUMNS.replace(", ", ", excluded.")})
"""  # noqa: S608 - a constant
_FIND: Final = f"SELECT name, {_COLUMNS} FROM oauth_clients WHERE name = $1"  # noqa: S608 - a constant
_ALL: Final = f"SELECT name, {_COLUMNS} FROM oauth_clients ORDER BY name"  # noqa: S608 - a constant
_NAMED: Final = "SELECT name FROM oauth_clients WHERE name = ANY ($1::text[]) ORDER BY name"
_PUBLIC_REDIRECT_URIS: Final = "SELECT DISTINCT unnest(redirect_uris) AS uri FROM oauth_clients WHERE is_public"
# Adds the service client, the OAuth client and the event in one statement: of several requests for one name, one wins.
# $1 name  $2 secret_hash  $3 now  $4 id of the event  $5 type  $6 actor  $7 to $17 the columns above
# $18 its scopes as a sibling
_STORE: Final = f"""
WITH client AS (
    INSERT INTO service_clients (name, secret_hash, created_at, scopes) VALUES ($1, $2, $3, $18::text[])
    ON CONFLICT DO NOTHING
    RETURNING name
), noted AS (
    INSERT INTO events (id, type, at, actor, data)
    SELECT $4, $5, $3, $6, jsonb_build_object('name', name, 'scopes', $18::text[] || $9::text[]) FROM client
)
INSERT INTO oauth_clients (name, {_COLUMNS})
SELECT name, $7, $8, $9::text[], $10::text[], $11::text[], $12::boolean, $13::boolean, $14::boolean, $15::boolean, $16,
       $17
  FROM client
RETURNING name
"""  # noqa: S608 - put together from constants
# Adds our own client, or changes one that another version has stored to what this version wants.
# $1 name  $2 secret_hash  $3 now  $4 title  $5 scopes  $6 redirect_uris  $7 logout_uris
_ENSURE_OWN: Final = """
WITH client AS (
    INSERT INTO service_clients (name, secret_hash, created_at, scopes) VALUES ($1, $2, $3, '{}')
    ON CONFLICT DO NOTHING
)
INSERT INTO oauth_clients (name, title, scopes, redirect_uris, logout_uris, is_public, may_scan, is_near,
                           takes_user_codes)
VALUES ($1, $4, $5::text[], $6::text[], $7::text[], true, false, false, false)
ON CONFLICT (name) DO UPDATE
   SET title = excluded.title, scopes = excluded.scopes, redirect_uris = excluded.redirect_uris,
       logout_uris = excluded.logout_uris
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class OAuthClient:
    """One of the operator's own sites, which may log people in."""

    name: str
    """The site's `client_id`."""
    title: str
    app_id: str | None
    scopes: Sequence[str]
    redirect_uris: Sequence[str]
    logout_uris: Sequence[str]
    is_public: bool
    may_scan: bool
    is_near: bool
    takes_user_codes: bool
    email_domain: str | None
    id_token_alg: IdTokenAlg = ID_TOKEN_ALG


@dataclass(frozen=True, slots=True, kw_only=True)
class WholeClient:
    """A service client, and the site that it is, if it is one."""

    name: str
    siblings_scopes: Sequence[str]
    site: OAuthClient | None


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredClient(WholeClient):
    """A client as it is stored."""

    created_at: datetime
    former_secret_until: datetime | None


async def find_client(database: Database, name: str) -> OAuthClient | None:
    """The OAuth client of this name. Raises: StorageUnavailable."""
    row = await database.fetchrow(_FIND, name)
    return None if row is None else OAuthClient(**row)


async def all_oauth_clients(database: Database) -> Sequence[OAuthClient]:
    """Every OAuth client, by name. Raises: StorageUnavailable."""
    return [OAuthClient(**row) for row in await database.fetch(_ALL)]


async def all_clients(database: Database) -> Sequence[StoredClient]:
    """Every service client, sites among them, by name. Raises: StorageUnavailable."""
    return [_stored_client(row) for row in await database.fetch(_ALL_CLIENTS)]


async def lock_client(transaction: Transaction, name: str) -> StoredClient | None:
    """The client of this name, which nobody else changes until the transaction ends."""
    if await transaction.fetchval(_LOCK, name) is None:
        return None
    (row,) = await transaction.fetch(_CLIENT, name)
    return _stored_client(row)


async def store_change(transaction: Transaction, client: StoredClient) -> None:
    """Have a client that is locked stored as it is here."""
    await transaction.execute(_SET_SCOPES, client.name, client.siblings_scopes)
    if client.site is not None:
        await transaction.execute(_PUT_SITE, *asdict(client.site).values())


async def those_named(database: Database, names: Sequence[str]) -> Sequence[str]:
    """Which of these names are OAuth clients'. Raises: StorageUnavailable."""
    return [row["name"] for row in await database.fetch(_NAMED, names)]


async def public_redirect_uris(database: Database) -> Sequence[str]:
    """The redirect URIs of all public clients. Raises: StorageUnavailable."""
    return [row["uri"] for row in await database.fetch(_PUBLIC_REDIRECT_URIS)]


async def store_oauth_client(
    database: Database,
    client: OAuthClient,
    *,
    secret_hash: bytes,
    siblings_scopes: Sequence[str],
    by: Actor,
    now: datetime,
) -> bool:
    """Whether the name was free, and now is this client's. Raises: StorageUnavailable."""
    name, *columns = asdict(client).values()
    event = (new_id(now), EventType.SERVICE_CLIENT_ADDED.value, by.name)
    async with database.begin() as transaction:
        return await transaction.fetchval(_STORE, name, secret_hash, now, *event, *columns, siblings_scopes) is not None


async def ensure_own_client(database: Database, client: OAuthClient, *, secret_hash: bytes, now: datetime) -> None:
    """Store this public client, whatever was stored under its name before. Raises: StorageUnavailable."""
    await database.fetchrow(
        _ENSURE_OWN,
        client.name,
        secret_hash,
        now,
        client.title,
        client.scopes,
        client.redirect_uris,
        client.logout_uris,
    )


def _stored_client(row: Mapping[str, Any]) -> StoredClient:
    values = dict(row)
    known = {name: values.pop(name) for name in ("created_at", "former_secret_until", "siblings_scopes")}
    site = None if values["title"] is None else OAuthClient(**values)
    return StoredClient(name=values["name"], site=site, **known)
