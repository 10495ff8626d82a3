"""The command `python -m benchmarks`, which measures the services in turns, so that slow moments affect all of them."""

import asyncio
import json
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import asyncpg
import click

from benchmarks import peers
from benchmarks.apart import apart as way_to
from benchmarks.contenders import KINDS_OF, NAMES, Contender, started
from benchmarks.faults import main as break_things
from benchmarks.processes import ROOT, postmaster_of, stand_in
from benchmarks.report import as_document, as_line, as_markdown, rows_of, verdicts_of
from benchmarks.rounds import SITUATIONS, NotDone, Sample, Situation, Surroundings, measure
from benchmarks.steady import main as steady
from wxauth_desk.postgres import EmbeddedPostgres

PEOPLE = 1000
"""The number of people who have logged in before the first round."""
GUARDED_PER_LOGIN = 3
"""The factor by which there are more guarded calls, which are so cheap that equal precision takes more of them."""

_KINDS = ("login", "guarded", "refresh")
_SEEDING = Situation("login", 32, 0)


@click.group(invoke_without_command=True)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Rounds after a first one that isn't counted.",
)
@click.option(
    "--requests", type=click.IntRange(200), default=3000, show_default=True, help="Number of logins in each load."
)
@click.option("--seconds", type=float, default=30.0, show_default=True, help="Time after which no request begins.")
@click.option("--quick", is_flag=True, help="Run two rounds of 1000 requests.")
@click.option(
    "--only", type=click.Choice([*NAMES, *_KINDS]), multiple=True, help="Services or kinds of requests to measure."
)
@click.option(
    "--earlier", type=click.Path(path_type=Path, exists=True), help="Clone of an earlier commit, whose .venv is set up."
)
@click.option("--connections", type=int, multiple=True, help="Number of connections, instead of 32 and 200.")
@click.option("--apart", type=float, default=0.0, show_default=True, help="Simulated round trip to PostgreSQL, in ms.")
@click.option("--syncs", is_flag=True, help="Let PostgreSQL wait for the disk.")
@click.option("--json", "json_path", type=click.Path(path_type=Path), default=Path("benchmarks/results.json"))
@click.option("--strict", is_flag=True, help="Exit with status 1 if a target is missed.")
@click.option("--faults", is_flag=True, help="Don't measure, but break things under load.")
@click.pass_context
def main(
    context: click.Context,
    rounds: int,
    requests: int,
    seconds: float,
    quick: bool,
    only: tuple[str, ...],
    earlier: Path | None,
    connections: tuple[int, ...],
    apart: float,
    syncs: bool,
    json_path: Path,
    strict: bool,
    faults: bool,
) -> None:
    """Measure the CPU of logins, guarded calls and refreshes, next to other services (see `benchmarks/services`)."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the processes it has started end, too
    if context.invoked_subcommand is not None:
        return
    if faults:
        break_things(["--strict"] if strict else [])
    if quick:
        rounds, requests = 2, 1000
    kinds = [kind for kind in _KINDS if kind in only] or list(_KINDS)
    asked_for = [name for name in NAMES if name in only] or list(NAMES)
    names = [name for name in asked_for if not set(kinds).isdisjoint(KINDS_OF[name])]
    if earlier is None and "earlier" in names:
        names.remove("earlier")
    for name in [name for name in names if peers.missing(name) is not None]:
        names.remove(name)
        _say(f"{name}: skipped, because this is missing: {peers.missing(name)}")
    if not names:
        raise click.UsageError(f"{', '.join(asked_for)}: these services don't serve {', '.join(kinds)}")
    situations = [situation for situation in SITUATIONS if situation.kind in kinds]
    if connections:
        found = [replace(one, connections=number) for number in connections for one in situations]
        situations = list(dict.fromkeys(found))
    try:
        samples = run(
            names,
            situations,
            rounds=rounds,
            requests=requests,
            seconds=seconds,
            say=_say,
            earlier=earlier,
            apart=apart,
            syncs=syncs,
        )
    except NotDone as exc:
        raise click.ClickException(str(exc)) from None
    rows = rows_of(samples)
    verdicts = verdicts_of(rows)
    click.echo(f"{as_markdown(rows, verdicts)}\n\n{as_line()}")
    json_path.write_text(json.dumps(as_document(samples, rows, verdicts), indent=1))
    sys.exit(1 if strict and not all(verdict.met for verdict in verdicts) else 0)


main.add_command(steady, "steady")


def run(
    names: Sequence[str],
    situations: Sequence[Situation],
    *,
    rounds: int,
    requests: int,
    seconds: float,
    say: Callable[[str], None],
    earlier: Path | None = None,
    apart: float = 0.0,
    syncs: bool = False,
) -> list[Sample]:
    """Start everything, measure, and stop everything.

    Raises: NotDone.
    """
    samples: list[Sample] = []
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wxauth-benchmarks-")))
        postgres = stack.enter_context(
            EmbeddedPostgres(folder / "postgres", lasting=syncs, options={"synchronous_commit": "on"} if syncs else {})
        )
        asyncio.run(make_databases(postgres.url(), names))
        wechat_port = stack.enter_context(stand_in(folder))
        wechat_url = f"http://127.0.0.1:{wechat_port}"
        contenders = [
            stack.enter_context(
                started(
                    name,
                    database_url=stack.enter_context(way_to(postgres.url(name), apart, folder)),
                    checkout=earlier if name == "earlier" and earlier else ROOT,
                    wechat_url=wechat_url,
                    folder=folder,
                )
            )
            for name in names
        ]
        postgres_pid = postmaster_of(folder / "postgres")
        surroundings = Surroundings(wechat_port, postgres_pid)
        for contender in contenders:
            say(f"{contender.name}: {PEOPLE} people log in for the first time")
            _seed(contender, surroundings)
        for number in range(rounds + 1):
            for situation in situations:
                for contender in _in_turn(contenders, situation, number):
                    sample = measure(
                        contender,
                        situation,
                        surroundings=surroundings,
                        requests=requests * (GUARDED_PER_LOGIN if situation.kind == "guarded" else 1),
                        seconds=seconds,
                        round=number,
                    )
                    say(f"round {number}: {situation}: {contender.name}: {sample.cpu_us:.0f} µs")
                    if number > 0:
                        samples.append(sample)
    return samples


def _seed(contender: Contender, surroundings: Surroundings) -> None:
    requests = int(PEOPLE / contender.share_of_requests) + 1
    measure(contender, _SEEDING, surroundings=surroundings, requests=requests, seconds=600, round=0)


def _in_turn(contenders: Sequence[Contender], situation: Situation, number: int) -> list[Contender]:
    asked = [contender for contender in contenders if situation.kind in KINDS_OF[contender.name]]
    first = number % len(asked) if asked else 0
    return [*asked[first:], *asked[:first]]


async def make_databases(url: str, names: Sequence[str]) -> None:
    connection = await asyncpg.connect(url)
    for name in names:
        await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()


def _say(line: str) -> None:
    click.echo(line, err=True)


if __name__ == "__main__":
    main()
