"""The command `python -m benchmarks.growth`, for logins and chores among many users, and for memory."""

import asyncio
import os
import sys
import tempfile
from base64 import urlsafe_b64encode
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from hashlib import sha256
from itertools import count
from pathlib import Path
from random import randrange
from time import perf_counter

import asyncpg
import click

from benchmarks.contenders import Contender, started
from benchmarks.processes import memory_of_tree, postmaster_of, stand_in
from benchmarks.rounds import NotDone, Situation, Surroundings, measure
from wxauth.core.database import Database
from wxauth.core.migrations import migrate
from wxauth.core.users import UserStatus
from wxauth.events.feed_queries import TRY_LOCK_PLACES, place_by_sequence
from wxauth.events.placing import EVENTS_PLACED_PER_TRANSACTION
from wxauth.housekeeping.housekeeping import PAGE_SIZE, SWEEP_EVERY, USUAL_PACE
from wxauth.housekeeping.queries import ENDED_SESSIONS, sweep_page
from wxauth.login.login_queries import Login, record_login
from wxauth.users.search_queries import UsersQuery, find_users
from wxauth_desk.postgres import EmbeddedPostgres

AT_ONCE = 8
TURNS = 10
WARM_UP = 2000
"""The number of logins before the first that counts. They fill the caches, and let PostgreSQL choose its plans."""
SETTLED = 11
"""The number of seconds after which an idle backend has reported its statistics."""
QUEUE = 1_000_000
"""The number of events that wait for a place in the feed."""
EARLY, LATE = 5_000, 50_000
"""The numbers of logins after which the memory is measured."""
MOST_GROWTH = 1.15
UNUSED, KEPT = timedelta(days=30), timedelta(days=30)
"""The lifetime of an unused session, and the time for which it is stored after its end, as in the default settings."""

_APP = "wx0123456789abcdef"
_USER_AGENT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 17_4 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 "
    "MicroMessenger/8.0.49(0x18003137) NetType/WIFI Language/zh_CN miniProgram/wx0123456789abcdef"
)
_LOGINS = Situation("login", 32, 0)
_SPREAD = 600_011
"""A prime that orders sessions differently from the users' creation."""
_BATCH = 500_000
_TABLES = ("users", "identities", "sessions")
_OPTIONS = {"shared_buffers": "1GB", "max_wal_size": "4GB", "maintenance_work_mem": "256MB", "track_io_timing": "on"}
_LOADING = {"autovacuum": "off", "wal_level": "minimal", "max_wal_senders": "0"}
_LASTING = {"synchronous_commit": "on"}

# The rows are written as the service would have written them, but without triggers and foreign keys, in batches. The
# sessions began within the lifetime of an unused session. Their ids are in the order of their beginning, but not in the
# order of their users.
_USER_ID = "('00000000-0000-7000-8000-' || lpad(to_hex({}), 12, '0'))::uuid"
_OPENID = "'o' || translate(left(encode(sha256(int8send(({})::bigint)), 'base64'), 27), '+/', '-_')"
"""SQL for an openid as random as WeChat's, so that each is on another page of its index.

`_openid` computes it in Python.
"""
_USERS = f"""
INSERT INTO users (id, nickname, created_at, last_login_at)
SELECT {_USER_ID.format("n")}, CASE WHEN n % 20000 = 0 THEN '王亮' ELSE 'user ' END || n, now(), now()
  FROM generate_series($1::bigint, $2::bigint) n
"""
_IDENTITIES = f"""
INSERT INTO identities (app_id, openid, user_id, created_at)
SELECT '{_APP}', {_OPENID.format("n")}, {_USER_ID.format("n")}, now() FROM generate_series($1::bigint, $2::bigint) n
"""
_SESSIONS = f"""
INSERT INTO sessions (id, user_id, app_id, openid, session_key, ip, user_agent, created_at, last_used_at, expires_at)
SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '70008000' || lpad(to_hex(m), 12, '0'))::uuid,
       {_USER_ID.format("person")}, '{_APP}', {_OPENID.format("person")}, $4::bytea, '10.1.2.3', $5::text, at, at,
       at + make_interval(days => {UNUSED.days})
  FROM (SELECT m, m * {_SPREAD} % $3::bigint AS person,
               now() - make_interval(days => {(UNUSED + KEPT).days + 1})
                     * (1 - m / ($6::float8 * $3)) AS at
          FROM generate_series($1::bigint, $2::bigint) m) made
"""
_EVENTS = f"""
WITH made AS (
    INSERT INTO events (id, type, at, actor, user_id, app_id)
    SELECT gen_random_uuid(), 'user.created', now(), {_USER_ID.format("n")}::text, {_USER_ID.format("n")}, '{_APP}'
      FROM generate_series($1::bigint, $2::bigint) n
    RETURNING id
)
INSERT INTO events_unplaced (event_id) SELECT id FROM made
"""
_WRITTEN = """
SELECT pg_current_wal_insert_lsn() - '0/0'::pg_lsn AS wal, wal_fpi AS pages_in_wal, blks_read AS read, blks_hit AS hit
  FROM pg_stat_wal, pg_stat_database WHERE datname = current_database()
"""


