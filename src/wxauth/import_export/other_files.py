"""The kinds of files that an import cannot read: how each kind begins, and the advice for it."""

import re
from collections.abc import Mapping, Sequence
from typing import Final

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.import_export.lines import Fault

_PACKED: Final = _("must be text, but is {kind}. Unpack the file with {program}")
# The first that matches counts: the pattern of UTF-16 also matches UTF-32.
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
}
OTHER_THAN_JSON_LINES: Final = {
    rb"#filetype": _(
        "must be JSON Lines, but begins with LeanCloud's #filetype line. For the command that reads "
        "this format, see docs/start/moving-from.md"
    ),
    rb"(?i)[^{]*openid": _("must be JSON Lines, but is CSV. Add --csv, or --tsv for tabs"),
    rb"(?i)--|/\*|(insert|create|set) ": _(
        "must be JSON Lines or CSV, but is SQL. For export queries, see docs/start/moving-from.md"
    ),
}
OTHER_THAN_CSV: Final = {
    rb"[\[{]": _(
        "must be CSV, but is JSON. Leave out --csv and --tsv, and use a file name that doesn't end in .csv or .tsv"
    ),
    rb"(?i)\"?sep=": _("must begin with the column names. Remove Excel's sep= line"),
}
_ADVICE_ON_DELIMITERS: Final = {
    ",": _("must have columns separated by tabs, but uses commas. Add --csv"),
    "\t": _("must have columns separated by commas, but uses tabs. Add --tsv"),
    ";": _("must have columns separated by commas, but uses semicolons (;). Save the file as CSV UTF-8 with commas"),
    "|": _("must have columns separated by commas, but uses vertical bars (|). Save the file as CSV UTF-8 with commas"),
}


class WrongFile(Exception):
    """The file as a whole cannot be imported, so no line of it is."""

    def __init__(self, fault: Fault, names: Sequence[str] = ()) -> None:
        super().__init__(fault.rule)
        self.fault = fault
        self.names = names
        """Names in the file that the error message lists."""


def check_kind(beginning: bytes, other_kinds: Mapping[bytes, Text]) -> None:
    """Raise WrongFile with the advice for a file that begins like another kind of file."""
    for pattern, advice in (*_UNREADABLE_KINDS.items(), *other_kinds.items()):
        if re.match(pattern, beginning.lstrip()):
            raise WrongFile(Fault("file", advice))


def check_delimiter(header: bytes, delimiter: str) -> None:
    """Raise WrongFile if the header of a CSV file contains another delimiter more often."""
    unquoted = re.sub(rb'"[^"]*"', b"", header)
    most_frequent = max(_ADVICE_ON_DELIMITERS, key=lambda each: unquoted.count(each.encode()))
    if unquoted.count(most_frequent.encode()) > unquoted.count(delimiter.encode()):
        raise WrongFile(Fault("file", _ADVICE_ON_DELIMITERS[most_frequent]))
