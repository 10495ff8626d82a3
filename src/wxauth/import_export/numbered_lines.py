"""The lines of an imported file, with their numbers, before they are parsed."""

import re
from codecs import BOM_UTF8
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Final, NamedTuple

from wxauth.i18n import Text, lazy_gettext as _
from wxauth.import_export.lines import Fault
from wxauth.import_export.other_files import check_kind

MAX_LINE: Final = 8 * 1024  # bytes, without the line break
_READ_AT_ONCE: Final = len(BOM_UTF8) + MAX_LINE + len("\r\n")
_SKIPPED_AT_ONCE: Final = 64 * 1024
TOO_LONG: Final = Fault("line", _("must be up to {n} bytes", n=MAX_LINE))
# The group matches an emoji that a database has written as two surrogates. Otherwise, the pattern matches half of one.
_SURROGATES: Final = re.compile(rb"(\xed[\xa0-\xaf][\x80-\xbf]\xed[\xb0-\xbf][\x80-\xbf])|\xed[\xa0-\xbf][\x80-\xbf]")


class NumberedLine(NamedTuple):
    """A line of the file: its bytes, a fault if it cannot be read, or None if it is blank.

    `JsonLines` and `CsvLines` yield lines whose bytes are JSON.
    """

    number: int
    text: bytes | Fault | None
    faults: Sequence[Fault] = ()
    """The faults of fields that `text` lacks, because `--map` doesn't find their values."""


def numbered_lines(file: IO[bytes], other_kinds: Mapping[bytes, Text]) -> Iterator[NumberedLine]:
    """Yield each line, even if it is not UTF-8. A line that is too long is never read into memory as a whole.

    Raises: WrongFile, if the first line that is not blank shows another kind of file.
    """
    number = 0
    is_kind_checked = False
    while beginning := file.readline(_READ_AT_ONCE):
        number += 1
        text = beginning.rstrip(b"\r\n")
        if number == 1:
            text = text.removeprefix(BOM_UTF8)  # some programs on Windows begin a file with this mark
        if not is_kind_checked and text.strip():
            check_kind(text, other_kinds)
            is_kind_checked = True
        if len(beginning) > MAX_LINE:
            skipped, is_blank = beginning, not text.strip()
            while skipped and not skipped.endswith(b"\n"):
                skipped = file.readline(_SKIPPED_AT_ONCE)
                is_blank &= not skipped.strip()
            if is_blank:
                text = b""
        yield numbered_line(number, text)


def numbered_line(number: int, text: bytes) -> NumberedLine:
    """Return a line in which the halves of each emoji are joined, and lone halves are NUL, which `Line` refuses."""
    if len(text) > MAX_LINE:
        return NumberedLine(number, TOO_LONG)
    return NumberedLine(number, with_joined_surrogates(text) if text.strip() else None)


def with_joined_surrogates(text: bytes) -> bytes:
    return _SURROGATES.sub(_joined_surrogates, text)


def first_of(lines: Iterator[NumberedLine]) -> NumberedLine:
    """Return the first line that is not blank. If there is none, return the last line, which is blank."""
    last = NumberedLine(0, None)  # stands for the last line of an empty file
    for line in lines:
        if line.text is not None:
            return line
        last = line
    return last


def _joined_surrogates(match: re.Match[bytes]) -> bytes:
    if match[1] is None:
        return b"\0"
    surrogates = match[0].decode("utf-8", "surrogatepass")
    return surrogates.encode("utf-16-le", "surrogatepass").decode("utf-16-le").encode()  # UTF-16 joins the two
