"""Runs random histories with many people at once, two replicas, kills, restarts of PostgreSQL and a faulty WeChat."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from tests.databases import TEMPLATE, make_template
from tests.histories.found import rest
from tests.histories.invariants import check, history_of
from tests.histories.plan import draw
from tests.histories.town import town_of
from wxauth_desk.postgres import EmbeddedPostgres

pytestmark = pytest.mark.process

SHOWN = 3
"""The maximum number of users whose history a failure shows."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Draw as many histories as the command line requests."""
    if "seed" in metafunc.fixturenames:
        metafunc.parametrize("seed", range(1, metafunc.config.getoption("histories") + 1))


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedPostgres]:
    """A PostgreSQL that can crash without losing anything that it has committed."""
    with (
        tempfile.TemporaryDirectory(prefix="wxauth-") as folder,
        EmbeddedPostgres(Path(folder) / "data", lasting=False, options={"synchronous_commit": "on"}) as server,
    ):
        yield server


async def test_a_history_leaves_nothing_undone(server: EmbeddedPostgres, folder: Path, seed: int) -> None:
    admin = await asyncpg.connect(server.url())
    if not await admin.fetchval("SELECT EXISTS (SELECT FROM pg_database WHERE datname = $1)", TEMPLATE):
        await make_template(server, admin)
    await admin.execute(f"CREATE DATABASE history_{seed} TEMPLATE {TEMPLATE} STRATEGY FILE_COPY")
    await admin.close()
    plan = draw(seed)
    async with town_of(plan, server.url(f"history_{seed}"), folder) as town:
        await town.carry_out(plan)
        found = await rest(town)
    faults = check(found)
    if faults:
        lines = [f"{fault.about}: {fault.text}" for fault in faults]
        about = list(dict.fromkeys(fault.about for fault in faults))
        stories = [f"{each}\n{history_of(found, each)}" for each in about[:SHOWN]]
        pytest.fail(
            "\n".join(
                [f"seed {seed}, {plan.phone_policy}, {plan.grace_days} days, {town.faults_done}", *lines, *stories]
            ),
            pytrace=False,
        )
