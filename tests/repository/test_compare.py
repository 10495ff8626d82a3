"""In `docs/start/compare.md`, claims about other products have recent sources, and claims about wxauth have tests."""

import json
import re
from datetime import date

import pytest

from scripts.write_compare import FACTS, OTHERS, PAGES, old_sources, written
from tests.docs import DOCS

FOUND = json.loads(FACTS.read_text())


@pytest.mark.parametrize("language", PAGES)
def test_the_comparison_is_written_from_its_facts(language: str) -> None:
    assert PAGES[language].read_text() == written(language), "run scripts/docs"


def test_the_comparison_has_what_speaks_against_wxauth() -> None:
    assert [row["row"][0] for row in FOUND["rows"] if row["wxauth"][0] == "no"]
    assert "## Why not us" in PAGES["en"].read_text()


def test_each_fact_about_another_product_has_a_source_with_a_month() -> None:
    months = [month for _url, month in FOUND["sources"].values()]
    assert not old_sources(date.fromisoformat(f"{max(months)}-28"))
    assert len(old_sources(date.fromisoformat("2100-01-01"))) == len(months)
    for row in FOUND["rows"]:
        for name in OTHERS:
            assert row[name]["source"] in FOUND["sources"]
    used = {row[name]["source"] for row in FOUND["rows"] for name in OTHERS}
    assert used == FOUND["sources"].keys()


def test_each_fact_about_wxauth_names_a_test() -> None:
    tests = {
        name
        for file in (DOCS.parent / "tests").glob("*/**/test_*.py")
        for name in re.findall(r"def (test_\w+)", file.read_text())
    }
    for row in FOUND["rows"]:
        assert row["test"] in tests or not row["test"], row["row"][0]
        assert row["test"] or not row["wxauth"][0].startswith("yes")
