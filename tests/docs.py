"""What tests of documents read in them."""

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.problems import kinds_of
from wxauth.service.app import create_api
from wxauth_guard.errors import WxAuthError

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
both_languages = pytest.mark.parametrize("language", ["", ".zh-CN"], ids=["English", "Chinese"])


def guide(name: str, language: str = "") -> Path:
    """Return the page of this name, in whichever folder of `docs` or, with a language, of `docs/zh` it is."""
    [page] = (page for page in pages(language) if page.stem == name)
    return page


def pages(language: str = "") -> list[Path]:
    """Return the guides of a language, but for the list of them all."""
    folder = DOCS / "zh" if language else DOCS
    return [page for page in sorted(folder.glob("*/**/*.md")) if language or not page.is_relative_to(DOCS / "zh")]


def code_blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(rf"(?m)^{indent}", "", block) for indent, block in found]


def block(page: str | Path, words: str) -> str:
    """The only block of this page with these words, or one of several that are the same."""
    text, *again = [text for text in code_blocks(ROOT / page, r"\w+") if words in text]
    assert {*map(uncommented, again)} <= {uncommented(text)}
    return text


def uncommented(text: str) -> str:
    """What both languages have in common: neither comments nor titles and reasons."""
    return re.sub(r'(?m)(?:^| +)(?:#|//) .*| +$|(?:(?<=--title )|(?<=--reason )|(?<=reason": ))"[^"]*"', "", text)


def table(page: Path, header: str) -> list[list[str]]:
    """The cells of the table whose first column has this header."""
    rows = re.search(rf"^\| (?:{header}) \|.*\n\|[-:|]+\|\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    assert rows, f"{page.name} has no table of {header}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1].splitlines()]


def failures() -> list[type[WxAuthError]]:
    """Those that have a code of their own, and are no test's."""
    modules = ("wxauth.errors", "wxauth_guard.errors")
    return [kind for kind in kinds_of(WxAuthError) if "code" in vars(kind) and kind.__module__ in modules]


@cache
def openapi() -> dict[str, Any]:
    """The documentation of all operations."""
    return create_api().openapi()


@cache
def access() -> dict[str, tuple[str, list[str]]]:
    """Of each operation of `tests/web/operations.txt`: its id, and who may use it.

    These are `anybody`; `user`; `support`, which an administrator may, too; `admin`, perhaps with a `fresh` login;
    `client` with a scope. A question mark stands for credentials that may be missing.
    """
    lines = (line.split() for line in (ROOT / "tests/web/operations.txt").read_text().splitlines())
    return {f"{method} {path}": (name, who) for method, path, name, *who in lines}
