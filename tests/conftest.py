"""Fixtures that provide a PostgreSQL server for all tests, a clean database for each test, and the app that uses it."""

import gc
import io
import os
import pickle
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing
from dataclasses import MISSING, fields
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import asyncpg
import httpx
import pytest
import respx

from tests import programs
from tests.bystander import standing_by
from tests.database_proxy import PATIENT, Proxy
from tests.databases import TEMPLATE, SharedDatabase, delete_signing_key, make_template
from tests.declared import check_declared
from tests.fakes import APP, OTHER_APP, SECRET_KEY, START, Clock, Secrets, WeChatByRespx, WeChatBySimulator
from tests.logging_kept import logging_kept
from tests.loops import UnhurriedLoop
from tests.processes import catch_ignored_signals, use_memory
from tests.receiver import Receiver, receiving
from tests.world import AddSibling, Admin, LogIn, LogLines, MakeClient, MakeServices, Stage, add_client, make_admin
from wxauth.apps.registry import Apps
from wxauth.clients.clients import Credentials
from wxauth.clients.models import Scope
from wxauth.core.connecting import DEADLINES
from wxauth.core.database import Database
from wxauth.core.logs import configure_logging
from wxauth.core.metrics import DECLARED, REGISTRY
from wxauth.core.outages import OutageLog, outage_log
from wxauth.core.services import Services
from wxauth.keys.keyring import KeyRing
from wxauth.service.app import create_app
from wxauth.service.build import Timeouts, build_services
from wxauth.settings.loading import settings_from
from wxauth.settings.settings import Settings
from wxauth_desk.postgres import EmbeddedPostgres
from wxauth_desk.wechat import APPS, Simulator

gc.disable()  # pytest_collection_finish enables it again, after all tests are collected
use_memory()
catch_ignored_signals()

NOWHERE = "postgresql://nobody@127.0.0.1:1/nothing"
AT_REST = {"autovacuum_naptime": "1d", "shared_buffers": "128MB", "checkpoint_timeout": "1h"}
"""Settings that keep PostgreSQL from doing work of its own at random times, so that only the tests use it."""
T = TypeVar("T")
database_numbers = count(1)
STARTS_PROGRAMS = {"foreign", "process", "wheel", *(mark for _, mark in programs.PROGRAMS.values())}
"""The marks of tests that start programs."""
SETTINGS = {
    "apps": [APP, OTHER_APP],
    "secret_key": SECRET_KEY,
    "issuer": "https://auth.test",
    "wechat_base_url": "https://wechat.test",
    "staff_reads": False,  # events then contain only what the test is about
}


pytest_plugins = ["tests.workers", "tests.changed"]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--write-plans", action="store_true", help="write the plans of statements to tests/plans")
    parser.addoption("--histories", type=int, default=3, help="how many random histories tests/histories draws")
    parser.addoption("--streams", type=int, default=300, help="how many random streams of HTTP test_streams.py draws")


