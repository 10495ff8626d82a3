"""Each demand of the standards and of the contract has a row with a test, or the row says why no test exists."""

from collections import Counter

import pytest

from scripts.write_security import GUIDES, id_of, marked, sections, written

pytestmark = pytest.mark.no_database


def test_each_requirement_has_a_test_and_each_mark_a_requirement() -> None:
    rows = [(id_of(section, row), len(row) == 3) for section in sections() for row in section["rows"]]
    assert [name for name, number in Counter(name for name, _ in rows).items() if number > 1] == []
    assert {name for name, is_tested in rows if is_tested} == marked().keys()


@pytest.mark.parametrize("language", GUIDES)
def test_the_guide_is_written_from_them(language: str) -> None:
    assert GUIDES[language].read_text(encoding="utf-8") == written(language), "run scripts/docs"
