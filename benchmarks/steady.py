"""The command `python -m benchmarks steady`, which runs one worker at 60 % of a core's rate, for half an hour.

First, each kind of request is sent as fast as possible, which shows its CPU time, and so a core's rate. Then requests
become due at 60 % of that rate, whether or not earlier ones have been answered, and latencies count from then.
PostgreSQL waits for the disk, as in production.
"""

import json
import os
import platform
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import get_args

import click

from benchmarks.arrivals import CALLBACK, HOLDERS, SITE, Plan, Result, Steady
from benchmarks.contenders import Contender, started
from benchmarks.processes import ROOT, cpu_of_tree, memory_of_tree, postmaster_of, stand_in
from benchmarks.report import as_line
from wxauth_desk.postgres import EmbeddedPostgres

SHARE = 0.6
"""The share of a core's rate. Above about 70 %, queues grow long at each unevenness."""
KINDS: tuple[Steady, ...] = get_args(Steady)
"""The kinds of requests. First logins come first, because the people of returning logins must exist."""

_PROBE_CONNECTIONS = 32
_CONNECTIONS = 200
_PROBE_SECONDS = 5.0
_WORDS: dict[Steady, str] = {
    "first": "login, first",
    "returning": "login, returning",
    "refresh": "refresh",
    "me": "`GET /v1/me`",
    "verify": "`GET /v1/verify`",
    "scan": "login to a site by scan",
}


@dataclass(frozen=True)
class Row:
    """The load of one kind, and its results."""

    kind: Steady
    core_per_second: float
    """The number of requests that one core serves in a second, from the CPU time of a request."""
    result: Result
    service_cpu: float
    """The number of cores that the service used, a fraction of one."""
    postgres_cpu: float
    memory_start_mb: float
    memory_end_mb: float


@dataclass(frozen=True)
class Load:
    """A load, and the CPU seconds that it took, without the logins of its people."""

    result: Result
    service_cpu: float
    postgres_cpu: float


