"""SQL statements with named parameters, and the reading of their rows."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import cached_property, partial
from operator import itemgetter
from typing import Any, Final, Generic, LiteralString, TypeVar, get_args

from pydantic import BaseModel
from typing_extensions import TypedDict

T_co = TypeVar("T_co", covariant=True)
Model = TypeVar("Model", bound=BaseModel)

# Literals, comments and casts, in which a colon is no parameter; then a parameter, as `:name` or `$1`.
_PIECES: Final = re.compile(
    r"""
      \b[eE]'(?:[^'\\]|\\.|'')*'
    | '[^']*'
    | "[^"]*"
    | --[^\n]*
    | /\*.*?\*/
    | \$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$
    | ::
    | :(?P<name>[a-z_]\w*)
    | (?P<number>\$\d+)
    """,
    re.VERBOSE | re.DOTALL,
)

_NAME: Final = re.compile("[a-z0-9_.]+(-[a-z0-9]+)*")

_set: Final = object.__setattr__


def one_and_id(
    column: LiteralString,
    value: LiteralString,
    *,
    after: LiteralString = "'00000000-0000-0000-0000-000000000000'",
    before: LiteralString = "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
) -> LiteralString:
    """SQL: whether a column has a value, and the row's id is at least `after`, and less than `before`.

    For the index on both columns; `ORDER BY` must name both. With `column = value … ORDER BY id LIMIT`, a planner whose
    statistics know few values reads all rows by their ids, because it expects to find some of any value soon. Only that
    index fits a comparison of rows.
    """
    pair = f"({column}, {column.rpartition('.')[0]}.id)"
    return f"{pair} >= ({value}, {after}) AND {pair} < ({value}, {before})"


def fragment(name: str) -> LiteralString:
    """A name or a number of ours as a part of a statement: of a column, a type. Raises: ValueError if it is neither.

    A statement is made of literals and of such parts alone. pyrefly refuses any other string.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name: {name!r}")
    return name  # pyrefly: ignore[bad-return]  # checked


def columns_of(model: type[BaseModel]) -> tuple[LiteralString, ...]:
    """The names of a model's fields, as parts of a statement."""
    return tuple(fragment(name) for name in model.model_fields)


def with_parameters(text: str, written: Callable[[str], str]) -> str:
    """A statement with each `:name` replaced by what is written for it. Raises: ValueError for a `$1`."""

    def replaced(piece: re.Match[str]) -> str:
        if piece["number"] is not None:
            raise ValueError(f"{piece['number']} must be a name")
        return piece[0] if piece["name"] is None else written(piece["name"])

    return _PIECES.sub(replaced, text)


class Nothing(TypedDict):
    """The row type of a statement that returns no rows."""


def row_of(model: type[Model], columns: Mapping[str, Any]) -> Model:
    """A row as a model, without validation, because PostgreSQL has checked it."""
    return model_of(model, dict(columns.items()))  # of a driver's row, these are read faster than by key


def model_of(model: type[Model], values: dict[str, Any]) -> Model:
    """A model with these values for all of its fields, without validation. The dictionary becomes the model's own.

    SQLModel's `__new__` would set the same attributes first, and pydantic's `model_construct` fill in defaults and
    aliases: a user takes 1, 2 and 13 µs.
    """
    made = object.__new__(model)
    _set(made, "__dict__", values)
    _set(made, "__pydantic_fields_set__", set(values))
    _set(made, "__pydantic_extra__", None)
    _set(made, "__pydantic_private__", None)
    return made


class Statement(Generic[T_co]):
    """A statement of PostgreSQL with parameters like `:name`, and the type of its rows.

    `Statement[App]("SELECT … WHERE app_id = :app_id")`. The fields of a model or of a dataclass are the columns, and
    each row is read into one; so are the keys of a TypedDict. A `tuple[str, UUID]` has the columns in their order,
    `Mapping[str, object]` is a row with any columns; any other type is that of the only column. A test compares them
    with PostgreSQL's own description. A name has one value throughout the statement, including inserted fragments. (An
    array slice with a parameter needs spaces: `[1 : size]`.)
    """

    def __init__(self, text: LiteralString) -> None:
        names: dict[str, int] = {}
        self.text: Final = with_parameters(text, lambda name: f"${names.setdefault(name, len(names) + 1)}")
        """The SQL for PostgreSQL, with `$n`."""
        self.names: Final = tuple(names)
        """The names of `$1`, `$2` and so on."""
        self._pick: Final = _tuple_of(self.names)

    @cached_property
    def kind(self) -> Any:
        """The type of its rows, with which it was made."""
        return get_args(self.__orig_class__)[0]  # type: ignore[attr-defined]

    @cached_property
    def read(self) -> Callable[[Sequence[Mapping[str, Any]]], Sequence[T_co]]:
        """Turns the driver's rows into those of this statement."""
        made = _maker(self.kind)
        return _as_they_are if made is None else lambda records: [made(record) for record in records]

    def arguments(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """The values in the order of `$n`. Raises: TypeError for a missing or an unknown name."""
        if len(values) == len(self.names):
            try:
                return self._pick(values)
            except KeyError:
                pass  # reported below
        given, names = set(values), set(self.names)
        raise TypeError(f"missing: {sorted(names - given)}, unknown: {sorted(given - names)}, of:{self.text}")


def _maker(kind: Any) -> Callable[[Mapping[str, Any]], Any] | None:
    """Makes a row of this type; None if the driver's row is used as it is."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return partial(row_of, kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return lambda record: kind(**record)
    return None


def _as_they_are(records: Sequence[Any]) -> Sequence[Any]:
    return records


def _tuple_of(names: tuple[str, ...]) -> Callable[[Mapping[str, object]], tuple[object, ...]]:
    """A function that picks the values of these names as a tuple. An itemgetter of one name returns no tuple."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)
