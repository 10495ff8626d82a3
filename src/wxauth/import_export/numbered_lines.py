"""The lines of an imported file, with their numbers, before they are parsed."""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping
from typing import IO, Final, NamedTuple

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.import_export.lines import Fault
from wxauth.import_export.other_files import check_kind

MAX_LINE: Final = 8 * 1024
"""The size limit, in bytes, of a line without its line break."""
_READ_AT_ONCE: Final = len(BOM_UTF8) + MAX_LINE + len("\r\n")
"""The largest number of bytes of a line that are read at once.

It is the length of the longest valid line, with a byte order mark and a line break.
"""
_SKIPPED_AT_ONCE: Final = 64 * 1024
"""The largest number of bytes read at once to skip the remainder of a line that is too long."""
TOO_LONG: Final = Fault("line", _("must be up to {n} bytes", n=MAX_LINE))
_SURROGATES: Final = re.compile(rb"(\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf])|\xed[\xa0-\xbf][\x80-\xbf]")
"""The pattern of an emoji that a database has written as two surrogates, or of a lone surrogate (half of an emoji).

The group matches two surrogates that belong together.
"""


class NumberedLine(NamedTuple):
    """A line of the file."""

    number: int
    text: bytes | Fault | None
    """The bytes of the line, a fault if the line cannot be read, or None if the line is blank.

    The lines that `JsonLines` and `CsvLines` yield are JSON.
    """


def numbered_lines(file: IO[bytes], other_kinds: Mapping[bytes, Text]) -> Iterator[NumberedLine]:
    """Yield each line with its number. A line that is too long is never read into memory as a whole.

    This function does not check that the text is UTF-8, because the parsing of each line checks this later.

    Raises: WrongFile, if the first line that is not blank matches a pattern in `other_kinds`, or shows that the
        import cannot read the file.
    """
    number = 0
    is_begun = False  # whether a line that is not blank has been read
    while beginning := file.readline(_READ_AT_ONCE):
        number += 1
        text = beginning.rstrip(b"\r\n")
        if number == 1:
            text = text.removeprefix(BOM_UTF8)  # some programs on Windows begin a file with this mark
        if not is_begun and text.strip():
            is_begun = True
            check_kind(text, other_kinds)
        if len(beginning) > MAX_LINE:
            # Skip the remainder of the line, up to its line break or to the end of the file.
            skipped = beginning
            while skipped and not skipped.endswith(b"\n"):
                skipped = file.readline(_SKIPPED_AT_ONCE)
        if len(text) > MAX_LINE:
            yield NumberedLine(number, TOO_LONG)
        elif text.strip():
            yield NumberedLine(number, _SURROGATES.sub(_joined_surrogates, text))
        else:
            yield NumberedLine(number, None)


def first_of(lines: Iterator[NumberedLine]) -> NumberedLine:
    """Return the first line that is not blank.

    If all lines are blank, return the last line. For an empty file, return a blank line with the number 0.
    """
    last = NumberedLine(0, None)
    for line in lines:
        if line.text is not None:
            return line
        last = line
    return last


def _joined_surrogates(match: re.Match[bytes]) -> bytes:
    """Return the emoji of two surrogates.

    For a lone surrogate, return U+0000, which the field's check refuses or removes.
    """
    if match[1] is None:
        return b"\0"
    surrogates = match[0].decode("utf-8", "surrogatepass")
    return surrogates.encode("utf-16-le", "surrogatepass").decode("utf-16-le").encode()  # UTF-16 joins the two
