"""The service works behind PgBouncer in transaction mode if its URL contains `?pgbouncer=true`."""

import os
import re
import subprocess
from asyncio import gather, to_thread
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

import asyncpg
import httpx
import pytest

from tests.fakes import service_env
from tests.problems import problem_of
from tests.processes import Running, free_port, is_served, run, until
from tests.programs import needs
from tests.world import LogIn, MakeClient, MakeServices, Stage, bearer, leave
from wxauth.checks.database import check_database
from wxauth.checks.result import CheckLevel, CheckResult, Findings
from wxauth.core.clock import utc_now
from wxauth.core.connecting import DEADLINES
from wxauth.settings.settings import Settings
from wxauth_desk.postgres import EmbeddedPostgres

pytestmark = pytest.mark.pgbouncer

NOBODY = 65534
"""The id of the user `nobody`, who runs PgBouncer because it refuses to run as root.

In this case, the tests' PostgreSQL and its socket also belong to `nobody`.
"""
CONFIGURATION = """\
[databases]
* = host={socket} port={server_port} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {pool_size}
"""


@contextmanager
def pgbouncer(database_url: str, *, pool_size: int) -> Iterator[str]:
    """Run a PgBouncer in front of this database while the block runs, and yield its URL."""
    program, port = needs("pgbouncer"), free_port()
    parts = urlsplit(database_url)
    [socket], [server_port] = map(parse_qs(parts.query).__getitem__, ("host", "port"))
    with TemporaryDirectory(prefix="wxauth-pgbouncer-") as folder:
        os.chmod(folder, 0o755)
        configuration = Path(folder, "pgbouncer.ini")
        [minor] = re.findall(r"^PgBouncer 1\.(\d+)", subprocess.check_output([program, "--version"], text=True))
        # Before version 1.21, PgBouncer always forgets prepared statements and rejects this setting.
        forgets = "max_prepared_statements = 0\n" if int(minor) >= 21 else ""
        shown = CONFIGURATION.format(socket=socket, server_port=server_port, port=port, pool_size=pool_size)
        configuration.write_text(shown + forgets)
        user = NOBODY if os.geteuid() == 0 else None
        with Running(program, str(configuration), cwd=Path(folder), user=user) as pooler:
            until(lambda: is_served(port) or pooler.process.poll() is not None)
            assert pooler.process.poll() is None, pooler.output
            yield f"postgresql://wxauth@127.0.0.1:{port}{parts.path}"


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    """The URL of this test's database through PgBouncer, which has fewer connections than the service can open."""
    with pgbouncer(database_url, pool_size=2) as url:
        yield f"{url}?pgbouncer=true"


@pytest.fixture
async def client(make_services: MakeServices, make_client: MakeClient, pooled_url: str) -> httpx.AsyncClient:
    return make_client(await make_services(database_url=pooled_url))


async def test_many_share_the_few_connections_and_log_in_refresh_and_log_out(stage: Stage) -> None:
    people = await gather(*(stage.login(f"person-{number}") for number in range(20)))
    assert len({person["user"]["id"] for person in people}) == 20
    back = await gather(*(stage.login(f"person-{number}") for number in range(20)))
    renewed_by_all = [answer.json() for answer in await gather(*map(stage.refresh, back))]
    users = [answer.json() for answer in await gather(*map(stage.me, renewed_by_all))]
    assert users == [person["user"] for person in renewed_by_all]
    assert [user["id"] for user in users] == [person["user"]["id"] for person in people]
    erased = await gather(*(leave(stage.client, person) for person in people))
    assert {answer.status_code for answer in erased} == {204}
    alice = await stage.login("alice")
    assert (await stage.me(alice)).json() == alice["user"]
    renewed = (await stage.refresh(alice)).json()
    assert (await stage.me(renewed)).status_code == 200
    assert (await stage.client.post("/v1/logout", headers=bearer(renewed))).status_code == 204
    problem_of(await stage.me(renewed), "invalid_token", 401)


@pytest.mark.process
async def test_a_first_service_migrates_and_makes_a_key_by_pgbouncer(empty_database_url: str, tmp_path: Path) -> None:
    with pgbouncer(empty_database_url, pool_size=2) as url:  # one connection holds the lock and the other one migrates
        for command in (["migrate"], ["keys", "rotate"], ["keys", "list"]):
            done = await to_thread(run, *command, cwd=tmp_path, env=service_env(f"{url}?pgbouncer=true"))
            assert (done.returncode, done.stderr) == (0, ""), command


@pytest.mark.process
async def test_exports_of_two_processes_share_a_connection(login: LogIn, database_url: str, tmp_path: Path) -> None:
    alice = await login("alice")
    with pgbouncer(database_url, pool_size=1) as url:
        for _ in range(2):
            env = service_env(f"{url}?pgbouncer=true")
            exported = await to_thread(run, "users", "export", cwd=tmp_path, env=env)
            assert (exported.returncode, exported.stderr) == (0, "")
            assert alice["user"]["id"] in exported.stdout


@pytest.mark.process
@pytest.mark.own_database
async def test_only_the_statement_of_check_has_a_name(
    stage: Stage, pooled_url: str, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    """A named statement exists on only one of the pooler's connections, which other clients also use."""
    before = postgres.log.stat().st_size
    database = await stage.rows.fetchval("SELECT current_database()")
    await stage.rows.execute(f"ALTER DATABASE {database} SET log_statement = 'all'")
    alice = await stage.login("alice")
    assert (await stage.refresh(alice)).status_code == 200
    for command in (["migrate"], ["keys", "rotate"], ["users", "export"], ["sweep"], ["check"]):
        done = await to_thread(run, *command, cwd=tmp_path, env=service_env(pooled_url))
        assert "Traceback" not in done.stderr, command
    assert (await leave(stage.client, alice)).status_code == 204
    executed = re.findall(r"execute ([^:/]+)", postgres.log.read_bytes()[before:].decode())
    assert "<unnamed>" in executed
    assert set(executed) == {"<unnamed>"}


async def test_check_explains_what_to_do_if_pgbouncer_is_not_named(
    make_settings: Callable[..., Settings], database_url: str
) -> None:
    with pgbouncer(database_url, pool_size=3) as url:
        advice = (await checked(make_settings(database_url=url)))["database"]
    assert advice.level is CheckLevel.BAD
    assert "is a connection pooler" in advice.text
    assert "add ?pgbouncer=true to" in advice.text
    assert "?pgbouncer=prepared" in advice.text
    assert "请在 WXAUTH_DATABASE_URL 中加上 ?pgbouncer=true" in advice.text.translated("zh-CN")


async def test_a_login_whose_statement_was_forgotten_gets_a_new_connection(stage: Stage, database_url: str) -> None:
    with pgbouncer(database_url, pool_size=2) as url:
        client = await stage.make(database_url=f"{url}?pgbouncer=prepared")
        await stage.login(at=client)
        other = await asyncpg.connect(url, statement_cache_size=0)
        async with other.transaction():  # it holds the pooler's connection on which the statement was prepared
            await other.execute("SELECT 1")
            await stage.login(at=client)
        assert stage.logged("prepared_statement_forgotten")
        await other.close()


async def checked(settings: Settings) -> dict[str, CheckResult]:
    """Return the results of `wxauth check` about the database."""
    results = check_database(settings, Findings(), clock=utc_now, deadlines=DEADLINES)
    return {result.name: result async for result in results if result is not None}