@dataclass(frozen=True)
class Cost:
    """The cost of a login in PostgreSQL."""

    cpu_us: float
    """The CPU time of the backends that did the work, in microseconds."""
    wal: float
    """The number of bytes written to the WAL."""
    pages_in_wal: float
    """The number of whole-page images written to the WAL."""
    read: float
    """The number of pages that were not in PostgreSQL's own cache."""
    hit: float
    p50_ms: float
    p99_ms: float

    def __str__(self) -> str:
        cells = [f"{self.cpu_us:.0f}", f"{self.wal:.0f}", f"{self.pages_in_wal:.1f}", f"{self.read:.1f}"]
        return " | ".join([*cells, f"{self.hit:.0f}", f"{self.p50_ms:.1f}", f"{self.p99_ms:.1f}"])


class People:
    """The people who log in."""

    def __init__(self, known: int) -> None:
        self._known = known
        self._came = count(int(perf_counter() * 1e6))

    def returning(self) -> Login:
        return _login(_openid(randrange(self._known)))

    def first(self) -> Login:
        return _login(_openid(next(self._came)))

    def first_with_unionid(self) -> Login:
        number = next(self._came)
        return _login(_openid(number), unionid=f"u{_openid(2 * number)[1:]}")


@dataclass(frozen=True)
class Place:
    """A running database with this many users."""

    number: int
    database: Database
    connection: asyncpg.Connection
    people: People


@click.command()
@click.option("--users", type=click.IntRange(1000), multiple=True, default=(100_000, 1_000_000))
@click.option(
    "--sessions", type=click.IntRange(1), default=2, show_default=True, help="Number of sessions of each user."
)
@click.option(
    "--logins", type=click.IntRange(100), default=10_000, show_default=True, help="Number of logins of each kind."
)
@click.option("--folder", type=click.Path(path_type=Path), help="Folder that keeps the databases for the next run.")
@click.option(
    "--programs", type=click.Path(exists=True, path_type=Path), help="Folder of another PostgreSQL's programs."
)
@click.option("--memory/--no-memory", default=True, show_default=True, help="Check whether the service's memory grows.")
def main(
    users: Sequence[int], sessions: int, logins: int, folder: Path | None, programs: Path | None, memory: bool
) -> None:
    """Measure PostgreSQL's part of logins, chores and searches among these numbers of users, then the memory.

    Ten million users with two sessions each take 15 GB.
    """
    with ExitStack() as stack:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wxauth-benchmarks-")))
        folders = {number: (folder or temporary) / str(number) for number in sorted(users)}
        for number, data in folders.items():
            with EmbeddedPostgres(data, lasting=False, programs=programs, options=_OPTIONS | _LOADING) as postgres:
                asyncio.run(fill(postgres.url(), number, sessions))
        os.sync()
        with ExitStack() as running_ones:
            urls = {}
            for number, data in folders.items():
                postgres = EmbeddedPostgres(data, programs=programs, options=_OPTIONS | _LASTING)
                urls[number] = running_ones.enter_context(postgres).url()
            click.echo("| users | login | CPU µs | WAL bytes | pages in WAL | read | hit | p50 ms | p99 ms |")
            click.echo("|--:|---|--:|--:|--:|--:|--:|--:|--:|")
            asyncio.run(_compare(urls, logins))
            asyncio.run(_rest(urls[max(users)], max(users)))
        is_stable = not memory or _watch_memory(temporary)
    sys.exit(0 if is_stable else 1)


