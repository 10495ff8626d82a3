"""Apps that were added at run time, their secrets sealed."""

from collections.abc import Mapping
from typing import Any, Final

from sqlalchemy import select, update
from sqlalchemy.dialects.postgresql import insert
from sqlmodel import col

from wxauth.server.apps.tables import StoredApp
from wxauth.server.core.database import Database, Transaction

SEALED: Final = ("app_secret", "push_token", "push_aes_key")
"""The columns that are sealed."""

_TABLE: Final = StoredApp.__table__  # type: ignore[attr-defined]  # SQLModel adds it
_APPS: Final = select(_TABLE).order_by(col(StoredApp.created_at), col(StoredApp.app_id))
_IS_SITES: Final = "SELECT EXISTS (SELECT FROM clients WHERE name = $1 AND title IS NOT NULL)"
_REMOVE: Final = "DELETE FROM apps WHERE app_id = $1 RETURNING app_id"
# Only if all three are still those that were read: secrets changed meanwhile are sealed with the current key already.
# $1 app_id  $2 to $4 the secrets as they were read  $5 to $7 the same, sealed anew
_RESEAL: Final = """
UPDATE apps SET app_secret = $5, push_token = $6, push_aes_key = $7
 WHERE app_id = $1 AND app_secret = $2
   AND push_token IS NOT DISTINCT FROM $3 AND push_aes_key IS NOT DISTINCT FROM $4
RETURNING app_id
"""


async def stored_apps(database: Database) -> list[StoredApp]:
    """Every stored app, in the order in which they were added. Raises: StorageUnavailable."""
    return [StoredApp(**row) for row in await database.fetch(_APPS)]


async def lock_app(transaction: Transaction, app_id: str) -> StoredApp | None:
    """Lock this app, so that nobody else changes it until the transaction ends; None if it is not stored."""
    wanted = select(_TABLE).where(col(StoredApp.app_id) == app_id).with_for_update()
    row = await transaction.fetchrow(wanted)
    return None if row is None else StoredApp(**row)


async def store_app(transaction: Transaction, app: StoredApp) -> bool:
    """Store a new app; whether its id was free."""
    # Of several requests for one id at once, one wins.
    statement = insert(StoredApp).values(app.model_dump()).on_conflict_do_nothing().returning(col(StoredApp.app_id))
    return await transaction.fetchval(statement) is not None


async def is_name_of_site(database: Database, name: str) -> bool:
    """Whether a site has this name. Raises: StorageUnavailable."""
    return bool((await database.fetchrow(_IS_SITES, name))[0])


async def change_app(transaction: Transaction, app: StoredApp) -> None:
    """Store the changes of a locked app."""
    await transaction.execute(
        update(StoredApp).where(col(StoredApp.app_id) == app.app_id).values(app.model_dump(exclude={"app_id"}))
    )


async def delete_app(transaction: Transaction, app_id: str) -> bool:
    """Delete an app; whether it was stored."""
    return await transaction.fetchval(_REMOVE, app_id) is not None


async def replace_app_secrets(database: Database, app: StoredApp, anew: Mapping[str, Any]) -> bool:
    """Replace an app's sealed secrets if they are still those that were read; whether they were.

    Raises: StorageUnavailable.
    """
    former = [getattr(app, name) for name in SEALED]
    return await database.fetchrow(_RESEAL, app.app_id, *former, *(anew[name] for name in SEALED)) is not None
