"""The command `python -m benchmarks.instructions`, which counts instructions per request, even on a busy machine."""

import asyncio
import re
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import click

from benchmarks.__main__ import make_databases
from benchmarks.contenders import Contender, started
from benchmarks.processes import postmaster_of, stand_in
from benchmarks.rounds import Situation, Surroundings, measure
from benchmarks.services.without_wechat import serve
from wxauth.settings.loading import load_settings
from wxauth.settings.settings import Settings
from wxauth_desk.postgres import EmbeddedPostgres

CONNECTIONS = 4
"""The number of connections. It is small, because each one's login before a load of another kind is counted, too."""
SITUATIONS = (
    Situation("login", CONNECTIONS, 0),
    Situation("guarded", CONNECTIONS, None),
    Situation("refresh", CONNECTIONS, None),
)
WARMING = 200
SECONDS = 600.0


@click.command()
@click.option(
    "--requests", type=click.IntRange(100), default=600, show_default=True, help="Number of requests in each load."
)
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=2,
    show_default=True,
    help="Rounds after a first one that isn't counted.",
)
def main(requests: int, rounds: int) -> None:
    """Count the instructions of logins, guarded calls and refreshes by Valgrind's Callgrind, in four minutes.

    Rounds differ by less than 1 %. To compare two commits, run it in a clone of each. Instructions of the kernel are
    not counted.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wxauth-benchmarks-")))
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres", lasting=False))
        asyncio.run(make_databases(postgres.url(), ["wxauth"]))
        port = stack.enter_context(stand_in(folder))
        # There is only one process, because Callgrind cannot be queried after the process has forked.
        served_by = ("valgrind", "--tool=callgrind", f"--callgrind-out-file={folder}/counts", sys.executable)
        contender = stack.enter_context(
            started(
                "wxauth",
                database_url=postgres.url("wxauth"),
                wechat_url=f"http://127.0.0.1:{port}",
                folder=folder,
                served_by=(*served_by, "-m", "benchmarks.instructions", "--serve"),
            )
        )
        surroundings = Surroundings(port, postmaster_of(folder / "postgres"))
        click.echo("| request | thousands of instructions, by round |\n|---|--:|")
        for situation in SITUATIONS:
            counts = []
            for number in range(rounds + 1):
                taken = requests if number else WARMING
                _counted_since(contender, folder)
                measure(contender, situation, surroundings=surroundings, requests=taken, seconds=SECONDS, round=number)
                counts.append(_counted_since(contender, folder) / taken / 1000)
            click.echo(f"| {situation.kind} | {', '.join(f'{count:.0f}' for count in counts[1:])} |")


def _counted_since(contender: Contender, folder: Path) -> int:
    """Return the number of instructions since the last call of this function."""
    known = set(folder.glob("counts.*"))
    subprocess.run(["callgrind_control", "--dump", str(contender.pid)], check=True, capture_output=True)
    (dump,) = set(folder.glob("counts.*")) - known
    found = re.search(r"^totals: (\d+)$", dump.read_text(), re.MULTILINE)
    assert found is not None, dump
    return int(found[1])


if __name__ == "__main__":
    serve(load_settings(Settings)) if sys.argv[1:] == ["--serve"] else main()
