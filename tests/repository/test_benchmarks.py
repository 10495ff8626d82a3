"""Each benchmark can be started: all its imports exist, and `--help` measures nothing."""

import re

import pytest

from benchmarks import growth
from scripts.write_chart import CHART, chart
from tests import forked
from tests.docs import ROOT
from tests.processes import run
from tests.world import Rows
from wxauth.server.core.clock import utc_now
from wxauth.server.core.database import Database
from wxauth.server.login.login_queries import record_login

MODULES = sorted(path.stem for path in (ROOT / "benchmarks").glob("*.py") if not path.stem.startswith("__"))


@pytest.mark.skipif(not forked.is_possible, reason="imports in a forked process")
@pytest.mark.process
def test_every_benchmark_finds_all_that_it_imports_and_has_help() -> None:
    lines = [
        f"import click, sys; sys.path.insert(0, {str(ROOT)!r})",
        *(f"import benchmarks.{name}" for name in MODULES),
    ]
    shown = re.findall(r"`(benchmarks\.\w+)`", (ROOT / "benchmarks/README.md").read_text())
    lines += [f"assert isinstance({name}.main, click.Command), {name!r}" for name in shown]
    done = run("-c", "\n".join(lines), cwd=ROOT)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_chart_is_of_the_samples() -> None:
    assert CHART.read_text() == chart(), "run scripts/docs"


@pytest.mark.own_database
async def test_users_whom_growth_loads_are_as_if_logged_in(database_url: str, database: Database, rows: Rows) -> None:
    await growth.fill(database_url, 1000, 2)
    people = growth.People(1000)
    returned = [await record_login(database, people.returning(), now=utc_now()) for _ in range(10)]
    came = await record_login(database, people.first_with_unionid(), now=utc_now())

    assert not any(login.is_new for login in returned)
    assert came.is_new
    assert await rows.fetchval("SELECT count(*) FROM identities JOIN users ON users.id = user_id") == 1001
    assert await rows.fetchval("SELECT count(*) FROM sessions JOIN identities USING (app_id, openid, user_id)") == 2011
