"""One load on one service, with its cost, and proof that all of the work was done."""

import asyncio
import http.client
import json
import subprocess
import sys
from dataclasses import asdict, dataclass
from datetime import datetime

import asyncpg

from benchmarks.contenders import Contender
from benchmarks.load import Kind, Plan, Result
from benchmarks.processes import ROOT, cpu_of_tree, memory_of_tree


@dataclass(frozen=True)
class Situation:
    """A kind of request and its circumstances. Only a login calls WeChat."""

    kind: Kind
    connections: int
    upstream_ms: int | None

    def __str__(self) -> str:
        upstream = "" if self.upstream_ms is None else f", upstream {self.upstream_ms} ms"
        return f"{self.kind}, {self.connections} connections{upstream}"


SITUATIONS = (
    *(Situation("login", connections, upstream) for connections in (32, 200) for upstream in (0, 30)),
    *(Situation("guarded", connections, None) for connections in (32, 200)),
    *(Situation("refresh", connections, None) for connections in (32, 200)),
)


@dataclass(frozen=True)
class Sample:
    """The cost of one load, in CPU µs per request, with the load generator's results."""

    service: str
    situation: Situation
    round: int
    user_us: float
    system_us: float
    postgres_us: float
    """The CPU time of the database's processes, because work moved there still costs."""
    memory_mb: float
    """The service's memory after the load, in MB."""
    result: Result

    @property
    def cpu_us(self) -> float:
        return self.user_us + self.system_us


class NotDone(Exception):
    """The stored rows or the calls to WeChat do not match the answered requests."""


@dataclass(frozen=True)
class Surroundings:
    """The parts that all services share."""

    wechat_port: int
    postgres_pid: int

    def stand_in(self, path: str) -> int:
        """Request `calls` or `delay/30` from WeChat's stand-in, and return its number of calls."""
        connection = http.client.HTTPConnection("127.0.0.1", self.wechat_port, timeout=10)
        connection.request("GET", f"/stand-in/{path}")
        count = int(connection.getresponse().read())
        connection.close()
        return count


def measure(
    contender: Contender, situation: Situation, *, surroundings: Surroundings, requests: int, seconds: float, round: int
) -> Sample:
    """Put one load on a service.

    Raises: NotDone.
    """
    plan = Plan(
        kind=contender.load_in(situation.kind),
        port=contender.port,
        connections=situation.connections,
        requests=max(situation.connections, int(requests * contender.share_of_requests)),
        seconds=seconds,
        known_people=contender.people,
        stride=contender.stride,
        first_number=contender.codes,
    )
    contender.codes += plan.requests + plan.connections
    surroundings.stand_in(f"delay/{situation.upstream_ms or 0}")
    command = [sys.executable, "-m", "benchmarks.load", json.dumps(asdict(plan))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as load:
        try:
            assert load.stdin is not None
            assert load.stdout is not None
            if load.stdout.readline() != "ready\n":
                raise NotDone(f"{contender.name}, {situation}: the load did not start")
            calls_before, before = surroundings.stand_in("calls"), asyncio.run(_look(contender))
            postgres_before, cpu_before = cpu_of_tree(surroundings.postgres_pid), cpu_of_tree(contender.pid)
            print("go", file=load.stdin, flush=True)
            line = load.stdout.readline()
            used, postgres = cpu_of_tree(contender.pid) - cpu_before, cpu_of_tree(surroundings.postgres_pid)
        except BaseException:
            load.kill()
            raise
    if load.returncode != 0:
        raise NotDone(f"{contender.name}, {situation}: the load ended with status {load.returncode}")
    result = Result(**json.loads(line))
    _check(contender, plan, result, calls=surroundings.stand_in("calls") - calls_before, before=before)
    contender.people += result.new_people
    microseconds = 1e6 / result.finished
    return Sample(
        service=contender.name,
        situation=situation,
        round=round,
        user_us=used.user * microseconds,
        system_us=used.system * microseconds,
        postgres_us=(postgres - postgres_before).total * microseconds,
        memory_mb=memory_of_tree(contender.pid),
        result=result,
    )


@dataclass(frozen=True)
class _Stored:
    last_login_at: datetime | None
    """The time of the newest login, by the service's own clock."""
    rows: dict[str, int]
    rotations: int


async def _look(contender: Contender) -> _Stored:
    connection = await asyncpg.connect(contender.database_url)
    try:
        rows = {table: await connection.fetchval(f"SELECT count(*) FROM {table}") for table in contender.row_counts}
        rotations = "SELECT coalesce(sum(generation), 0) FROM sessions" if contender.has_sessions else "SELECT 0"
        return _Stored(
            last_login_at=await connection.fetchval("SELECT max(last_login_at) FROM users"),
            rows=rows,
            rotations=int(await connection.fetchval(rotations)),
        )
    finally:
        await connection.close()


async def _seen_since(contender: Contender, moment: datetime | None) -> int:
    connection = await asyncpg.connect(contender.database_url)
    try:
        seen = "SELECT count(*) FROM users WHERE $1::timestamptz IS NULL OR last_login_at > $1"
        return int(await connection.fetchval(seen, moment))
    finally:
        await connection.close()


def _check(contender: Contender, plan: Plan, result: Result, *, calls: int, before: _Stored) -> None:
    logins = result.finished if plan.kind == "login" else 0
    after = asyncio.run(_look(contender))
    found = {
        "calls of WeChat": calls,
        "people with a new last_login_at": asyncio.run(_seen_since(contender, before.last_login_at)),
        "rotations": after.rotations - before.rotations,
        **{f"new rows in {table}": after.rows[table] - count for table, count in before.rows.items()},
    }
    wanted = {
        "calls of WeChat": logins if contender.calls_wechat else 0,
        "people with a new last_login_at": result.people,
        "rotations": result.finished if plan.kind == "refresh" else 0,
        "new rows in users": result.new_people,
        "new rows in identities": result.new_people,
        "new rows in sessions": logins,
    }
    wrong = [f"{name}: {count}, not {wanted[name]}" for name, count in found.items() if count != wanted[name]]
    if wrong:
        load = f"{plan.kind}, {plan.connections} connections, {result.finished} requests"
        raise NotDone(f"{contender.name}, {load}: {'; '.join(wrong)}")
