"""An export outlives the operator's limits, names the server's reason when it fails, and never leaves half a file."""

import asyncio
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.database_proxy import Proxy
from tests.fakes import service_env
from tests.processes import WXAUTH, Running
from tests.world import Rows, until, until_locked

pytestmark = [pytest.mark.process, pytest.mark.own_database]

MANY = 3000
"""Their lines do not fit into a pipe."""
OF_EXPORT = "application_name = 'wxauth' AND datname = current_database()"
END_WAITING = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted"
Export = Callable[..., Running]


@pytest.fixture
async def many_users(rows: Rows) -> None:
    await rows.execute(
        f"""
        WITH people AS (INSERT INTO users (id, created_at, nickname)
                        SELECT gen_random_uuid(), now(), repeat('n', 30) FROM generate_series(1, {MANY}) RETURNING id)
        INSERT INTO identities (user_id, app_id, openid, created_at)
        SELECT id, 'wx0000000000000001', 'o' || id, now() FROM people
        """
    )


@pytest.fixture
def export(database_url: str, tmp_path: Path) -> Export:
    def start(*arguments: str, url: str = database_url, language: str = "C.UTF-8") -> Running:
        env = service_env(url) | {"LC_ALL": language}
        return Running(WXAUTH, "users", "export", *arguments, cwd=tmp_path, env=env)

    return start


async def ended(exporting: Running) -> tuple[int, str]:
    status = await asyncio.to_thread(exporting.process.wait)
    return status, exporting.output.strip()


@pytest.mark.parametrize(
    "limit",
    ["statement_timeout", "idle_in_transaction_session_timeout", "idle_session_timeout", "transaction_timeout"],
)
async def test_an_export_outlives_each_limit_of_the_operator(
    rows: Rows, many_users: None, export: Export, tmp_path: Path, limit: str
) -> None:
    if not await rows.fetchval("SELECT EXISTS (SELECT FROM pg_settings WHERE name = $1)", limit):
        pytest.skip("this PostgreSQL has no such limit")
    await rows.execute(f"ALTER DATABASE {await rows.fetchval('SELECT current_database()')} SET {limit} = '300ms'")
    os.mkfifo(tmp_path / "pipe")
    with export("pipe") as exporting, await asyncio.to_thread((tmp_path / "pipe").open, "rb") as pipe:
        started = f"SELECT xact_start FROM pg_stat_activity WHERE {OF_EXPORT} AND query LIKE 'FETCH%'"
        await until(lambda: rows.fetchval(started))
        # Nobody reads the pipe, so the export waits in the middle of its transaction.
        await rows.execute("SELECT pg_sleep(0.6)")
        lines = await asyncio.to_thread(pipe.readlines)
        assert await ended(exporting) == (0, f"{MANY} identities")
    assert len({json.loads(line)["openid"] for line in lines}) == MANY


@pytest.mark.parametrize("over", ["socket", "network"])
@pytest.mark.parametrize(
    ("language", "expected"),
    [
        ("C.UTF-8", "WXAUTH_DATABASE_URL: the database ended the connection: {}"),
        ("zh_CN.UTF-8", "WXAUTH_DATABASE_URL：数据库断开了连接：{}"),
    ],
)
async def test_an_export_that_the_server_ends_names_the_servers_reason(
    rows: Rows,
    many_users: None,
    export: Export,
    proxy: Proxy,
    database_url: str,
    tmp_path: Path,
    over: str,
    language: str,
    expected: str,
) -> None:
    os.mkfifo(tmp_path / "pipe")
    url = database_url if over == "socket" else proxy.url
    with (
        export("pipe", url=url, language=language) as exporting,
        await asyncio.to_thread((tmp_path / "pipe").open, "rb") as pipe,
    ):
        # Its connection is idle while the pipe is full. A server that is still sending rows cannot send its reason.
        is_idle = f"{OF_EXPORT} AND query LIKE 'FETCH%' AND state = 'idle in transaction'"
        await until(
            lambda: rows.fetchval(f"SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE {is_idle}")
        )
        await asyncio.to_thread(pipe.readlines)
        assert await ended(exporting) == (1, expected.format("terminating connection due to administrator command"))


@pytest.mark.parametrize("by", ["server", "signal"])
async def test_an_export_that_fails_leaves_the_previous_file(
    rows: Rows, many_users: None, export: Export, tmp_path: Path, by: str
) -> None:
    folder = tmp_path / "exports"
    folder.mkdir()
    (folder / "users.jsonl").write_text("of yesterday")
    async with rows.transaction():
        await rows.execute("LOCK TABLE users")
        with export("exports/users.jsonl") as exporting:
            await until_locked(rows)
            [part] = [path for path in folder.iterdir() if path.name != "users.jsonl"]
            assert part.stat().st_mode & 0o777 == 0o600
            if by == "server":
                await rows.execute(END_WAITING)
            else:
                exporting.process.send_signal(signal.SIGTERM)
            status, _ = await ended(exporting)
    assert status == (1 if by == "server" else 128 + signal.SIGTERM)
    assert [(path.name, path.read_text()) for path in folder.iterdir()] == [("users.jsonl", "of yesterday")]


async def test_an_export_replaces_the_file_and_keeps_a_link_to_it(
    many_users: None, export: Export, tmp_path: Path
) -> None:
    kept, link = tmp_path / "kept", tmp_path / "link"
    kept.write_text("of yesterday")
    link.symlink_to(kept)
    with export("link") as exporting:
        assert await ended(exporting) == (0, f"{MANY} identities")
    assert link.is_symlink()
    assert (kept.stat().st_mode & 0o777, len(kept.read_text().splitlines())) == (0o600, MANY)


async def test_an_export_that_fails_on_standard_output_ends_with_status_1(
    rows: Rows, export: Export, tmp_path: Path
) -> None:
    async with rows.transaction():
        await rows.execute("LOCK TABLE users")
        with export() as exporting:
            await until_locked(rows)
            await rows.execute(END_WAITING)
            status, output = await ended(exporting)
    assert (status, "the database ended the connection" in output) == (1, True)
