"""`python -m benchmarks.returning`: what events cost a returning login. Takes about five minutes.

Compares the login statement, sent values that are stored already, with the same statement without events. In each of
ten runs both take turns, with a thousand logins a turn, on one PostgreSQL. As a baseline, two identical loads are
compared in the same way.
"""

import asyncio
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean, median
from time import process_time

import asyncpg
from uuid_utils.compat import uuid7

from wxauth.server.core.database import Database
from wxauth.server.core.logs import configure_logging
from wxauth.server.core.migrations import migrate
from wxauth.server.core.statements import Statement
from wxauth.server.core.users import USER
from wxauth.server.dev.postgres import EmbeddedPostgres
from wxauth.server.login import login_rows
from wxauth.server.login.login_rows import EnteredUser

RUNS = 10
TURNS = 20
LOGINS = 1000
"""Logins per turn."""
PEOPLE = 1000
AT_ONCE = 8

# Sets the nickname and the picture unconditionally, because nothing needs to know whether they have changed.
_WITHOUT_EVENTS = Statement[EnteredUser](f"""
WITH person AS (
    UPDATE users{login_rows._SET_LAST_LOGIN_PART}{login_rows._profile_part("users.status = 'active'")}
      FROM identities i{login_rows._KNOWN_PART}
    RETURNING {USER}, users.unjudged_since
), opened AS ({login_rows._OPEN_PART}
      FROM person WHERE status = 'active'
    ON CONFLICT (id) DO NOTHING
)
SELECT * FROM person
""")
_MAKE_PEOPLE = """
WITH made AS (
    INSERT INTO users (id, nickname, avatar_url, created_at, last_login_at)
    SELECT gen_random_uuid(), 'Alice', 'https://example.com/a.png', now(), now() FROM generate_series(1, $1::int)
    RETURNING id
)
INSERT INTO identities (app_id, openid, user_id, created_at)
SELECT 'wx', 'openid-' || row_number() OVER (), id, now() FROM made
"""


@dataclass(frozen=True)
class Contender:
    name: str
    statement: Statement[EnteredUser]
    profile: Mapping[str, object] = field(default_factory=dict)
    """The profile to send, if the statement takes one."""


AS_STORED = {"nickname": "Alice", "avatar_url": "https://example.com/a.png"}
PAIRS = {
    "nothing sent, twice the same": [Contender(name, login_rows._RETURN) for name in ("once", "again")],
    "name and picture sent as stored": [
        Contender("without events", _WITHOUT_EVENTS, AS_STORED),
        Contender("with events", login_rows._RETURN_AS_BEFORE, AS_STORED),
    ],
}


@dataclass(frozen=True)
class Cost:
    """CPU µs per login."""

    service: float
    postgres: float


async def log_in(database: Database, contender: Contender, logins: Iterator[int]) -> None:
    for number in logins:
        person = f"openid-{1 + number % PEOPLE}"
        opening = {
            "app_id": "wx",
            "openid": person,
            "unionid": None,
            "now": datetime.now(UTC),
            "session_id": uuid7(),
            "session_key": bytes(49),
            "ip": "192.0.2.1",
            "user_agent": "micromessenger",
            "expires_in": 3600,
        }
        if await database.row(contender.statement, **opening, **contender.profile) is None:
            raise RuntimeError(f"{contender.name}: {person} has not been logged in")


async def cost_of(contender: Contender, database: Database, postmaster: int) -> Cost:
    logins = iter(range(LOGINS))
    before = process_time(), seconds_of_children(postmaster)
    await asyncio.gather(*(log_in(database, contender, logins) for _ in range(AT_ONCE)))
    after = process_time(), seconds_of_children(postmaster)
    return Cost(*((end - start) / LOGINS * 1e6 for start, end in zip(before, after, strict=True)))


def seconds_of_children(pid: int) -> float:
    """CPU time of the live children, more precise than the ticks of `cpu_of_tree`."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return sum(int(Path(f"/proc/{child}/schedstat").read_text().split()[0]) for child in children) / 1e9


async def compare(pair: Sequence[Contender], database: Database, postmaster: int) -> list[Cost]:
    """The costs per login of both in one run."""
    costs: dict[str, list[Cost]] = {contender.name: [] for contender in pair}
    for turn in range(TURNS):
        for contender in pair if turn % 2 else reversed(pair):
            costs[contender.name].append(await cost_of(contender, database, postmaster))
    return [Cost(fmean(each.service for each in one), fmean(each.postgres for each in one)) for one in costs.values()]


async def measure(url: str, postmaster: int) -> bool:
    database, connection = Database(url), await asyncpg.connect(url)
    await migrate(database)
    await connection.execute(_MAKE_PEOPLE, PEOPLE)
    print("| login | service, µs | PostgreSQL, µs | service, ratio | PostgreSQL, ratio |\n|---|--:|--:|--:|--:|")
    are_alike = True
    for situation, pair in PAIRS.items():
        costs: list[list[Cost]] = []
        for run in range(RUNS + 1):
            for statement in ("TRUNCATE sessions CASCADE", "VACUUM ANALYZE users", "CHECKPOINT"):
                await connection.execute(statement)
            compared = await compare(pair, database, postmaster)
            if run > 0:  # the first run warms up
                costs.append(compared)
        columns = []
        for what in ("service", "postgres"):
            one, other = ([getattr(each[place], what) for each in costs] for place in (0, 1))
            ratio = median(after / before for before, after in zip(one, other, strict=True))
            columns.append((f"{median(one):.0f}, {median(other):.0f}", f"{ratio:.3f}"))
            are_alike &= ratio <= 1.05
        (service, service_ratio), (postgres, postgres_ratio) = columns
        names = " / ".join(contender.name for contender in pair)
        print(f"| {situation}: {names} | {service} | {postgres} | {service_ratio} | {postgres_ratio} |", flush=True)
    await connection.close()
    await database.aclose()
    return are_alike


if __name__ == "__main__":
    configure_logging(level="error", log_format="json", stream=sys.stderr.buffer)
    with (
        tempfile.TemporaryDirectory(prefix="wxauth-benchmarks-") as folder,
        EmbeddedPostgres(Path(folder) / "postgres", lasting=False) as postgres,
    ):
        pid = int((Path(folder) / "postgres" / "postmaster.pid").read_text().splitlines()[0])
        is_met = asyncio.run(measure(postgres.url(), pid))
    sys.exit(0 if is_met else 1)
