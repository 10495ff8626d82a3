"""The page that maps requirements to tests names tests that are there."""

import re

from tests.docs import DOCS, ROOT, both_languages

DECLARED = re.compile(r"^(?:async )?def (test_\w+)", re.MULTILINE)
NAMED = re.compile(r"`(test_\w+)`")


@both_languages
def test_each_named_test_is_there(language: str) -> None:
    declared = {name for path in (ROOT / "tests").rglob("test_*.py") for name in DECLARED.findall(path.read_text())}
    named = NAMED.findall((DOCS / f"assurance{language}.md").read_text())
    assert len(named) > 50
    assert set(named) <= declared