@pytest.hookimpl(trylast=True)  # it runs after deselected tests have been removed
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Sort the files so that the longest come first: files with a browser, with other tools, or with processes."""
    seconds: Counter[Path] = Counter()
    for item in items:
        marks = {mark.name for mark in item.iter_markers()}
        is_foreign = marks & {"foreign", "operations", "wheel"}
        is_long = 20 if marks & STARTS_PROGRAMS else 5 if "slow" in marks else 1
        seconds[item.path] += 1000 if "browser" in marks else 60 if is_foreign else is_long
        if "container" in marks:
            seconds[item.path] = 100_000  # these files are next to each other because they share one engine
        if "oldest_postgres" in marks and marks & STARTS_PROGRAMS and "slow" not in marks:
            raise pytest.UsageError(f"{item.nodeid} is not quick: .ci/run would not run it on the oldest PostgreSQL")
    items.sort(key=lambda item: (-seconds[item.path], item.path))  # the order is the same in each process


def pytest_collection_finish() -> None:
    # Imported and collected objects live until the end. If the collector traversed them repeatedly, it would take a
    # fifth of the tests' time. Freezing also keeps the garbage among them, because one traversal to find it takes 0.4 s
    # in each process.
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)  # a test leaves little garbage, so rare collections are enough
    gc.enable()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, bool | None, bool | None]:
    programs.running.append(item)
    try:
        return (yield)
    finally:
        programs.running.pop()


@pytest.fixture(scope="session")
def _asyncio_loop_factory() -> type[UnhurriedLoop]:
    # pytest-asyncio looks for a fixture with this name. If its hook set the loop, only async tests would use this loop.
    return UnhurriedLoop


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder with a short path, because the path of a unix socket can have at most 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="wxauth-test-") as made:
        yield Path(made)


@pytest.fixture(scope="session")
def postgres() -> Iterator[EmbeddedPostgres]:
    """A server that runs the programs of the wheel.

    If the variable POSTGRES_PROGRAMS names a folder, the server runs the programs in that folder.
    `scripts/test-postgres` sets this variable.
    """
    folder_of_programs = os.environ.get("POSTGRES_PROGRAMS")
    programs = Path(folder_of_programs) if folder_of_programs else None
    with (
        tempfile.TemporaryDirectory(prefix="wxauth-") as folder,
        EmbeddedPostgres(Path(folder) / "data", lasting=False, programs=programs, options=AT_REST) as server,
    ):
        yield server


@pytest.fixture(scope="session")
async def admin(postgres: EmbeddedPostgres) -> AsyncIterator[asyncpg.Connection]:
    """A connection that creates and drops the tests' databases, so it is open to none of them."""
    connection = await asyncpg.connect(postgres.url())
    await make_template(postgres, connection)
    yield connection
    await connection.close()


@pytest.fixture(scope="session")
async def shared_database(postgres: EmbeddedPostgres, admin: asyncpg.Connection) -> AsyncIterator[SharedDatabase]:
    database = SharedDatabase(postgres, admin)
    await database.make()
    yield database
    await database.aclose()


