"""`tests/artefacts.txt` lists every file that users copy, open or run.

Each entry names the test that runs the file, or says why no test can run it.
"""

import re
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path

from tests.docs import ROOT, uncommented

LIST = ROOT / "tests/artefacts.txt"
FOLDERS = ("deploy/", "examples/", "clients/", "scripts/", ".github/workflows/")
ALONE = ("Dockerfile", ".ci/bare", ".ci/run", ".env.example", "the wheel", "the sdist")
NOT_OURS = {"node_modules", "__pycache__", "miniprogram_dist"}
"""Folders that running the artefacts creates."""


def rows() -> Iterator[tuple[str, str]]:
    """Yield the test that runs each listed artefact (or `nothing: ...`), and the artefact's row."""
    runs = ""
    for line in LIST.read_text().splitlines():
        if line.startswith("    "):
            yield runs, line.strip()
        elif line and not line.startswith("#"):
            runs = line


@cache
def repository() -> list[Path]:
    """Return the files that git knows, or all files of a source distribution."""
    command = ("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    names = done.stdout.split("\0") if done.stdout else [str(path.relative_to(ROOT)) for path in ROOT.rglob("*")]
    found = [Path(name) for name in sorted(names) if not NOT_OURS & {*Path(name).parts}]
    return [path for path in found if (ROOT / path).is_file() and not (ROOT / path).is_symlink()]


def files() -> list[str]:
    ours = (path for path in repository() if str(path).startswith(FOLDERS) and path.name != "LICENSE")
    return [str(path) for path in ours if path.suffix not in (".md", ".pyc")]


def blocks() -> dict[tuple[str, str], str]:
    """Return each fenced block in full, by its page and its text without comments. Both languages share this key."""
    found: dict[tuple[str, str], str] = {}
    for page in (path for path in repository() if path.suffix == ".md" and not path.parts[0].startswith(".")):
        english = str(page).replace(".zh-CN", "").replace("docs/zh/", "docs/")
        for indent, block in re.findall(r"(?ms)^( *)(```.*?^ *```)$", (ROOT / page).read_text()):
            whole = block.replace(f"\n{indent}", "\n")
            found.setdefault((english, uncommented(whole)), whole)
    return found


def matches(row: str, artefact: str | tuple[str, str]) -> bool:
    page, _, words = row.partition(": ")
    if isinstance(artefact, str):
        return not words and fnmatchcase(artefact, page)
    return bool(words) and fnmatchcase(artefact[0], page) and words in " ".join(artefact[1].split())


def test_whatever_is_given_away_is_run_or_says_why_it_cannot_be() -> None:
    listed = [row for _, row in rows()]
    given: list[str | tuple[str, str]] = [*ALONE, *files(), *blocks()]
    found = {artefact: [row for row in listed if matches(row, artefact)] for artefact in given}
    wrong = [f"{len(rows)} rows for {artefact}: {rows}" for artefact, rows in found.items() if len(rows) != 1]
    assert not wrong, f"in {LIST.name}, one row under the test that runs it:\n" + "\n".join(wrong)
    counts = {row: sum(matches(row, artefact) for artefact in given) for row in listed}
    assert {row: count for row, count in counts.items() if count != 1 and not (count and "*" in row)} == {}


def test_each_test_that_the_list_names_exists() -> None:
    for runs in {runs for runs, _ in rows()}:
        if runs.startswith("nothing: "):
            continue
        path, _, name = runs.partition("::")
        assert (ROOT / path).is_file(), runs
        assert not name or re.search(rf"(?m)^(?:async )?def {name}\(", (ROOT / path).read_text()), runs
