"""The reading of imported files (JSON Lines or CSV). Each line becomes a JSON object with the fields of `Line`."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet
from contextlib import suppress
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from typing import IO, Any, ClassVar, Final

from pydantic_core import from_json, to_json

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.import_export.lines import NOT_UTF8, Fault, Line, unwrapped
from wxauth.import_export.numbered_lines import NumberedLine, first_of, numbered_lines
from wxauth.import_export.other_files import (
    OTHER_THAN_CSV,
    OTHER_THAN_JSON_LINES,
    WrongFile,
    check_delimiter,
    check_document,
)
from wxauth.settings.roles import ATTRIBUTE_NAME
from wxauth.users.attributes import typed_attribute

_BEGINNING: Final = 64 * 1024
"""The number of bytes at the beginning of a file that `JsonLines` reads to recognize a single JSON document."""
NOT_CSV: Final = Fault(
    "line",
    _(
        "must be one line of CSV. Close every quoted cell, double each quotation mark inside a cell, "
        "and don't use line breaks in a cell"
    ),
)
WRONG_CELLS: Final = Fault("line", _("must have as many cells as the header"))
WRONG_ATTRIBUTE: Final = Fault(
    "line",
    _(
        "must name an attribute as attributes.NAME, where NAME is 1 to 32 characters (a-z, 0-9 and _) "
        "and begins with a letter"
    ),
)
NO_HEADER: Final = Fault(
    "line",
    _(
        "must be a header that contains each field name only once. It must contain app_id and openid, "
        "or unionid. To specify the app, add --app-id. To specify another column name, add --map "
        "openid=COLUMN"
    ),
)
UNREAD_NAMES: Final = _("must contain the names that --map reads, but no line contains {names}")
MOST_NAMES: Final = 100
"""The largest number of ignored names that are reported for JSON Lines. For CSV, all of them are reported."""
_ATTRIBUTE: Final = "attributes."
"""The beginning of the name of a column that contains an attribute, for example `attributes.tier`."""
_ESCAPED: Final = re.compile(rb"\\(?:u[Dd][89ABab]..\\u[Dd][C-Fc-f]..|(u[Dd][89A-Fa-f]..)|.)", re.DOTALL)
"""The pattern of an escape in JSON. The group matches the escape of a lone surrogate (half of an emoji)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFormat:
    """The format of an imported file, as the operator has described it with the options of the command."""

    delimiter: str = ","
    """The character that separates the cells of a CSV file."""
    app_id: str | None = None
    """The app for lines that don't specify an app."""
    fields: Mapping[str, str] = field(default_factory=dict)
    """The fields whose names in the file differ from wxauth's names.

    The keys are the file's names, and the values are wxauth's names. For example, `--map openid=wx_id` becomes
    `{"wx_id": "openid"}`.
    """
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """The fields whose values in the file differ from wxauth's values, by wxauth's name of the field.

    In each inner mapping, the keys are the file's values, and the values are wxauth's values. For example,
    `--map status:1=disabled` becomes `{"status": {"1": "disabled"}}`.
    """

    @property
    def roots(self) -> frozenset[str]:
        """The names in the file that `fields` maps, and the first parts of nested names.

        For example, `authData` is the first part of `authData.openid`.
        """
        return frozenset(self.fields).union(name.partition(".")[0] for name in self.fields)


DEFAULT_FORMAT: Final = FileFormat()


class _Lines:
    """The lines of a file, which can be read several times."""

    other_kinds: ClassVar[Mapping[bytes, Text]]
    """The patterns of first lines that show another kind of file, each with advice."""

    def __init__(self, file: IO[bytes], file_format: FileFormat = DEFAULT_FORMAT) -> None:
        self._file = file
        self._format = file_format
        self._start = file.tell()
        self._was_read = False
        """Whether all lines have been read at least once."""
        self.ignored_names: list[str] = []
        """The names in the file that are not imported. `JsonLines` notes only the first `MOST_NAMES` of them."""

    def _numbered(self) -> Iterator[NumberedLine]:
        """Yield each line of the file before it is parsed.

        Raises: WrongFile, if the first line that is not blank shows another kind of file.
        """
        self._file.seek(self._start)
        yield from numbered_lines(self._file, self.other_kinds)
        self._was_read = True


