"""The export of users: each identity is a line that an import takes."""

from collections.abc import Callable

from pydantic_core import to_json

from wxauth.server.core.database import Database
from wxauth.server.moving.export_rows import all_identities
from wxauth.server.moving.lines import exported_line


async def export_users(database: Database, write: Callable[[bytes], object]) -> int:
    """Write every identity of one consistent snapshot; how many. Raises: StorageUnavailable."""
    number = 0
    async for rows in all_identities(database):
        write(b"".join(to_json(exported_line(row)) + b"\n" for row in rows))
        number += len(rows)
    return number
