"""Statements of PostgreSQL's own text, whose parameters have names."""

import re
from collections.abc import Callable, Mapping
from operator import itemgetter
from typing import Any, Final, Generic, TypedDict, TypeVar

Answer = TypeVar("Answer", covariant=True)
Made = TypeVar("Made", covariant=True)

# What PostgreSQL reads as one piece, in which a colon means no parameter; then a parameter of either spelling.
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
    """The row of a statement that answers nothing."""


class Columns(Mapping[str, Any], Generic[Made]):
    """A row with the fields of a class, which is made of it: `Server(**row)` of a `Columns[Server]`."""


class Statement(Generic[Answer]):
    """PostgreSQL's own text with `:names`, and what a row of its answer is.

    `Statement[UserRow]("SELECT … WHERE id = :id")`. A TypedDict names the columns, as does `Columns` of a class;
    `Mapping[str, object]` is a row that is passed on whatever its columns are; any other type is that of the one
    column. A test compares them with what PostgreSQL says. A name stands for one value wherever it is put, also by way
    of a fragment. (A slice of an array with a name in it needs a space: `[1 : size]`.)
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
        """As PostgreSQL takes it, with `$n`."""
        self.names: Final = tuple(names)
        """The name of `$1`, of `$2`, and so on."""
        self._pick: Final = _tuple_of(self.names)

    def arguments(self, values: Mapping[str, object]) -> tuple[object, ...]:
        """The values in the order of `$n`. Raises: TypeError for a missing or an unknown name."""
        if len(values) == len(self.names):
            try:
                return self._pick(values)
            except KeyError:
                pass  # told below
        given, names = set(values), set(self.names)
        raise TypeError(f"missing: {sorted(names - given)}, unknown: {sorted(given - names)}, of:{self.text}")


def _tuple_of(names: tuple[str, ...]) -> Callable[[Mapping[str, object]], tuple[object, ...]]:
    """What takes these values out of a mapping. An itemgetter of one name would give the value by itself."""
    if len(names) > 1:
        return itemgetter(*names)
    return lambda values: tuple(values[name] for name in names)
