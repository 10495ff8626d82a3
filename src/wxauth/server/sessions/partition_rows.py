"""The partitions of `sessions` in the database, and the transactions that change them.

Each takes milliseconds and waits half a second at most for a lock, because logins wait behind it. They are put together
from the names of partitions, which cannot be parameters. See docs/decisions/0011-partitions-of-sessions.md.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

import asyncpg

from wxauth.server.core.database import Database, raise_if_unavailable
from wxauth.server.core.ids import first_id_at
from wxauth.server.core.statements import Nothing, Statement

DEFAULT: Final = "sessions_default"
"""Has what no other partition has, so that a week that nobody has prepared stops no login. It is empty otherwise."""
_FORMER: Final = "sessions_before"

_LIMITS: Final = "SET LOCAL lock_timeout = 500; SET LOCAL statement_timeout = 0"
_LOCK: Final = "SELECT pg_advisory_xact_lock(hashtext('wxauth.partitions'))"
# A login locks `users` first, too.
_LOCK_USERS: Final = "LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE"
_LOCK_SESSIONS: Final = "LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE"
_FOREIGN_KEYS: Final = """
SELECT format('ALTER TABLE sessions ADD CONSTRAINT %I %s', conname, pg_get_constraintdef(oid))
  FROM pg_constraint WHERE conrelid = 'sessions'::regclass AND contype = 'f'
"""
_TRIGGERS: Final = """
SELECT pg_get_triggerdef(oid) FROM pg_trigger WHERE tgrelid = 'sessions'::regclass AND NOT tgisinternal ORDER BY tgname
"""
_DROPS_OF_TRIGGERS: Final = """
SELECT format('DROP TRIGGER %I ON sessions', tgname)
  FROM pg_trigger WHERE tgrelid = 'sessions'::regclass AND NOT tgisinternal
"""
# The indexes and foreign keys of table $2 whose names begin with $1.
_RENAMES: Final = """
SELECT format('ALTER INDEX %s RENAME TO %I', indexrelid::regclass, replace(relname, $1, $2))
  FROM pg_index JOIN pg_class c ON c.oid = indexrelid WHERE indrelid = $2::text::regclass
 UNION ALL
SELECT format('ALTER TABLE %I RENAME CONSTRAINT %I TO %I', $2, conname, replace(conname, $1, $2))
  FROM pg_constraint WHERE conrelid = $2::text::regclass AND contype = 'f' AND conname LIKE $1 || '%'
"""
_HAS_ROWS: Final = "SELECT EXISTS (SELECT FROM {})"
_OPTIONS: Final = "SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = $1::text::regclass"


@dataclass(frozen=True, slots=True)
class Partition:
    """A partition of `sessions`."""

    name: str
    end: datetime | None
    """None for the default partition."""
    bytes: int
    """With its indexes."""


# The time with which an id begins, of its first thirteen characters.
_TIME: Final = "to_timestamp(('x' || replace({}, '-', ''))::bit(48)::bigint / 1000.0)"
PREPARED_UNTIL: Final = f"""
(SELECT {_TIME.format("left(after::text, 13)")} FROM sweeps WHERE name = 'partitions')"""  # noqa: S608 - put together from constants
"""SQL for the end of the last week that is prepared; null if none are to be."""
_PREPARED_UNTIL: Final = Statement[datetime](f"SELECT {PREPARED_UNTIL} AS prepared_until")
_NOTE_PREPARED: Final = """
INSERT INTO sweeps (name, after, due_at) VALUES ('partitions', $1, $2)
ON CONFLICT (name) DO UPDATE SET after = excluded.after, due_at = excluded.due_at
"""
_NOTE_NO_MORE: Final = "DELETE FROM sweeps WHERE name = 'partitions'"
_END: Final = _TIME.format(r"substring(pg_get_expr(c.relpartbound, c.oid) FROM 'TO \(''(.{13})')")
_PARTITIONS: Final = Statement[Partition](f"""
SELECT c.relname::text AS name, {_END} AS "end", pg_total_relation_size(c.oid) AS bytes
  FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid
 WHERE inhparent = to_regclass('sessions') ORDER BY "end" NULLS LAST
""")  # noqa: S608 - put together from constants
_MARKED: Final = _TIME.format("substring(pg_get_constraintdef(oid) FROM '< ''(.{13})')")
_CUT: Final = Statement[datetime](f"""
SELECT {_MARKED} AS cut
  FROM pg_constraint
 WHERE conname = 'before_cut' AND conrelid IN (to_regclass('sessions'), to_regclass('sessions_default'))
