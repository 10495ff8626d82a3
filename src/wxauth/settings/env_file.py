"""A reader of the file `.env`. It uses python-dotenv's parser, and keeps the line number of each statement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path

from dotenv.main import resolve_variables
from dotenv.parser import parse_stream


@dataclass(frozen=True, slots=True, repr=False)
class EnvLine:
    """A statement of the file, or an environment variable.

    Any part of a statement might contain a secret, even the part before the `=`.
    """

    number: int | None
    """The number of the statement's first line; None if the text is the name of an environment variable."""
    text: str
    """The whole statement, or the name of an environment variable."""
    name: str | None
    """The name of the variable; None if the statement has neither the form NAME=value nor the form NAME."""
    value: str | None
    """The value; None if the statement has no `=`."""


@dataclass(frozen=True, slots=True, repr=False)
class EnvFile:
    """The contents of a `.env` file. Both fields are empty if there is no such file."""

    values: Mapping[str, str | None]
    """The values that the file sets, by the names of their variables. The value of a name without `=` is None."""
    lines: Sequence[EnvLine]
    """The statements of the file, without comments and blank lines."""


def read_env_file(path: Path) -> EnvFile:
    """Read the file `.env`. If it does not exist, or is a folder, return empty contents.

    Raises: OSError; UnicodeDecodeError, if the file is not UTF-8.
    """
    # If the file that is to be mounted does not exist, Docker creates a folder in its place.
    if not path.exists() or path.is_dir():
        return EnvFile({}, [])
    stream = StringIO(path.read_text(encoding="utf-8-sig"))
    lines: list[EnvLine] = []
    for statement in parse_stream(stream):
        if statement.key is None and not statement.error:
            continue  # a comment, or blank lines
        # The parser counts the blank lines before a statement as part of the statement.
        text = statement.original.string
        blank_lines = text[: -len(text.lstrip())].count("\n")
        first_line = statement.original.line + blank_lines
        lines.append(EnvLine(first_line, text.strip(), statement.key, statement.value))
    assignments = [(line.name, line.value) for line in lines if line.name is not None]
    # In a value, `${NAME}` means the value that an earlier line sets or, if none does, the value in the environment.
    return EnvFile(resolve_variables(assignments, override=True), lines)
