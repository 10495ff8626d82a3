"""Write the tables of `compare.md`, in English and Chinese, from `docs/start/compare.json`."""

import json
import re
import sys
from collections.abc import Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
FACTS: Final = ROOT / "docs/start/compare.json"
"""The file of the facts.

Its `sources` have a URL, and the month in which we read it. Its `rows` have a fact about each system. A fact about
another system names its source. All texts are pairs of English and Chinese.
"""
PAGES: Final = {"en": ROOT / "docs/start/compare.md", "zh": ROOT / "docs/zh/start/compare.md"}
OTHERS: Final = ("casdoor", "logto", "pocket-id", "supabase", "authing", "tutorial")
"""The names in `FACTS` of the other systems, in the order of the columns."""
_HEADERS: Final = {
    "en": ("", "wxauth", "Casdoor", "Logto", "Pocket ID", "Supabase", "Authing", "a tutorial"),
    "zh": ("", "wxauth", "Casdoor", "Logto", "Pocket ID", "Supabase", "Authing", "教程代码"),
}


def written(language: str) -> str:
    """Return the page in this language, with tables that contain the current facts."""
    facts = json.loads(FACTS.read_text(encoding="utf-8"))
    page = PAGES[language].read_text(encoding="utf-8")
    page = _with_section(page, "table", _table(facts, language))
    page = _with_section(page, "tests", _tests(facts, language))
    return _with_section(page, "sources", _sources(facts))


def _with_section(page: str, name: str, text: str) -> str:
    """Return a page whose section, which begins with `<!-- name -->` and ends with `<!-- end -->`, has this text."""
    section = re.compile(rf"(?<=<!-- {name} -->\n).*?(?=<!-- end -->)", re.DOTALL)
    page, replaced = section.subn(lambda _old: f"\n{text}\n", page)
    assert replaced == 1, f"the page must have one section {name}"
    return page


def _table(facts: Mapping[str, Any], language: str) -> str:
    """Return the table that compares wxauth with the other systems. Each cell refers to its source by a number."""
    index = tuple(PAGES).index(language)
    numbers = _numbers_of_sources(facts)

    def cell(fact: Mapping[str, Any]) -> str:
        return f"{fact['says'][index]} [{numbers[fact['source']]}]"

    header = _HEADERS[language]
    rows = ((row["row"][index], row["wxauth"][index], *(cell(row[name]) for name in OTHERS)) for row in facts["rows"])
    lines = [header, ("---",) * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _tests(facts: Mapping[str, Any], language: str) -> str:
    index, colon = tuple(PAGES).index(language), {"en": ": ", "zh": "："}[language]
    return "".join(f"- {row['row'][index]}{colon}`{row['test']}`\n" for row in facts["rows"] if row["test"])


def _sources(facts: Mapping[str, Any]) -> str:
    """Return the list of the sources, followed by the definitions that make links of the numbers in the table."""
    items = definitions = ""
    for name, number in _numbers_of_sources(facts).items():
        url, month = facts["sources"][name]
        items += f"- [{number}] {url}, {month}\n"
        definitions += f"[{number}]: {url}\n"
    return f"{items}\n{definitions}"


def _numbers_of_sources(facts: Mapping[str, Any]) -> dict[str, int]:
    """Return the number of each source, by its name. The numbers begin with 1, in the order of the file."""
    return {name: number for number, name in enumerate(facts["sources"], 1)}


def old_sources(on: date) -> list[str]:
    """Return the sources that were read more than a year before this day."""
    sources = json.loads(FACTS.read_text(encoding="utf-8"))["sources"]
    oldest = on - timedelta(days=366)
    return [f"{name}, {url}" for name, (url, month) in sources.items() if date.fromisoformat(f"{month}-28") < oldest]


if __name__ == "__main__":
    if len(sys.argv) > 1:  # the day of a release
        sys.exit("\n".join(f"look again: {source}" for source in old_sources(date.fromisoformat(sys.argv[1]))) or 0)
    for language, path in PAGES.items():
        path.write_text(written(language), encoding="utf-8")