class JsonLines(_Lines):
    """The lines of a file in JSON Lines, with their numbers, and with wxauth's names and values.

    Raises: WrongFile, if the file is not JSON Lines.
    """

    other_kinds = OTHER_THAN_JSON_LINES

    def __init__(self, file: IO[bytes], file_format: FileFormat = DEFAULT_FORMAT) -> None:
        super().__init__(file, file_format)
        self._is_plain = file_format.app_id is None and not file_format.fields and not file_format.values
        """Whether the lines already have wxauth's names and values, and name their apps."""
        self._unread = {*file_format.fields, *file_format.values}
        """The names in `--map` that no line has contained so far.

        For a field that `--map` renames, this is the file's name. For a field whose values `--map` replaces, this is
        wxauth's name.
        """
        self._has_objects = False
        """Whether any line so far is a JSON object."""
        beginning = file.read(_BEGINNING).decode("utf-8-sig", errors="ignore")
        check_document(beginning, file_format.roots | {"openid", "unionid"})
        first_of(self._numbered())  # raises WrongFile if the first line shows another kind of file

    def __iter__(self) -> Iterator[NumberedLine]:
        """Yield each line. The first iteration also collects the ignored names in the file.

        Raises: WrongFile, after the last line of the first iteration, if the file contains objects, and at least one
            name in `--map` occurs in no line (see `_unread`).
        """
        is_first_time = not self._was_read
        for line in self._numbered():
            if isinstance(line.text, bytes):
                yield line._replace(text=self._translated(line.text, is_first_time=is_first_time))
            else:
                yield line
        if is_first_time and self._unread and self._has_objects:
            names = ", ".join(sorted(self._unread))
            raise WrongFile(Fault("file", Text(UNREAD_NAMES, names=names)), self.ignored_names)

    def _translated(self, text: bytes, *, is_first_time: bool) -> bytes:
        """Return a line with wxauth's names and values. In the first iteration, also note the line's names."""
        # `numbered_lines` and `_without_lone_surrogate` replace a lone surrogate with U+0000, which JSON must not
        # contain unescaped.
        text = _ESCAPED.sub(_without_lone_surrogate, text).replace(b"\0", rb"\u0000")
        if self._is_plain and not is_first_time:
            return text
        values = _object_in(text)
        if values is None:
            return text
        ours = self._with_fields(values)
        if is_first_time:
            self._note_names(values, ours)
        return text if self._is_plain else to_json(self._with_values(ours))

    def _note_names(self, values: Mapping[str, object], ours: Mapping[str, object]) -> None:
        """Add the line's ignored names to `ignored_names`, and remove the names that the line contains from `_unread`.

        `values` is the line with the file's names, and `ours` is the line with wxauth's names.
        """
        self._has_objects = True
        fields, roots = self._format.fields, self._format.roots
        for name in values:
            is_read = name in roots or (name in Line.model_fields and name not in fields.values())
            if not is_read and name not in self.ignored_names and len(self.ignored_names) < MOST_NAMES:
                self.ignored_names.append(name)
        # A name such as `authData.openid` is a path, which `values` does not contain, but `ours` contains its field.
        self._unread -= {name for name in self._unread if name in values or fields.get(name, name) in ours}

    def _with_fields(self, values: Mapping[str, object]) -> dict[str, object]:
        """Return the line with wxauth's names of fields.

        If `--map` gives another name for a field in the file, the value under wxauth's name of the field is left out.
        """
        fields = self._format.fields
        mapped = frozenset(fields.values())
        ours = {name: value for name, value in values.items() if name not in fields and name not in mapped}
        for path, name in fields.items():
            with suppress(KeyError):  # the line has no such value
                ours[name] = _value_at(values, path)
        return ours

    def _with_values(self, line: Mapping[str, object]) -> dict[str, object]:
        """Return the line with wxauth's values, and with the app of `--app-id` if the line has no app."""
        ours = dict(line)
        for name, values in self._format.values.items():
            value = unwrapped(line.get(name))
            # `--map` contains the JSON of a value that is not text, for example of a number in status:1=disabled.
            our_value = values.get(value if isinstance(value, str) else to_json(value).decode())
            if our_value is not None:
                ours[name] = _parsed_cell(name, our_value) if our_value else None  # an empty value removes the field
        ours["app_id"] = ours.get("app_id") or self._format.app_id
        return ours