def _login(openid: str, *, unionid: str | None = None) -> Login:
    return Login(
        app_id=_APP,
        openid=openid,
        unionid=unionid,
        nickname=None,
        avatar_url=None,
        session_key=os.urandom(49),
        ip="10.1.2.3",
        user_agent=_USER_AGENT,
        expires_in=int(UNUSED.total_seconds()),
        may_sign_up=True,
    )


def _openid(number: int) -> str:
    return "o" + urlsafe_b64encode(sha256(number.to_bytes(8)).digest()).decode()[:27]


async def fill(url: str, number: int, sessions: int) -> None:
    """Fill the database with this many users, as if they had logged in that often."""
    database = Database(url)
    await migrate(database)
    await database.aclose()
    connection = await asyncpg.connect(url)
    try:
        if await connection.fetchval("SELECT EXISTS (SELECT FROM users)"):
            return
        began = perf_counter()
        await connection.execute("SET session_replication_role = replica")
        for first, last in _batches(number):
            await connection.execute(_USERS, first, last)
            await connection.execute(_IDENTITIES, first, last)
        _say(f"{number:,} users after {perf_counter() - began:.0f} s")
        for first, last in _batches(number * sessions):
            await connection.execute(_SESSIONS, first, last, number, os.urandom(49), _USER_AGENT, float(sessions))
            _say(f"{last + 1:,} sessions after {perf_counter() - began:.0f} s")
        await connection.execute("VACUUM ANALYZE")
        size = await connection.fetchval("SELECT pg_database_size(current_database())")
        _say(f"{number:,} users: {size / 1e9:.1f} GB, loaded in {perf_counter() - began:.0f} s")
    finally:
        await connection.close()


def _batches(end: int) -> Iterator[tuple[int, int]]:
    for start in range(0, end, _BATCH):
        yield start, min(start + _BATCH, end) - 1


async def _compare(urls: Mapping[int, str], logins: int) -> None:
    """Measure logins among these numbers of users, in turns, so that slow moments of the machine affect all of them."""
    async with AsyncExitStack() as stack:
        places = [await stack.enter_async_context(_place(number, url)) for number, url in urls.items()]
        for place in places:
            await _repeat(partial(_log_in, place, place.people.returning), WARM_UP)
        kinds = [("returning", "off"), *(("returning", method) for method in await _compressions(places[0]))]
        for kind, compression in [*kinds, ("first", "off"), ("first_with_unionid", "off")]:
            for place in places:
                await place.connection.execute(f"ALTER SYSTEM SET wal_compression = {compression}")
                await place.connection.execute("SELECT pg_reload_conf()")
                await place.connection.execute("CHECKPOINT")
            name = kind.replace("_", " ") + (f", {compression}" if compression != "off" else "")
            for number, cost in (await _costs(places, kind, logins)).items():
                click.echo(f"| {number:,} | {name} | {cost} |")


@asynccontextmanager
async def _place(number: int, url: str) -> AsyncIterator[Place]:
    async with aclosing(Database(url)) as database:
        connection = await asyncpg.connect(url)
        yield Place(number, database, connection, People(number))
        await connection.close()


async def _compressions(place: Place) -> list[str]:
    known = await place.connection.fetchval("SELECT enumvals FROM pg_settings WHERE name = 'wal_compression'")
    return [method for method in ("pglz", "lz4") if method in known]


