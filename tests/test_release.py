"""What is published: checked as the package index would, and only where version and changelog agree."""

import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

import wxauth
from tests.test_packaging import metadata

ROOT = Path(__file__).parents[1]
WORKFLOW: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
DATED = f"## [{wxauth.__version__}] - 2026-12-01"

Release = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """Runs the script in a copy of the project, with this environment, and this heading in its changelog."""
    left_out = shutil.ignore_patterns(".git", ".venv", "node_modules", ".wxauth", "dist", "__pycache__", ".*_cache")
    copy = tmp_path / "project"
    shutil.copytree(ROOT, copy, ignore=left_out)
    (copy / "scripts/setup").write_text(f'cd "{copy}"\n')
    (copy / ".venv").symlink_to(ROOT / ".venv")

    def run(*arguments: str, heading: str = DATED) -> subprocess.CompletedProcess[str]:
        changelog = copy / "CHANGELOG.md"
        changelog.write_text(re.sub(r"^## \[.*", heading, changelog.read_text(), count=1, flags=re.MULTILINE))
        env = {**os.environ, "GITHUB_SERVER_URL": "https://git.example.com", "GITHUB_REPOSITORY": "wxauth/wxauth"}
        script = copy / "scripts/release"
        return subprocess.run([script, *arguments], env=env, capture_output=True, text=True, timeout=120)

    return run


@pytest.mark.wheel
def test_wheel_and_source_distribution_pass_the_checks(release: Release, tmp_path: Path) -> None:
    done = release(f"v{wxauth.__version__}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("PASSED") == 2
    assert f"wxauth-{wxauth.__version__}-py3-none-any.whl: OK" in done.stdout
    made = {path.name for path in (tmp_path / "project/dist").iterdir()}
    assert made == {f"wxauth-{wxauth.__version__}-py3-none-any.whl", f"wxauth-{wxauth.__version__}.tar.gz"}
    [wheel] = (tmp_path / "project/dist").glob("*.whl")
    shown = metadata(wheel).get_payload()
    links = set(re.findall(r"\]\((?!https:)([^)]*)\)", shown))
    assert not links, "on a package index these lead nowhere"
    assert (
        f"https://git.example.com/wxauth/wxauth/blob/v{wxauth.__version__}/docs/http.md#the-life-of-a-session" in shown
    )
    assert f"https://git.example.com/wxauth/wxauth/raw/v{wxauth.__version__}/docs/desk.png" in shown
    assert (tmp_path / "project/README.md").read_bytes() == (ROOT / "README.md").read_bytes()


@pytest.mark.wheel
def test_a_tag_of_another_version_is_refused(release: Release) -> None:
    done = release("v99.0.0")
    assert done.returncode == 1
    assert "v99.0.0" in done.stderr


@pytest.mark.wheel
def test_a_version_without_a_date_is_refused(release: Release) -> None:
    done = release(f"v{wxauth.__version__}", heading=f"## [{wxauth.__version__}] - unreleased")
    assert done.returncode == 1
    assert "has no date" in done.stderr


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == wxauth.__version__


def test_a_tag_is_published_once_it_is_built_and_tested_and_by_no_token() -> None:
    assert WORKFLOW[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 takes the word "on" for a truth value
    build, publish = WORKFLOW["jobs"]["build"], WORKFLOW["jobs"]["publish"]
    commands = [step["run"] for step in build["steps"] if "run" in step]
    assert commands == [".ci/run", 'scripts/release "$GITHUB_REF_NAME"']
    assert publish["needs"] == "build"
    assert (WORKFLOW["permissions"], publish["permissions"]) == ({}, {"id-token": "write"})
    assert "secrets." not in str(WORKFLOW)
