"""Failures of the database: what still works, what is answered with 503, and how soon the service recovers."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from io import BytesIO
from pathlib import Path

import asyncpg
import httpx
import pytest
from PIL import Image

from tests.database_proxy import HURRIED, PATIENT, Proxy
from tests.fakes import Clock, WeChatByRespx
from tests.problems import problem_of
from tests.world import (
    Body,
    Client,
    LogIn,
    MakeClient,
    MakeServices,
    Rows,
    bearer,
    leave,
    set_roles,
    until,
    until_locked,
)
from wxauth.server.core.database import CONNECTIONS, DEADLINES, TRANSACTIONS, Database, Deadlines
from wxauth.server.core.migrations import migrate
from wxauth.server.core.services import Services
from wxauth.server.dev.postgres import EmbeddedPostgres
from wxauth.server.service.build import Waits

pytestmark = pytest.mark.own_database

HANGING = HURRIED.whole + 2.0
"""Seconds after which there is an answer, though the database hangs. The contract's ten leave these two beside the
deadline, which is shortened here; they are not, for what they are spent on is no shorter."""
RESUMING = 5.0


@dataclass(frozen=True)
class FrontDoor:
    """The service, at its front door, while its database goes wrong."""

    client: Client
    services: Services
    wechat: WeChatByRespx
    rows: Rows

    async def log_in(self, person: str = "alice") -> httpx.Response:
        return await LogIn(self.client, self.wechat).ask(person)

    async def read_me(self, token: str) -> httpx.Response:
        return await self.client.get("/v1/me", headers=bearer(token))

    async def merge(self, former: str, into: str, *, token: str) -> httpx.Response:
        return await self.client.post(f"/v1/admin/users/{former}/merge", json={"into": into}, headers=bearer(token))

    async def leave(self, login: Body) -> httpx.Response:
        return await leave(self.client, login)

    async def token(self, person: str = "alice") -> str:
        return str((await self.log_in(person)).json()["access_token"])

    async def fill_pool(self) -> None:
        """Open as many connections as there may be."""
        await asyncio.gather(*(self.log_in(f"person-{n}") for n in range(CONNECTIONS)))

    async def resumes(self) -> None:
        """Wait until a login succeeds, as long as the contract allows."""

        async def is_back() -> bool:
            return (await self.log_in()).status_code == 200

        async with asyncio.timeout(RESUMING):
            await until(is_back)


MakeFrontDoor = Callable[..., Awaitable[FrontDoor]]


@pytest.fixture
async def make_service(
    make_services: MakeServices, make_client: MakeClient, wechat: WeChatByRespx, rows: Rows, database_url: str
) -> MakeFrontDoor:
    """The service on this database, or on the test's own, whose URL may have more parameters."""

    async def make(url: str = database_url, *, more: str = "", deadlines: Deadlines = HURRIED) -> FrontDoor:
        services = await make_services(database_url=url + more, waits=Waits(database=deadlines))
        return FrontDoor(make_client(services), services, wechat, rows)

    return make


@pytest.fixture
async def service(make_service: MakeFrontDoor, proxy: Proxy) -> FrontDoor:
    """The service, by way of the proxy."""
    return await make_service(proxy.url)


