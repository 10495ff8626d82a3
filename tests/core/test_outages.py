"""Tests of failures of the database.

They show which requests still work, which requests fail with 503, and how soon the service recovers.
"""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from io import BytesIO
from pathlib import Path

import asyncpg
import httpx
import pytest
from PIL import Image

from tests.database_proxy import HURRIED, PATIENT, Proxy
from tests.fakes import Clock
from tests.problems import problem_of
from tests.world import Admin, MakeServices, Rows, Stage, bearer, behind, leave, locked, set_roles, until, until_locked
from wxauth.core.connecting import DEADLINES, Deadlines
from wxauth.core.database import MAX_CONNECTIONS, MAX_TRANSACTIONS, Database
from wxauth.core.migrations import migrate
from wxauth.core.services import Services
from wxauth.service.build import Timeouts
from wxauth_desk.postgres import EmbeddedPostgres

pytestmark = pytest.mark.own_database

HANGING = HURRIED.total + 2.0
"""Seconds within which a request gets a response if the database hangs.

The contract allows ten seconds, which are the deadline and two seconds for everything else. The tests shorten the
deadline but not the two seconds, because the work in these seconds takes as long as in production.
"""
RESUMING = 5.0


async def token_of(stage: Stage, person: str = "alice") -> str:
    return (await stage.login(person))["access_token"]


async def fill_pool(stage: Stage) -> None:
    """Open as many connections as the pool allows."""
    await asyncio.gather(*(stage.login.ask(f"person-{n}") for n in range(MAX_CONNECTIONS)))


async def resumes(stage: Stage) -> None:
    """Wait until a login succeeds, but no longer than the contract allows."""

    async def is_back() -> bool:
        return (await stage.login.ask()).status_code == 200

    async with asyncio.timeout(RESUMING):
        await until(is_back)


MakeStage = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def services(make_services: MakeServices, proxy: Proxy) -> Services:
    """The service's parts, which use the database through the proxy."""
    return await make_services(database_url=proxy.url, timeouts=Timeouts(database=HURRIED))


@pytest.fixture
def make_stage(stage: Stage, database_url: str) -> MakeStage:
    """A function that returns the stage with another database, or with more parameters in the database's URL."""

    async def make(url: str = database_url, *, more: str = "", deadlines: Deadlines = HURRIED) -> Stage:
        return await stage.replica(database_url=url + more, timeouts=Timeouts(database=deadlines))

    return make


