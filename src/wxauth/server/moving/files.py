"""Reads import files, JSON Lines or CSV, line by line. Each line becomes the JSON of an identity."""

import csv
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Final, Literal

from pydantic_core import from_json, to_json

from wxauth.server.core.users import ATTRIBUTE_NAME
from wxauth.server.moving.faults import (
    MAX_LINE,
    NO_HEADER,
    NOT_CSV,
    NOT_GBK,
    NOT_UTF8,
    TOO_LONG,
    WRONG_ATTRIBUTE,
    WRONG_CELLS,
    Fault,
)
from wxauth.server.moving.lines import Line
from wxauth.server.users.attributes import typed_attribute

_PIECE: Final = 64 * 1024
LISTS: Final = frozenset({"roles", "former_ids", "former_external_ids"})

_ATTRIBUTE: Final = "attributes."
"""Followed by the name of an attribute, it is the name of a column."""

NumberedLine = tuple[int, bytes | Fault | None]
"""A line of the file with its number: in UTF-8, a fault if it cannot be read, None if it is blank."""

Encoding = Literal["utf-8", "gbk"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Form:
    """How a file is written, and what its lines leave out."""

    delimiter: str = ","
    """Of CSV."""
    encoding: Encoding = "utf-8"
    app_id: str | None = None
    """The app of the lines that name none."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """The fields that the file calls otherwise, by its own names."""


DEFAULT_FORM: Final = Form()


class BadHeader(Exception):
    """The first line of a CSV file is not a valid header. The message is the fault in English."""

    def __init__(self, fault: Fault, seen: Sequence[str] = ()) -> None:
        super().__init__(fault.wanted.en)
        self.fault = fault
        self.seen = seen
        """The cells of the first line."""


def json_lines(file: IO[bytes], form: Form = DEFAULT_FORM) -> Iterator[NumberedLine]:
    """Each line with its number."""
    is_plain = form.app_id is None and not form.fields
    for number, text in _numbered(file, form.encoding):
        yield number, _with_fields(text, form) if isinstance(text, bytes) and not is_plain else text


def _with_fields(text: bytes, form: Form) -> bytes:
    """The line with the names of our fields. What is no JSON object stays, and is refused."""
    try:
        given = from_json(text)
    except ValueError:
        return text
    if not isinstance(given, dict):
        return text
    renamed = given | {name: given[theirs] for theirs, name in form.fields.items() if theirs in given}
    return to_json({**renamed, "app_id": renamed.get("app_id") or form.app_id})


class CsvLines:
    """Each line of a CSV file as JSON, with its number. No cell contains a line break.

    Args:
        file: The file. Its first line contains the names of the fields.
        form: How it is written.

    Raises: BadHeader.
    """

    unknown: list[str]
    """The names of unknown columns, which are ignored."""

    def __init__(self, file: IO[bytes], form: Form = DEFAULT_FORM) -> None:
        self._form = form
        self._lines = _numbered(file, form.encoding)
        self._header, first = next(((number, text) for number, text in self._lines if text is not None), (1, b""))
        header = first if isinstance(first, Fault) else self._cells(first)
        if isinstance(header, Fault):
            raise BadHeader(header)
        seen = [name.strip() for name in header]
        self._names = [form.fields.get(name, name) for name in seen]
        if wrong := [name for name in self._names if name.startswith(_ATTRIBUTE) and not is_field(name)]:
            raise BadHeader(WRONG_ATTRIBUTE, wrong)
        known = [name for name in self._names if is_field(name)]
        self._known = frozenset(known)
        needed = {"openid", *form.fields.values(), *(() if form.app_id else ("app_id",))}
        if not needed <= self._known or len(self._known) < len(known):
            raise BadHeader(NO_HEADER, seen)
        self.unknown = [name for name in self._names if name and name not in self._known]

    def __iter__(self) -> Iterator[NumberedLine]:
        """Each line but the header."""
        yield from ((number, None) for number in range(1, self._header))
        for number, text in self._lines:
            yield number, self._json(text) if isinstance(text, bytes) else text

    def _json(self, text: bytes) -> bytes | Fault | None:
        cells = self._cells(text)
        if isinstance(cells, Fault):
            return cells
        if len(cells) != len(self._names):
            return WRONG_CELLS
        return to_json(self._identity(cells)) if any(cells) else None  # spreadsheets end a table with empty cells

    def _identity(self, cells: list[str]) -> dict[str, object]:
        given = [(name, cell) for name, cell in zip(self._names, cells, strict=True) if cell and name in self._known]
        named = {"app_id": self._form.app_id} if self._form.app_id else {}
        identity: dict[str, object] = named | {
            name: _value(name, cell) for name, cell in given if not name.startswith(_ATTRIBUTE)
        }
        attributes = {
            name.removeprefix(_ATTRIBUTE): typed_attribute(cell) for name, cell in given if name.startswith(_ATTRIBUTE)
        }
        return {**identity, "attributes": attributes} if attributes else identity

    def _cells(self, text: bytes) -> list[str] | Fault:
        """The cells of a line. A line by itself, so that an unclosed quotation mark costs no other line."""
        try:
            return next(csv.reader([text.decode()], delimiter=self._form.delimiter, strict=True), [])
        except csv.Error:
            return NOT_CSV
        except UnicodeDecodeError:
            return NOT_UTF8


def is_field(name: str) -> bool:
    """Whether a column of this name is taken."""
    first, _, attribute = name.partition(".")
    return name in Line.model_fields or (first == "attributes" and bool(ATTRIBUTE_NAME.fullmatch(attribute)))


def _value(name: str, cell: str) -> object:
    if name in LISTS and not cell.startswith('["'):  # as an export writes a list whose items contain |
        return cell.split("|")
    if name in (*LISTS, "consents", "attributes"):
        try:
            return from_json(cell)
        except ValueError:
            return cell  # refused by the field's own check
    return cell


def _numbered(file: IO[bytes], encoding: Encoding) -> Iterator[NumberedLine]:
    """Each line with its number. One that is too long is never read into memory whole.

    UTF-8 is not checked here, but where the line is read.
    """
    number = 0
    while piece := file.readline(MAX_LINE + 2):
        number += 1
        text = piece.rstrip(b"\r\n")
        if number == 1:
            text = text.removeprefix(BOM_UTF8)  # some programs on Windows begin a file with it
        if not piece.endswith(b"\n") and len(piece) > MAX_LINE:
            while (rest := file.readline(_PIECE)) and not rest.endswith(b"\n"):
                pass
        if len(text) > MAX_LINE:
            yield number, TOO_LONG
        elif text.strip():
            yield number, text if encoding == "utf-8" else _from_gbk(text)
        else:
            yield number, None


def _from_gbk(text: bytes) -> bytes | Fault:
    # Of no character is a byte of a line's end a part. GB 18030 contains GBK.
    try:
        return text.decode("gb18030").encode()
    except UnicodeDecodeError:
        return NOT_GBK
