"""The service behind PgBouncer in transaction mode, by `?pgbouncer=true`."""

import os
from asyncio import gather, to_thread
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.asking import MakeClient, MakeServices, bearer
from tests.fakes import SECRET_KEY, LoginAnswer
from tests.problems import problem_of
from tests.processes import Running, free_port, run, until
from tests.programs import needs
from tests.proxies.running import answers

pytestmark = pytest.mark.pgbouncer

NOBODY = 65534
"""PgBouncer refuses to run as root. The tests' PostgreSQL is nobody's then, and so is its socket."""
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
    """The URL of a PgBouncer in front of this database, for as long as the block runs."""
    program, port = needs("pgbouncer"), free_port()
    parts = urlsplit(database_url)
    [socket], [server_port] = map(parse_qs(parts.query).__getitem__, ("host", "port"))
    with TemporaryDirectory(prefix="wxauth-pgbouncer-") as folder:
        os.chmod(folder, 0o755)
        configuration = Path(folder, "pgbouncer.ini")
        configuration.write_text(
            CONFIGURATION.format(socket=socket, server_port=server_port, port=port, pool_size=pool_size)
        )
        user = NOBODY if os.geteuid() == 0 else None
        with Running(program, str(configuration), cwd=Path(folder), user=user) as pooler:
            until(lambda: answers(port) or pooler.process.poll() is not None)
            assert pooler.process.poll() is None, pooler.output
            yield f"postgresql://wxauth@127.0.0.1:{port}{parts.path}?pgbouncer=true"


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    """This test's database by way of PgBouncer, which has fewer connections to it than the service may open."""
    with pgbouncer(database_url, pool_size=2) as url:
        yield url


@pytest.fixture
async def client(make_services: MakeServices, make_client: MakeClient, pooled_url: str) -> httpx.AsyncClient:
    return make_client(await make_services(database_url=pooled_url))


async def test_a_person_logs_in_refreshes_and_logs_out(client: httpx.AsyncClient, login: LoginAnswer) -> None:
    alice = await login("alice")
    assert (await client.get("/v1/me", headers=bearer(alice))).json() == alice["user"]
    answer = await client.post("/v1/refresh", json={"refresh_token": alice["refresh_token"]})
    assert answer.status_code == 200, answer.text
    renewed = answer.json()
    assert (await client.get("/v1/me", headers=bearer(renewed))).status_code == 200
    assert (await client.post("/v1/logout", headers=bearer(renewed))).status_code == 204
    problem_of(await client.get("/v1/me", headers=bearer(renewed)), "invalid_token", 401)


async def test_many_at_once_share_the_few_connections(client: httpx.AsyncClient, login: LoginAnswer) -> None:
    people = await gather(*(login(f"person-{number}") for number in range(20)))
    assert len({person["user"]["id"] for person in people}) == 20
    erased = await gather(*(client.delete("/v1/me", headers=bearer(person)) for person in people))
    assert {answer.status_code for answer in erased} == {204}


@pytest.mark.process
async def test_a_first_service_migrates_and_makes_its_key_through_it(empty_database_url: str, tmp_path: Path) -> None:
    with pgbouncer(empty_database_url, pool_size=2) as url:  # one holds the turn, one migrates
        for command in (["migrate"], ["keys", "rotate"], ["keys", "list"]):
            env = {
                "WXAUTH_DATABASE_URL": url,
                "WXAUTH_SECRET_KEY": SECRET_KEY,
                "WXAUTH_APP_ID": "wx1",
                "WXAUTH_APP_SECRET": "x",
            }
            done = await to_thread(run, *command, cwd=tmp_path, env=env)
            assert (done.returncode, done.stderr) == (0, ""), command