""")  # noqa: S608 - put together from constants
_DELETE_SITES_ROWS: Final = Statement[Nothing]("""
DELETE FROM website_sessions
 WHERE session_id = ANY (ARRAY(SELECT session_id FROM website_sessions
                                WHERE session_id < :next ORDER BY session_id LIMIT :size))
""")


async def partitions_of_sessions(database: Database) -> Sequence[Partition]:
    """The partitions, the oldest first and the default one last; none if `sessions` is a plain table.

    Raises: StorageUnavailable.
    """
    return await database.rows(_PARTITIONS)


async def prepared_until(database: Database) -> datetime | None:
    """The end of the last week that is prepared; None if none are to be. Raises: StorageUnavailable."""
    return await database.value(_PREPARED_UNTIL)


async def pending_cut(database: Database) -> datetime | None:
    """The time from which on a conversion that is under way, or was stopped, lets no session be opened.

    Raises: StorageUnavailable.
    """
    return await database.value(_CUT)


async def mark_cut(database: Database, table: str, cut: datetime, *, since: datetime | None) -> None:
    """Have all sessions of a table stand before the cut, and not before `since`. Raises: StorageUnavailable."""
    async with _changing(database) as connection:
        check = f"id < '{first_id_at(cut)}'" + (f" AND id >= '{first_id_at(since)}'" if since else "")
        await connection.execute(f"ALTER TABLE {table} ADD CONSTRAINT before_cut CHECK ({check}) NOT VALID")


async def check_cut(database: Database, table: str) -> None:
    """Read all sessions of a table, beside logins, so that it need not be read under a lock when it is cut.

    Raises: StorageUnavailable.
    """
    async with _changing(database) as connection:
        await connection.execute(f"ALTER TABLE {table} VALIDATE CONSTRAINT before_cut")


async def forget_cut(database: Database) -> None:
    """Let sessions be opened after the cut again, if a conversion was stopped. Raises: StorageUnavailable."""
    async with _changing(database) as connection:
        await connection.execute("ALTER TABLE IF EXISTS sessions_default DROP CONSTRAINT IF EXISTS before_cut")
        await connection.execute("ALTER TABLE ONLY sessions DROP CONSTRAINT IF EXISTS before_cut")


async def cut_sessions(database: Database, cut: datetime, *, until: datetime, now: datetime) -> None:
    """Turn `sessions` into a partitioned table, of which it is the partition before `cut`; add weeks from there on.

    Raises: StorageUnavailable.
    """
    async with _changing(database) as connection:
        await connection.execute(_LOCK_USERS)
        await connection.execute(_LOCK_SESSIONS)
        foreign_keys, triggers = await _texts(connection, _FOREIGN_KEYS), await _texts(connection, _TRIGGERS)
        await _run(connection, await _texts(connection, _DROPS_OF_TRIGGERS))
        await _rename(connection, "sessions", _FORMER)
        await connection.execute(f"CREATE TABLE sessions (LIKE {_FORMER} INCLUDING ALL) PARTITION BY RANGE (id)")
        await connection.execute("ALTER TABLE sessions DROP CONSTRAINT before_cut")
        await _run(connection, foreign_keys)
        await connection.execute(f"ALTER TABLE sessions ATTACH PARTITION {_FORMER} {_bounds(None, cut)}")
        await connection.execute(f"ALTER TABLE {_FORMER} DROP CONSTRAINT before_cut")
        await _attach(connection, DEFAULT, "DEFAULT", like=_FORMER)
        await _run(connection, triggers)
        await _add_weeks(connection, cut, until=until, now=now)


async def cut_default(database: Database, cut: datetime, *, since: datetime, until: datetime, now: datetime) -> None:
    """Turn the default partition into that of the time between `since` and `cut`; add an empty one, and weeks.

    Raises: StorageUnavailable.
    """
    async with _changing(database) as connection:
        await connection.execute(_LOCK_USERS)
        await connection.execute(_LOCK_SESSIONS)
        name = _name_of(since)
        await connection.execute(f"ALTER TABLE sessions DETACH PARTITION {DEFAULT}")
        await _rename(connection, DEFAULT, name)
        await connection.execute(f"ALTER TABLE sessions ATTACH PARTITION {name} {_bounds(since, cut)}")
        await connection.execute(f"ALTER TABLE {name} DROP CONSTRAINT before_cut")
        await _attach(connection, DEFAULT, "DEFAULT", like=name)
        await _add_weeks(connection, cut, until=until, now=now)


async def add_weeks(database: Database, first: datetime, *, until: datetime, now: datetime) -> bool:
    """Add weeks from `first`, the end of the last partition, to `until`. Not if the default partition has sessions.

    Returns whether it was empty. Raises: StorageUnavailable.
    """
    async with _changing(database) as connection:
        if await connection.fetchval(_HAS_ROWS.format(DEFAULT)):
            return False
        await connection.execute(_LOCK_USERS)
        await _add_weeks(connection, first, until=until, now=now)
        return True


async def drop_partition(database: Database, name: str, end: datetime, *, size: int) -> bool:
    """Drop a partition with an end, or rather delete a page of what belongs to its sessions, if there still is any.

    Returns whether it is dropped. Raises: StorageUnavailable.
    """
    async with database.begin() as transaction:
        if await transaction.run(_DELETE_SITES_ROWS, next=first_id_at(end), size=size):
            return False
    async with _changing(database) as connection:
        await connection.execute(_LOCK_USERS)
        await connection.execute(f"DROP TABLE {name}")
    return True


async def stop_partitions(database: Database) -> None:
    """Have no more weeks made. Raises: StorageUnavailable."""
    async with _changing(database) as connection:
        await connection.execute(_NOTE_NO_MORE)


async def join_partitions(database: Database) -> bool:
    """Drop the empty partitions. If all sessions are in one, it becomes `sessions`, a plain table: returns whether.

    Raises: StorageUnavailable.
    """
    async with _changing(database) as connection:
        await connection.execute(_LOCK_USERS)
        await connection.execute(_LOCK_SESSIONS)
        names = [partition["name"] for partition in await connection.fetch(_PARTITIONS.text)]
        used = [name for name in names if await connection.fetchval(_HAS_ROWS.format(name))]
        await _run(connection, [f"DROP TABLE {name}" for name in names if name not in used and name != DEFAULT])
        if len(used) > 1:
            return False
        [one] = used or [DEFAULT]
        triggers = await _texts(connection, _TRIGGERS)
        await connection.execute(f"ALTER TABLE sessions DETACH PARTITION {one}")
        await connection.execute("DROP TABLE sessions")
        await _rename(connection, one, "sessions")
        await _run(connection, triggers)
        return True


@asynccontextmanager
async def _changing(database: Database) -> AsyncIterator[asyncpg.Connection]:
    connection = None
    try:
        connection = await database.connect(command_timeout=None)
        async with connection.transaction():
            await connection.execute(_LIMITS)
            await connection.execute(_LOCK)
            yield connection
    except Exception as exc:
        raise_if_unavailable(exc, is_closed=connection is not None and connection.is_closed())
        raise
    finally:
        if connection is not None:
            connection.terminate()


async def _add_weeks(connection: asyncpg.Connection, first: datetime, *, until: datetime, now: datetime) -> None:
    while first < until:
        next_one = first + timedelta(weeks=1)
        await _attach(connection, _name_of(first), _bounds(first, next_one), like=DEFAULT)
        first = next_one
    await connection.execute(_NOTE_PREPARED, first_id_at(first), now)


def _name_of(first: datetime) -> str:
    return f"sessions_{first:%Y%m%d}"


def _bounds(first: datetime | None, end: datetime) -> str:
    lowest = f"'{first_id_at(first)}'" if first else "MINVALUE"
    return f"FOR VALUES FROM ({lowest}) TO ('{first_id_at(end)}')"


async def _attach(connection: asyncpg.Connection, name: str, bounds: str, *, like: str) -> None:
    options = await connection.fetchval(_OPTIONS, like)
    await connection.execute(f"CREATE TABLE {name} (LIKE {like} INCLUDING DEFAULTS INCLUDING STORAGE) WITH ({options})")
    await connection.execute(f"ALTER TABLE sessions ATTACH PARTITION {name} {bounds}")


async def _rename(connection: asyncpg.Connection, former: str, name: str) -> None:
    await connection.execute(f"ALTER TABLE {former} RENAME TO {name}")
    await _run(connection, [record[0] for record in await connection.fetch(_RENAMES, former, name)])


async def _texts(connection: asyncpg.Connection, query: str) -> list[str]:
    return [record[0] for record in await connection.fetch(query)]


async def _run(connection: asyncpg.Connection, statements: Iterable[str]) -> None:
    for statement in statements:
        await connection.execute(statement)
