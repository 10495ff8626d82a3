"""The command `python -m benchmarks.housekeeping`, which measures the cost of sweeps, reseals and an index."""

import asyncio
import random
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median
from time import perf_counter
from uuid import UUID, uuid4

import asyncpg
import click

from wxauth.core.database import Database
from wxauth.core.migrations import migrate
from wxauth.core.sealing import Sealer, session_key_context
from wxauth.housekeeping.housekeeping import PAGE_SIZE, SWEEP_EVERY
from wxauth.housekeeping.queries import ENDED_SESSIONS, sweep_page
from wxauth.login.login_queries import Login, record_login
from wxauth.service.resealing import reseal
from wxauth.sessions.refresh_queries import rotate_refresh_token
from wxauth.sessions.refresh_tokens import Lifetimes, RefreshToken
from wxauth_desk.postgres import EmbeddedPostgres

SESSIONS = 1_000_000
USERS = 200_000
OVER = 20
"""The number of sessions for each one that ended so long ago that it is deleted."""
CALLS = 20_000
ROUNDS = 3
KEPT_AFTER_THE_END = timedelta(days=30)
NOW = datetime.now(UTC)
LIFETIMES = Lifetimes(max_unused=30 * 86400, max_age=365 * 86400, reuse_grace=10)
FORMER, CURRENT = bytes(32), bytes(range(32))

_USERS = f"""
    INSERT INTO users (id, created_at, last_login_at)
    SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, now(), now()
      FROM generate_series(1, {USERS}) n
"""
_IDENTITIES = "INSERT INTO identities SELECT 'wx', 'openid-' || id, id, created_at FROM users"
_COLUMNS = (
    "id",
    "user_id",
    "app_id",
    "openid",
    "session_key",
    "user_agent",
    "created_at",
    "last_used_at",
    "expires_at",
)
_STATE = """
    SELECT n_tup_upd AS updates, n_tup_hot_upd AS heap_only, pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0') AS wal
      FROM pg_stat_user_tables WHERE relname = 'sessions'
"""


async def fill(connection: asyncpg.Connection) -> None:
    """Insert logins of 120 days, in the order of time, as they would have come."""
    await connection.execute(_USERS)
    await connection.execute(_IDENTITIES)
    await connection.copy_records_to_table("sessions", records=_sessions(), columns=_COLUMNS)
    await connection.execute("VACUUM ANALYZE")


def _sessions() -> Iterator[tuple[object, ...]]:
    sealer = Sealer([FORMER])
    for number in range(SESSIONS):
        created_at = NOW - timedelta(days=120) * (1 - number / SESSIONS)
        user_id = a_user_id()
        openid = f"openid-{user_id}"
        sealed = sealer.seal(bytes(16), context=session_key_context("wx", openid))
        is_over = number < SESSIONS / 2 and number % (OVER // 2) == 0
        expires_at = created_at + timedelta(days=1) if is_over else NOW + timedelta(days=number % 30 + 1)
        yield uuid7_of(created_at), user_id, "wx", openid, sealed, "micromessenger", created_at, created_at, expires_at


def a_user_id() -> UUID:
    return UUID(f"00000000-0000-7000-8000-{random.randint(1, USERS):012x}")


def uuid7_of(time: datetime) -> UUID:
    """Return a UUIDv7 as it would have been generated at that time."""
    random_bits = uuid4().int & ((1 << 80) - 1)
    return UUID(int=(int(time.timestamp() * 1000) << 80 | random_bits) & ~(0xF << 76) | (7 << 76))


async def time_sweep(database: Database) -> None:
    for name, now in (("sweep", NOW), ("sweep that finds nothing", NOW + SWEEP_EVERY)):
        times, swept = [], 0
        while True:
            started = perf_counter()
            page = await sweep_page(
                database,
                ENDED_SESSIONS,
                size=PAGE_SIZE,
                older_than=NOW - KEPT_AFTER_THE_END,
                now=now,
                next_sweep_at=now + SWEEP_EVERY,
            )
            times.append((perf_counter() - started) * 1000)
            assert page is not None
            swept += page.rows
            if page.is_last:
                break
        print(f"{name}: {swept} sessions in {len(times)} pages of {PAGE_SIZE}, {_summary(times)}")


async def time_reseal(database: Database) -> None:
    sealer = Sealer([CURRENT, FORMER])
    for name in ("reseal", "reseal that finds nothing"):
        started = perf_counter()
        done = await reseal(database, sealer, now=NOW)
        print(f"{name}: {done.session_keys} session keys in {perf_counter() - started:.1f} s")


async def time_calls(url: str, connection: asyncpg.Connection, schema: str) -> None:
    """Measure the time of refreshes, each with another session, and of logins, and the amount that they write."""
    sessions = await connection.fetch("SELECT id, generation FROM sessions WHERE expires_at > $1", NOW)
    for call in (refresh, log_in):
        before, times = await connection.fetchrow(_STATE), []
        database = Database(url)
        for session in random.sample(sessions, CALLS):
            started = perf_counter()
            await call(database, session)
            times.append((perf_counter() - started) * 1000)
        await database.aclose()
        await asyncio.sleep(0.5)  # a connection reports its statistics when it ends
        after = await connection.fetchrow(_STATE)
        updates, heap_only = after["updates"] - before["updates"], after["heap_only"] - before["heap_only"]
        wal = (after["wal"] - before["wal"]) / CALLS
        print(
            f"{schema}: {call.__name__}: {_summary(times)}, {wal:.0f} bytes of WAL each, "
            f"{heap_only} of {updates} updates heap-only"
        )


async def refresh(database: Database, session: asyncpg.Record) -> None:
    token = RefreshToken(session["id"], session["generation"])
    device = {"ip": "192.0.2.1", "user_agent": "micromessenger"}
    await rotate_refresh_token(database, token, **device, lifetimes=LIFETIMES, now=datetime.now(UTC))


async def log_in(database: Database, _: asyncpg.Record) -> None:
    login = Login(
        app_id="wx",
        openid=f"openid-{a_user_id()}",
        unionid=None,
        nickname=None,
        avatar_url=None,
        session_key=bytes(49),
        ip="192.0.2.1",
        user_agent="micromessenger",
        expires_in=LIFETIMES.max_unused,
        may_sign_up=True,
    )
    await record_login(database, login, now=datetime.now(UTC))


def _summary(times: list[float]) -> str:
    ordered = sorted(times)
    return (
        f"median {median(times):.2f} ms, p99 {ordered[int(len(ordered) * 0.99)]:.2f} ms, "
        f"longest {ordered[-1]:.1f} ms, sum {sum(times) / 1000:.1f} s"
    )


async def measure(url: str) -> None:
    database = Database(url)
    await migrate(database)
    connection = await asyncpg.connect(url)
    await fill(connection)
    for _ in range(ROUNDS):
        await time_calls(url, connection, "without an index")
        await connection.execute("CREATE INDEX expires ON sessions (expires_at)")
        await time_calls(url, connection, "with an index on expires_at")
        await connection.execute("DROP INDEX expires")
    await time_sweep(database)
    await time_reseal(database)
    await connection.close()
    await database.aclose()


@click.command()
def main() -> None:
    """Time the sweep, reseal, refresh and login on a million sessions, without and with an index on expires_at."""
    with (
        tempfile.TemporaryDirectory(prefix="wxauth-benchmarks-") as folder,
        EmbeddedPostgres(Path(folder) / "postgres", lasting=False) as postgres,
    ):
        asyncio.run(measure(postgres.url()))


if __name__ == "__main__":
    main()
