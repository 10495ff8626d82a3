"""The file `.env`, read as python-dotenv reads it, with the place of each statement."""

from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import NamedTuple

from dotenv.main import resolve_variables
from dotenv.parser import parse_stream


class EnvLine(NamedTuple):
    """A statement. A secret may be anywhere in it, also where its name should be."""

    number: int
    text: str
    name: str | None
    """None: it is not of the form NAME=value."""
    value: str | None


def read_env_file(path: Path) -> tuple[Mapping[str, str | None], Sequence[EnvLine]]:
    """What the file sets, and all of its statements; nothing, if there is no such file.

    Raises: OSError, UnicodeDecodeError.
    """
    if not path.exists() or path.is_dir():  # Docker creates a folder if the file to be mounted does not exist
        return {}, []
    lines, number = [], 1
    for name, value, (text, _), is_wrong in parse_stream(StringIO(path.read_text(encoding="utf-8-sig"))):
        if name is not None or is_wrong:
            blank_lines = text[: -len(text.lstrip())].count("\n")
            lines.append(EnvLine(number + blank_lines, text.strip(), name, value))
        number += text.count("\n")
    return resolve_variables([(line.name, line.value) for line in lines if line.name is not None], override=True), lines
