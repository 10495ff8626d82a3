"""The export of users: one line per identity, in the format that an import accepts."""

from collections.abc import Callable, Mapping
from typing import Final

from pydantic_core import to_json

from wxauth.server.core.database import Database
from wxauth.server.moving.export_rows import all_identities

_RARE: Final = ("attributes", "ban_reason", "banned_until", "erase_at", "former_external_ids")


async def export_users(database: Database, write: Callable[[bytes], object]) -> int:
    """Write every identity of one consistent snapshot, and return how many."""
    number = 0
    async for rows in all_identities(database):
        write(b"".join(to_json(_line(row)) + b"\n" for row in rows))
        number += len(rows)
    return number


def _line(row: Mapping[str, object]) -> dict[str, object]:
    """The line for a row. Rare fields are omitted where they are null."""
    return {name: value for name, value in row.items() if value is not None or name not in _RARE}
