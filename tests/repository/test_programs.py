"""Tests and examples name the programs that are missing, and npm's packages are locked."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.programs import ROOT, needs, output_of
from tests.repository.project import in_a_clone

DEPENDABOT = yaml.safe_load((ROOT / ".github/dependabot.yml").read_text())["updates"]
RENEWED = {update["package-ecosystem"]: update.get("directories", []) for update in DEPENDABOT}
FOLDERS = [ROOT / name.removeprefix("/") for name in RENEWED["npm"]]

each_folder = pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: str(path.relative_to(ROOT)))


@each_folder
def test_a_lock_of_npms_holds_no_address_and_a_hash_for_each_package(folder: Path) -> None:
    text = (folder / "package-lock.json").read_text()
    assert "://" not in text
    _, *packages = json.loads(text)["packages"].values()
    assert packages
    fetched = [package for package in packages if not package.get("resolved", "").startswith("file:../")]
    assert not [package for package in fetched if not re.fullmatch(r"sha512-[\w+/]{86}==", package["integrity"])]


@each_folder
def test_packages_of_npms_run_nothing_when_they_are_installed(folder: Path) -> None:
    settings = (folder / ".npmrc").read_text().splitlines()
    assert {"ignore-scripts=true", "omit-lockfile-registry-resolved=true"} <= set(settings)


@pytest.mark.node
@pytest.mark.parametrize(("kind", "resolve"), [("commonjs", "require.resolve"), ("module", "import.meta.resolve")])
def test_tools_find_the_package_json_of_each_package_with_exports(kind: str, resolve: str) -> None:
    files = [file for file in ROOT.glob("clients/*/package.json") if "exports" in json.loads(file.read_text())]
    assert len(files) > 1
    for file in files:
        script = f"console.log({resolve}('{json.loads(file.read_text())['name']}/package.json'))"
        printed = output_of(needs("node"), f"--input-type={kind}", "-e", script, cwd=file.parent)
        assert printed.strip().removeprefix("file://") == str(file)


def test_only_the_guard_for_node_may_be_published() -> None:
    packages = {folder: json.loads((folder / "package.json").read_text()) for folder in FOLDERS}
    assert [folder for folder, package in packages.items() if not package.get("private")] == [ROOT / "clients/node"]


@in_a_clone
def test_dependabot_renews_the_packages_of_every_folder() -> None:
    for ecosystem, file in (("npm", "package-lock.json"), ("gomod", "go.mod"), ("maven", "pom.xml")):
        listed = subprocess.run(["git", "ls-files", f"**/{file}"], cwd=ROOT, capture_output=True, text=True, check=True)
        assert RENEWED[ecosystem] == [f"/{Path(name).parent}" for name in listed.stdout.splitlines()]


@in_a_clone
def test_sums_are_shown_and_only_a_large_file_without_a_reason_is_refused(tmp_path: Path) -> None:
    def weigh(*arguments: str) -> list[str]:
        done = subprocess.run(
            [ROOT / "scripts/weigh", *arguments], env=env, capture_output=True, text=True, check=False
        )
        refused = [line.split(":")[0] for line in done.stdout.splitlines() if not line.endswith("at the last release")]
        assert done.returncode == bool(refused)
        return refused

    released = tmp_path / "weights"
    env = {**os.environ, "WEIGHTS": str(released)}
    released.write_text("src 10\npages 10\ntests 20\nlarge deploy/grafana/wxauth.json is imported\n")
    refused = weigh()
    assert "requirements/dev.lock" in refused
    assert not {"src", "pages", "tests", "deploy/grafana/wxauth.json"} & set(refused)
    weigh("--release")
    sums = dict(line.split()[:2] for line in released.read_text().splitlines())
    assert int(sums["src"]) > 10
    assert int(sums["tests"]) > 20


@pytest.mark.process
@pytest.mark.parametrize(
    ("code", "refused"),
    [
        ('"""A module."""\n', ["1.2 lines of docstrings"]),
        ("def _of():\n    pass\n", []),
        ('def _of():\n    """Do."""\n', ["lines of docstrings", "of the private functions"]),
        ('def _of():\n    """Do.\n\n    Raises: E, if\n    """\n', ["nobody outside", "docstrings", "private"]),
        ('@router.get("/")\ndef of():\n    """Shown in OpenAPI."""\n', []),
        ('class A(BaseModel):\n    """Shown."""\n    a: int\n    """Shown."""\nclass B(A):\n    """Shown."""\n', []),
        ('class A(SQLModel):\n    a: int\n    """A row, which nobody sees."""\n', ["lines of docstrings"]),
        ('A = 1\n"""A constant."""\n', ["lines of docstrings"]),
        ("# one two three four five six seven eight\n" * 8 + "A = 1\n", ["a comment of 72 words", "lines of comments"]),
        ("A = 1\n" * 31, ["111.0 lines of code, at most 110"]),
        ('A = """\n-- null: none\nSELECT 1"""\n' * 15, ["lines of comments"]),
    ],
)
def test_words_in_code_above_the_limits_are_refused(tmp_path: Path, code: str, refused: list[str]) -> None:
    (tmp_path / "code").mkdir()
    (tmp_path / "code/a.py").write_text(code)
    (tmp_path / "code/b.py").write_text("A = 1\n" * 80)
    (tmp_path / "weights").write_text(f"words {tmp_path / 'code'} 0 110\n")
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/weigh_words.py", tmp_path / "weights"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == bool(refused)
    assert [text in line for text, line in zip(refused, done.stdout.splitlines(), strict=True)] == [True] * len(refused)


@pytest.mark.process
def test_the_running_text_of_a_page_is_measured_and_refused_for_nothing(tmp_path: Path) -> None:
    bad, good = tmp_path / "bad.md", tmp_path / "good.md"
    bad.write_text(
        "# Head: one\n\nNo verb here: a list; another; a third.\n\n| a: b; c |\n|---|\n\n```sh\nyou: because;\n```\n"
    )
    good.write_text(
        "If you ban a user, this user can't log in, because `a: b;` [ends](x.md). For example, you must wait.\n"
    )
    shown = output_of(ROOT / "scripts/prose", "--each", bad, good).splitlines()
    figures = {line.split()[0].rpartition("/")[2]: [float(word) for word in line.split()[-8:]] for line in shown[2:]}
    assert figures["bad.md"] == [125, 250, 0, 0, 0, 0, 0, 8]
    *of_good, words = figures["good.md"]
    assert [round(number * words / 1000) for number in of_good] == [0, 0, 2, 1, 1, 1, 2]
    assert [line.split()[0] for line in shown[-3:]] == [str(bad)[-35:], str(good)[-35:], "all"]


def test_a_subject_of_another_form_is_refused_until_it_has_landed(tmp_path: Path) -> None:
    def git(*command: str) -> None:
        subprocess.run(
            ["git", "-c", "user.name=A", "-c", "user.email=a@b.c", *command], cwd=work, check=True, capture_output=True
        )

    def refused() -> list[str]:
        done = subprocess.run([work / "scripts/subjects"], capture_output=True, text=True, check=False)
        assert done.returncode == bool(done.stdout)
        return [line.partition(" ")[2] for line in done.stdout.splitlines()[1:]]

    work = tmp_path / "work"
    (work / "scripts").mkdir(parents=True)
    shutil.copy(ROOT / "scripts/subjects", work / "scripts")
    git("init", "--quiet", "--initial-branch=main", ".")
    for subject in ("first", "web: " + "x" * 56, "x", "web, cli: " + "登" * 50):
        git("commit", "--quiet", "--allow-empty", f"--message={subject}")
    git("branch", "landed", "HEAD~3")
    git("branch", "--set-upstream-to=landed")
    assert refused() == ["x", "web: " + "x" * 56]
    git("branch", "--force", "landed")
    assert refused() == []
