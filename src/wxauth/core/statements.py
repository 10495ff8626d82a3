"""SQL statements with named parameters, and functions that read their rows."""

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

# In literals, quoted names, comments and casts, a colon does not begin a parameter. Everywhere else, `:name` is a
# parameter, and `$1` is an error.
_PIECES: Final = re.compile(
    r"""
      \b[eE]'(?:[^'\\]|\\.|'')*'  # a string with escapes: E'it\'s'
    | '[^']*'
    | "[^"]*"
    | --[^\n]*
    | /\*.*?\*/
    | \$(?P<tag>[A-Za-z_]\w*|)\$.*?\$(?P=tag)\$  # a dollar-quoted string: $$text$$ or $tag$text$tag$
    | ::  # a cast
    | :(?P<name>[a-z_]\w*)
    | (?P<number>\$\d+)
    """,
    re.VERBOSE | re.DOTALL,
)

_NAME: Final = re.compile("[a-z0-9_.]+(-[a-z0-9]+)*")
"""The pattern of the names and numbers that `fragment` accepts. It allows no quote, no space and no comment."""

_set_unchecked: Final = object.__setattr__
"""A function that sets an attribute without pydantic's checks."""


def pair_range(
    column: LiteralString,
    value: LiteralString,
    *,
    after: LiteralString = "'00000000-0000-0000-0000-000000000000'",
    before: LiteralString = "'ffffffff-ffff-ffff-ffff-ffffffffffff'",
) -> LiteralString:
    """Return SQL that is true if `column` equals `value`, and the row's id is at least `after` and less than `before`.

    `column` begins with the name of the table or its alias, for example `events.user_id`. `value`, `after` and `before`
    are SQL expressions, for example `:user_id`.

    The SQL compares pairs of the column and the id, for example `(events.user_id, events.id) >= (:user_id, :after)`.
    This comparison suits an index on both columns, and `ORDER BY` must name both. With `user_id = :user_id … ORDER BY
    id LIMIT 20`, PostgreSQL might read all rows in the order of their ids. It chooses this plan if its statistics
    contain few values of the column, because it then expects to find enough matching rows soon. A comparison of pairs
    can only use the index on both columns.
    """
    pair = f"({column}, {column.rpartition('.')[0]}.id)"
    return f"{pair} >= ({value}, {after}) AND {pair} < ({value}, {before})"


def fragment(name: str) -> LiteralString:
    """Return one of wxauth's names or numbers as a part of a statement.

    A statement consists only of literals and of such parts, for example the name of a column or a type. pyrefly refuses
    any other string.

    Raises: ValueError, if `name` is neither a name nor a number.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a name: {name!r}")
    return name  # pyrefly: ignore[bad-return]  # checked


def columns_of(model: type[BaseModel]) -> tuple[LiteralString, ...]:
    """Return the names of a model's fields, checked for use in the SQL of a statement."""
    return tuple(fragment(name) for name in model.model_fields)


def with_parameters(text: str, parameter_of: Callable[[str], str]) -> str:
    """Replace each `:name` in a statement with the text that `parameter_of` returns for the name.

    Raises: ValueError, if the statement contains a numbered parameter, such as `$1`.
    """

    def replacement_of(piece: re.Match[str]) -> str:
        if piece["number"] is not None:
            raise ValueError(f"{piece['number']} must be a name")
        return piece[0] if piece["name"] is None else parameter_of(piece["name"])

    return _PIECES.sub(replacement_of, text)


class Nothing(TypedDict):
    """The row type of a statement that returns no rows."""


def model_of(model: type[Model], columns: Mapping[str, Any]) -> Model:
    """Create a model from a row that has all the model's fields.

    There is no validation, because PostgreSQL has checked the row. Creating the model of a user takes 1 µs. With
    SQLModel's `__new__`, it would take 2 µs, because that method first sets the same attributes. Pydantic's
    `model_construct` takes 13 µs, because it fills in defaults and aliases.
    """
    row = object.__new__(model)
    # Reading all columns of the driver's row at once is faster than reading them one by one.
    values = dict(columns.items())
    _set_unchecked(row, "__dict__", values)
    _set_unchecked(row, "__pydantic_fields_set__", set(values))
    _set_unchecked(row, "__pydantic_extra__", None)
    _set_unchecked(row, "__pydantic_private__", None)
    return row


class Statement(Generic[T_co]):
    """An SQL statement for PostgreSQL with parameters like `:name`, and the type of its rows.

    An example is `Statement[App]("SELECT … WHERE app_id = :app_id")`. If the type is a model or a dataclass, its fields
    are the columns, and each row becomes an object of this type. If the type is a TypedDict, its keys are the columns.
    A `tuple[str, UUID]` has the columns in their order, and a `Mapping[str, object]` has any columns. Any other type is
    the type of the only column. A test compares these types with PostgreSQL's own description of each statement.

    A parameter has the same value wherever it occurs in the statement, including inserted fragments. An array slice
    needs a space after its colon, as in `[1 : :size]`, because `::` is a cast, and `:name` is a parameter.
    """

    def __init__(self, text: LiteralString) -> None:
        numbers: dict[str, int] = {}

        def numbered(name: str) -> str:
            """Return `$n` for a parameter, where `n` counts the names in the order of their first occurrence."""
            if name not in numbers:
                numbers[name] = len(numbers) + 1
            return f"${numbers[name]}"

        self.text: Final = with_parameters(text, numbered)
        """The SQL for PostgreSQL, with `$n`."""
        self.names: Final = tuple(numbers)
        """The names of `$1`, `$2` and so on."""
        self._pick: Final = _picker_of(self.names)

    @cached_property
    def kind(self) -> Any:
        """The type of the statement's rows: `X` for a `Statement[X](…)`."""
        # `Generic` sets `__orig_class__` after the constructor has returned.
        return get_args(self.__orig_class__)[0]  # type: ignore[attr-defined]

    @cached_property
    def read(self) -> Callable[[Sequence[Mapping[str, Any]]], Sequence[T_co]]:
        """A function that turns rows of the driver into rows of this statement's type."""
        make = _row_maker(self.kind)
        if make is None:
            return _as_they_are
        return lambda records: [make(record) for record in records]

    def arguments(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """Return the values in the order of `$n`. Raises: TypeError, if a name is missing or unknown."""
        if len(values) == len(self.names):
            try:
                return self._pick(values)
            except KeyError:
                pass  # the name that is missing is reported below
        missing = sorted(set(self.names) - set(values))
        unknown = sorted(set(values) - set(self.names))
        raise TypeError(f"missing: {missing}, unknown: {unknown}, of:{self.text}")


def _row_maker(kind: Any) -> Callable[[Mapping[str, Any]], Any] | None:
    """Return a function that makes a row of this type, or None if the driver's row needs no change."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return partial(model_of, kind)
    if isinstance(kind, type) and is_dataclass(kind):
        return lambda record: kind(**record)
    return None


def _as_they_are(records: Sequence[Any]) -> Sequence[Any]:
    return records


def _picker_of(names: tuple[str, ...]) -> Callable[[Mapping[str, object]], tuple[object, ...]]:
    """Return a function that picks the values of these names as a tuple.

    An itemgetter with a single name would return the value itself instead of a tuple.
    """
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)