class CsvLines(_Lines):
    """The lines of a CSV file as JSON, with their numbers. Cells must not contain line breaks.

    Raises: WrongFile, if the file is not CSV, or if its header is wrong.
    """

    other_kinds = OTHER_THAN_CSV
    header: NumberedLine
    """The first line that is not blank."""

    def __init__(self, file: IO[bytes], file_format: FileFormat = DEFAULT_FORMAT) -> None:
        super().__init__(file, file_format)
        self.header = first_of(self._numbered())
        check_delimiter(self.header.text if isinstance(self.header.text, bytes) else b"", file_format.delimiter)
        cells = self._cells(self.header.text)
        if isinstance(cells, Fault):
            raise WrongFile(cells)
        columns = [name.strip() for name in cells]
        self._names = [self._name_of(column) for column in columns]
        """The names of the columns, after `--map` has replaced names of the file with names of wxauth."""
        self._imported = frozenset(name for name in self._names if is_field(name))
        """The names of the columns that are imported."""
        self._check_names(columns)
        self.ignored_names = [
            column for column, name in zip(columns, self._names, strict=True) if column and name not in self._imported
        ]

    def _name_of(self, column: str) -> str:
        """Return wxauth's name for a column; an empty name if `--map` gives another column for this field.

        A column that wxauth does not know keeps its name.
        """
        fields = self._format.fields
        if column in fields:
            return fields[column]
        return "" if column in fields.values() else column

    def _check_names(self, columns: Sequence[str]) -> None:
        """Check that the header has each required field, no field twice, and only valid names of attributes.

        Raises: WrongFile, with the wrong names of attributes, or with all columns.
        """
        attributes = [name for name in self._names if name.startswith(_ATTRIBUTE)]
        if wrong := [name for name in attributes if not is_field(name)]:
            raise WrongFile(WRONG_ATTRIBUTE, wrong)
        # `_imported` contains each name only once.
        is_repeated = len([name for name in self._names if is_field(name)]) > len(self._imported)
        # The column `attributes` may contain an attribute that also has a column of its own.
        is_attribute_repeated = "attributes" in self._imported and bool(attributes)
        if is_repeated or is_attribute_repeated or not self._needed_names() <= self._imported:
            raise WrongFile(NO_HEADER, columns)

    def _needed_names(self) -> AbstractSet[str]:
        """Return the names that the header must contain.

        They are wxauth's names in `--map`, and the names of an identity's fields. A file with unionids but no openids
        needs no identities. With `--app-id`, the header need not contain `app_id`.
        """
        needed = {*self._format.fields.values(), *self._format.values}
        if "openid" in self._imported or "unionid" not in self._imported:  # a line with only a unionid needs no app
            needed.update(["openid"] if self._format.app_id else ["openid", "app_id"])
        return needed

    def __iter__(self) -> Iterator[NumberedLine]:
        """Yield each line except the header.

        The text of a line is JSON, a fault, or None if the line is blank or all of its cells are empty.
        """
        for line in self._numbered():
            if line.number == self.header.number:
                continue
            if isinstance(line.text, bytes):
                yield line._replace(text=self._json(line.text))
            else:
                yield line

    def _json(self, text: bytes) -> bytes | Fault | None:
        """Return a line of CSV as JSON, the fault of the line, or None if all of its cells are empty."""
        cells = self._cells(text)
        if isinstance(cells, Fault):
            return cells
        if len(cells) != len(self._names):
            return WRONG_CELLS
        if not any(cells):  # spreadsheets add rows of empty cells at the end of a table
            return None
        return to_json(self._fields_of(cells))

    def _fields_of(self, cells: list[str]) -> dict[str, object]:
        """Return the values of a line's imported fields.

        Fields whose cells are empty are absent, except that `--app-id` provides an `app_id`.
        """
        fields: dict[str, object] = {"app_id": self._format.app_id} if self._format.app_id else {}
        attributes: dict[str, object] = {}
        for name, text in zip(self._names, cells, strict=True):
            cell = self._format.values.get(name, {}).get(text, text)
            if not cell or name not in self._imported:
                continue
            if name.startswith(_ATTRIBUTE):
                attributes[name.removeprefix(_ATTRIBUTE)] = typed_attribute(cell)
            else:
                fields[name] = _parsed_cell(name, cell)
        if attributes:
            fields["attributes"] = attributes
        return fields

    def _cells(self, text: bytes | Fault | None) -> list[str] | Fault:
        """Return the cells of a line, or the fault of the line. A blank line has no cells.

        Each line is parsed separately, so that a missing quotation mark does not affect other lines.
        """
        if text is None:
            return []
        if isinstance(text, Fault):
            return text
        try:
            return next(csv.reader([text.decode()], delimiter=self._format.delimiter, strict=True), [])
        except csv.Error:
            return NOT_CSV
        except UnicodeDecodeError:
            return NOT_UTF8


