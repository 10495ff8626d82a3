"""Statements with named parameters: the text sent to PostgreSQL, and the order of the values."""

from dataclasses import dataclass

import pytest
from sqlmodel import SQLModel

from wxauth.server.core.statements import Nothing, Statement


def test_a_name_becomes_the_same_parameter_wherever_it_occurs() -> None:
    same = "created_at < :now"
    statement = Statement[int](f"SELECT id FROM users WHERE phone = :phone AND {same} OR :phone IS NULL AND {same}")
    assert statement.text == (
        "SELECT id FROM users WHERE phone = $1 AND created_at < $2 OR $1 IS NULL AND created_at < $2"
    )
    assert statement.names == ("phone", "now")


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 'a:name'",
        "SELECT 'it''s :name'",
        r"SELECT E'it\'s :name'",
        'SELECT ":name"',
        "SELECT 1 -- of :name, it's",
        "SELECT 1 /* of :name\n it's */ + 1",
        "SELECT $$ :name $$, $body$ $$ :name $body$",
        "SELECT id::text FROM users",
        "SELECT (ARRAY [1, 2])[1:2]",
    ],
)
def test_a_colon_that_begins_no_name_is_left_unchanged(text: str) -> None:
    statement = Statement[str](text)
    assert (statement.text, statement.names) == (text, ())


def test_a_cast_of_a_name_stays_a_cast() -> None:
    assert Statement[str]("SELECT :ip::text::inet, '{}'::jsonb").text == "SELECT $1::text::inet, '{}'::jsonb"


def test_a_number_in_place_of_a_name_is_refused() -> None:
    with pytest.raises(ValueError, match=r"\$1 must be a name"):
        Statement[Nothing]("DELETE FROM users WHERE id = $1")


def test_values_come_in_the_order_of_their_numbers() -> None:
    statement = Statement[int]("SELECT :b, :a, :b")
    assert statement.arguments({"a": 1, "b": 2}) == (2, 1)
    assert Statement[int]("SELECT :a").arguments({"a": "one"}) == ("one",)
    assert Statement[int]("SELECT 1").arguments({}) == ()


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


class Shop(SQLModel):
    id: int
    title: str | None = None


@dataclass(frozen=True, slots=True)
class Address:
    street: str


def test_a_row_is_read_into_the_model_of_its_statement() -> None:
    (shop,) = Statement[Shop]("SELECT id, title FROM shops").read([{"id": 1, "title": None}])
    assert shop == Shop(id=1)
    assert shop.model_copy(update={"title": "小店"}).model_dump() == {"id": 1, "title": "小店"}


def test_a_row_is_read_into_the_dataclass_of_its_statement() -> None:
    assert Statement[Address]("SELECT street FROM addresses").read([{"street": "x"}]) == [Address("x")]
