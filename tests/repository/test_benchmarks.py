"""Each benchmark can be started, because all its imports exist, and `--help` measures nothing."""

import json
import re
from pathlib import Path

import pytest

from benchmarks import growth
from scripts.write_chart import CHART, SAMPLES, chart
from tests import forked
from tests.docs import ROOT, guide, table
from tests.processes import run
from tests.world import Rows
from wxauth.core.clock import utc_now
from wxauth.core.database import Database
from wxauth.login.login_queries import record_login

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


def test_the_chart_leaves_out_a_service_that_was_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [row for row in json.loads(SAMPLES.read_text())["rows"] if row["service"] != "express"]
    samples = tmp_path / "performance.json"
    samples.write_text(json.dumps({"rows": rows}))
    assert ">Express<" in chart()
    monkeypatch.setattr("scripts.write_chart.SAMPLES", samples)
    drawn = chart()
    assert ">Express<" not in drawn
    assert ">wxauth<" in drawn


@pytest.mark.parametrize(("language", "header"), [("", "CPU µs .*"), (".zh-CN", ".* CPU 微秒数")])
def test_the_numbers_of_readme_and_guide_are_of_the_samples(language: str, header: str) -> None:
    services = ("wxauth", "go_whole", "go", "express", "floor", "tutorial")
    situations = (("login", 32, 0), ("login", 32, 30), ("login", 200, 0), ("guarded", 32, None), ("refresh", 32, None))
    rows = json.loads(SAMPLES.read_text())["rows"]
    measured = {(row["service"], *row["situation"].values()): row for row in rows}
    page = guide("performance", language)
    shown = [[*map(float, re.findall(r"[\d.]+", "|".join(cells[1:])))] for cells in table(page, header)]
    for situation, (own, *others) in zip(situations, shown, strict=True):
        assert own == pytest.approx(measured["wxauth", *situation]["cpu_us"], abs=3)
        for service, cpu, ratio in zip(services[1:], others[::2], others[1::2], strict=False):
            assert cpu == pytest.approx(measured[service, *situation]["cpu_us"], abs=3)
            assert ratio == pytest.approx(measured["wxauth", *situation]["ratios"][service], abs=0.05)
    costs = re.search(r"340 MB(.*)", (ROOT / f"README{language}.md").read_text())
    assert costs
    said = [*map(int, re.findall(r"\d{2,}", costs[1]))]
    own, database = said
    assert own == shown[0][0]
    assert database == pytest.approx(measured["wxauth", *situations[0]]["postgres_us"], abs=4)


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