@pytest.fixture
async def empty_database_url(postgres: EmbeddedPostgres, admin: asyncpg.Connection) -> AsyncIterator[str]:
    """A database without tables."""
    name = f"empty_{next(database_numbers)}"
    await admin.execute(f"CREATE DATABASE {name}")
    yield postgres.url(name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def own_database_url(
    request: pytest.FixtureRequest, postgres: EmbeddedPostgres, admin: asyncpg.Connection
) -> AsyncIterator[str]:
    """A database that only this test uses, because the test changes more than rows."""
    name = f"test_{next(database_numbers)}"
    await admin.execute(f"CREATE DATABASE {name} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
    if request.node.get_closest_marker("no_signing_key"):
        await delete_signing_key(postgres.url(name))
    yield postgres.url(name)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def shared_database_url(request: pytest.FixtureRequest, shared_database: SharedDatabase) -> AsyncIterator[str]:
    """The database that all tests share. It is cleaned after each test."""
    if request.node.get_closest_marker("no_signing_key"):
        await delete_signing_key(shared_database.url)
    yield shared_database.url
    undeclared = await shared_database.undeclared_data()
    await shared_database.clean()
    assert not undeclared, "EventType does not have these names in the data of events"


@pytest.fixture
def database_url(request: pytest.FixtureRequest) -> str:
    """A migrated database that contains only a signing key.

    A test's marks can ask for its own copy, for a database without a key, or for no database.
    """
    if request.node.get_closest_marker("no_database"):
        return NOWHERE
    is_own = request.node.get_closest_marker("own_database")
    return request.getfixturevalue("own_database_url" if is_own else "shared_database_url")


@pytest.fixture
async def rows(database_url: str, shared_database: SharedDatabase) -> AsyncIterator[asyncpg.Connection]:
    """A connection to this test's database, with which the test checks what was stored."""
    if database_url in (shared_database.url, NOWHERE):
        yield shared_database.rows
        return
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """This test's database, in the form that the service uses."""
    async with aclosing(Database(database_url)) as database:
        yield database


@pytest.fixture
async def proxy(database_url: str) -> AsyncIterator[Proxy]:
    """A proxy to this test's database that the test can cut."""
    async with Proxy(database_url) as proxy:
        yield proxy


@pytest.fixture(scope="session")
def logs() -> io.BytesIO:
    """The log lines of all tests in this process."""
    stream = io.BytesIO()
    configure_logging(level="debug", log_format="json", stream=stream)
    return stream


@pytest.fixture(scope="session", autouse=True)
def secrets(logs: io.BytesIO) -> Iterator[Secrets]:
    """The collector of all secrets in use. At the end, it fails if a log line contains one of them."""
    collected = Secrets()
    yield collected
    collected.check_log(logs.getvalue().decode())


@pytest.fixture(autouse=True)
def unchanged_logging(logs: io.BytesIO) -> Iterator[None]:
    """Restore the logging after each test, because the whole process shares it and later tests read their own lines."""
    del logs  # requesting this fixture configures logging first
    with logging_kept():
        yield


@pytest.fixture(autouse=True)
def uncounted() -> None:
    """Reset the metrics and the log of outages before each test, because the whole process shares them."""
    vars(outage_log).update(vars(OutageLog(10.0)))
    for metric in DECLARED:
        metric.clear()
        if metric.created is not None:
            REGISTRY.unregister(metric.created)
            metric.created = None


@pytest.fixture
def log_lines(logs: io.BytesIO) -> LogLines:
    """A function that returns the log lines that this test has written so far."""
    start = logs.tell()

    def lines() -> list[dict[str, object]]:
        from pydantic_core import from_json

        return [from_json(line) for line in logs.getbuffer()[start:].tobytes().splitlines()]

    return lines


@pytest.fixture
def clock() -> Clock:
    return Clock(START)


made_settings: dict[bytes, Settings] = {}


class GivenSettings(Settings):
    """Settings that come only from arguments, because searching other sources takes six times as long as validation."""

    @classmethod
    def settings_customise_sources(cls, *_: Any, init_settings: Any, **__: Any) -> tuple[Any, ...]:  # type: ignore[override]
        return (init_settings,)


def shared_settings(**values: object) -> Settings:
    """Return settings with these values from a cache.

    Sharing them is safe because they are frozen. Building them takes longer than many tests.
    """
    key = pickle.dumps(sorted(values.items()))
    if key not in made_settings:
        made_settings[key] = settings_from(GivenSettings, **values)
    return made_settings[key]


@pytest.fixture
def simulator(clock: Clock) -> Simulator:
    """A simulated WeChat on this test's clock, with the apps `wxauth_desk.wechat.APPS`."""
    return Simulator(lambda: clock().timestamp())


@pytest.fixture
def simulated(simulator: Simulator) -> Simulator:
    """The simulator. If a test uses this fixture, its services ask the simulator instead of `wechat`."""
    return simulator


@pytest.fixture
def is_simulated(request: pytest.FixtureRequest) -> bool:
    return "simulated" in request.fixturenames


@pytest.fixture
def make_settings(database_url: str, is_simulated: bool) -> Callable[..., Settings]:
    """A function that returns settings for this test's database, and accepts other settings by name."""
    apps = APPS if is_simulated else SETTINGS["apps"]

    def make(**values: object) -> Settings:
        return shared_settings(**{**SETTINGS, "apps": apps, "database_url": database_url, **values})

    return make


@pytest.fixture
def wechat(secrets: Secrets) -> Iterator[WeChatByRespx]:
    """A fake WeChat that returns the responses that the test sets."""
    # Requests to other hosts use the network, because webhooks have real receivers.
    with respx.mock(assert_all_called=False, assert_all_mocked=True, using=None) as router:
        yield WeChatByRespx(router, secrets)


@pytest.fixture
def transport(
    wechat: WeChatByRespx, simulator: Simulator, secrets: Secrets, is_simulated: bool
) -> httpx.AsyncBaseTransport:
    """The transport that the services use for requests to WeChat."""
    return WeChatBySimulator(simulator, secrets) if is_simulated else wechat.transport


def marked(request: pytest.FixtureRequest, name: str) -> dict[str, Any]:
    """Return the values of all marks with this name on a test.

    If two marks set a value, the nearest mark's value is used.
    """
    marks = [*request.node.iter_markers(name)]
    return {key: value for mark in reversed(marks) for key, value in mark.kwargs.items()}


def made_of_fixtures(kind: type[T], request: pytest.FixtureRequest) -> T:
    """Return a dataclass whose fields without a default are set to the fixtures with their names."""
    names = [it.name for it in fields(kind) if it.default is it.default_factory is MISSING]  # type: ignore[arg-type]
    return kind(**{name: request.getfixturevalue(name) for name in names})


UNHURRIED = Timeouts(database=PATIENT)
"""Long limits for tests that hold a lock, because PostgreSQL's limits are in real time and a machine can be slow."""


@pytest.fixture
async def make_services(
    request: pytest.FixtureRequest,
    make_settings: Callable[..., Settings],
    transport: httpx.AsyncBaseTransport,
    clock: Clock,
    shared_database: SharedDatabase,
) -> AsyncIterator[MakeServices]:
    """A function that builds replicas of the service on one database.

    The settings come from `pytest.mark.settings`. The function accepts other settings by name.
    """
    made: list[Services] = []

    async def make(
        *,
        timeouts: Timeouts = UNHURRIED,
        wechat_transport: httpx.AsyncBaseTransport | None = transport,
        **values: object,
    ) -> Services:
        settings = make_settings(**values)
        is_usual = timeouts.database in (DEADLINES, PATIENT)
        is_shared = is_usual and settings.database_url.get_secret_value() == shared_database.url
        database = shared_database.database if is_shared else None
        services = build_services(
            settings, clock=clock, wechat_transport=wechat_transport, timeouts=timeouts, database=database
        )
        made.append(services)
        if services.settings.database_url.get_secret_value() != NOWHERE:
            await services[KeyRing].refresh()
            await services[Apps].refresh()
        return services

    yield partial(make, **marked(request, "settings"))
    for services in made:
        await services.aclose()


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    """One replica's services."""
    return await make_services()


@pytest.fixture
async def make_client(secrets: Secrets) -> AsyncIterator[MakeClient]:
    """A function that returns an HTTP client of an app with these services."""
    clients: list[httpx.AsyncClient] = []

    def make(services: Services) -> httpx.AsyncClient:
        client = httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(services), raise_app_exceptions=False),
            base_url="https://auth.test",
            event_hooks={"response": [secrets.check_answer, check_declared]},
        )
        clients.append(client)
        return client

    yield make
    for client in clients:
        await client.aclose()