@pytest.fixture
async def own_postgres(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server that a test may stop."""
    server = EmbeddedPostgres(tmp_path / "data", lasting=False)
    with server:
        database = Database(server.url())
        await migrate(database)
        await database.aclose()
        yield server


def processes_of(data: Path) -> list[int]:
    """The postmaster and its children."""
    postmaster = (data / "postmaster.pid").read_text().split()[0]
    children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
    return [int(process) for process in (postmaster, *children)]


OTHER_BACKENDS = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"


def is_unavailable(answer: httpx.Response) -> bool:
    return (
        answer.status_code == 503 and answer.json()["code"] == "storage_unavailable" and "Retry-After" in answer.headers
    )


@pytest.mark.requirement("asvs-16.3.4")
async def test_without_its_database_the_service_says_so_and_resumes(
    service: FrontDoor, proxy: Proxy, clock: Clock
) -> None:
    token = await service.token()
    await proxy.refuse()

    assert is_unavailable(await service.log_in())
    assert is_unavailable(await service.read_me(token))
    assert (await service.read_me("not.a.token")).status_code == 401
    assert (await service.client.get("/livez")).status_code == 200
    assert (await service.client.get("/.well-known/jwks.json")).status_code == 200
    ready = await service.client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["database"] != "ok"

    await proxy.accept()
    assert (await service.log_in()).status_code == 200
    assert (await service.read_me(token)).status_code == 200
    clock.advance(seconds=1)
    assert (await service.client.get("/readyz")).status_code == 200


@pytest.mark.skipif(sys.platform != "linux", reason="finds the server's processes under /proc")
@pytest.mark.process
async def test_a_database_that_hangs_is_unavailable_within_ten_seconds(
    own_postgres: EmbeddedPostgres, tmp_path: Path, make_service: MakeFrontDoor
) -> None:
    service = await make_service(own_postgres.url())
    token = await service.token()
    await service.fill_pool()
    processes = processes_of(tmp_path / "data")
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        async with asyncio.timeout(HANGING):
            *answers, ready = await asyncio.gather(
                *(service.log_in() for _ in range(2 * CONNECTIONS)),
                service.read_me(token),
                service.client.get("/readyz"),
            )
        assert (await service.read_me("not.a.token")).status_code == 401
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)
    assert all(map(is_unavailable, answers))
    assert ready.status_code == 503
    await service.resumes()


@pytest.mark.slow
async def test_connections_that_a_silent_network_forgot_are_replaced_within_five_seconds(
    service: FrontDoor, proxy: Proxy
) -> None:
    await service.fill_pool()
    proxy.fall_silent()
    proxy.speak()
    await service.resumes()
    async with asyncio.timeout(1):
        assert {(await service.log_in()).status_code for _ in range(CONNECTIONS)} == {200}


@pytest.mark.slow
async def test_a_login_whose_connection_was_ended_succeeds_on_a_new_connection(service: FrontDoor) -> None:
    for _ in range(5):
        await service.fill_pool()
        await service.rows.fetch(f"SELECT pg_terminate_backend(pid) FROM {OTHER_BACKENDS}")
        answers = await asyncio.gather(service.log_in(), service.client.get("/readyz"))
        assert [answer.status_code for answer in answers] == [200, 200]
    assert await service.rows.fetchval(f"SELECT count(*) FROM {OTHER_BACKENDS}") <= CONNECTIONS


@pytest.mark.process
async def test_a_restart_under_load_costs_some_logins_and_no_fault(
    own_postgres: EmbeddedPostgres, tmp_path: Path, make_service: MakeFrontDoor
) -> None:
    async with Proxy(own_postgres.url()) as proxy:
        service = await make_service(proxy.url, deadlines=DEADLINES)
        statuses: list[int] = []
        is_over = asyncio.Event()

        async def keep_logging_in(person: str) -> None:
            while not is_over.is_set():
                statuses.append((await service.log_in(person)).status_code)
                await asyncio.sleep(0.05)

        load = [asyncio.create_task(keep_logging_in(f"person-{n}")) for n in range(2 * CONNECTIONS)]
        await until(lambda: statuses.count(200) > 50)
        await asyncio.to_thread(own_postgres.__exit__, None, None, None)
        await until(lambda: statuses.count(503) > 50)
        restarted = EmbeddedPostgres(tmp_path / "data", lasting=False)
        await asyncio.to_thread(restarted.__enter__)
        try:
            proxy.go_to(restarted.url())
            await service.resumes()
            is_over.set()
            await asyncio.gather(*load)
            assert set(statuses) == {200, 503}
            await service.services.aclose()
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
    service: FrontDoor, admin: asyncpg.Connection, begins: str, ends: str
) -> None:
    await service.fill_pool()
    name = await service.rows.fetchval("SELECT current_database()")
    await admin.execute(f"ALTER DATABASE {name} {begins}")
    await service.rows.fetch(f"SELECT pg_terminate_backend(pid) FROM {OTHER_BACKENDS}")
    assert is_unavailable(await service.log_in())
    await admin.execute(f"ALTER DATABASE {name} {ends}")
    assert (await service.log_in()).status_code == 200


async def test_a_database_without_room_for_connections_is_unavailable(
    proxy: Proxy, rows: Rows, make_service: MakeFrontDoor
) -> None:
    role = "guest_" + await rows.fetchval("SELECT current_database()")
    await rows.execute(f"CREATE ROLE {role} LOGIN; GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}")
    try:
        service = await make_service(proxy.url.replace("postgres@", f"{role}@"))
        await rows.execute(f"ALTER ROLE {role} CONNECTION LIMIT 0")
        await rows.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
        assert is_unavailable(await service.log_in())
        await rows.execute(f"ALTER ROLE {role} CONNECTION LIMIT -1")
        assert (await service.log_in()).status_code == 200
        await service.services.aclose()
    finally:
        await rows.execute(f"DROP OWNED BY {role}; DROP ROLE {role}")


@pytest.mark.slow
async def test_slow_statements_are_given_up_and_leave_nothing_behind(service: FrontDoor) -> None:
    await service.log_in("alice")
    async with service.rows.transaction():
        await service.rows.execute("SELECT FROM users FOR UPDATE")
        async with asyncio.timeout(HANGING):
            answers = await asyncio.gather(
                *(service.log_in("alice") for _ in range(CONNECTIONS)), service.log_in("bob")
            )
        assert all(map(is_unavailable, answers[:-1]))
        assert answers[-1].status_code == 200  # it had to wait for a connection, but not for ever
        nobody_waits = "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"
        await until(lambda: service.rows.fetchval(nobody_waits))  # although the row is still locked
    assert (await service.log_in("alice")).status_code == 200
    within_the_limit = f"SELECT count(*) <= {CONNECTIONS} FROM {OTHER_BACKENDS}"
    await until(lambda: service.rows.fetchval(within_the_limit))  # a backend that is cut off takes a moment to end


@pytest.mark.slow
async def test_transactions_that_wait_for_one_row_hold_up_the_others_only_so_long(service: FrontDoor) -> None:
    alice = (await service.log_in("alice")).json()
    bob = (await service.log_in("bob")).json()
    async with service.rows.transaction():
        await service.rows.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", alice["user"]["id"])
        waiting = [asyncio.create_task(service.leave(alice)) for _ in range(TRANSACTIONS)]
        await until_locked(service.rows)
        async with asyncio.timeout(HURRIED.lock + 1.0):
            assert (await service.leave(bob)).status_code == 204
        assert is_unavailable(await next(asyncio.as_completed(waiting)))
    await asyncio.gather(*waiting)


@pytest.mark.slow
async def test_requests_that_are_dropped_half_way_take_no_connection_along(make_service: MakeFrontDoor) -> None:
    service = await make_service(deadlines=PATIENT)
    await service.log_in("alice")
    async with service.rows.transaction():
        await service.rows.execute("SELECT FROM users FOR UPDATE")
        for _ in range(2):
            requests = [asyncio.create_task(service.log_in("alice")) for _ in range(CONNECTIONS)]
            await until_locked(service.rows)
            for request in requests:
                request.cancel()
            await asyncio.gather(*requests, return_exceptions=True)
        answers = await asyncio.gather(*(service.log_in("bob") for _ in range(2 * CONNECTIONS)))
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
async def test_a_migration_under_a_running_service_costs_no_request(service: FrontDoor, change: str) -> None:
    await service.fill_pool()
    token = await service.token()
    await service.read_me(token)
    await service.rows.execute(change)
    answers = await asyncio.gather(*(service.log_in() for _ in range(CONNECTIONS)), service.read_me(token))
    assert {answer.status_code for answer in answers} == {200}


@pytest.mark.oldest_postgres
async def test_a_change_whose_answer_is_lost_is_made_and_not_sent_again(service: FrontDoor, proxy: Proxy) -> None:
    token = bearer(await service.token())
    proxy.lose_next_answer(containing=b"COMMIT")
    answer = await service.client.patch("/v1/me", json={"nickname": "Eve"}, headers=token)
    problem_of(answer, "storage_unavailable", 503)
    assert await service.rows.fetchval("SELECT nickname FROM users") == "Eve"
    picture = BytesIO()
    Image.new("RGB", (60, 40)).save(picture, "JPEG")
    proxy.lose_next_answer(containing=b"COMMIT")
    answer = await service.client.post("/v1/me/avatar", files={"file": picture.getvalue()}, headers=token)
    problem_of(answer, "storage_unavailable", 503)
    assert await service.rows.fetchval("SELECT count(*) FROM avatars") == 1
    proxy.drop()  # while nobody uses it
    answer = await service.client.patch("/v1/me", json={"nickname": "Alice"}, headers=token)
    assert answer.json()["nickname"] == "Alice"


async def test_a_database_that_was_not_migrated_is_unavailable(service: FrontDoor) -> None:
    token = await service.token()
    await service.rows.execute("DROP SCHEMA public CASCADE; CREATE SCHEMA public")
    assert is_unavailable(await service.log_in())
    assert is_unavailable(await service.read_me(token))
    ready = await service.client.get("/readyz")
    assert ready.status_code == 503
    assert ready.json()["checks"]["database"] == "ok"
    assert ready.json()["checks"]["schema"] != "ok"


async def test_a_request_in_a_deadlock_may_be_retried(make_service: MakeFrontDoor, database_url: str) -> None:
    service = await make_service(more="&deadlock_timeout=300ms", deadlines=PATIENT)
    token = await service.token("root")
    await set_roles(service.rows, "admin")
    first, second = [(await service.log_in(name)).json()["user"]["id"] for name in ("alice", "bob")]
    lock = "SELECT FROM users WHERE id::text = $1 FOR UPDATE"
    other = await asyncpg.connect(database_url, server_settings={"deadlock_timeout": "1min"})
    async with other.transaction():
        await other.execute(lock, second)
        async with service.rows.transaction():
            await service.rows.execute(lock, first)
            merging = asyncio.create_task(service.merge(first, second, token=token))
            await until_locked(service.rows)
            locking = asyncio.create_task(other.execute(lock, first))
            await until_locked(service.rows, 2)
        # Now the merge has the first user and waits for the second; the other transaction has the second.
        assert is_unavailable(await merging)
        await locking
    await other.close()
    assert (await service.merge(first, second, token=token)).status_code == 200


# Any default isolation level of the database.


@pytest.fixture
async def make_isolated(make_service: MakeFrontDoor, rows: Rows) -> MakeFrontDoor:
    """The service on a database whose default is another one than PostgreSQL's."""
    name = await rows.fetchval("SELECT current_database()")
    await rows.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'repeatable read'")
    return partial(make_service, deadlines=PATIENT)


@pytest.mark.slow
async def test_simultaneous_logins_of_a_person_succeed_under_any_isolation_level(make_isolated: MakeFrontDoor) -> None:
    service = await make_isolated()
    for _ in range(2):  # the first ones, and those of somebody who is known
        answers = await asyncio.gather(*(service.log_in() for _ in range(2 * CONNECTIONS)))
        assert {answer.status_code for answer in answers} == {200}
    assert await service.rows.fetchval("SELECT count(*) FROM users") == 1


@pytest.mark.slow
@pytest.mark.parametrize("more", ["", "&pgbouncer=true"])
async def test_the_last_administrator_stays_under_any_isolation_level(make_isolated: MakeFrontDoor, more: str) -> None:
    service = await make_isolated(more=more)
    logins = [(await service.log_in(f"person-{n}")).json() for n in range(TRANSACTIONS)]
    await set_roles(service.rows, "admin")
    answers = await asyncio.gather(*map(service.leave, logins))
    assert sorted(answer.status_code for answer in answers) == [204] * (len(logins) - 1) + [409]


async def test_a_statement_that_cannot_be_serialized_is_tried_again(make_isolated: MakeFrontDoor) -> None:
    service = await make_isolated(more="&pgbouncer=true")
    token = {"refresh_token": (await service.log_in()).json()["refresh_token"]}
    async with service.rows.transaction():
        await service.rows.execute("UPDATE sessions SET user_agent = 'another'")
        refreshing = asyncio.create_task(service.client.post("/v1/refresh", json=token))
        await until_locked(service.rows)
    assert (await refreshing).status_code == 200
