"""SQL statements with named parameters."""

import re
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, Final, Generic, TypeVar

from typing_extensions import TypedDict

T_co = TypeVar("T_co", covariant=True)

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


class Nothing(TypedDict):
    """The row type of a statement that returns no rows."""


class Columns(Mapping[str, Any], Generic[T_co]):
    """A row whose columns are the fields of a class: `PostgresServer(**row)` for a `Columns[PostgresServer]`."""


class Statement(Generic[T_co]):
    """A statement of PostgreSQL with parameters like `:name`, and the type of its rows.

    `Statement[UserRow]("SELECT … WHERE id = :id")`. A TypedDict, or `Columns` of a class, names the columns;
    `Mapping[str, object]` is a row with any columns; any other type is that of the only column. A test compares them
    with PostgreSQL's own description. A name has one value throughout the statement, including inserted fragments.
    (An array slice with a parameter needs spaces: `[1 : size]`.)
    """

    def __init__(self, text: str) -> None:
        names: dict[str, int] = {}

        def numbered(piece: re.Match[str]) -> str:
            if piece["number"] is not None:
                raise ValueError(f"{piece['number']} must be a name")
            if piece["name"] is None:
                return piece[0]
            return f"${names.setdefault(piece['name'], len(names) + 1)}"

        self.text: Final = _PIECES.sub(numbered, text)
        """The SQL for PostgreSQL, with `$n`."""
        self.names: Final = tuple(names)
        """The names of `$1`, `$2` and so on."""
        self._pick: Final = _tuple_of(self.names)

    def arguments(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """The values in the order of `$n`. Raises: TypeError for a missing or an unknown name."""
        if len(values) == len(self.names):
            try:
                return self._pick(values)
            except KeyError:
                pass  # reported below
        given, names = set(values), set(self.names)
        raise TypeError(f"missing: {sorted(names - given)}, unknown: {sorted(given - names)}, of:{self.text}")


def _tuple_of(names: tuple[str, ...]) -> Callable[[Mapping[str, object]], tuple[object, ...]]:
    """A function that picks the values of these names as a tuple. An itemgetter of one name returns no tuple."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)
