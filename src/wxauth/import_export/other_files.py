"""The kinds of files that an import cannot read: how each kind begins, and the advice for it."""

import re
from collections.abc import Mapping, Sequence, Set as AbstractSet
from typing import Final

from pydantic_core import from_json, to_json

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.import_export.lines import Fault

_LONGEST_NAME: Final = 64
"""The largest number of characters of a name in a suggested jq query. The search skips longer names."""
_PACKED: Final = _("must be text, but is {kind}. Unpack the file with {program}")
_UNREADABLE_KINDS: Final = {
    rb"\xff\xfe\0\0|\0\0\xfe\xff": _("must be UTF-8, but is UTF-32. Convert the file with iconv -f UTF-32 -t UTF-8"),
    rb"\xff\xfe|\xfe\xff|([^\0]\0){2}|(\0[^\0]){2}": _(
        "must be UTF-8, but is UTF-16. Convert the file with iconv -f UTF-16 -t UTF-8"
    ),
    rb"PK[\3\5\7]|\xd0\xcf\x11\xe0": _(
        "must be text, but is an Excel workbook or a zip file. Save the workbook as CSV UTF-8, or unzip the file"
    ),
    rb"\x1f\x8b": Text(_PACKED, kind="gzip", program="gunzip"),
    rb"BZh": Text(_PACKED, kind="bzip2", program="bunzip2"),
    rb"\xfd7zXZ": Text(_PACKED, kind="xz", program="unxz"),
    rb"\x28\xb5\x2f\xfd": Text(_PACKED, kind="zstd", program="unzstd"),
    rb"%PDF|Rar!|7z\xbc|PAR1|[^\r\n]*\0": _(
        "must be text, but is another kind of file. Export the data as CSV UTF-8 or JSON Lines"
    ),
    rb"[^\r\n]*\r+[^\r\n]": _(
        "must have lines that end with LF, but has only CR. Convert the file with tr '\\015' '\\012'"
    ),
    rb"<": _("must be CSV or JSON Lines, but is HTML or XML. Save the file as CSV UTF-8 in a spreadsheet program"),
    rb"\[": _("must be JSON Lines with one object per line, but is a JSON array. Convert the file with jq -c '.[]'"),
}
"""The patterns of the beginnings of files that cannot be read as CSV or JSON Lines, each with advice.

The first pattern that matches counts. For example, the pattern of UTF-16 also matches a file in UTF-32. For
JSON Lines, `check_document` comes first. Therefore, the advice on a JSON array is for CSV, and for arrays that
`check_document` cannot read.
"""
_WRAPPED: Final = _("must be JSON Lines, but is one JSON document. Convert the file with jq -c '{query}'")
_PHPMYADMIN_ROWS: Final = '.[] | select(.type == "table") | .data[]'
"""The jq query for the rows in a JSON export from phpMyAdmin."""
_DEEPEST: Final = 4
"""The largest number of levels below the top of a document that wxauth searches for records."""
OTHER_THAN_JSON_LINES: Final = {
    rb"#filetype": _(
        "must be JSON Lines, but begins with LeanCloud's #filetype line. For the command that reads "
        "this format, see docs/start/moving-from.md"
    ),
    rb"\{\s*$": _(
        "must be JSON Lines with one object per line, but an object spans several lines. Convert the file with jq -c ."
    ),
    rb"(?i)[^{]*openid": _("must be JSON Lines, but is CSV. Add --csv, or --tsv for tabs"),
    rb"(?i)--|/\*|(insert|create|set) ": _(
        "must be JSON Lines or CSV, but is SQL. For export queries, see docs/start/moving-from.md"
    ),
}
"""The patterns of the first lines of files that are not JSON Lines, each with advice."""
OTHER_THAN_CSV: Final = {
    rb"\{": _(
        "must be CSV, but is JSON Lines. Leave out --csv and --tsv, and use a file name that doesn't "
        "end in .csv or .tsv"
    ),
    rb"(?i)\"?sep=": _("must begin with the column names. Remove Excel's sep= line"),
}
"""The patterns of the first lines of files that are not CSV, each with advice."""
_ADVICE_ON_DELIMITERS: Final = {
    ",": _("must have columns separated by tabs, but uses commas. Add --csv"),
    "\t": _("must have columns separated by commas, but uses tabs. Add --tsv"),
    ";": _("must have columns separated by commas, but uses semicolons (;). Save the file as CSV UTF-8 with commas"),
    "|": _("must have columns separated by commas, but uses vertical bars (|). Save the file as CSV UTF-8 with commas"),
}
"""The advice for a file, by the delimiter that its header contains more often than the expected delimiter."""


