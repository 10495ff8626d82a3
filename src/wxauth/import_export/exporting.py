"""The export of users, in the format that an import reads."""

from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from pydantic_core import to_json

from wxauth.core.database import Database
from wxauth.import_export.queries import all_identities

# Few users have values in these fields, so an exported line contains only those that are not null.
_RARE_FIELDS: Final = ("attributes", "ban_reason", "banned_until", "erase_at", "former_external_ids")


class ExportedLines(NamedTuple):
    identities: int
    unionids: int
    """Lines with a unionid that belongs to none of its user's identities."""


async def export_users(database: Database, write: Callable[[bytes], object]) -> ExportedLines:
    """Write a consistent snapshot of all users as JSON Lines. Each call of `write` gets several whole lines."""
    identities = unionids = 0
    async for rows in all_identities(database):
        write(b"".join(to_json(_line(row)) + b"\n" for row in rows))
        with_openid = sum(row["openid"] is not None for row in rows)
        identities += with_openid
        unionids += len(rows) - with_openid
    return ExportedLines(identities, unionids)


def _line(row: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in row.items() if value is not None or name not in _RARE_FIELDS}
