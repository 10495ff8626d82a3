"""The objects in a file that is one JSON document, or in which an object takes several lines.

The standard library parses each value. This module reads only the brackets, commas and names between the values (see
decision 19). `Elements` decodes all texts as Latin-1, in which each byte is a character, so that the texts of elements
are exactly the file's bytes. It may compare only names in ASCII, which alone are the same in UTF-8.
"""

import json
import re
from codecs import BOM_UTF8, getincrementaldecoder
from collections.abc import Callable, Iterator, Mapping
from enum import Enum, auto
from typing import IO, Any, Final

from pydantic_core import from_json

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.import_export.lines import NOT_JSON, NOT_UTF8, Fault
from wxauth.import_export.numbered_lines import MAX_LINE, NumberedLine, numbered_line, with_joined_surrogates
from wxauth.import_export.other_files import WrongFile

MAX_ELEMENT: Final = 1024 * 1024  # bytes, with its white space: bounds the memory that an import takes
_NOT_WHITE_SPACE: Final = re.compile(r"[^ \t\r\n]")
_TEXT_OR_WHITE_SPACE: Final = re.compile(rb'("[^"\\]*(?:\\.[^"\\]*)*")|[ \t\r\n]+', re.DOTALL)
_LOOKS_LIKE_OPENID: Final = re.compile(r"o[A-Za-z0-9_-]{27}")  # of the usual length, and so are most unionids
# `Line` reads the bytes of each element again. Therefore, long numbers and control characters in texts are no errors
# here.
_DECODER: Final = json.JSONDecoder(strict=False, parse_int=str, parse_float=str)
_CUT_OFF: Final = _("must be complete, but ends in the middle of the JSON. Export the data again")
_TOO_LARGE: Final = _(
    "must have elements of up to {n} bytes each, but element {number} is larger. Export only the fields "
    "that wxauth reads"
)
_INVALID: Final = _(
    "must be valid JSON, but is invalid in or directly after element {number}. Export the data again, or as CSV UTF-8"
)
_CONTINUES: Final = _(
    "must be one JSON document, but continues after the document's end. Save each document as a file of its own"
)
_SEVERAL_ARRAYS: Final = _(
    "must contain only one array of objects, but contains several. Save the array of users as a file of its own"
)
_NO_OBJECTS: Final = _(
    "must contain an array of objects, with one object for each identity, but contains no such array"
)
_NO_ROWS: Final = _(
    "must contain one array, with one object for each identity, but contains {n} arrays without objects. Save the "
    "array of users as a file of its own"
)


class Form(Enum):
    LINES = auto()
    DOCUMENT = auto()  # an array of objects, or an object around such an array
    OBJECTS = auto()  # of several lines each


def form_of(beginning: bytes, is_row: Callable[[Mapping[str, Any]], bool]) -> Form:
    """Return the form of a file. `beginning` is the whole file or longer than MAX_ELEMENT.

    `is_row` tells whether an object is itself a row, so that the rows are not in an array in it.
    """
    stripped = with_joined_surrogates(beginning.removeprefix(BOM_UTF8).strip(b" \t\r\n"))
    text = stripped.decode(errors="replace")  # also of a character that is cut off at the end
    if text.startswith("[") and not text.startswith("[\0"):  # NUL follows in UTF-16
        return Form.DOCUMENT
    if not text.startswith("{"):
        return Form.LINES
    first: dict[str, Any]
    try:
        first, end = _DECODER.raw_decode(text)
    except (ValueError, RecursionError):
        cut_off = _beginning_of_object(stripped)
        if cut_off is None:  # faulty JSON, but a first line that can't be a line is a part of a document
            first_line = text.partition("\n")[0]
            return Form.DOCUMENT if first_line.strip() == "{" or len(first_line) > MAX_LINE else Form.LINES
        first, end = cut_off, len(text)
    if end == len(text) and not is_row(first) and _is_around_array(first):
        return Form.DOCUMENT
    return Form.OBJECTS if "\n" in text[:end] else Form.LINES


def _beginning_of_object(text: bytes) -> dict[str, Any] | None:
    """Return None if the text isn't the beginning of one object."""
    try:
        document = from_json(text, allow_partial=_is_cut_off(text))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _is_around_array(document: Mapping[str, Any]) -> bool:
    has_empty_array = has_openid = False
    remaining = list(document.values())
    while remaining:
        match remaining.pop():
            case dict() as members:
                remaining += members.values()
            case list() as items if any(isinstance(item, dict) for item in items):
                return True
            case []:
                has_empty_array = True
            case str() as text if _LOOKS_LIKE_OPENID.fullmatch(text):
                has_openid = True
    # Without the right `--map`, a single row with an empty list would otherwise be taken for a file without rows.
    return has_empty_array and not has_openid


