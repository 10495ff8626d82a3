"""The export of users: one line per identity, in a format that an import accepts."""

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from io import StringIO
from typing import Final

from pydantic_core import from_json, to_json

from wxauth.server.core.database import Database
from wxauth.server.moving.export_rows import all_identities
from wxauth.server.moving.files import LISTS
from wxauth.server.moving.lines import Line

_RARE: Final = ("attributes", "ban_reason", "banned_until", "erase_at", "former_external_ids")


async def export_users(database: Database, write: Callable[[bytes], object], *, is_csv: bool = False) -> int:
    """Write every identity of one consistent snapshot, as JSON or CSV, and return how many."""
    number = 0
    if is_csv:
        write(_csv([list(Line.model_fields)]))
    async for rows in all_identities(database):
        write(_csv(map(_cells, rows)) if is_csv else b"".join(to_json(_line(row)) + b"\n" for row in rows))
        number += len(rows)
    return number


def _csv(rows: Iterable[Sequence[str]]) -> bytes:
    text = StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue().encode()


def _cells(row: Mapping[str, object]) -> list[str]:
    """The cells for a row, as an import reads them."""
    line = from_json(to_json(dict(row)))
    return ["" if (value := line[name]) in (None, []) else _cell(name, value) for name in Line.model_fields]


def _cell(name: str, value: object) -> str:
    if isinstance(value, str):
        return value
    if name in LISTS and isinstance(value, list) and not any("|" in item for item in value):
        return "|".join(value)
    return to_json(value).decode()


def _line(row: Mapping[str, object]) -> dict[str, object]:
    """The line for a row. Rare fields are omitted where they are null."""
    return {name: value for name, value in row.items() if value is not None or name not in _RARE}