@pytest.fixture
def client(make_client: MakeClient, services: Services) -> httpx.AsyncClient:
    """An HTTP client of the service."""
    return make_client(services)


@pytest.fixture
def offline_client(make_client: MakeClient, wechat: WeChatByRespx, clock: Clock) -> httpx.AsyncClient:
    """An HTTP client of a service without a database."""
    settings = shared_settings(**SETTINGS, database_url=NOWHERE)
    return make_client(build_services(settings, clock=clock, wechat_transport=wechat.transport))


@pytest.fixture
def login(client: httpx.AsyncClient, wechat: WeChatByRespx, is_simulated: bool) -> LogIn:
    """A callable that logs a user in. For example, `await login("alice")` returns the response's body."""
    return LogIn(client, None if is_simulated else wechat)


@pytest.fixture
def stage(request: pytest.FixtureRequest) -> Stage:
    """The service, together with the database, the log and the fake WeChat that the test can inspect."""
    return made_of_fixtures(Stage, request)


@pytest.fixture
async def bystander(rows: asyncpg.Connection) -> AsyncIterator[None]:
    """A user with rows in every table, which the test must not change."""
    async with standing_by(rows):
        yield


@pytest.fixture
def add_sibling(services: Services, clock: Clock, secrets: Secrets) -> AddSibling:
    """A function that adds a sibling service's client and returns its credentials.

    For example, call `auth = await add_sibling("a", USERS)`.
    """

    async def add(name: str, *scopes: Scope) -> Credentials:
        credentials = await add_client(services.database, name, scopes=scopes, now=clock())
        secrets.add(credentials.client_secret)
        return credentials

    return add


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """The server of a sibling, a site or a team that receives webhooks."""
    async with receiving() as receiver:
        yield receiver


@pytest.fixture
async def root(client: httpx.AsyncClient, login: LogIn, rows: asyncpg.Connection) -> Admin:
    """An administrator. At first there are no others."""
    return await make_admin(client, rows, await login("root", nickname="Root"))
