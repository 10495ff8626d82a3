"""The statements that add, read, change and remove clients, and the page-by-page deletion of removed clients."""

from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Final, LiteralString, NamedTuple

from wxauth.clients.models import AddedClient, Client, ClientWithSecrets
from wxauth.core.database import Database
from wxauth.core.statements import Nothing, Statement, columns_of, fragment
from wxauth.core.trail import Actor
from wxauth.sessions.queries import end_page_of_client


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceClient:
    """A client, with the fields that wxauth needs for a request that the client sends as a service."""

    name: str
    secret_hash: bytes | None = field(repr=False)
    former_secret_hash: bytes | None = field(repr=False)
    former_secret_until: datetime | None
    scopes: list[str]
    resources: list[str]


REMOVE: Final = Statement[str]("""
WITH client AS (
    SELECT name FROM clients WHERE name = :name AND removed_by IS NULL
       -- Logins that are opening a session of this client have locked it FOR KEY SHARE. A plain UPDATE would not wait
       -- for them, because it does not change the name, which is the key. Later logins no longer find the client.
       FOR UPDATE
)
UPDATE clients SET removed_by = :by FROM client WHERE clients.name = client.name RETURNING clients.name
""")
# This lock lets only one transaction at a time delete the rows of removed clients, so that the load on the database
# does not depend on the number of removed clients.
_TRY_LOCK: Final = Statement[bool]("SELECT pg_try_advisory_xact_lock(hashtext('wxauth.removed_clients'))")
_NEXT_REMOVED: Final = Statement[tuple[str, str]]("""
SELECT name, removed_by FROM clients
 WHERE removed_by IS NOT NULL AND (:name::text IS NULL OR name = :name) AND name > :after
 ORDER BY name LIMIT 1
""")
# The rows in these tables are deleted in addition to the sessions.
_TABLES_OF_CLIENT: Final[tuple[LiteralString, ...]] = ("site_logins", "browser_login_sites")
_DELETE_PAGES: Final = tuple(
    Statement[Nothing](f"""
-- with `ctid` in an array, PostgreSQL finds the page's rows once, and deletes them without an index
DELETE FROM {table} WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM {table} WHERE client_id = :name LIMIT :size
       FOR UPDATE SKIP LOCKED  -- a later page deletes locked rows, so that no login waits for more than one page
))
""")
    for table in _TABLES_OF_CLIENT
)
_NO_ROWS_LEFT: Final = " AND ".join(
    f"NOT EXISTS (SELECT FROM {table} WHERE client_id = :name)" for table in ("website_sessions", *_TABLES_OF_CLIENT)
)
_DELETE_IF_EMPTY: Final = Statement[str](f"""
DELETE FROM clients
 WHERE name = :name
   AND {_NO_ROWS_LEFT}
RETURNING name
""")
SESSIONS_LEFT: Final = Statement[int]("""
-- some of these sessions may have ended earlier; `end_removed_page` has not processed them yet
SELECT (SELECT count(*) FROM website_sessions WHERE client_id = clients.name) AS number
  FROM clients WHERE name = :name AND removed_by IS NOT NULL
""")
RENEW: Final = Statement[list[str]]("""
UPDATE clients
   SET secret_hash = :secret_hash,
       former_secret_hash = CASE WHEN :former_until::timestamptz IS NOT NULL THEN secret_hash END,
       former_secret_until = :former_until
 WHERE name = :name AND NOT is_public AND removed_by IS NULL
RETURNING scopes
""")


def _select(*columns: LiteralString) -> LiteralString:
    return f"SELECT {', '.join(columns)} FROM clients WHERE removed_by IS NULL"


def _columns_without_logo(kind: type[Client]) -> list[LiteralString]:
    return ["NULL::text AS logo" if column == "logo" else column for column in columns_of(kind)]


