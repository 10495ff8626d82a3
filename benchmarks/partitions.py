"""`python -m benchmarks.partitions`: what 60 partitions of `sessions` cost PostgreSQL. Takes half a minute.

Two databases with the same users and sessions, one with partitions, take turns. See docs/decisions/0011.
"""

import asyncio
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from datetime import UTC, datetime
from pathlib import Path
from random import randrange
from statistics import median

import asyncpg
import click

from benchmarks.growth import People, _backends_ns, fill
from wxauth.server.core.database import Database
from wxauth.server.core.logs import configure_logging
from wxauth.server.core.migrations import migrate
from wxauth.server.core.trail import OPERATOR
from wxauth.server.dev.postgres import EmbeddedPostgres
from wxauth.server.login.login_rows import record_login
from wxauth.server.login.refresh_rows import RotatedSession, rotate_refresh_token
from wxauth.server.sessions.lifetimes import Lifetimes
from wxauth.server.sessions.partition_rows import add_weeks
from wxauth.server.sessions.partitions import AHEAD, WEEK, begin_partitions, read_partitioning
from wxauth.server.sessions.refresh_tokens import RefreshToken
from wxauth.server.sessions.rows import open_sessions, user_in_session
from wxauth.server.users.erasing import erase_user

USERS, SESSIONS = 20_000, 10
PAST_WEEKS = 54
TURNS = 8
"""After one that is not counted."""
CALLS = {"login": 1000, "me": 1000, "refresh": 1000, "devices": 1000, "erase": 100}
LIFETIMES = Lifetimes(unused=2_592_000, at_most=31_536_000, reuse_grace=60)

_OPEN = "SELECT id, user_id FROM sessions WHERE expires_at > now() + interval '1 hour' ORDER BY random() LIMIT 50000"


class Requests:
    """One request of each kind, as PostgreSQL sees it."""

    def __init__(self, database: Database, sessions: list[asyncpg.Record]) -> None:
        self._database = database
        self._sessions = sessions
        self._generations = defaultdict[object, int](int)
        self._people = People(USERS)

    async def login(self) -> None:
        await record_login(self._database, self._people.returning(), now=datetime.now(UTC))

    async def me(self) -> None:
        session_id, user_id = self._any()
        await user_in_session(self._database, session_id=session_id, user_id=user_id, now=datetime.now(UTC))

    async def refresh(self) -> None:
        session_id, _ = self._any()
        token = RefreshToken(session_id, self._generations[session_id])
        device = {"ip": "10.1.2.3", "user_agent": "micromessenger"}
        now = datetime.now(UTC)
        rotated = await rotate_refresh_token(self._database, token, **device, lifetimes=LIFETIMES, now=now)
        if isinstance(rotated, RotatedSession):  # otherwise the user has been erased
            self._generations[session_id] = rotated.generation

    async def devices(self) -> None:
        await open_sessions(self._database, self._any()[1], now=datetime.now(UTC), limit=20)

    async def erase(self) -> None:
        _, user_id = self._sessions.pop()
        async with self._database.begin() as transaction:
            await erase_user(transaction, user_id, by=OPERATOR, now=datetime.now(UTC))

    def _any(self) -> asyncpg.Record:
        return self._sessions[randrange(len(self._sessions))]


async def partition(url: str) -> None:
    now = datetime.now(UTC)
    async with aclosing(Database(url)) as database:
        await migrate(database)
        end = (await begin_partitions(database, now=now - PAST_WEEKS * WEEK)).end
        assert end is not None
        await add_weeks(database, end, until=now + AHEAD, now=now)
        click.echo(f"{len((await read_partitioning(database)).partitions)} partitions", err=True)


async def cost_of(request: Callable[[], Awaitable[None]], calls: int, connection: asyncpg.Connection) -> float:
    """CPU µs of the backends for each call."""
    before = await _backends_ns(connection)
    for _ in range(calls):
        await request()
    after = await _backends_ns(connection)
    return sum(nanoseconds - before.get(pid, 0) for pid, nanoseconds in after.items()) / calls / 1000


async def compare(url: str, urls: dict[str, str]) -> None:
    admin = await asyncpg.connect(url)
    requests, databases = {}, []
    for name, each in urls.items():
        await admin.execute(f"CREATE DATABASE {name}")
        if name == "partitioned":
            await partition(each)
        await fill(each, USERS, SESSIONS)
        connection = await asyncpg.connect(each)
        databases.append(Database(each))
        requests[name] = Requests(databases[-1], await connection.fetch(_OPEN))
        await connection.close()
    click.echo("| | one table, µs | partitioned, µs | × |\n|---|--:|--:|--:|")
    for kind, calls in CALLS.items():
        costs = defaultdict[str, list[float]](list)
        for turn in range(TURNS + 1):
            for name in urls if turn % 2 else reversed(urls):
                cost = await cost_of(getattr(requests[name], kind), calls, admin)
                if turn > 0:
                    costs[name].append(cost)
        ratio = median(each / beside for beside, each in zip(costs["plain"], costs["partitioned"], strict=True))
        cells = (f"{median(costs[name]):.0f}" for name in urls)
        click.echo(f"| {kind} | {' | '.join(cells)} | {ratio:.2f} |")
    for database in databases:
        await database.aclose()
    await admin.close()


@click.command()
@click.option("--programs", type=click.Path(exists=True, path_type=Path), help="PostgreSQL's, if not the wheel's.")
def main(programs: Path | None) -> None:
    """Compare PostgreSQL's part of requests with and without partitions."""
    configure_logging(level="error", log_format="json", stream=sys.stderr.buffer)
    with (
        tempfile.TemporaryDirectory(prefix="wxauth-benchmarks-") as folder,
        EmbeddedPostgres(
            Path(folder) / "postgres", lasting=False, programs=programs, options={"shared_buffers": "512MB"}
        ) as postgres,
    ):
        asyncio.run(compare(postgres.url(), {name: postgres.url(name) for name in ("plain", "partitioned")}))


if __name__ == "__main__":
    main()