class WrongFile(Exception):
    """The error for a file of another kind, with an invalid header, or without the names in `--map`.

    No line of the file is imported. The message of the exception describes the fault in English.
    """

    def __init__(self, fault: Fault, names: Sequence[str] = ()) -> None:
        super().__init__(fault.rule)
        self.fault = fault
        self.names = names
        """The names in the file that the error message lists."""


def check_kind(beginning: bytes, other_kinds: Mapping[bytes, Text]) -> None:
    """Check that a file with this beginning matches neither `_UNREADABLE_KINDS` nor `other_kinds`.

    `other_kinds` contains the advice for further kinds of files, by pattern.

    Raises: WrongFile, with the advice.
    """
    for pattern, advice in (*_UNREADABLE_KINDS.items(), *other_kinds.items()):
        if re.match(pattern, beginning.lstrip()):
            raise WrongFile(Fault("file", advice))


def check_document(beginning: str, names: AbstractSet[str]) -> None:
    """Refuse a file that is one JSON document with a list of records.

    An object with one of these names is not such a document, because it is a line of JSON Lines.

    Raises: WrongFile, with the jq query for the records.
    """
    query = _query_for_records(beginning, names)
    if query is not None:
        raise WrongFile(Fault("file", Text(_WRAPPED, query=query)))


def check_delimiter(header: bytes, delimiter: str) -> None:
    """Check that the columns of a CSV file are separated by this delimiter, and not by another character.

    Raises: WrongFile, with advice, if the header contains another delimiter more often than this one.
    """
    unquoted = re.sub(rb'"[^"]*"', b"", header)
    most_frequent = max(_ADVICE_ON_DELIMITERS, key=lambda each: unquoted.count(each.encode()))
    if unquoted.count(most_frequent.encode()) > unquoted.count(delimiter.encode()):
        raise WrongFile(Fault("file", _ADVICE_ON_DELIMITERS[most_frequent]))


def _query_for_records(beginning: str, names: AbstractSet[str]) -> str | None:
    """Return the jq query for the records of a file that is one JSON document with this beginning.

    Return None if the file is not such a document, or if the beginning is a JSON Lines record with one of these names.
    """
    try:
        document = from_json(beginning)
    except ValueError as exc:
        # The message begins with EOF if the beginning is a part of one document. Otherwise, the file is not JSON, or
        # consists of several documents.
        if not beginning.strip() or not str(exc).startswith("EOF"):
            return None
        document = from_json(beginning, allow_partial=True)
    if isinstance(document, list):
        first_object = next((item for item in document if isinstance(item, dict)), {})
        return _PHPMYADMIN_ROWS if first_object.get("type") in ("header", "table") else ".[]"
    if not isinstance(document, dict) or not names.isdisjoint(document):
        return None  # a line of JSON Lines, or a value such as a number, which the check of the line refuses
    return _path_to_records(document, _DEEPEST)


def _path_to_records(document: Mapping[str, object], depth: int) -> str | None:
    """Return the jq query for the first list of objects in a document; None if there is none.

    `depth` is the number of further levels to search.
    """
    for name, value in document.items():
        if "'" in name or len(name) > _LONGEST_NAME:  # the advice shows the query in single quotes
            continue
        step = f".{name}" if re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", name) else f".{to_json(name).decode()}"
        if isinstance(value, list) and any(isinstance(item, dict) for item in value):
            return f"{step}[]"
        inner = _path_to_records(value, depth - 1) if isinstance(value, dict) and depth > 0 else None
        if inner is not None:
            return step + inner
    return None