SERVICE_COLUMNS: Final = ", ".join(f"clients.{fragment(each.name)}" for each in fields(ServiceClient))
FIND_SERVICE: Final = Statement[ServiceClient](f"{_select(SERVICE_COLUMNS)} AND name = :name")
# These two statements leave out the logo, which has up to 44 KB, because each request for tokens reads the client.
FIND_WITH_SECRETS: Final = Statement[ClientWithSecrets](
    f"{_select(*_columns_without_logo(ClientWithSecrets))} AND name = :name"
)
FIND_SITE: Final = Statement[Client](
    f"{_select(*_columns_without_logo(Client))} AND name = :name AND title IS NOT NULL"
)
LOGO: Final = Statement[str | None](f"{_select('logo')} AND name = :name")
ALL_CLIENTS: Final = Statement[AddedClient](f"{_select(*columns_of(AddedClient))} ORDER BY name")
LOCK: Final = Statement[AddedClient](f"""
{_select(*columns_of(AddedClient))} AND name = :name
   FOR NO KEY UPDATE  -- so that logins can open sessions in the meantime
""")
SITES_NAMED: Final = Statement[str](
    f"{_select('name')} AND name = ANY (:names::text[]) AND title IS NOT NULL ORDER BY name"
)
PUBLIC_REDIRECT_URIS: Final = Statement[str](f"{_select('DISTINCT unnest(redirect_uris) AS uri')} AND is_public")
_COLUMNS: Final = ", ".join(columns_of(Client))
# In this statement, and in `CHANGE`, the parameter :client is a `Client`, which the driver encodes as JSON.
_INSERT_FRAGMENT: Final = f"""
INSERT INTO clients ({_COLUMNS}, secret_hash, created_at)
SELECT {_COLUMNS}, :secret_hash, :now FROM jsonb_populate_record(NULL::clients, :client)"""


def _assignments_from(source: LiteralString) -> LiteralString:
    """Return the assignments of an UPDATE that copies all columns of `Client` except the name from the row `source`.

    Setting the name, even to the same value, would lock the row against new sign-in requests, which refer to it.
    """
    return ", ".join(f"{column} = {source}.{column}" for column in columns_of(Client) if column != "name")


ADD: Final = Statement[str](f"{_INSERT_FRAGMENT} ON CONFLICT DO NOTHING RETURNING name")
ADD_OR_REPLACE: Final = Statement[Nothing](
    f"{_INSERT_FRAGMENT} ON CONFLICT (name) DO UPDATE SET {_assignments_from('excluded')}"
)
CHANGE: Final = Statement[Nothing](f"""
UPDATE clients SET {_assignments_from("changed")}
  FROM jsonb_populate_record(NULL::clients, :client) AS changed WHERE clients.name = changed.name
""")


class RemovedPage(NamedTuple):
    """The result of deleting one page of the rows that belong to a removed client."""

    name: str
    rows: int  # in all tables
    is_last: bool  # so that the client itself was deleted, and a new client can have the name


async def end_removed_page(
    database: Database, *, size: int, name: str | None = None, after: str = "", now: datetime
) -> RemovedPage | None:
    """End up to `size` sessions of a removed client, and delete up to `size` of its rows in each other table.

    After the last page, also delete the client. Without `name`, it is the first removed client after `after`. The
    result is None if there is none, or if another process is already doing this.
    """
    # PostgreSQL plans the statements again, because the tables may have grown since the previous client was removed.
    async with database.begin(replan=True) as transaction:
        if not await transaction.value(_TRY_LOCK):
            return None
        removed = await transaction.row(_NEXT_REMOVED, name=name, after=after)
        if removed is None:
            return None
        name, by = removed
        row_counts = [await end_page_of_client(transaction, name, size=size, by=Actor(by), now=now)]
        row_counts += [await transaction.run(statement, name=name, size=size) for statement in _DELETE_PAGES]
        # If a page is full, more rows are probably left, so `_DELETE_IF_EMPTY` would only cost time.
        is_last = max(row_counts) < size and await transaction.value(_DELETE_IF_EMPTY, name=name) is not None
        return RemovedPage(name, sum(row_counts), is_last)
