"""`wxauth check` reports what will stop the database, before it does."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.certificates import Authority
from tests.database_proxy import with_tls
from tests.listening import Listening
from tests.world import Rows
from wxauth.server.checks.database import judge_upkeep
from wxauth.server.checks.doctor import examine
from wxauth.server.checks.result import CheckLevel, CheckResult
from wxauth.server.checks.rows import Upkeep
from wxauth.server.core.clock import utc_now
from wxauth.server.core.settings import Settings

OK, NOTE, BAD = CheckLevel.OK, CheckLevel.NOTE, CheckLevel.BAD
GOOD = Upkeep(vacuums=True, not_vacuumed=[], inactive_slots=[], retained=0, oldest_id=2 * 10**8, idle_transactions=[])

Doctor = Callable[..., Awaitable[dict[str, CheckResult]]]

pytestmark = pytest.mark.own_database


@pytest.fixture
def doctor(make_settings: Callable[..., Settings]) -> Doctor:
    """The results about the database by name, after so many hours."""

    async def run(hours: int = 0, **settings: object) -> dict[str, CheckResult]:
        results = await examine(make_settings(**settings), clock=lambda: utc_now() + timedelta(hours=hours))
        return {result.name: result for result in results}

    return run


@pytest.mark.slow
async def test_a_session_idle_in_a_transaction_for_an_hour_is_reported(doctor: Doctor, rows: Rows) -> None:
    async with rows.transaction():
        pid = await rows.fetchval("SELECT pg_backend_pid()")
        assert "database transactions" not in await doctor()
        result = (await doctor(hours=2))["database transactions"]
    assert (result.level, f"SELECT pg_terminate_backend({pid})" in result.message) == (BAD, True)
    assert "database transactions" not in await doctor(hours=2)


@pytest.mark.slow
async def test_a_table_without_autovacuum_is_reported(doctor: Doctor, rows: Rows) -> None:
    assert "database autovacuum" not in await doctor()
    await rows.execute("ALTER TABLE sessions SET (autovacuum_enabled = off)")
    result = (await doctor())["database autovacuum"]
    assert (result.level, "sessions" in result.message) == (BAD, True)
    await rows.execute(result.message.partition(": ")[2])
    assert "database autovacuum" not in await doctor()


async def test_a_replication_slot_that_nobody_reads_is_reported(doctor: Doctor, rows: Rows) -> None:
    await rows.execute("SELECT pg_create_physical_replication_slot('forgotten', true)")
    try:
        result = (await doctor())["database slots"]
    finally:
        await rows.execute("SELECT pg_drop_replication_slot('forgotten')")
    assert (result.level, "forgotten" in result.message) == (NOTE, True)
    assert "database slots" not in await doctor()


@pytest.mark.slow
@pytest.mark.parametrize(("days", "level"), [(31, None), (29, NOTE), (5, BAD), (-1, BAD)])
async def test_a_certificate_that_ends_soon_is_reported(
    doctor: Doctor, database_url: str, tmp_path: Path, days: int, level: CheckLevel | None
) -> None:
    context = Authority(tmp_path).server("127.0.0.1", days=days)
    async with Listening(with_tls(context, database_url)) as tls:
        url = f"postgresql://postgres@{tls.address}{urlsplit(database_url).path}?sslmode=require"
        results = await doctor(database_url=url)
    assert results["database"].level is OK
    result = results.get("database certificate")
    assert (result and result.level) is level


async def test_a_login_that_the_database_refuses_is_reported(doctor: Doctor, rows: Rows) -> None:
    await rows.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not here'; END$$;
        CREATE TRIGGER refuses BEFORE INSERT ON sessions FOR EACH ROW EXECUTE FUNCTION refuse()
    """)
    result = (await doctor())["login"]
    assert (result.level, "not here" in result.message) == (BAD, True)


@pytest.mark.parametrize(
    ("changed", "name", "level", "word"),
    [
        ({"vacuums": False}, "database autovacuum", BAD, "ALTER SYSTEM SET autovacuum = on"),
        ({"oldest_id": 10**9}, "database ids", BAD, "1000 million"),
        ({"inactive_slots": ["standby"], "retained": 2**31}, "database slots", BAD, "2.0 GB"),
    ],
)
def test_what_takes_long_to_come_about_is_reported(
    changed: dict[str, object], name: str, level: CheckLevel, word: str
) -> None:
    assert list(judge_upkeep(GOOD)) == []
    [result] = judge_upkeep(replace(GOOD, **changed))  # type: ignore[arg-type]
    assert (result.name, result.level) == (name, level)
    assert word in result.message
    assert result.chinese