@pytest.fixture
async def own_postgres(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server that a test can stop."""
    server = EmbeddedPostgres(tmp_path / "data", lasting=False)
    with server:
        database = Database(server.url())
        await migrate(database)
        await database.aclose()
        yield server


def processes_of(data: Path) -> list[int]:
    """Return the ids of the postmaster and its children."""
    postmaster = (data / "postmaster.pid").read_text().split()[0]
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [int(process) for process in (postmaster, *children)]


OTHER_BACKENDS = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def is_unavailable(answer: httpx.Response) -> bool:
    return (
        answer.status_code == 503 and answer.json()["code"] == "storage_unavailable" and "Retry-After" in answer.headers
    )


@pytest.mark.requirement("asvs-16.3.4")
async def test_without_its_database_the_service_says_so_and_resumes(stage: Stage, proxy: Proxy, clock: Clock) -> None:
    login = await stage.login("alice")
    token = login["access_token"]
    await proxy.refuse()

    refused = await stage.login.ask()
    assert is_unavailable(refused)
    assert refused.json()["title"] == "The service isn't available now. Please try again later."
    assert is_unavailable(await stage.refresh(login))
    assert is_unavailable(await stage.me(token))
    assert (await stage.me("not.a.token")).status_code == 401
    assert (await stage.client.get("/livez")).status_code == 200
    assert (await stage.client.get("/.well-known/jwks.json")).status_code == 200
    ready = await stage.client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["database"] != "ok"

    await proxy.accept()
    assert (await stage.login.ask()).status_code == 200
    assert (await stage.me(token)).status_code == 200
    assert (await stage.refresh(login)).status_code == 200
    clock.advance(seconds=1)
    assert (await stage.client.get("/readyz")).status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="finds the server's processes under /proc")
@pytest.mark.process
async def test_a_database_that_hangs_is_unavailable_within_ten_seconds(
    own_postgres: EmbeddedPostgres, tmp_path: Path, make_stage: MakeStage
) -> None:
    stage = await make_stage(own_postgres.url())
    token = await token_of(stage)
    await fill_pool(stage)
    processes = processes_of(tmp_path / "data")
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        async with asyncio.timeout(HANGING):
            *answers, ready = await asyncio.gather(
                *(stage.login.ask() for _ in range(2 * MAX_CONNECTIONS)), stage.me(token), stage.client.get("/readyz")
            )
        assert (await stage.me("not.a.token")).status_code == 401
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
    assert all(map(is_unavailable, answers))
    assert ready.status_code == 503
    await resumes(stage)


@pytest.mark.slow
async def test_connections_that_a_silent_network_forgot_are_replaced_soon(stage: Stage, proxy: Proxy) -> None:
    await fill_pool(stage)
    proxy.fall_silent()
    proxy.speak()
    await resumes(stage)
    async with asyncio.timeout(1):
        assert {(await stage.login.ask()).status_code for _ in range(MAX_CONNECTIONS)} == {200}


@pytest.mark.slow
async def test_a_login_whose_connection_was_ended_succeeds_on_a_new_connection(stage: Stage) -> None:
    for _ in range(5):
        await fill_pool(stage)
        await stage.rows.fetch(f"SELECT pg_terminate_backend(pid) FROM {OTHER_BACKENDS}")
        answers = await asyncio.gather(stage.login.ask(), stage.client.get("/readyz"))
        assert [answer.status_code for answer in answers] == [200, 200]
    assert await stage.number(OTHER_BACKENDS) <= MAX_CONNECTIONS


async def test_a_login_whose_connection_is_ended_within_its_transaction_is_tried_again(
    stage: Stage, rows: Rows
) -> None:
    user = (await stage.login("alice"))["user"]
    await rows.execute("""
        CREATE SEQUENCE named;
        CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            PERFORM pg_terminate_backend(pg_backend_pid()) WHERE nextval('named') = 1;
            RETURN NEW;
        END $$;
        CREATE TRIGGER lose BEFORE UPDATE OF unionid ON identities FOR EACH ROW EXECUTE FUNCTION lose();
    """)
    assert (await stage.login("alice", unionid="U-alice"))["user"]["id"] == user["id"]
    assert await rows.fetchval("SELECT last_value FROM named") == 2
    assert await rows.fetchval("SELECT count(*) FROM sessions") == 2


@pytest.mark.process
async def test_a_restart_under_load_costs_some_logins_and_no_fault(
    own_postgres: EmbeddedPostgres, tmp_path: Path, make_stage: MakeStage
) -> None:
    async with Proxy(own_postgres.url()) as proxy:
        stage = await make_stage(proxy.url, deadlines=DEADLINES)
        statuses: list[int] = []
        is_over = asyncio.Event()

        async def keep_logging_in(person: str) -> None:
            while not is_over.is_set():
                statuses.append((await stage.login.ask(person)).status_code)
                await asyncio.sleep(0.05)

        load = [asyncio.create_task(keep_logging_in(f"person-{n}")) for n in range(2 * MAX_CONNECTIONS)]
        await until(lambda: statuses.count(200) > 50)
        await asyncio.to_thread(own_postgres.__exit__, None, None, None)
        await until(lambda: statuses.count(503) > 50)
        restarted = EmbeddedPostgres(tmp_path / "data", lasting=False)
        await asyncio.to_thread(restarted.__enter__)
        try:
            proxy.go_to(restarted.url())
            await resumes(stage)
            is_over.set()
            await asyncio.gather(*load)
            assert set(statuses) == {200, 503}
            await stage.services.aclose()
        finally:
            restarted.__exit__(None, None, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("begins", "ends"),
    [
        pytest.param("SET default_transaction_read_only = on", "RESET default_transaction_read_only", id="standby"),
        pytest.param("ALLOW_CONNECTIONS false", "ALLOW_CONNECTIONS true", id="closed"),
    ],
)
async def test_a_standby_or_a_database_that_is_closed_is_unavailable_until_that_ends(
    stage: Stage, admin: asyncpg.Connection, begins: str, ends: str
) -> None:
    await fill_pool(stage)
    name = await stage.rows.fetchval("SELECT current_database()")
    await admin.execute(f"ALTER DATABASE {name} {begins}")
    await stage.rows.fetch(f"SELECT pg_terminate_backend(pid) FROM {OTHER_BACKENDS}")
    assert is_unavailable(await stage.login.ask())
    await admin.execute(f"ALTER DATABASE {name} {ends}")
    assert (await stage.login.ask()).status_code == 200


async def test_a_full_database_is_unavailable(proxy: Proxy, rows: Rows, make_stage: MakeStage) -> None:
    role = "guest_" + await rows.fetchval("SELECT current_database()")
    await rows.execute(f"CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        stage = await make_stage(proxy.url.replace("postgres@", f"{role}@"))
        await rows.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
        await rows.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
        assert is_unavailable(await stage.login.ask())
        await rows.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
        assert (await stage.login.ask()).status_code == 200
        await stage.services.aclose()
    finally:
        await rows.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.slow
async def test_slow_statements_are_given_up_and_leave_nothing_behind(stage: Stage) -> None:
    await stage.login.ask("alice")
    async with locked(stage.rows):
        async with asyncio.timeout(HANGING):
            answers = await asyncio.gather(
                *(stage.login.ask("alice") for _ in range(MAX_CONNECTIONS)), stage.login.ask("bob")
            )
        assert all(map(is_unavailable, answers[:-1]))
        assert answers[-1].status_code == 200  # Bob's login had to wait for a connection, but only for a limited time
        nobody_waits = "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
        await until(lambda: stage.rows.fetchval(nobody_waits))  # no statement waits, although the row is still locked
    assert (await stage.login.ask("alice")).status_code == 200
    within_the_limit = f"SELECT count(*) <= {MAX_CONNECTIONS} FROM {OTHER_BACKENDS}"
    await until(lambda: stage.rows.fetchval(within_the_limit))  # a backend that has been cut off takes a moment to end


@pytest.mark.slow
async def test_transactions_that_wait_for_one_row_hold_up_the_others_only_so_long(stage: Stage) -> None:
    alice = (await stage.login.ask("alice")).json()
    bob = (await stage.login.ask("bob")).json()
    async with locked(stage.rows, alice["user"]["id"]):
        waiting = [asyncio.create_task(leave(stage.client, alice)) for _ in range(MAX_TRANSACTIONS)]
        await until_locked(stage.rows)
        async with asyncio.timeout(HURRIED.lock + 1.0):
            assert (await leave(stage.client, bob)).status_code == 204
        assert is_unavailable(await next(asyncio.as_completed(waiting)))
    await asyncio.gather(*waiting)


@pytest.mark.slow
async def test_requests_that_are_dropped_half_way_take_no_connection_along(make_stage: MakeStage) -> None:
    stage = await make_stage(deadlines=PATIENT)
    await stage.login.ask("alice")
    async with locked(stage.rows):
        for _ in range(2):
            requests = [asyncio.create_task(stage.login.ask("alice")) for _ in range(MAX_CONNECTIONS)]
            await until_locked(stage.rows)
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        answers = await asyncio.gather(*(stage.login.ask("bob") for _ in range(2 * MAX_CONNECTIONS)))
        assert {answer.status_code for answer in answers} == {200}


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE users ADD COLUMN birthday date",
        "ALTER TABLE users ALTER COLUMN created_at TYPE timestamptz(3)",
        "ALTER TABLE sessions ALTER COLUMN openid TYPE varchar(64)",
    ],
)
async def test_a_migration_under_a_running_service_costs_no_request(stage: Stage, change: str) -> None:
    await fill_pool(stage)
    token = await token_of(stage)
    await stage.me(token)
    await stage.rows.execute(change)
    answers = await asyncio.gather(*(stage.login.ask() for _ in range(MAX_CONNECTIONS)), stage.me(token))
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.oldest_postgres
async def test_a_change_whose_answer_is_lost_is_made_and_not_sent_again(stage: Stage, proxy: Proxy) -> None:
    token = bearer(await token_of(stage))
    proxy.lose_next_answer(containing=b"COMMIT")
    answer = await stage.client.patch("/v1/me", json={"nickname": "Eve"}, headers=token)
    problem_of(answer, "storage_unavailable", 503)
    assert await stage.rows.fetchval("SELECT nickname FROM users") == "Eve"
    picture = BytesIO()
    Image.new("RGB", (60, 40)).save(picture, "JPEG")
    proxy.lose_next_answer(containing=b"COMMIT")
    answer = await stage.client.post("/v1/me/avatar", files={"file": picture.getvalue()}, headers=token)
    problem_of(answer, "storage_unavailable", 503)
    assert await stage.number("avatars") == 1
    proxy.drop()  # no request uses the connection now
    answer = await stage.client.patch("/v1/me", json={"nickname": "Alice"}, headers=token)
    assert answer.json()["nickname"] == "Alice"


async def test_a_database_that_was_not_migrated_is_unavailable(stage: Stage) -> None:
    token = await token_of(stage)
    await stage.rows.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    assert is_unavailable(await stage.login.ask())
    assert is_unavailable(await stage.me(token))
    ready = await stage.client.get("/readyz")
    assert (ready.status_code, ready.json()["checks"]["database"]) == (503, "ok")
    assert ready.json()["checks"]["schema"] != "ok"


async def test_a_request_in_a_deadlock_may_be_retried(make_stage: MakeStage, database_url: str) -> None:
    stage = await make_stage(more="&deadlock_timeout=300ms", deadlines=PATIENT)
    root = Admin(stage.client, await stage.login("root"))
    await set_roles(stage.rows, "admin")
    first, second = [(await stage.login.ask(name)).json()["user"]["id"] for name in ("alice", "bob")]
    lock = "SELECT FROM users WHERE id::text = $1 FOR UPDATE"
    other = await asyncpg.connect(database_url, server_settings={"deadlock_timeout": "1min"})
    async with other.transaction():
        await other.execute(lock, second)
        async with stage.rows.transaction():
            await stage.rows.execute(lock, first)
            merging = asyncio.create_task(root.merge(first, into=second))
            await until_locked(stage.rows)
            locking = asyncio.create_task(other.execute(lock, first))
            await until_locked(stage.rows, 2)
        # Now the merge holds the first user and waits for the second user, whom the other transaction holds.
        assert is_unavailable(await merging)
        await locking
    await other.close()
    assert (await root.merge(first, into=second)).status_code == 200


# Tests of databases with another default isolation level.


@pytest.fixture
async def make_isolated(make_stage: MakeStage, rows: Rows) -> MakeStage:
    """A function that returns the service with a database whose default isolation level differs from PostgreSQL's."""
    name = await rows.fetchval("SELECT current_database()")
    await rows.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    return partial(make_stage, deadlines=PATIENT)


@pytest.mark.slow
async def test_simultaneous_logins_of_a_person_succeed_under_any_isolation_level(make_isolated: MakeStage) -> None:
    stage = await make_isolated()
    for _ in range(2):  # the user is new in the first round and known in the second
        answers = await asyncio.gather(*(stage.login.ask() for _ in range(2 * MAX_CONNECTIONS)))
        assert {answer.status_code for answer in answers} == {200}
    assert await stage.number("users") == 1


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "&pgbouncer=true"])
async def test_the_last_administrator_stays_under_any_isolation_level(make_isolated: MakeStage, more: str) -> None:
    stage = await make_isolated(more=more)
    logins = [(await stage.login.ask(f"person-{n}")).json() for n in range(MAX_TRANSACTIONS)]
    await set_roles(stage.rows, "admin")
    answers = await asyncio.gather(*(leave(stage.client, login) for login in logins))
    assert sorted(answer.status_code for answer in answers) == [204] * (len(logins) - 1) + [409]


async def test_a_statement_that_cannot_be_serialized_is_tried_again(make_isolated: MakeStage) -> None:
    stage = await make_isolated(more="&pgbouncer=true")
    token = {"refresh_token": (await stage.login.ask()).json()["refresh_token"]}
    refreshing = stage.client.post("/v1/refresh", json=token)
    answer = await behind(stage.rows, refreshing, "UPDATE sessions SET user_agent = 'another'")
    assert answer.status_code == 200
