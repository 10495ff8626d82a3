"""The reading of imported files (JSON Lines or CSV). Each line becomes a JSON object with the fields of `Line`."""

import csv
import re
from collections.abc import Iterator, Mapping, Sequence, Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum, auto
from functools import cache
from typing import IO, Any, ClassVar, Final

from pydantic_core import from_json, to_json

from wxauth import i_json
from wxauth.i18n import Text, lazy_gettext as _
from wxauth.import_export.documents import MAX_ELEMENT, Elements, Form, form_of
from wxauth.import_export.lines import NOT_UTF8, NUL_OR_SURROGATE, Fault, Line
from wxauth.import_export.numbered_lines import NumberedLine, first_of, numbered_lines
from wxauth.import_export.other_files import OTHER_THAN_CSV, OTHER_THAN_JSON_LINES, WrongFile, check_delimiter
from wxauth.import_export.paths import Misled, Path, text_of
from wxauth.settings.roles import ATTRIBUTE_NAME

_NOT_CSV: Final = Fault(
    "line",
    _(
        "must be one line of CSV. Close every quoted cell, double each quotation mark inside a cell, "
        "and don't use line breaks in a cell"
    ),
)
_WRONG_CELLS: Final = Fault("line", _("must have as many cells as the header"))
WRONG_ATTRIBUTE_NAME: Final = Fault(
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
_UNREAD_NAMES: Final = _("must contain the names that --map reads, but no line contains {names}")
MAX_IGNORED_NAMES: Final = 100
_ATTRIBUTE: Final = "attributes."
# Any other cell that begins with a bracket is not JSON, but contains a text such as `[shop]-7`.
_JSON_LIST_OF_TEXTS: Final = re.compile(r'\s*\[\s*("|\]\s*$)')
# The group matches the escape of a lone surrogate (half of an emoji).
_ESCAPED: Final = re.compile(rb"\\(?:u[Dd][89ABab]..\\u[Dd][C-Fc-f]..|(u[Dd][89A-Fa-f]..)|.)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFormat:
    """The format of a file, as the options of the command describe it."""

    delimiter: str = ","
    app_id: str | None = None  # for lines that don't specify an app
    fields: Mapping[str, str] = field(default_factory=dict)
    """`--map openid=wx_id` is `{"wx_id": "openid"}`."""
    left_out: AbstractSet[str] = frozenset()
    """`--map roles=` is `{"roles"}`."""
    values: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """`--map status:1=disabled` is `{"status": {"1": "disabled"}}`."""


DEFAULT_FORMAT: Final = FileFormat()


class _Lines:
    """The lines of a file, which can be read several times."""

    other_kinds: ClassVar[Mapping[bytes, Text]]
    """The patterns of first lines that show another kind of file, each with advice."""

    def __init__(self, file: IO[bytes], file_format: FileFormat = DEFAULT_FORMAT) -> None:
        self._file = file
        self._format = file_format
        # Names of fields that the file must not use, because `--map` gives another name for them, or none.
        self._not_read_as_named = {*file_format.fields.values(), *file_format.left_out}
        self._start = file.tell()
        self._was_read = False
        """Whether an iteration has reached the end of the file."""
        self.has_elements = False
        """Whether the numbers count the elements of a JSON document instead of lines."""
        self.ignored_names: list[str] = []
        """The names in the file that are not imported, of a file in JSON only the first `MAX_IGNORED_NAMES`."""

    def _numbered(self) -> Iterator[NumberedLine]:
        self._file.seek(self._start)
        yield from numbered_lines(self._file, self.other_kinds)
        self._was_read = True


class JsonLines(_Lines):
    """The lines of a file in JSON Lines, with wxauth's names and values. Elements of a document count as lines, too.

    The first iteration also collects the ignored names in the file.

    Raises: WrongFile, if the file begins like one of another kind, and after the last line of the first iteration, if a
        name in `--map` occurs in no line.
    """

    other_kinds = OTHER_THAN_JSON_LINES

    def __init__(self, file: IO[bytes], file_format: FileFormat = DEFAULT_FORMAT) -> None:
        super().__init__(file, file_format)
        self._is_plain = file_format == DEFAULT_FORMAT
        """Whether nothing needs to be translated."""
        self._paths = {Path(text): name for text, name in file_format.fields.items()}
        # The names that the paths of `--map` begin with, and those that are mapped as a whole.
        self._roots = {*file_format.fields, *(path.root for path in self._paths)}
        self._unread = {*file_format.fields, *file_format.values}
        """The names in `--map` that no line has contained yet: the file's, and wxauth's names of fields with values."""
        self._has_objects = False
        self._form = form_of(file.read(MAX_ELEMENT + 1), self._is_row)
        self.has_elements = self._form is not Form.LINES
        first_of(self._numbered())  # raises WrongFile if the first line shows another kind of file

    def __iter__(self) -> Iterator[NumberedLine]:
        is_first_time = not self._was_read
        for line in self._numbered():
            if isinstance(line.text, bytes):
                yield self._translated(line.number, line.text, is_first_time=is_first_time)
            else:
                yield line
        if is_first_time and self._unread and self._has_objects:
            names = ", ".join(sorted(self._unread))
            raise WrongFile(Fault("file", Text(_UNREAD_NAMES, names=names)), self.ignored_names)

    def _numbered(self) -> Iterator[NumberedLine]:
        if self._form is Form.LINES:
            yield from super()._numbered()
        else:
            self._file.seek(self._start)
            yield from Elements(self._file, self._form)
            self._was_read = True

    def _is_row(self, values: Mapping[str, object]) -> bool:
        if "openid" in values or "unionid" in values:
            return True
        for path in self._paths:
            try:
                path.value_in(values)
            except KeyError:
                continue
            except Misled:
                pass
            return True
        return False

    def _translated(self, number: int, text: bytes, *, is_first_time: bool) -> NumberedLine:
        # `numbered_lines` and `_without_lone_surrogate` replace a lone surrogate with U+0000, which JSON must not
        # contain unescaped.
        text = _ESCAPED.sub(_without_lone_surrogate, text).replace(b"\0", rb"\u0000")
        if self._is_plain and not is_first_time:
            return NumberedLine(number, text)
        try:
            values = from_json(text) if self._is_plain else i_json.parse(text.decode())
        except ValueError:  # not JSON, which the reader of the line refuses
            return NumberedLine(number, text)
        if i_json.repeats_name(values):
            return NumberedLine(number, Fault("line", i_json.REPEATED_NAME))
        if not isinstance(values, dict):
            return NumberedLine(number, text)
        ours, faults = self._with_fields(values)
        if is_first_time:
            self._note_names(values, ours)
        return NumberedLine(number, text if self._is_plain else to_json(self._with_values(ours)), faults)

    def _note_names(self, values: Mapping[str, object], ours: Mapping[str, object]) -> None:
        self._has_objects = True
        fields = self._format.fields
        for name in values:
            is_read = name in self._roots or (name in Line.model_fields and name not in self._not_read_as_named)
            if not is_read and name not in self.ignored_names and len(self.ignored_names) < MAX_IGNORED_NAMES:
                self.ignored_names.append(name)
        # A name such as `authData.openid` is a path, which `values` does not contain, but `ours` contains its field.
        self._unread -= {name for name in self._unread if name in values or fields.get(name, name) in ours}

    def _with_fields(self, values: Mapping[str, object]) -> tuple[dict[str, object], list[Fault]]:
        fields, not_read = self._format.fields, self._not_read_as_named
        ours = {name: value for name, value in values.items() if name not in fields and name not in not_read}
        faults = []
        for path, name in self._paths.items():
            try:
                ours[name] = path.value_in(values)
            except KeyError:  # the line has no such value
                continue
            except Misled as exc:
                faults.append(Fault(name, exc.rule))
        return ours, faults

    def _with_values(self, line: Mapping[str, object]) -> dict[str, object]:
        ours = dict(line)
        for name, values in self._format.values.items():
            our_value = values.get(text_of(line.get(name)))
            if our_value is not None:
                ours[name] = _parsed_cell(name, our_value) if our_value else None  # an empty value removes the field
        ours["app_id"] = ours.get("app_id") or self._format.app_id
        return ours


class CsvLines(_Lines):
    """The lines of a CSV file as JSON. Cells must not contain line breaks.

    Raises: WrongFile, if the file is not CSV, or if its header is wrong.
    """

    other_kinds = OTHER_THAN_CSV

    def __init__(self, file: IO[bytes], file_format: FileFormat = DEFAULT_FORMAT) -> None:
        super().__init__(file, file_format)
        self.header = first_of(self._numbered())
        self._names: list[str] = []
        """wxauth's names of the columns."""
        self._imported: AbstractSet[str] = frozenset()
        if self.header.text is not None:
            self._read_header()

    def _read_header(self) -> None:
        check_delimiter(self.header.text if isinstance(self.header.text, bytes) else b"", self._format.delimiter)
        cells = self._cells(self.header.text)
        if isinstance(cells, Fault):
            raise WrongFile(cells)
        columns = [name if name in self._format.fields else name.strip() for name in cells]
        self._names = [self._name_of(column) for column in columns]
        self._imported = frozenset(name for name in self._names if is_field(name))
        self._check_names(columns)
        self.ignored_names = [
            column for column, name in zip(columns, self._names, strict=True) if column and name not in self._imported
        ]

    def _name_of(self, column: str) -> str:
        """An empty name means that `--map` gives another column for this field, or none."""
        return self._format.fields.get(column, "" if column in self._not_read_as_named else column)

    def _check_names(self, columns: Sequence[str]) -> None:
        attributes = [name for name in self._names if name.startswith(_ATTRIBUTE)]
        if wrong := [name for name in attributes if not is_field(name)]:
            raise WrongFile(WRONG_ATTRIBUTE_NAME, wrong)
        # `_imported` contains each name only once.
        is_repeated = len([name for name in self._names if is_field(name)]) > len(self._imported)
        # The column `attributes` may contain an attribute that also has a column of its own.
        is_attribute_repeated = "attributes" in self._imported and bool(attributes)
        if is_repeated or is_attribute_repeated or not self._needed_names() <= self._imported:
            raise WrongFile(NO_HEADER, columns)

    def _needed_names(self) -> AbstractSet[str]:
        needed = {*self._format.fields.values(), *self._format.values}
        if "unionid" not in self._imported:  # a line with only a unionid needs no app
            needed.update(["openid"] if self._format.app_id else ["openid", "app_id"])
        return needed

    def __iter__(self) -> Iterator[NumberedLine]:
        """Yield each line except the header: JSON, a fault, or None if all of its cells are empty."""
        for line in self._numbered():
            if line.number == self.header.number:
                continue
            if isinstance(line.text, bytes):
                yield line._replace(text=self._json(line.text))
            else:
                yield line

    def _json(self, text: bytes) -> bytes | Fault | None:
        cells = self._cells(text)
        if isinstance(cells, Fault):
            return cells
        if len(cells) != len(self._names):
            return _WRONG_CELLS
        if not any(cells):  # spreadsheets add rows of empty cells at the end of a table
            return None
        try:
            return to_json(self._fields_of(cells))
        except ValueError:  # the JSON in a cell contains the escape of a lone surrogate
            return Fault("line", NUL_OR_SURROGATE)

    def _fields_of(self, cells: list[str]) -> dict[str, object]:
        fields: dict[str, object] = {"app_id": self._format.app_id} if self._format.app_id else {}
        attributes: dict[str, object] = {}
        for name, text in zip(self._names, cells, strict=True):
            cell = self._format.values.get(name, {}).get(text, text)
            if not cell or name not in self._imported:
                continue
            if name.startswith(_ATTRIBUTE):
                attributes[name.removeprefix(_ATTRIBUTE)] = i_json.parse_typed(cell)
            else:
                fields[name] = _parsed_cell(name, cell)
        if attributes:
            fields["attributes"] = attributes
        return fields

    def _cells(self, text: bytes | Fault | None) -> list[str] | Fault:
        if text is None:
            return []
        if isinstance(text, Fault):
            return text
        try:
            # Each line is parsed by itself, so that a missing quotation mark does not affect other lines.
            return next(csv.reader([text.decode()], delimiter=self._format.delimiter, strict=True), [])
        except csv.Error:
            return _NOT_CSV
        except UnicodeDecodeError:
            return NOT_UTF8


def is_field(name: str) -> bool:
    if name.startswith(_ATTRIBUTE):
        return ATTRIBUTE_NAME.fullmatch(name.removeprefix(_ATTRIBUTE)) is not None
    return name in Line.model_fields


class _CellKind(Enum):
    TEXT = auto()
    LIST_OF_TEXTS = auto()  # separated by `|`, or a JSON list
    JSON = auto()


def _parsed_cell(name: str, cell: str) -> object:
    kind = _cell_kinds()[name]
    if kind is _CellKind.TEXT:
        return cell
    if kind is _CellKind.LIST_OF_TEXTS and not _JSON_LIST_OF_TEXTS.match(cell):  # whose items may contain |
        return cell.split("|")
    try:
        return i_json.parse(cell)
    except ValueError:
        return cell  # the field's own check refuses it


@cache
def _cell_kinds() -> dict[str, _CellKind]:
    schema = Line.model_json_schema()
    return {name: _cell_kind_of(field, schema["$defs"]) for name, field in schema["properties"].items()}


def _cell_kind_of(field: Mapping[str, Any], definitions: Mapping[str, Any]) -> _CellKind:
    alternatives = list(_alternatives_of(field, definitions))
    if any(map(_is_text, alternatives)):
        return _CellKind.TEXT
    for alternative in alternatives:
        if "items" in alternative and all(map(_is_text, _alternatives_of(alternative["items"], definitions))):
            return _CellKind.LIST_OF_TEXTS
    return _CellKind.JSON


def _alternatives_of(schema: Mapping[str, Any], definitions: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
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
    return b"\0" if escape[1] else escape[0]
