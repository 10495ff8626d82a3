"""Functions that read guides for the tests of documents."""

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
    """Return the page with this name, from any folder of `docs`, or of `docs/zh` if a language is given."""
    [page] = (page for page in pages(language) if page.stem == name)
    return page


def pages(language: str = "") -> list[Path]:
    """Return the guides of a language, without the page that lists all guides."""
    folder = DOCS / "zh" if language else DOCS
    return [page for page in sorted(folder.glob("*/**/*.md")) if language or not page.is_relative_to(DOCS / "zh")]


def code_blocks(page: Path, language: str) -> list[str]:
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [re.sub(rf"(?m)^{indent}", "", block) for indent, block in found]


def block(page: str | Path, words: str) -> str:
    """Return the page's block with these words, and check that all other blocks with these words are the same."""
    text, *again = [text for text in code_blocks(ROOT / page, r"\w+") if words in text]
    assert {*map(uncommented, again)} <= {uncommented(text)}
    return text


def uncommented(text: str) -> str:
    """Return a block without the text that differs between the languages: comments, titles and reasons."""
    return re.sub(r'(?m)(?:^| +)(?:#|//) .*| +$|(?:(?<=--title )|(?<=--reason )|(?<=reason": ))"[^"]*"', "", text)


def table(page: Path, header: str) -> list[list[str]]:
    """Return the cells of the table whose first column has this header."""
    rows = re.search(rf"^\| (?:{header}) \|.*\n\|[-:|]+\|\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    assert rows, f"{page.name} has no table of {header}"
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows[1].splitlines()]


def failures() -> list[type[WxAuthError]]:
    """Return the failures with a code of their own, without those that tests define."""
    modules = ("wxauth.errors", "wxauth_guard.errors")
    return [kind for kind in kinds_of(WxAuthError) if "code" in vars(kind) and kind.__module__ in modules]


@cache
def openapi() -> dict[str, Any]:
    """Return the OpenAPI document of all operations."""
    return create_api().openapi()


@cache
def access() -> dict[str, tuple[str, list[str]]]:
    """Return the id of each operation in `tests/web/operations.txt`, and who may use it.

    The users are `anybody`, `user`, `support`, `admin`, or `client` with a scope. Administrators can also use
    operations of `support`. An operation of `admin` can require a `fresh` login. A question mark means that the request
    may lack credentials.
    """
    lines = (line.split() for line in (ROOT / "tests/web/operations.txt").read_text().splitlines())
    return {f"{method} {path}": (name, who) for method, path, name, *who in lines}