class Elements:
    """The numbered elements of a `DOCUMENT`'s array, or the numbered `OBJECTS`. They can be read only once.

    The iteration raises WrongFile where the file isn't of this form.
    """

    def __init__(self, file: IO[bytes], form: Form) -> None:
        self._file = file
        self._form = form
        self._text = file.read(len(BOM_UTF8)).removeprefix(BOM_UTF8).decode("latin-1")
        self._position = 0
        self._is_at_end = False
        self._number = 0
        self._has_rows = False
        self._has_filled_array = False
        self._other_arrays = 0  # without objects

    def __iter__(self) -> Iterator[NumberedLine]:
        if self._form is Form.OBJECTS:
            while self._peek():
                self._number += 1
                yield self._element(self._read_value()[1])
            return
        yield from self._elements_of_value()
        if self._peek():
            raise _wrong(_CONTINUES)
        if self._has_rows or (self._other_arrays == 1 and not self._has_filled_array):
            return
        raise _wrong(_NO_OBJECTS if self._other_arrays < 2 else Text(_NO_ROWS, n=self._other_arrays))

    def _elements_of_value(self) -> Iterator[NumberedLine]:
        """Read a value, and yield the elements of the array of objects that it is or contains."""
        depth = 0
        while True:
            character = self._peek()
            if character == "{":
                self._skip()
                if self._peek() != "}":
                    depth += 1
                    self._skip_name()
                    continue
                self._skip()
            elif character == "[":
                yield from self._elements_of_array()
            else:
                self._read_value()
            while depth and self._read_separator("}"):
                depth -= 1
            if not depth:
                return
            self._skip_name()

    def _elements_of_array(self) -> Iterator[NumberedLine]:
        self._skip()
        if self._peek() == "]":
            self._skip()
            self._other_arrays += 1
            return
        has_objects = False
        self._number = 0
        while True:
            self._number += 1
            value, text = self._read_value()
            if isinstance(value, dict) and not has_objects:
                if self._number == 1 and value.get("type") == "header" and {"version", "comment"} <= value.keys():
                    yield from self._tables_of_phpmyadmin()
                    return
                if self._has_rows:
                    raise _wrong(_SEVERAL_ARRAYS)
                self._has_rows = has_objects = True
                for number in range(1, self._number):  # the earlier elements are no objects
                    yield NumberedLine(number, NOT_JSON)
            if has_objects:
                yield self._element(text)
            if self._read_separator("]"):
                break
        if not has_objects:
            self._other_arrays += 1
            self._has_filled_array = True

    def _tables_of_phpmyadmin(self) -> Iterator[NumberedLine]:
        while not self._read_separator("]"):
            yield from self._elements_of_value()

    def _element(self, text: bytes) -> NumberedLine:
        if len(text) > MAX_LINE:  # white space does not count, because the JSON may be indented
            text = _TEXT_OR_WHITE_SPACE.sub(rb"\1", text)
        return numbered_line(self._number, text)

    def _skip_name(self) -> None:
        if self._peek() != '"':
            raise self._error_here()
        self._read_value()
        if self._peek() != ":":
            raise self._error_here()
        self._skip()

    def _read_separator(self, end: str) -> bool:
        """Return whether the separator is `end`, and not a comma."""
        character = self._peek()
        if character not in (",", end):
            raise self._error_here()
        self._skip()
        return character == end

    def _read_value(self) -> tuple[object, bytes]:
        """Read a value. Return it with numbers as texts, and its bytes."""
        self._peek()
        try:
            value, end = _DECODER.raw_decode(self._text, self._position)
        except RecursionError:
            raise self._error_here() from None
        except json.JSONDecodeError as exc:
            raise self._error_here(exc.pos) from None
        text = self._text[self._position : end].encode("latin-1")
        self._position = end
        return value, text

    def _peek(self) -> str:
        """Return the next character that isn't white space, or an empty text at the end of the file."""
        while True:
            if len(self._text) - self._position <= MAX_ELEMENT and not self._is_at_end:
                piece = self._file.read(MAX_ELEMENT + 1)
                self._is_at_end = not piece
                self._text = self._text[self._position :] + piece.decode("latin-1")
                self._position = 0
            match = _NOT_WHITE_SPACE.search(self._text, self._position)
            begin = len(self._text) if match is None else match.start()
            if begin == self._position or self._is_at_end:
                self._position = begin
                return self._text[begin : begin + 1]
            self._position = begin

    def _skip(self) -> None:
        self._position += 1

    def _error_here(self, fault_at: int = 0) -> WrongFile:
        rest = self._text[self._position : self._position + MAX_ELEMENT].encode("latin-1")
        is_cut_off = _is_cut_off(rest)
        try:
            before_fault = rest if is_cut_off else rest[: max(fault_at - self._position, 0)]
            # Unlike `bytes.decode`, this accepts a character that is cut off at the end.
            getincrementaldecoder("utf-8")("surrogatepass").decode(before_fault)
        except UnicodeDecodeError:
            return _wrong(NOT_UTF8.rule)
        if not is_cut_off:
            return _wrong(Text(_INVALID, number=max(self._number, 1)))
        reaches_end_of_file = self._is_at_end and self._position + MAX_ELEMENT >= len(self._text)
        return _wrong(_CUT_OFF if reaches_end_of_file else Text(_TOO_LARGE, number=max(self._number, 1), n=MAX_ELEMENT))


def _is_cut_off(text: bytes) -> bool:
    try:
        from_json(text)
    except ValueError as exc:
        return str(exc).startswith("EOF")  # pydantic-core has no other sign that the text ends too early
    return False


def _wrong(rule: Text) -> WrongFile:
    return WrongFile(Fault("file", rule))
