"""Sweeps of what has expired: a page of the oldest rows of a table that nobody has locked."""

from dataclasses import dataclass
from typing import Any, Self

from wxauth.server.core.database import Database
from wxauth.server.core.statements import Nothing, Statement


@dataclass(frozen=True, slots=True)
class Sweep:
    """Deletes the rows of a table in which a column is before a value."""

    statement: Statement[Nothing]

    @classmethod
    def of(cls, table: str, *, key: str, by: str) -> Self:
        """The sweep of a table by an indexed column."""
        return cls(
            Statement[Nothing](f"""
DELETE FROM {table} WHERE {key} = ANY (ARRAY(
    SELECT {key} FROM {table} WHERE {by} < :before ORDER BY {by} LIMIT :size FOR UPDATE SKIP LOCKED))
""")  # noqa: S608 - put together from constants
        )

    async def __call__(self, database: Database, *, before: Any, size: int) -> int:
        """Delete at most `size` rows, the oldest first. Returns how many."""
        async with database.begin() as transaction:
            return await transaction.run(self.statement, before=before, size=size)
