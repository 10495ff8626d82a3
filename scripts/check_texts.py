"""Check the guides and other documents: their form, translations and links, and the files and tests that they name.

Also check the texts for users with `check_languages.py`. Print all faults, and fail if there are any.
"""

import os
import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from check_languages import text_faults  # type: ignore[import-not-found]

ROOT: Final = Path(__file__).parents[1]
DOCS: Final = ROOT / "docs"
_FOLDERS_WITH_PAGES: Final = (".", "docs/**", "examples/*", "clients/*", "desk", "deploy", "deploy/*", "benchmarks")
_SOURCE_FOLDERS: Final = ("src", "clients/python/src", "desk/src")
_CODE_ROOTS: Final = (ROOT / "src/wxauth", ROOT / "clients/python/src", ROOT / "desk/src", ROOT)
"""The folders to which the paths of Python files in the pages for contributors are relative."""
_UNTRANSLATED: Final = [DOCS / "contribute" / f"{name}.md" for name in ("architecture", "development", "style")]
"""The pages for contributors that exist only in English. `style.md` contains the rules for both languages."""
_MAX_README_LINES: Final = 150
"""The largest number of lines of the README, so that it can be read in five minutes."""

_CODE_BLOCK: Final = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_CODE_IN_LANGUAGE: Final = re.compile(r"^```(?!mermaid)[a-z]+\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""The pattern of a code block that names its language. It does not match diagrams."""
_LINK_TARGET: Final = re.compile(r"\]\(([^)]+)\)")
_TRANSLATED_CODE: Final = re.compile(
    "|".join(
        (
            r"(?:^| +)(?:#|//) .*",  # a comment
            r'(?:(?<=--title )|(?<=--reason )|(?<=reason": ))"[^"]*"',  # a title or a reason, in a command or in JSON
            r"[^<>{}]+(?=</button>)",  # the words on a button
            r"(?<=\|\| ')[^']+(?='\}\})",  # the words that a mini-program shows for a missing value: {{name || 'none'}}
        )
    ),
    re.MULTILINE,
)
"""The pattern of the parts of code that a translation may change, because they are texts for readers."""


def main() -> None:
    """Print all faults. Exit with status 1 if there are any."""
    pages = sorted({page for folder in _FOLDERS_WITH_PAGES for page in ROOT.glob(f"{folder}/*.md")})
    tests = _names_of_tests()
    named_guides = _guides_named_in_code()
    faults = [f"{page.relative_to(ROOT)}: {fault}" for page in pages for fault in page_faults(page, tests)]
    faults += [f"src names {name}, which is not there" for name in named_guides if not (ROOT / name).is_file()]
    faults += _badge_faults(len(tests))
    faults += _clone_faults()
    faults += text_faults()
    if not pages or not tests or not named_guides:  # then this script looks in the wrong places
        faults.append("no page, test or named page was found")
    sys.exit("\n".join(faults) or None)


def page_faults(page: Path, tests: set[str]) -> Iterator[str]:
    """Yield the faults of a page. `tests` contains the names of all tests."""
    text = page.read_text("utf-8")
    yield from _script_faults(text)
    yield from _link_faults(page, text)
    yield from _shell_faults(text)
    if page in _UNTRANSLATED or page.parent.name == "decisions":
        yield from _path_faults(text)
    if page.name == "security.md":
        yield from (f"no {name}" for name in set(re.findall(r"`(test_\w+)`", text)) - tests)
    if page.parent == ROOT and page.name.startswith("README") and len(text.splitlines()) > _MAX_README_LINES:
        yield f"more than {_MAX_README_LINES} lines"
    if _has_translation(page):
        shape, shape_in_chinese = shape_of(page), shape_of(_translation_of(page))
        yield from (f"other {part} than in Chinese" for part in shape if shape[part] != shape_in_chinese[part])


def _script_faults(text: str) -> Iterator[str]:
    """Yield the scripts that a page names, but that do not exist or cannot be executed."""
    for name in re.findall(r"(?:scripts|\.ci)/\w+", text):
        script = ROOT / name
        if not script.is_file() or _lacks_permission(script):
            yield f"{name} cannot be run"


def _lacks_permission(script: Path) -> bool:
    """Return whether a script has a first line such as `#!/bin/sh`, but no permission to execute it."""
    return script.read_text("utf-8").startswith("#!") and not os.access(script, os.X_OK)


def _link_faults(page: Path, text: str) -> Iterator[str]:
    """Yield the links of a page that lead to a missing file or heading. Links to other sites are not checked."""
    without_code = re.sub(r"`[^`\n]+`", "", text)
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", without_code):
        file = page.parent / target if target else page
        if not file.exists() or (anchor and anchor not in _anchors_of(file)):
            yield f"no {target}#{anchor}"


def _anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub gives to the headings of a page, for example `a-new-key` for `A new key`."""
    headings = re.findall(r"^#+ (.*)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def _shell_faults(text: str) -> Iterator[str]:
    """Yield the lines of shell code with a comment. If a user pastes such a line into zsh, zsh runs the comment."""
    for block in re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for line in re.findall(r"^(?:.* )?# .*$", block, re.MULTILINE):
            yield f"zsh would run the comment of: {line}"


def _path_faults(text: str) -> Iterator[str]:
    """Yield the Python files that a page names by a path with a folder, but that do not exist."""
    for path in re.findall(r"`((?:\w+/)+\w+\.py)`", text):
        if not any((folder / path).is_file() for folder in _CODE_ROOTS):
            yield f"no {path}"


def _has_translation(page: Path) -> bool:
    """Return whether a page is in English and has, or must have, a Chinese translation."""
    if page.suffixes != [".md"] or page.is_relative_to(DOCS / "zh"):  # README.zh-CN.md has two suffixes
        return False
    must_have = page.is_relative_to(DOCS) and page not in _UNTRANSLATED and page.parent.name != "decisions"
    return must_have or _translation_of(page).exists()


def _translation_of(page: Path) -> Path:
    """Return the Chinese version of an English page. A guide's is in `docs/zh`, and any other is next to the page."""
    if page.is_relative_to(DOCS):
        return DOCS / "zh" / page.relative_to(DOCS)
    return page.with_suffix(".zh-CN.md")


def shape_of(page: Path) -> dict[str, list[Any]]:
    """Return the parts of a page that must be equal in both languages, by the kind of part."""
    text = page.read_text("utf-8")
    prose = _CODE_BLOCK.sub("", text)
    code = [*re.findall(r"^ {4}scripts.*$", prose, re.MULTILINE), *_CODE_IN_LANGUAGE.findall(text)]
    first_cells = re.findall(r"^\|(.*?)\|", prose, re.MULTILINE)
    return {
        "headings": re.findall(r"^#+ ", prose, re.MULTILINE),  # only the levels
        "code": [_TRANSLATED_CODE.sub("", block) for block in code],
        "diagram": re.findall(r"^ +(\w+-?->>\w+):", text, re.MULTILINE),  # the arrows without their labels
        "rows": [re.findall("`.*?`", cell) for cell in first_cells],
        "links": [_english_target(page, link) for link in _LINK_TARGET.findall(prose)],
    }


def _english_target(page: Path, link: str) -> str:
    """Return the target of a link as it would be on the English page, without the anchor.

    The target is a URL or an absolute path; an empty string if the link leads to a heading of the page itself.
    """
    target = link.partition("#")[0]
    if not target or re.match(r"\w+:", target):
        return target
    path = os.path.normpath(page.parent / target.replace(".zh-CN", ""))
    return path.replace(f"{DOCS}/zh/", f"{DOCS}/")


def _names_of_tests() -> set[str]:
    """Return the names of all tests in Python."""
    names = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        if "node_modules" not in path.parts:
            names.update(re.findall(r"^(?:async )?def (test_\w+)", path.read_text("utf-8"), re.MULTILINE))
    return names


def _guides_named_in_code() -> list[str]:
    """Return the paths of the guides that Python files of the products name, sorted."""
    names = set()
    for folder in _SOURCE_FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            names.update(re.findall(r"docs/[\w/-]+\.md", path.read_text("utf-8")))
    return sorted(names)


def _badge_faults(number_of_tests: int) -> Iterator[str]:
    """Yield a fault if the badge promises more tests than there are."""
    [shown] = re.findall(r"tests: ([\d,]+)\+", (DOCS / "badges/tests.svg").read_text("utf-8"))
    if int(shown.replace(",", "")) > number_of_tests:
        yield f"docs/badges/tests.svg: there are {number_of_tests} tests"


def _clone_faults() -> Iterator[str]:
    """Yield the READMEs that do not clone the first URL in `pyproject.toml`. If there is no URL, yield nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    url = next(iter(project.get("urls", {}).values()), None)
    if url is None:
        return
    for name in ("README.md", "README.zh-CN.md"):
        if f"git clone {url} wxauth" not in (ROOT / name).read_text("utf-8"):
            yield f"{name}: must clone {url}, the first of the URLs in pyproject.toml"


if __name__ == "__main__":
    main()
