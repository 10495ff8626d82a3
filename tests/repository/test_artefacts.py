"""Whatever users copy, open or run has a row in `tests/artefacts.txt`: the test that runs it, or why none can."""

import re
from collections.abc import Iterator
from fnmatch import fnmatchcase
from pathlib import Path

from tests.docs import ROOT, uncommented

LIST = ROOT / "tests/artefacts.txt"
FOLDERS = ("deploy", "examples", "clients", "scripts", ".github/workflows")
ALONE = ("Dockerfile", ".ci/run", ".env.example", "the wheel", "the sdist")
NOT_OURS = {"node_modules", "__pycache__", "miniprogram_dist"}
"""Made by what is run there."""


def rows() -> Iterator[tuple[str, str]]:
    """Of each artefact that is listed: what runs it, or `nothing: ...`, and its row."""
    runs = ""
    for line in LIST.read_text().splitlines():
        if line.startswith("    "):
            yield runs, line.strip()
        elif line and not line.startswith("#"):
            runs = line


def pages() -> list[Path]:
    found = [path for path in ROOT.glob("*/**/*.md") if not NOT_OURS & {*path.parts}]
    return sorted(
        [*ROOT.glob("*.md"), *(path for path in found if not path.relative_to(ROOT).parts[0].startswith("."))]
    )


def files() -> list[str]:
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.is_file()]
    ours = [path for path in found if not NOT_OURS & {*path.parts} and path.suffix not in (".md", ".pyc")]
    return [str(path.relative_to(ROOT)) for path in ours if path.name != "LICENSE"]


def blocks() -> dict[tuple[str, str], str]:
    """Each fenced block: its page and its text without comments, by which languages share one; then its whole text."""
    found: dict[tuple[str, str], str] = {}
    for page in pages():
        english = str(page.relative_to(ROOT)).replace(".zh-CN", "")
        for indent, block in re.findall(r"(?ms)^( *)(```.*?^ *```)$", page.read_text()):
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
    wrong = [(f"{len(rows)} rows", artefact, *rows) for artefact, rows in found.items() if len(rows) != 1]
    assert wrong == [], f"in {LIST.name}, under the test that runs it"
    assert [row for row in listed if not any(matches(row, artefact) for artefact in given)] == []


def test_each_test_that_the_list_names_exists() -> None:
    for runs in {runs for runs, _ in rows()}:
        if runs.startswith("nothing: "):
            continue
        path, _, name = runs.partition("::")
        assert (ROOT / path).is_file(), runs
        assert not name or re.search(rf"(?m)^(?:async )?def {name}\(", (ROOT / path).read_text()), runs
