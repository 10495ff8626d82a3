"""Writes the tables of `docs/assurance*.md` from `tests/requirements.toml` and the marks of the tests."""

import ast
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
GUIDES: Final = {"en": ROOT / "docs/assurance.md", "zh": ROOT / "docs/assurance.zh-CN.md"}
HEAD: Final = {"en": "| requirement | how | test |", "zh": "| 要求 | 做法 | 测试 |"}
BEHIND: Final = "\n## OpenSSF Scorecard\n"
"""What follows the tables."""


def sections() -> list[dict[str, Any]]:
    """The standards, with their rows: ids, English, Chinese, and the reason if there is no test."""
    found: list[dict[str, Any]] = tomllib.loads((ROOT / "tests/requirements.toml").read_text(encoding="utf-8"))[
        "section"
    ]
    return found


def id_of(section: Mapping[str, Any], row: Sequence[str]) -> str:
    """The id by which tests name a row: `rfc7636-4.6`."""
    return f"{section['prefix']}-{re.split(',| to ', row[0])[0]}"


def marked() -> dict[str, list[str]]:
    """The tests of each requirement, by their marks."""
    tests: dict[str, list[str]] = {}
    for file in sorted((ROOT / "tests").glob("*/**/test_*.py")):
        if "node_modules" in file.parts or "requirement(" not in (text := file.read_text(encoding="utf-8")):
            continue
        for made in ast.walk(ast.parse(text)):
            if isinstance(made, ast.FunctionDef | ast.AsyncFunctionDef):
                for mark in made.decorator_list:
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.requirement":
                        for name in map(ast.literal_eval, mark.args):
                            tests.setdefault(name, []).append(made.name)
    return tests


def tables(language: str) -> Iterator[str]:
    """A heading and a table for each standard."""
    tests, column = marked(), ("en", "zh").index(language)
    for section in sections():
        yield f"\n## {section['title'][column]}\n\n{HEAD[language]}\n|---|---|---|\n"
        for row in section["rows"]:
            ids = row[0] if language == "en" else row[0].replace(", ", "、").replace(" to ", " 至 ")
            if section["prefix"].startswith("rfc"):
                ids = f"[{section['prefix'].replace('rfc', 'RFC ')}, {ids}]({section['link']}#section-{ids})"
            elif section["prefix"] != "asvs":
                ids = f"[{ids}]({section['link']})"
            shown = ", ".join(f"`{test}`" for test in tests.get(id_of(section, row), ()))
            yield f"| {ids} | {row[1 + column]} | {shown}{' ' if shown else ''}|\n"


def written(language: str) -> str:
    """The guide, with the tables as they must be."""
    text = GUIDES[language].read_text(encoding="utf-8")
    before, behind = text.index("\n## "), text.index(BEHIND)
    return f"{text[:before]}{''.join(tables(language))}{text[behind:]}"


if __name__ == "__main__":
    for each, guide in GUIDES.items():
        guide.write_text(written(each), encoding="utf-8")
