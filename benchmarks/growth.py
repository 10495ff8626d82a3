"""`python -m benchmarks.growth`: what a login costs when many have logged in before, and whether memory grows."""

import asyncio
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import asyncpg
import click

from benchmarks.contenders import Contender, started
from benchmarks.processes import environment, free_port, memory_of_tree, running
from benchmarks.rounds import NotDone, Sample, Situation, Surroundings, measure
from wxauth.server.dev.postgres import EmbeddedPostgres

FIRST_PEOPLE = 1000
"""How many people log in by the service itself. The other users get copies of the rows that these leave."""
LOGINS = Situation("login", 32, 0)
REQUESTS = 3000
EARLY, LATE = 5_000, 50_000
"""Logins after which the memory is looked at."""
MOST_GROWTH = 1.15

_TABLES = ("users", "identities", "sessions")
_SPREAD = 600_011
"""A prime, by which sessions are opened, and people log in, in another order than users came."""

# $1 the first number  $2 the last one  $3 how many of each  $4 the prime
_USERS = """
INSERT INTO users (id, created_at, last_login_at)
SELECT ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, now(), now() FROM generate_series($1::int, $2) n
"""
_IDENTITIES = """
INSERT INTO identities (app_id, openid, user_id, created_at)
SELECT app_id, 'oBenchmark' || lpad(n::text, 18, '0'),
       ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, now()
  FROM generate_series($1::int, $2) n, (SELECT app_id FROM identities LIMIT 1) known
"""
_SESSIONS = """
INSERT INTO sessions (id, user_id, app_id, openid, session_key, ip, user_agent, created_at, last_used_at, expires_at)
SELECT ('00000001-0000-7000-8000-' || lpad(to_hex($1::bigint * $3::bigint + m), 12, '0'))::uuid, i.user_id,
       i.app_id, i.openid, known.session_key, known.ip, known.user_agent, now(), now(), now() + interval '30 days'
  FROM (SELECT * FROM sessions LIMIT 1) known,
       generate_series(0::bigint, ($2::bigint - $1::bigint + 1) * $3::bigint - 1) m
       CROSS JOIN LATERAL (SELECT $1::bigint + m * $4::bigint % ($2::bigint - $1::bigint + 1) AS person)
  JOIN identities i ON i.openid = 'oBenchmark' || lpad(person::text, 18, '0')
"""


@dataclass(frozen=True)
class Size:
    """The size of a table."""

    table: str
    rows: int
    heap: int
    indexes: dict[str, int]
    """Bytes, by name."""


@click.command()
@click.option("--users", type=click.IntRange(FIRST_PEOPLE), multiple=True, default=(FIRST_PEOPLE, 100_000, 1_000_000))
@click.option("--sessions", type=click.IntRange(1), default=2, show_default=True, help="Of each user.")
@click.option("--rounds", type=click.IntRange(1), default=3, show_default=True)
def main(users: Sequence[int], sessions: int, rounds: int) -> None:
    """Measure logins at these numbers of users, one after the other, and then the memory."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wxauth-benchmarks-")))
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres", lasting=False))
        wechat_port = free_port()
        stack.enter_context(
            running(
                "stand-in", "-m", "benchmarks.standin", str(wechat_port),
                port=wechat_port, folder=folder, env=environment(),
            )
        )  # fmt: skip
        wechat_url = f"http://127.0.0.1:{wechat_port}"
        contender = stack.enter_context(
            started("wxauth", database_url=postgres.url(), wechat_url=wechat_url, folder=folder)
        )
        contender.stride = _SPREAD
        postgres_pid = int((folder / "postgres" / "postmaster.pid").read_text().split()[0])
        surroundings = Surroundings(wechat_port, postgres_pid)
        try:
            _load(contender, surroundings, requests=FIRST_PEOPLE)
            click.echo("| users | CPU µs | Postgres µs | p50 ms | p99 ms |\n|--:|--:|--:|--:|--:|")
            for number in sorted(users):
                asyncio.run(_fill(contender, number, sessions))
                samples = [_load(contender, surroundings, requests=REQUESTS) for _ in range(rounds + 1)][1:]
                click.echo(_as_row(number, samples))
            for size in asyncio.run(_sizes(contender.database_url)):
                click.echo(_described(size))
            is_stable = _watch_memory(contender, surroundings)
        except NotDone as exc:
            raise click.ClickException(str(exc)) from None
    sys.exit(0 if is_stable else 1)


def _load(contender: Contender, surroundings: Surroundings, *, requests: int) -> Sample:
    return measure(contender, LOGINS, surroundings=surroundings, requests=requests, seconds=600, round=0)


def _watch_memory(contender: Contender, surroundings: Surroundings) -> bool:
    """Whether the process is hardly larger after many logins than after some."""
    seen = []
    done = 0
    for until in (EARLY, LATE):
        _load(contender, surroundings, requests=until - done)
        done = until
        seen.append(memory_of_tree(contender.pid))
    early, late = seen
    is_stable = late <= early * MOST_GROWTH
    word = "met" if is_stable else "MISSED"
    click.echo(
        f"- {word}: {late:.0f} MB after {LATE} logins, {late / early:.2f} x {early:.0f} MB after {EARLY} "
        f"(target {MOST_GROWTH})"
    )
    return is_stable


async def _fill(contender: Contender, number: int, sessions: int) -> None:
    """Fill the database with this many users, as if they had logged in that often."""
    connection = await asyncpg.connect(contender.database_url)
    try:
        if number > contender.people:
            await connection.execute(_USERS, contender.people, number - 1)
            await connection.execute(_IDENTITIES, contender.people, number - 1)
            await connection.execute("ANALYZE identities")
            await connection.execute(_SESSIONS, contender.people, number - 1, sessions, _SPREAD)
            contender.people = number
        await connection.execute("VACUUM ANALYZE")
        await connection.execute("CHECKPOINT")
    finally:
        await connection.close()


async def _sizes(database_url: str) -> list[Size]:
    connection = await asyncpg.connect(database_url)
    try:
        sizes = []
        for table in _TABLES:
            indexes = await connection.fetch(
                "SELECT indexrelid::regclass::text AS name, pg_relation_size(indexrelid) AS size FROM pg_index"
                " WHERE indrelid = $1::text::regclass ORDER BY 1",
                table,
            )
            sizes.append(
                Size(
                    table,
                    rows=await connection.fetchval(f"SELECT count(*) FROM {table}"),
                    heap=await connection.fetchval("SELECT pg_table_size($1::text::regclass)", table),
                    indexes={index["name"]: index["size"] for index in indexes},
                )
            )
        return sizes
    finally:
        await connection.close()


def _as_row(number: int, samples: Sequence[Sample]) -> str:
    cells = [
        f"{number:,}",
        f"{median(sample.cpu_us for sample in samples):.0f}",
        f"{median(sample.postgres_us for sample in samples):.0f}",
        f"{median(sample.result.p50_ms for sample in samples):.1f}",
        f"{median(sample.result.p99_ms for sample in samples):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def _described(size: Size) -> str:
    parts = [f"{size.heap / size.rows:.0f} bytes a row"]
    parts += [f"{name} {bytes_ / size.rows:.0f}" for name, bytes_ in size.indexes.items()]
    whole = (size.heap + sum(size.indexes.values())) / 2**20
    return f"- {size.table}: {size.rows:,} rows, {whole:.0f} MB: {', '.join(parts)}"


if __name__ == "__main__":
    main()
