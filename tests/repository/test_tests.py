"""A test can be deleted without breaking another test."""

import re

import pytest

from tests.docs import ROOT

pytestmark = pytest.mark.no_database


def test_no_test_imports_from_another_test() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {line}; move what both need into a module of its own, whose name has no test_"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line in re.findall(r"(?m)^(?:from|import) tests\b.*\btest_\w+.*", path.read_text(encoding="utf-8"))
    ]
    assert found == []
