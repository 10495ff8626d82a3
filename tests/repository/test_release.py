"""Releases are checked as the package index does, and need a version that agrees with the changelog."""

import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
import yaml

import wxauth
from tests.programs import needs
from tests.repository.project import PROJECT, metadata

ROOT = Path(__file__).parents[2]
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
PACKAGE_FILES = ("package.json", "package-lock.json")
ON_MAIN = "git merge-base --is-ancestor HEAD origin/main"
DATED = f"## [{wxauth.__version__}] - 2026-12-01"


class Project:
    """A copy of the project, without what git ignores."""

    def __init__(self, folder: Path) -> None:
        left_out = (".git", ".venv*", "node_modules", ".wxauth", "dist", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left_out))
        (folder / "scripts/setup").write_text(f'cd "{folder}"\n')
        (folder / ".venv").symlink_to(ROOT / ".venv")
        self.folder = folder

    def release(self, tag: str, *, heading: str = DATED) -> subprocess.CompletedProcess[str]:
        """Run the script with this heading in the changelog."""
        changelog = self.folder / "CHANGELOG.md"
        changelog.write_text(re.sub(r"^## \[.*", heading, changelog.read_text(), count=1, flags=re.MULTILINE))
        env = {**os.environ, "GITHUB_SERVER_URL": "https://git.example.com", "GITHUB_REPOSITORY": "wxauth/wxauth"}
        script = self.folder / "scripts/release"
        return subprocess.run([script, tag], env=env, capture_output=True, text=True, timeout=120)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a release, and what the script printed."""
    project = Project(tmp_path_factory.mktemp("released") / "project")
    done = project.release(f"v{wxauth.__version__}")
    assert done.returncode == 0, done.stdout + done.stderr
    return project.folder, done.stdout


@pytest.mark.wheel
def test_wheel_and_source_distribution_pass_the_checks(released: tuple[Path, str]) -> None:
    folder, printed = released
    assert printed.count("PASSED") == 2
    assert f"wxauth-{wxauth.__version__}-py3-none-any.whl: OK" in printed
    made = {path.name for path in (folder / "dist").iterdir()}
    assert made == {f"wxauth-{wxauth.__version__}-py3-none-any.whl", f"wxauth-{wxauth.__version__}.tar.gz"}
    [wheel] = (folder / "dist").glob("*.whl")
    shown = metadata(wheel).get_payload()
    links = set(re.findall(r"\]\((?!https:)([^)]*)\)", shown))
    assert not links, "on a package index these lead nowhere"
    assert (
        f"https://git.example.com/wxauth/wxauth/blob/v{wxauth.__version__}/docs/http.md#the-life-of-a-session" in shown
    )
    assert f"https://git.example.com/wxauth/wxauth/raw/v{wxauth.__version__}/docs/pictures/login.png" in shown
    urls = dict(line.split(", ") for line in metadata(wheel).get_all("Project-URL"))
    assert urls["Repository"] == "https://git.example.com/wxauth/wxauth"
    assert urls["Changelog"] == f"https://git.example.com/wxauth/wxauth/blob/v{wxauth.__version__}/CHANGELOG.md"
    for changed in ("README.md", "pyproject.toml", "clients/node/README.md", "clients/node/package.json"):
        assert (folder / changed).read_bytes() == (ROOT / changed).read_bytes()


@pytest.mark.wheel
@pytest.mark.node
def test_the_guard_for_node_is_packed_with_absolute_links(released: tuple[Path, str]) -> None:
    needs("npm")
    folder, _ = released
    with tarfile.open(folder / f"build/wxauth-guard-{wxauth.__version__}.tgz") as package:
        shown, described = (package.extractfile(f"package/{name}") for name in ("README.md", "package.json"))
        assert shown is not None
        assert described is not None
        assert not re.findall(r"\]\((?!https:)([^)]*)\)", shown.read().decode())
        assert json.load(described)["repository"] == {
            "type": "git",
            "url": "git+https://git.example.com/wxauth/wxauth.git",
            "directory": "clients/node",
        }


@pytest.mark.wheel
def test_a_tag_of_another_version_is_refused(project: Project) -> None:
    done = project.release("v99.0.0")
    assert done.returncode == 1
    assert "v99.0.0" in done.stderr


@pytest.mark.wheel
def test_a_version_without_a_date_is_refused(project: Project) -> None:
    done = project.release(f"v{wxauth.__version__}", heading=f"## [{wxauth.__version__}] - unreleased")
    assert done.returncode == 1
    assert "has no date" in done.stderr


def test_every_package_has_this_version() -> None:
    package, lock = (json.loads((ROOT / "clients/node" / name).read_text()) for name in PACKAGE_FILES)
    kubernetes = yaml.safe_load((ROOT / "deploy/kubernetes/kustomization.yaml").read_text())
    named = [package["version"], lock["version"], lock["packages"][""]["version"], kubernetes["images"][0]["newTag"]]
    assert [PROJECT["version"], *named] == [wxauth.__version__] * 5


def test_the_changelog_begins_with_this_version() -> None:
    first = re.search(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert first is not None
    assert first[1] == wxauth.__version__


def test_a_tag_is_published_once_it_is_built_and_tested_and_by_no_token() -> None:
    assert WORKFLOW[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 takes the word "on" for a truth value
    test, build, publish = (WORKFLOW["jobs"][name] for name in ("test", "build", "publish"))
    assert _commands(test) == [".ci/run"]
    assert _commands(build) == [ON_MAIN, 'scripts/release "$GITHUB_REF_NAME"']
    assert publish["needs"] == ["test", "build"]
    assert "secrets." not in str(WORKFLOW)


def test_each_job_of_the_release_may_do_only_what_it_needs() -> None:
    assert WORKFLOW["permissions"] == {}
    allowed = {name: job["permissions"] for name, job in WORKFLOW["jobs"].items()}
    assert allowed == {"test": {"contents": "read"}, "build": {"contents": "read"}, "publish": {"id-token": "write"}}
    assert [name for name, job in WORKFLOW["jobs"].items() if "container" in job] == ["test"], "published from an image"


def test_actions_are_pinned_by_commit_with_a_comment_that_names_the_version() -> None:
    for path in (ROOT / ".github").rglob("*.y*ml"):
        for line in path.read_text().splitlines():
            if re.match(r" *(- )?uses:", line):
                assert re.fullmatch(r" *(- )?uses: [\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", line), (
                    f"{path.name}: {line}"
                )


def test_only_commits_on_main_are_published(tmp_path: Path) -> None:
    origin, checkout = tmp_path / "origin", tmp_path / "checkout"
    person = ["-c", "user.name=tests", "-c", "user.email=tests@example.com"]

    def git(*arguments: str, where: Path = origin) -> None:
        subprocess.run(["git", *person, *arguments], cwd=where, check=True, capture_output=True, timeout=30)

    def is_published(tag: str) -> bool:
        git("checkout", "--quiet", "--detach", tag, where=checkout)
        return subprocess.run(["bash", "-e", "-c", ON_MAIN], cwd=checkout, timeout=30).returncode == 0

    origin.mkdir()
    git("init", "--quiet", "--initial-branch=main")
    git("commit", "--quiet", "--allow-empty", "--message=first")
    git("tag", "v1.0.0")
    git("commit", "--quiet", "--allow-empty", "--message=second")
    git("checkout", "--quiet", "-b", "elsewhere")
    git("commit", "--quiet", "--allow-empty", "--message=never reviewed")
    git("tag", "--annotate", "--message=not ours", "v1.0.1")
    git("checkout", "--quiet", "main")
    git("clone", "--quiet", str(origin), str(checkout), where=tmp_path)
    assert is_published("v1.0.0")
    assert not is_published("v1.0.1")


def _commands(job: dict[str, Any]) -> list[str]:
    return [step["run"] for step in job["steps"] if "run" in step]
