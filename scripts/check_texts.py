"""Check the form of all documents, their translations and links, and the files, scripts and tests that they name."""

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from check_languages import wrong_languages  # type: ignore[import-not-found]

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
FOLDERS = (
    ".",
    "docs/**",
    "examples/*",
    "clients/*",
    "desk",
    "deploy",
    "deploy/*",
    "benchmarks",
)
ONE_PAGE = [DOCS / "contribute" / f"{name}.md" for name in ("architecture", "development", "style")]
"""The pages for contributors, which exist only in English. The last one has the rules of both languages."""
LONGEST_README = 150
"""The maximum number of lines of the README, so that it can be read in five minutes."""
SHOWN = r"""(?:(?<=--title )|(?<=--reason )|(?<=reason": ))"[^"]*"|[^<>{}]+(?=</button>)|(?<=\|\| ')[^']+(?='\}\})"""
"""The texts in code that readers see: titles, reasons, and the words on buttons."""


def shape(page: Path) -> dict[str, list[Any]]:
    """Return the parts of a page that a translation does not change."""
    text = page.read_text("utf-8")
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    blocks = re.findall(r"^```(?!mermaid)[a-z]+\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    code = [*re.findall(r"^ {4}scripts.*$", prose, re.MULTILINE), *blocks]
    return {
        "headings": re.findall(r"^#+ ", prose, re.MULTILINE),
        "code": [re.sub(rf"(?m)(^| +)(#|//) .*|{SHOWN}", "", block) for block in code],
        "diagram": re.findall(r"^ +(\w+-?->>\w+):", text, re.MULTILINE),
        "rows": [re.findall("`.*?`", cell) for cell in re.findall(r"^\|(.*?)\|", prose, re.MULTILINE)],
        "links": [_in_english(page, link) for link in re.findall(r"\]\(([^)]+)\)", prose)],
    }


def _in_english(page: Path, link: str) -> str:
    """Return the target of a link in English, an address or a path; empty for a heading of the page itself."""
    target = link.partition("#")[0]
    if not target or re.match(r"\w+:", target):
        return target
    there = os.path.normpath(page.parent / target.replace(".zh-CN", ""))
    return there.replace(f"{DOCS}/zh/", f"{DOCS}/")


def translation_of(page: Path) -> Path:
    """Return the Chinese page of an English one. For guides, it is in `docs/zh`, otherwise in the same folder."""
    if page.is_relative_to(DOCS):
        return DOCS / "zh" / page.relative_to(DOCS)
    return page.with_suffix(".zh-CN.md")


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def wrong_in(page: Path, tests: set[str]) -> Iterator[str]:
    """Yield the faults of this page, given the names of all tests."""
    text, folders = page.read_text("utf-8"), (ROOT / "src/wxauth", ROOT / "clients/python/src", ROOT / "desk/src", ROOT)
    for script in re.findall(r"(?:scripts|\.ci)/\w+", text):
        is_there = (ROOT / script).is_file()
        if not is_there or (
            (ROOT / script).read_text("utf-8").startswith("#!") and not os.access(ROOT / script, os.X_OK)
        ):
            yield f"{script} cannot be run"
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", re.sub(r"`[^`\n]+`", "", text)):
        there = page.parent / target if target else page
        if not there.exists() or (anchor and anchor not in anchors(there)):
            yield f"no {target}#{anchor}"
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield from (f"zsh would run the comment of: {line}" for line in re.findall(r"(?m)^(?:.* )?# .*$", block))
    if page in ONE_PAGE or page.parent.name == "decisions":
        for name in re.findall(r"`((?:\w+/)+\w+\.py)`", text):
            if not any((folder / name).is_file() for folder in folders):
                yield f"no {name}"
    if page.name == "security.md":
        yield from (f"no {name}" for name in set(re.findall(r"`(test_\w+)`", text)) - tests)
    if page.parent == ROOT and page.name.startswith("README") and len(text.splitlines()) > LONGEST_README:
        yield f"more than {LONGEST_README} lines"
    translation = translation_of(page)
    is_guide = page.is_relative_to(DOCS) and page not in ONE_PAGE and page.parent.name != "decisions"
    if page.suffixes == [".md"] and not page.is_relative_to(DOCS / "zh") and (translation.exists() or is_guide):
        theirs = shape(translation)
        yield from (f"other {name} than in Chinese" for name, parts in shape(page).items() if parts != theirs[name])


def main() -> None:
    """Print all faults."""
    files = [
        path.read_text("utf-8") for path in (ROOT / "tests").rglob("test_*.py") if "node_modules" not in path.parts
    ]
    tests = {name for text in files for name in re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)}
    pages = sorted({page for folder in FOLDERS for page in ROOT.glob(f"{folder}/*.md")})
    wrong = [f"{page.relative_to(ROOT)}: {what}" for page in pages for what in wrong_in(page, tests)]
    code = "".join(
        file.read_text("utf-8")
        for folder in ("src", "clients/python/src", "desk/src")
        for file in (ROOT / folder).rglob("*.py")
    )
    named = set(re.findall(r"docs/[\w/-]+\.md", code))
    wrong += [f"src names {name}, which is not there" for name in sorted(named) if not (ROOT / name).is_file()]
    [shown] = re.findall(r"tests: ([\d,]+)\+", (DOCS / "badges/tests.svg").read_text("utf-8"))
    if int(shown.replace(",", "")) > len(tests):
        wrong.append(f"docs/badges/tests.svg: there are {len(tests)} tests")
    [address] = [
        *tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"].get("urls", {"": None}).values()
    ][:1]
    for page in (ROOT / "README.md", ROOT / "README.zh-CN.md"):
        if address and f"git clone {address} wxauth" not in page.read_text("utf-8"):
            wrong.append(f"{page.name}: must clone {address}, the first of the URLs in pyproject.toml")
    wrong += wrong_languages()
    if not pages or not tests or not named:
        wrong.append("no page, test or named page was found")
    sys.exit("\n".join(wrong) or None)


if __name__ == "__main__":
    main()
