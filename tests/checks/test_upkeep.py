"""`wxauth check` reports what will stop the database, before it does."""

import re
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.certificates import Authority
from tests.checks.conftest import BAD, NOTE, OK, Doctor, assert_reported, check_chinese
from tests.database_proxy import with_tls
from tests.listening import Listening
from tests.world import Rows, until
from wxauth.server.checks.database import judge_upkeep
from wxauth.server.checks.queries import Upkeep
from wxauth.server.checks.result import CheckLevel
from wxauth.server.core.clock import utc_now

GOOD = Upkeep(vacuums=True, not_vacuumed=[], inactive_slots=[], retained=0, oldest_id=2 * 10**8, idle_transactions=[])

pytestmark = pytest.mark.own_database


def in_two_hours() -> datetime:
    return utc_now() + timedelta(hours=2)


@pytest.mark.slow
async def test_a_session_idle_in_a_transaction_for_an_hour_is_reported(doctor: Doctor, rows: Rows) -> None:
    async with rows.transaction():
        pid = await rows.fetchval("SELECT pg_backend_pid()")
        assert "database transactions" not in await doctor()
        await doctor.says("database transactions", BAD, f"SELECT pg_terminate_backend({pid})", clock=in_two_hours)

    async def is_over() -> bool:  # PostgreSQL ends a check's own process a moment after its connection
        return "database transactions" not in await doctor(clock=in_two_hours)

    await until(is_over)


@pytest.mark.slow
async def test_a_table_without_autovacuum_is_reported(doctor: Doctor, rows: Rows) -> None:
    assert "database autovacuum" not in await doctor()
    await rows.execute("ALTER TABLE sessions SET (autovacuum_enabled = off)")
    result = (await doctor())["database autovacuum"]
    assert_reported({"": result}, "", BAD, "sessions")
    await rows.execute(result.text.partition(": ")[2])
    assert "database autovacuum" not in await doctor()


@pytest.mark.slow
async def test_an_order_of_text_that_has_changed_is_reported(doctor: Doctor, rows: Rows) -> None:
    assert "database collation" not in await doctor()
    await rows.execute("UPDATE pg_database SET datcollversion = '2.31' WHERE datname = current_database()")
    result = (await doctor())["database collation"]
    assert_reported({"": result}, "", NOTE, "2.31")
    _, first, then = re.split("first (?=REINDEX)|; then ", result.text)
    await rows.execute("CREATE TABLE of_mine (name text)")
    await doctor.says("database collation", BAD, "of_mine.name")
    await rows.execute(first)
    await rows.execute(then)
    assert "database collation" not in await doctor()


async def test_a_replication_slot_that_nobody_reads_is_reported(doctor: Doctor, rows: Rows) -> None:
    await rows.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    try:
        await doctor.says("database slots", NOTE, "forgotten")
    finally:
        await rows.execute("SELECT pg_drop_replication_slot('forgotten')")
    assert "database slots" not in await doctor()


@pytest.mark.slow
@pytest.mark.parametrize(("days", "level"), [(31, None), (29, NOTE), (5, BAD), (-1, BAD)])
async def test_a_certificate_that_ends_soon_is_reported(
    doctor: Doctor, tmp_path: Path, days: int, level: CheckLevel | None
) -> None:
    context = Authority(tmp_path).server("127.0.0.1", days=days)
    async with Listening(with_tls(context, doctor.database_url)) as tls:
        url = f"postgresql://postgres@{tls.address}{urlsplit(doctor.database_url).path}?sslmode=require"
        results = await doctor(database_url=url)
    assert results["database"].level is OK
    result = results.get("database certificate")
    assert (result and result.level) is level


async def test_a_login_that_the_database_refuses_is_reported(doctor: Doctor, rows: Rows) -> None:
    await rows.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not here'; END$$;
        CREATE TRIGGER refuses BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION refuse()
    """)
    await doctor.says("login", BAD, "not here")


@pytest.mark.parametrize(
    ("changed", "name", "word"),
    [
        ({"vacuums": False}, "database autovacuum", "ALTER SYSTEM SET autovacuum = on"),
        ({"oldest_id": 10**9}, "database ids", "1000 million"),
        ({"inactive_slots": ["standby"], "retained": 2**31}, "database slots", "2.0 GB"),
    ],
)
def test_what_takes_long_to_come_about_is_reported(changed: dict[str, object], name: str, word: str) -> None:
    assert list(judge_upkeep(GOOD)) == []
    [result] = judge_upkeep(replace(GOOD, **changed))  # type: ignore[arg-type]
    assert_reported({result.name: result}, name, BAD, word)
    check_chinese(result)