@click.command()
@click.option(
    "--minutes",
    type=click.FloatRange(min=0.1),
    default=30.0,
    show_default=True,
    help="Duration for all kinds together.",
)
@click.option("--only", type=click.Choice(KINDS), multiple=True, help="Kinds of requests to measure.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), default=Path("benchmarks/steady.json"))
def main(minutes: float, only: tuple[Steady, ...], json_path: Path) -> None:
    """Measure latencies, errors and memory at a steady rate, for each release. `--minutes 3` is the short form."""
    kinds = [kind for kind in KINDS if kind in only] or list(KINDS)
    rows = run(kinds, seconds=minutes * 60 / len(kinds))
    machine = f"{_processor()}, {os.cpu_count()} processors shared with the load and PostgreSQL, {platform.system()}"
    versions = f"wxauth {version('wxauth')}, {as_line()}"
    click.echo(f"{as_markdown(rows)}\n\n{machine} {platform.release()}; {versions}; {minutes:g} minutes")
    document = {"machine": machine, "versions": versions, "minutes": minutes, "rows": [asdict(row) for row in rows]}
    json_path.write_text(json.dumps(document, indent=1))
    sys.exit(1 if any(row.result.errors for row in rows) else 0)


def run(kinds: list[Steady], *, seconds: float) -> list[Row]:
    """Start everything, and put each kind of load on the service for some seconds."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wxauth-steady-")))
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres"))
        wechat_port = stack.enter_context(stand_in(folder))
        contender = stack.enter_context(
            started(
                "wxauth",
                database_url=postgres.url(),
                wechat_url=f"http://127.0.0.1:{wechat_port}",
                folder=folder,
                more={"SCAN_PICTURE_LIMIT": "", "SCAN_RATE_LIMIT": "900000000/minute"},
            )
        )
        secret = _add_site(contender, folder)
        postgres_pid = postmaster_of(folder / "postgres")
        _put(contender, Plan("first", contender.port, 32, 0, HOLDERS, 0, 0, secret), postgres_pid)
        rows = []
        for kind in kinds:
            rows.append(_measure(contender, kind, seconds=seconds, secret=secret, postgres_pid=postgres_pid))
            click.echo(as_markdown(rows[-1:]).rpartition("\n")[2], err=True)
        return rows


def as_markdown(rows: list[Row]) -> str:
    lines = [
        "| | a core, per second | sent, per second | p50 ms | p99 | p99.9 | longest | errors "
        "| cores of wxauth | of PostgreSQL | MB before | after |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in rows:
        result, wrong = row.result, sum(row.result.errors.values())
        lines.append(
            f"| {_WORDS[row.kind]} | {row.core_per_second:,.0f} | {(result.finished + wrong) / result.seconds:,.0f} "
            f"| {result.p50_ms:.1f} | {result.p99_ms:.1f} | {result.p999_ms:.1f} | {result.longest_ms:.0f} | {wrong} "
            f"| {row.service_cpu:.2f} | {row.postgres_cpu:.2f} | {row.memory_start_mb:.0f} | {row.memory_end_mb:.0f} |"
        )
    return "\n".join(lines)


def _measure(contender: Contender, kind: Steady, *, seconds: float, secret: str, postgres_pid: int) -> Row:
    def plan(connections: int, rate: float, requests: int) -> Plan:
        return Plan(
            kind, contender.port, connections, rate, requests, contender.people, contender.codes, client_secret=secret
        )

    requests, took, per_second = 100, 0.0, 0.0
    while took < _PROBE_SECONDS / 2:  # until the load is long enough to be measured
        probe = _put(contender, plan(_PROBE_CONNECTIONS, 0, requests), postgres_pid)
        took, per_second = probe.result.seconds, requests / probe.service_cpu
        requests = max(requests * 2, int(requests * _PROBE_SECONDS / took)) if took < _PROBE_SECONDS / 2 else requests
    rate = per_second * SHARE
    start_mb = memory_of_tree(contender.pid)
    load = _put(contender, plan(_CONNECTIONS, rate, int(rate * seconds)), postgres_pid)
    return Row(
        kind=kind,
        core_per_second=per_second,
        result=load.result,
        service_cpu=load.service_cpu / load.result.seconds,
        postgres_cpu=load.postgres_cpu / load.result.seconds,
        memory_start_mb=start_mb,
        memory_end_mb=memory_of_tree(contender.pid),
    )


def _put(contender: Contender, plan: Plan, postgres_pid: int) -> Load:
    command = [sys.executable, "-m", "benchmarks.arrivals", json.dumps(asdict(plan))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True) as load:
        assert load.stdin is not None
        assert load.stdout is not None
        try:
            if load.stdout.readline() != "ready\n":
                raise click.ClickException(f"{plan.kind}: the load did not start")
            service, postgres = cpu_of_tree(contender.pid).total, cpu_of_tree(postgres_pid).total
            print("go", file=load.stdin, flush=True)
            line = load.stdout.readline()
            service, postgres = cpu_of_tree(contender.pid).total - service, cpu_of_tree(postgres_pid).total - postgres
        except BaseException:
            load.kill()
            raise
    if load.returncode != 0:
        raise click.ClickException(f"{plan.kind}: the load ended with status {load.returncode}")
    contender.codes += HOLDERS + plan.requests
    if plan.kind == "first":
        contender.people += plan.requests
    return Load(Result(**json.loads(line)), service, postgres)


def _add_site(contender: Contender, folder: Path) -> str:
    command = ["clients", "add", SITE, "--title", "Example Shop", "--redirect-uri", CALLBACK, "--json"]
    said = subprocess.run(
        [sys.executable, "-m", "wxauth", *command], env=contender.env, cwd=folder, check=True, capture_output=True
    )
    secret: str = json.loads(said.stdout)["client_secret"]
    return secret


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(": ")[2] for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


if __name__ == "__main__":
    main()
