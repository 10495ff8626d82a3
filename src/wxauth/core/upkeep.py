"""Statements that several tables need in the same form. They delete old rows, or replace sealed (encrypted) values."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, LiteralString, Self

from wxauth.core.database import Database, Transaction
from wxauth.core.statements import Nothing, Statement


@dataclass(frozen=True, slots=True)
class Sweep:
    """The deletion of the old rows of a table. `of` builds the usual statement, which compares one column."""

    statement: Statement[Nothing]  # with the parameters `before` and `size`

    @classmethod
    def of(cls, table: LiteralString, *, key: LiteralString, by: LiteralString) -> Self:
        """Build the deletion for a table. `by` is the indexed column that is compared.

        The statement skips locked rows, so that several processes can delete old rows at the same time, and so that no
        process waits for a request that uses a row.
        """
        statement = Statement[Nothing](f"""
DELETE FROM {table} WHERE {key} = ANY (ARRAY(
    SELECT {key} FROM {table} WHERE {by} < :before ORDER BY {by} LIMIT :size FOR UPDATE SKIP LOCKED))
""")
        return cls(statement)

    async def __call__(self, database: Database, *, before: Any, size: int) -> int:
        """Delete at most `size` old rows, and return their number. `before` has the type of the compared column."""
        # A table can grow from empty to large between two deletions, and the earlier plan might then read all of it.
        async with database.begin(replan=True) as transaction:
            return await transaction.run(self.statement, before=before, size=size)


@dataclass(frozen=True, slots=True)
class Reseal:
    """The replacement of the sealed values in some columns of a row, unless a value has changed since it was read."""

    key: str
    columns: Sequence[str]
    statement: Statement[bool]  # returns no row if a value has changed, or if the row has been deleted

    @classmethod
    def of(cls, table: LiteralString, *columns: LiteralString, key: LiteralString) -> Self:
        """Build the replacement for some columns of a table with the primary key `key`."""
        assignments = ", ".join(f"{name} = :{name}_resealed" for name in columns)
        are_unchanged = " AND ".join(f"{name} IS NOT DISTINCT FROM :{name}" for name in columns)
        statement = Statement[bool](
            f"UPDATE {table} SET {assignments} WHERE {key} = :{key} AND {are_unchanged} RETURNING true AS is_replaced"
        )
        return cls(key, columns, statement)

    async def __call__(self, database: Database | Transaction, row: object, *resealed: bytes | None) -> bool:
        """Replace the values that were read into the attributes of `row`. Return whether they were replaced."""
        read = {name: getattr(row, name) for name in (self.key, *self.columns)}
        values = {f"{name}_resealed": value for name, value in zip(self.columns, resealed, strict=True)}
        return await database.value(self.statement, **read, **values) is not None
