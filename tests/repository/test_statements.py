"""An SQL statement consists only of literals and of names that `fragment` has checked."""

import pytest

from wxauth.core.statements import Statement, fragment


def refused_by_pyrefly(name: str) -> tuple[Statement[int], Statement[int]]:
    """Contain a line that pyrefly must reject.

    `scripts/check` fails if pyrefly accepts it. The function is never called.
    """
    right = Statement[int](f"SELECT 1 FROM {fragment(name)}")
    return right, Statement[int](f"SELECT 1 FROM {name}")  # pyrefly: ignore[bad-argument-type]


@pytest.mark.no_database
@pytest.mark.parametrize("name", ["", "users; DROP TABLE users", "a--b", "Users", "a b", "'a'", "a\n"])
def test_what_is_no_name_is_no_part(name: str) -> None:
    with pytest.raises(ValueError, match="not a name"):
        fragment(name)
