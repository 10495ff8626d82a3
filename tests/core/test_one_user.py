"""Statements that read a page of one user's rows don't read the rows of others.

They are planned with statistics of a table that held one user. With these statistics, PostgreSQL expects to find rows
of any user anywhere. For `user_id = …` with LIMIT, it reads a primary key from one end, and repeats this for each user.
This happens on every new installation, because its tables are analyzed when they hold only the first users.
"""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.core.statements import STATEMENTS
from tests.world import Rows

pytestmark = pytest.mark.own_database

OTHERS = 4_000
USER = UUID(f"{OTHERS // 2:032}")
"""The user whose rows are read, who is in the middle.

Each user except the first has one row in each table, and this row's id is the user's id.
"""
PLANTED = """
INSERT INTO users (id, created_at) SELECT row_id, now() FROM planted;
INSERT INTO identities (user_id, app_id, openid, created_at) SELECT id, 'wx', row_id::text, now() FROM planted;
INSERT INTO sessions (id, user_id, app_id, openid, created_at, last_used_at, expires_at)
SELECT row_id, id, 'wx', row_id::text, now(), now(), now() FROM planted;
INSERT INTO events (id, type, at, actor, user_id, ip)
SELECT row_id, 'user.created', now(), id::text, id, '127.0.0.1' FROM planted;
INSERT INTO refusals (id, at, code, request_id, user_id)
SELECT row_id, now(), row_id::text, row_id::text, id FROM planted;
INSERT INTO deliveries (receiver_id, event_id, id, type, user_id, at, next_at)
SELECT id, row_id, row_id, 'user.created', id, now(), now() FROM planted;
INSERT INTO consents (id, user_id, document, version, given_at)
SELECT row_id, id, row_id::text, row_id::text, now() FROM planted;
"""
BY_TYPE: dict[str, Any] = {
    "uuid": USER,
    "uuid[]": [USER],
    "text": str(USER),
    "text[]": ["user.created"],
    "int4": 1,
    "int8": 1,
}
BY_NAME: dict[str, Any] = {
    "first": UUID(int=0),
    "after_id": UUID(int=0),
    "after": UUID(int=0),
    "lowest": UUID(int=0),
    "before": UUID(int=2**128 - 1),
    "app_id": "wx",
    "ip": "127.0.0.1",
}
OF_ALL = {
    "import_export.queries._EXPORTED_LINES",
    "login.refusal_queries._SEARCHES.None",
    "users.history_queries._ALL_LOGINS",
}
"""Statements that filter by a user only if another condition already selects the index."""

RECENT = {"after": UUID(f"{OTHERS - 10:032}"), "until": UUID(int=2**128 - 1)}

READ = """
SELECT relname, seq_tup_read + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables
 WHERE relname IN ('sessions', 'events', 'refusals', 'deliveries', 'consents')
"""


@pytest.fixture
async def statistics_of_one_user(rows: Rows) -> None:
    await rows.execute("SET session_replication_role = replica")  # this setting switches triggers and foreign keys off
    await rows.execute("CREATE TEMP TABLE planted (id uuid, row_id uuid)")
    of_number = "lpad(number::text, 32, '0')::uuid FROM generate_series"
    await rows.execute(f"INSERT INTO planted SELECT '{UUID(int=1)}', {of_number}(1, 200) AS number")
    await rows.execute(PLANTED)
    await rows.execute("ANALYZE; TRUNCATE planted")
    await rows.execute(
        f"INSERT INTO planted SELECT id, id FROM (SELECT {of_number}(201, {OTHERS}) AS number) AS made (id)"
    )
    await rows.execute(PLANTED)


async def most_read(rows: Rows, prepared: asyncpg.prepared_stmt.PreparedStatement, *values: Any) -> int:
    """Return how many rows of a table the statement reads after PostgreSQL can use a plan for any values."""
    read = 0
    for _ in range(7):
        transaction = rows.transaction()
        await transaction.start()
        before = dict(await rows.fetch(READ))
        await prepared.fetch(*values)
        read = max(number - before.get(name, 0) for name, number in await rows.fetch(READ))
        await transaction.rollback()
    return read


@pytest.mark.slow
async def test_a_page_of_one_user_reads_no_others_even_if_the_statistics_know_one_user(
    rows: Rows, statistics_of_one_user: None
) -> None:
    assert STATEMENTS.keys() >= OF_ALL
    found: dict[str, int] = {}
    for name, statement in STATEMENTS.items():
        if name in OF_ALL | {"login.login_queries.SIGN_UP.many"}:  # this statement creates users and reads no page
            continue
        if "user_id" in statement.text and re.search("LIMIT|OFFSET| consents", statement.text):
            prepared = await rows.prepare(statement.text)
            kinds = [parameter.name for parameter in prepared.get_parameters()]
            given = BY_NAME | (RECENT if {"after", "until"} <= {*statement.names} else {})
            if "INSERT INTO deliveries" in statement.text:
                given = given | {"now": datetime(2026, 1, 1, tzinfo=UTC)}
            values = [given.get(each, BY_TYPE.get(kind)) for each, kind in zip(statement.names, kinds, strict=True)]
            if name.endswith(".many"):
                values = [value if isinstance(value, list | None) else [value] for value in values]
            found[name] = await most_read(rows, prepared, *values)
    assert {name: number for name, number in found.items() if number > OTHERS / 4} == {}
    assert len(found) > 25
