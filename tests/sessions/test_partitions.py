"""Sessions partitioned by month with the statements of docs/database.md: everything still works."""

import re
import subprocess
from pathlib import Path

import asyncpg
import httpx
import pytest

from tests.programs import postgres_program
from tests.world import LogIn, bearer, leave

pytestmark = [pytest.mark.own_database, pytest.mark.process]

GUIDE = Path(__file__).parents[2] / "docs/database.md"


def cut(database_url: str) -> None:
    run("SELECT rpad", database_url)


def add_february(database_url: str) -> None:
    run(r"\\set month", database_url)


def run(beginning: str, database_url: str) -> None:
    (lines,) = re.findall(rf"^```sql\n({beginning}.*?)^```$", GUIDE.read_text(), re.MULTILINE | re.DOTALL)
    command = [postgres_program("psql"), "--set=ON_ERROR_STOP=1", "--no-psqlrc", "--quiet", database_url]
    done = subprocess.run(command, input=lines, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


async def test_sessions_of_before_and_after_the_cut_go_on(
    client: httpx.AsyncClient, login: LogIn, rows: asyncpg.Connection, database_url: str
) -> None:
    before = await login("alice")
    cut(database_url)
    again = await login("alice")
    refreshed = await client.post("/v1/refresh", json={"refresh_token": before["refresh_token"]})
    assert refreshed.json()["session_id"] == before["session_id"]
    listed = (await client.get("/v1/me/sessions", headers=bearer(again))).json()["items"]
    assert {session["id"] for session in listed} == {before["session_id"], again["session_id"]}
    parts = await rows.fetch("SELECT tableoid::regclass::text AS part, count(*) FROM sessions GROUP BY 1")
    assert {row["part"]: row["count"] for row in parts} == {"sessions_before": 2}


async def test_erasing_a_user_reaches_every_partition(
    client: httpx.AsyncClient, login: LogIn, rows: asyncpg.Connection, database_url: str
) -> None:
    tokens = await login("alice")
    cut(database_url)
    await rows.execute("""
        INSERT INTO sessions (id, user_id, app_id, openid, created_at, last_used_at, expires_at)
        SELECT '01a316a4-dc00-7000-8000-000000000000', user_id, app_id, openid, created_at, last_used_at, expires_at
          FROM sessions""")
    assert await rows.fetchval("SELECT count(*) FROM sessions_2027_01") == 1
    assert (await leave(client, tokens)).status_code == 204
    assert await rows.fetchval("SELECT count(*) FROM sessions") == 0


async def test_a_month_that_nobody_has_prepared_stops_no_login_and_is_moved_later(
    login: LogIn, rows: asyncpg.Connection, database_url: str
) -> None:
    await login("alice")
    cut(database_url)
    for unprepared in ("01a39c8a-3400-7000-8000-000000000000", "01a4e000-0000-7000-8000-000000000000"):
        await rows.execute(
            """
            INSERT INTO sessions (id, user_id, app_id, openid, created_at, last_used_at, expires_at)
            SELECT $1::uuid, user_id, app_id, openid, created_at, last_used_at, expires_at FROM sessions LIMIT 1""",
            unprepared,
        )
    assert await rows.fetchval("SELECT count(*) FROM sessions_later") == 2
    add_february(database_url)
    assert await rows.fetchval("SELECT count(*) FROM sessions_2027_02") == 1
    assert await rows.fetchval("SELECT count(*) FROM sessions_later") == 1
    assert await rows.fetchval("SELECT count(*) FROM sessions") == 3


async def test_many_sessions_are_estimated_over_all_partitions(
    client: httpx.AsyncClient, login: LogIn, rows: asyncpg.Connection, database_url: str
) -> None:
    await login("alice")
    cut(database_url)
    await rows.execute("""
        INSERT INTO sessions (id, user_id, app_id, openid, user_agent, created_at, last_used_at, expires_at)
        SELECT ('01900000' || substr(gen_random_uuid()::text, 9))::uuid, user_id, app_id, openid, repeat('x', 500),
               created_at, last_used_at, expires_at
          FROM sessions, generate_series(1, 100000)""")
    (value,) = re.findall(r"^wxauth_sessions (\S+)", (await client.get("/metrics")).text, re.MULTILINE)
    assert float(value) != 100_001, "so many are not counted one by one"
    assert float(value) == pytest.approx(100_001, rel=0.1)
