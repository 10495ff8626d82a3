"""The reader of the file `.env`, which the health check imports without the settings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Final

from dotenv.main import resolve_variables
from dotenv.parser import parse_stream

ENV_FILE: Final = Path(".env")


@dataclass(frozen=True, slots=True, repr=False)
class EnvLine:
    """A statement of the file, or an environment variable. Any part might contain a secret, even before the `=`."""

    number: int | None  # None for an environment variable
    text: str  # the whole statement, or the name of an environment variable
    name: str | None  # None for neither NAME=value nor NAME
    value: str | None  # None without `=`


@dataclass(frozen=True, slots=True, repr=False)
class EnvFile:
    values: Mapping[str, str | None]  # None for a name without `=`
    lines: Sequence[EnvLine]  # without comments and blank lines


def read_env_file(path: Path) -> EnvFile:
    """Read the file `.env` with python-dotenv's parser, and keep the line number of each statement.

    If the file does not exist, or is a folder, the contents are empty.
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
