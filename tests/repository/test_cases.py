"""Each reported case has a test, or says why no test can cover it."""

import re
import tomllib
from collections import Counter

import pytest

from tests.docs import ROOT

pytestmark = pytest.mark.no_database


def test_each_case_names_where_it_was_seen_and_the_test_that_holds_it() -> None:
    kinds = tomllib.loads((ROOT / "tests/cases.toml").read_text(encoding="utf-8"))["kind"]
    rows = [row for kind in kinds for row in kind["rows"]]
    assert [case for case, times in Counter(case for _, case, _ in rows).items() if times > 1] == []
    for source, case, held_by in rows:
        assert source, case
        if held_by.startswith("nothing: "):
            continue
        path, _, name = held_by.partition("::")
        assert (ROOT / path).is_file(), (case, held_by)
        text = (ROOT / path).read_text(encoding="utf-8")
        assert re.search(rf"(?m)^\s*(?:async )?def {name}\(|^\s*test\(['\"`]{re.escape(name)}['\"`]", text), (
            case,
            held_by,
        )