async def _costs(places: Sequence[Place], kind: str, logins: int) -> dict[int, Cost]:
    """Return the cost per login.

    For CPU, it is the lowest of the turns, because a busy machine only adds to it; otherwise the mean.
    """
    await asyncio.sleep(SETTLED)
    before = {place.number: await place.connection.fetchrow(_WRITTEN) for place in places}
    cpu = defaultdict[int, list[float]](list)
    latencies = defaultdict[int, list[float]](list)
    each_turn = logins // TURNS
    for _ in range(TURNS):
        for place in places:
            began = await _backends_ns(place.connection)
            latencies[place.number] += await _repeat(partial(_log_in, place, getattr(place.people, kind)), each_turn)
            ended = await _backends_ns(place.connection)
            used = sum(nanoseconds - began.get(pid, 0) for pid, nanoseconds in ended.items())
            cpu[place.number].append(used / each_turn / 1000)
    await asyncio.sleep(SETTLED)
    costs = {}
    for place in places:
        after, times = await place.connection.fetchrow(_WRITTEN), sorted(latencies[place.number])
        costs[place.number] = Cost(
            cpu_us=min(cpu[place.number]),
            p50_ms=times[len(times) // 2],
            p99_ms=times[len(times) * 99 // 100],
            **{key: float(count - before[place.number][key]) / len(times) for key, count in after.items()},
        )
    return costs


async def _log_in(place: Place, who: Callable[[], Login]) -> None:
    await record_login(place.database, who(), now=datetime.now(UTC))


async def _repeat(one: Callable[[], Awaitable[object]], times: int) -> list[float]:
    """Return the durations in milliseconds."""
    numbers, latencies = iter(range(times)), []

    async def work() -> None:
        for _ in numbers:
            began = perf_counter()
            await one()
            latencies.append((perf_counter() - began) * 1000)

    await asyncio.gather(*(work() for _ in range(AT_ONCE)))
    return latencies


async def _backends_ns(connection: asyncpg.Connection) -> Mapping[int, int]:
    """Return the CPU time of each backend so far, except that of this connection."""
    pids = await connection.fetch(
        "SELECT pid FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )
    return {pid: _nanoseconds(pid) for (pid,) in pids}


def _nanoseconds(pid: int) -> int:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


async def _rest(url: str, number: int) -> None:
    """Print the sizes of the tables, and time searches, the feed's queue, a full sweep, and vacuum."""
    connection = await asyncpg.connect(url)
    database = Database(url)
    try:
        for table in _TABLES:
            click.echo(await _size(connection, table))
        await _time_searches(database, number)
        await _time_placing(database, connection)
        await connection.execute("TRUNCATE sweeps")
        await _time_sweep(database)
        for table in ("sessions", "users"):
            await _time_vacuum(connection, table)
    finally:
        await database.aclose()
        await connection.close()


async def _size(connection: asyncpg.Connection, table: str) -> str:
    rows = await connection.fetchval("SELECT count(*) FROM ONLY " + table, timeout=600)
    heap = await connection.fetchval("SELECT pg_table_size($1::text::regclass)", table)
    indexes = await connection.fetch(
        "SELECT indexrelid::regclass::text AS name, pg_relation_size(indexrelid) AS size FROM pg_index"
        " WHERE indrelid = $1::text::regclass ORDER BY 1",
        table,
    )
    whole = heap + sum(size for _, size in indexes)
    parts = [f"{heap / rows:.0f} bytes a row", *(f"{name} {size / rows:.0f}" for name, size in indexes)]
    return f"- {table}: {rows:,} rows, {whole / 1e6:,.0f} MB: {', '.join(parts)}"


async def _time_searches(database: Database, number: int) -> None:
    searches = {
        "first page": UsersQuery(),
        "whole openid": UsersQuery(q=_openid(number // 2)),
        "a number that nobody has": UsersQuery(q="+8613800138000"),
        "two Chinese characters that one in twenty thousand has": UsersQuery(q="王亮"),
        "two Chinese characters that nobody has": UsersQuery(q="亮王"),
        "part of a nickname that many have": UsersQuery(q="user 9"),
        "part of a nickname that nobody has": UsersQuery(q="nobody"),
        "a role that nobody has": UsersQuery(role="moderator"),
        "banned users, of whom there is none": UsersQuery(status=UserStatus.DISABLED),
    }
    for name, search in searches.items():
        times = []
        for _ in range(3):
            began = perf_counter()
            found = await find_users(database, search, region="CN")
            times.append((perf_counter() - began) * 1000)
        word = ", incomplete" if found.is_incomplete else ""
        click.echo(f"- search, {name}: {len(found.items)} found{word}, {min(times):.1f} to {max(times):.1f} ms")


async def _time_placing(database: Database, connection: asyncpg.Connection) -> None:
    await connection.execute("SET session_replication_role = replica")
    for first, last in _batches(QUEUE):
        await connection.execute(_EVENTS, first, last, timeout=600)
    await connection.execute("SET session_replication_role = origin")
    await connection.execute("ANALYZE events, events_unplaced")
    times, placed, is_last = [], 0, False
    while not is_last:
        began = perf_counter()
        async with database.begin() as transaction:
            assert await transaction.value(TRY_LOCK_PLACES)
            events = await place_by_sequence(transaction, limit=EVENTS_PLACED_PER_TRANSACTION)
        times.append((perf_counter() - began) * 1000)
        placed, is_last = placed + len(events), len(events) < EVENTS_PLACED_PER_TRANSACTION
    times.sort()
    click.echo(
        f"- feed: {placed:,} events placed in {sum(times) / 1000:.0f} s, {placed / sum(times) * 1000:,.0f} a second, "
        f"{EVENTS_PLACED_PER_TRANSACTION} take {times[len(times) // 2]:.0f} ms, the longest {times[-1]:.0f} ms"
    )


async def _time_sweep(database: Database) -> None:
    now, times, swept, rests, is_last = datetime.now(UTC), [], 0, 0.0, False
    while not is_last:
        began = perf_counter()
        page = await sweep_page(
            database, ENDED_SESSIONS, size=PAGE_SIZE, older_than=now - KEPT, now=now, next_sweep_at=now + SWEEP_EVERY
        )
        times.append((perf_counter() - began) * 1000)
        assert page is not None
        rests += USUAL_PACE.rest_after(times[-1] / 1000, page.rows)
        swept, is_last = swept + page.rows, page.is_last
    times.sort()
    lap = timedelta(seconds=round(sum(times) / 1000 + rests))
    click.echo(
        f"- sweep: {swept:,} sessions erased in {len(times):,} pages of {PAGE_SIZE}, {sum(times) / 1000:.0f} s of "
        f"work, {lap} with pauses, a page {times[len(times) // 2]:.1f} ms, the longest {times[-1]:.0f} ms"
    )


async def _time_vacuum(connection: asyncpg.Connection, table: str) -> None:
    """Vacuum like autovacuum, with its pauses, and including the indexes, as after some days of deletions."""
    dead = await connection.fetchval("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relname = $1", table)
    await connection.execute("SET vacuum_cost_delay = 2")
    before, began = await connection.fetchval("SELECT pg_current_wal_insert_lsn()"), perf_counter()
    await connection.execute(f"VACUUM (ANALYZE, INDEX_CLEANUP ON, PARALLEL 0) {table}", timeout=3600)
    took = perf_counter() - began
    wal = await connection.fetchval("SELECT (pg_current_wal_insert_lsn() - $1::pg_lsn)::bigint", before)
    click.echo(f"- vacuum of {table}: {dead:,} dead rows, {took:.0f} s, {wal / 1e6:,.0f} MB of WAL")


def _watch_memory(folder: Path) -> bool:
    """Return whether a worker uses hardly more memory after many logins than after a few."""
    with ExitStack() as stack:
        postgres = stack.enter_context(EmbeddedPostgres(folder / "small", lasting=False))
        wechat_port = stack.enter_context(stand_in(folder))
        wechat_url = f"http://127.0.0.1:{wechat_port}"
        contender = stack.enter_context(
            started("wxauth", database_url=postgres.url(), wechat_url=wechat_url, folder=folder)
        )
        postgres_pid = postmaster_of(folder / "small")
        surroundings = Surroundings(wechat_port, postgres_pid)
        early = _memory_after(EARLY, contender, surroundings)
        late = _memory_after(LATE - EARLY, contender, surroundings)
    is_stable = late <= early * MOST_GROWTH
    word = "met" if is_stable else "MISSED"
    click.echo(
        f"- {word}: {late:.0f} MB after {LATE} logins, {late / early:.2f} x {early:.0f} MB after {EARLY} "
        f"(target {MOST_GROWTH})"
    )
    return is_stable


def _memory_after(logins: int, contender: Contender, surroundings: Surroundings) -> float:
    try:
        measure(contender, _LOGINS, surroundings=surroundings, requests=logins, seconds=600, round=0)
    except NotDone as exc:
        raise click.ClickException(str(exc)) from None
    return memory_of_tree(contender.pid)


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
