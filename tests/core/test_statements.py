"""Statements have named parameters.

The tests show which texts are not parameters, and which names a call must give.
"""

import pytest

from wxauth.core.statements import Nothing, Statement


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'a:name'",
        "SELECT 'it''s :name'",
        r"SELECT E'it\'s :name'",
        'SELECT ":name"',
        "SELECT '-- :name', 1 - -1",
        "SELECT $$ :name $$, $body$ $$ :name $body$",
        "SELECT id::text FROM users",
        "SELECT (ARRAY [1, 2])[1:2]",
    ],
)
def test_a_colon_that_begins_no_name_is_left_unchanged(text: str) -> None:
    statement = Statement[str](text)
    assert (statement.text, statement.names) == (text, ())


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("SELECT 1 -- of :name, it's $1", "SELECT 1"),
        ("SELECT 1 -- of :name\n, 2", "SELECT 1 , 2"),
        ("SELECT/* of :name\n it's */1", "SELECT 1"),
        ("SELECT '/* :name */', \"--\" -- '", "SELECT '/* :name */', \"--\""),
    ],
)
def test_comments_are_not_sent_and_what_looks_like_a_parameter_in_one_is_none(text: str, sent: str) -> None:
    statement = Statement[str](text)
    assert (" ".join(statement.text.split()), statement.names) == (sent, ())


def test_a_number_in_place_of_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\$1 must be a name"):
        Statement[Nothing]("DELETE FROM users WHERE id = $1")


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"a": 1}, r"missing: \['b'\], unknown: \[\]"),
        ({"a": 1, "b": 2, "c": 3}, r"missing: \[\], unknown: \['c'\]"),
        ({"a": 1, "c": 3}, r"missing: \['b'\], unknown: \['c'\]"),
    ],
)
def test_a_call_says_which_names_are_missing_or_unknown(given: dict[str, int], reason: str) -> None:
    with pytest.raises(TypeError, match=reason):
        Statement[int]("SELECT :a + :b").arguments(given)