def is_field(name: str) -> bool:
    """Return whether a column of this name is imported."""
    if name.startswith(_ATTRIBUTE):
        return ATTRIBUTE_NAME.fullmatch(name.removeprefix(_ATTRIBUTE)) is not None
    return name in Line.model_fields


def _object_in(text: bytes) -> dict[str, object] | None:
    """Return the JSON object in a text; None for any other text, which the check of the line later refuses."""
    try:
        value = from_json(text)
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _value_at(values: Mapping[str, object], path: str) -> object:
    """Return the value at a name or at a path, for example `authData.lc_weapp.openid`.

    Raises: KeyError, if there is no such value.
    """
    if path in values:
        return values[path]
    inner: object = values
    for name in path.split("."):
        if not isinstance(inner, dict):
            raise KeyError(path)
        inner = inner[name]
    return inner


class _CellKind(Enum):
    """The form in which the cell of a field contains the field's value."""

    TEXT = auto()
    LIST_OF_TEXTS = auto()
    """The texts are separated by `|`, or are a JSON list."""
    JSON = auto()


def _parsed_cell(name: str, cell: str) -> object:
    """Return the value of a field from the text of a cell."""
    kind = _cell_kinds()[name]
    if kind is _CellKind.TEXT:
        return cell
    if kind is _CellKind.LIST_OF_TEXTS and not cell.startswith('["'):  # the items of a JSON list may contain |
        return cell.split("|")
    try:
        return from_json(cell)
    except ValueError:
        return cell  # the field's own check refuses it


@cache
def _cell_kinds() -> dict[str, _CellKind]:
    """Return the kind of cell of each field of `Line`. The JSON schema of `Line` shows the types of the fields."""
    schema = Line.model_json_schema()
    return {name: _cell_kind_of(field, schema["$defs"]) for name, field in schema["properties"].items()}


def _cell_kind_of(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> _CellKind:
    """Return the kind of cell for a field with this schema."""
    alternatives = list(_alternatives_of(field, definitions))
    if any(map(_is_text, alternatives)):
        return _CellKind.TEXT
    for alternative in alternatives:
        if "items" in alternative and all(map(_is_text, _alternatives_of(alternative["items"], definitions))):
            return _CellKind.LIST_OF_TEXTS
    return _CellKind.JSON


def _alternatives_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the schemas of the types of values that a schema accepts, except null."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rpartition("/")[2]]
    if "anyOf" in schema:
        for alternative in schema["anyOf"]:
            yield from _alternatives_of(alternative, definitions)
    elif schema.get("type") != "null":
        yield schema


def _is_text(schema: Mapping[str, Any]) -> bool:
    return bool(schema["type"] == "string")


def _without_lone_surrogate(escape: re.Match[bytes]) -> bytes:
    """Return the replacement for an escape found by `_ESCAPED`.

    For a lone surrogate, return U+0000, which the field's check refuses or removes. Return any other escape unchanged.
    """
    return b"\0" if escape[1] else escape[0]
