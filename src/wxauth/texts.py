"""Functions that clean users' texts, make and hash secrets, and parse faulty JSON."""

import json
import re
import secrets
from codecs import BOM_UTF8
from hashlib import sha256
from typing import Any, Final

from wxauth_guard.texts import has_too_many_containers, refuse_constant

_SECRET_BYTES: Final = 32
_MAX_TITLE_LENGTH: Final = 64

# The following texts are sets of characters, to be written between the brackets of a regular expression.
_DIACRITICS: Final = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
"""The combining marks of Latin, Greek and Cyrillic letters, which can be stacked without a limit."""
_SELECTORS: Final = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
"""The variation selectors, which choose a form of the character before them."""
_JOINERS: Final = "\u180e\u200b-\u200d"
"""The zero-width characters that join or separate the characters next to them."""
_TAGS: Final = "\U000e0000-\U000e007f"
"""The invisible characters that spell the code of a region in the emoji of its flag."""
_INVISIBLE: Final = (
    f"{_DIACRITICS}{_SELECTORS}{_JOINERS}"
    "\u115f\u1160\u17b4\u17b5\u206a-\u206f\u2800\u3164\uffa0\ufff9-\ufffb\U00013430-\U0001343f\U00013441\U00013442"
    "\U00016fe4\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0080-\U000e00ff\U000e01f0-\U000e0fff"
)
"""The characters that are invisible by themselves, for example combining accents and the fillers of Hangul."""
_CONTROLS: Final = "\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
"""The control characters other than line breaks and tabs."""
_IGNORED: Final = "\xad\u061c\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff0-\ufff8"
"""The bidirectional controls and other characters that programs ignore."""
_UNASSIGNABLE: Final = "\ud800-\uf8ff\ufdd0-\ufdef\U000f0000-\U0010ffff"
"""The surrogates, the characters for private use, and the noncharacters in the middle or at the end of Unicode."""
_PLANES: Final = range(0, 0xF0000, 0x10000)
"""The first characters of the planes of Unicode, except for the last two planes, which are in `_UNASSIGNABLE`."""
_ENDS_OF_PLANES: Final = "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in _PLANES)
"""The last two characters of each plane, which are noncharacters."""
_REMOVED: Final = f"{_CONTROLS}{_IGNORED}{_UNASSIGNABLE}{_ENDS_OF_PLANES}"
"""The characters that are removed wherever they occur."""

_NEEDS_CLEANING: Final = re.compile(rf"[{_REMOVED}{_TAGS}{_INVISIBLE}]")
"""The pattern of a character that `clean_text` might remove.

Most texts contain no such character, so this single search is enough for them.
"""
_FLAG_OR_REMOVED: Final = re.compile(
    rf"(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{{3,6}}\U000e007f)|[{_REMOVED}{_TAGS}]+"
)
"""The pattern of the flag of a region, which remains as the group, or of characters that are removed."""
_NEEDLESS_JOINERS: Final = re.compile(
    # A row after a visible character of an emoji, or of a script other than Latin, Greek and Cyrillic:
    rf"(?=[{_SELECTORS}{_JOINERS}])(?<=[#*0-9\xa9\xae\u0530-\U0010ffff])(?<![\s{_INVISIBLE}])"
    # its first selector, and further selectors,
    rf"([{_SELECTORS}]?)[{_SELECTORS}]*"
    # and its first joiner, if such a character also follows the row, and everything up to the end of the row.
    rf"(?:([{_JOINERS}])[{_SELECTORS}{_JOINERS}]*(?=[\u0530-\U0010ffff])(?![\s{_INVISIBLE}]))?[{_SELECTORS}{_JOINERS}]*"
    # Any other row is removed completely.
    rf"|[{_SELECTORS}{_JOINERS}]+"
)
"""The pattern of a row of variation selectors and joiners. All are removed except for those in the two groups.

One of each remains in emoji, and in scripts that use them. Latin, Greek and Cyrillic do not use them.
"""
_STACKED_DIACRITICS: Final = re.compile(rf"([{_DIACRITICS}]{{2}})[{_DIACRITICS}]+")
"""The pattern of more than two diacritics in a row. The group contains the first two, which remain."""
_VISIBLE: Final = re.compile(rf"[^\s{_INVISIBLE}]")
"""The pattern of a visible character."""
_WHOLE_CHARACTER: Final = re.compile(rb"[\xe1-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
"""The pattern of a UTF-8 character whose bytes hardly ever occur in text of another encoding."""
_LONE_SURROGATE: Final = "\ud83d"
"""The lone surrogate that stands for the beginning of an incomplete character.

In UTF-16, most emoji begin with this surrogate.
"""
_MAX_INCOMPLETE: Final = 100
"""The largest number of incomplete characters in a text.

A text with more incomplete characters is probably not UTF-8.
"""
_MAX_CONTAINERS: Final = 1000
"""The largest number of arrays and objects in a JSON text that is not cut."""
_MAX_DEPTH: Final = 100
"""The largest number of levels of arrays and objects that remain when a JSON text is cut."""
# A string without a closing quote extends to the end of the text. Otherwise the search would try each of the text's
# quotes as the beginning of a string.
_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_SIZE_TOKEN: Final = re.compile(rf"{_STRING.pattern}|[\[\]{{}}]|[0-9]{{1000,}}", re.DOTALL)
"""The pattern of a bracket, a long number, or a string, in which brackets and numbers have no meaning.

Long numbers must be found, because Python refuses to parse an integer of more than 4,300 digits.
"""


def clean_text(text: str) -> str:
    """Return a user's text as one line, without characters that disturb the text around it.

    The result is empty if no character of the text is visible. Joined emoji, and the marks and joiners that scripts
    need, remain. Characters that this version of Python does not know yet also remain.
    """
    if _NEEDS_CLEANING.search(text):
        text = _FLAG_OR_REMOVED.sub(r"\1", text)
        text = _NEEDLESS_JOINERS.sub(r"\1\2", text)
        text = _STACKED_DIACRITICS.sub(r"\1", text)
        text = text if _VISIBLE.search(text) else ""
    return " ".join(text.split())


def is_title(text: str) -> bool:
    """Return whether a text can be a title: a visible line of 1 to 64 characters, all of which `clean_text` keeps."""
    is_one_line = text.splitlines() == [text] and "\t" not in text
    words = " ".join(text.split())
    return len(text) <= _MAX_TITLE_LENGTH and is_one_line and words != "" and clean_text(text) == words


def new_secret() -> str:
    """Return 256 random bits in base64url."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_of(secret: str) -> bytes:
    """Return the hash that is stored instead of a secret. The secret must have at least 128 random bits."""
    # Slow hashes protect passwords that people choose. Nobody can guess a random secret, however fast its hash is, and
    # a slow hash would delay every request.
    return sha256(secret.encode()).digest()


def read_loosely(text: bytes, *, strict: bool = True, cut: bool = False) -> Any:
    """Parse JSON that may contain incomplete characters, which become lone surrogates. A byte order mark is skipped.

    WeChat and mini-programs send such JSON if they have cut a text off in the middle of a character.

    Args:
        text: The JSON.
        strict: Whether control characters in strings are an error.
        cut: Whether values nested more than 100 levels deep become null, and numbers of 1,000 or more digits become 0.
            Otherwise, more than 1,000 arrays and objects are an error.

    Raises: ValueError.
    """
    decoded = _decoded(text.removeprefix(BOM_UTF8))
    # This conversion joins the two halves of a character that was written as two surrogates.
    joined = decoded.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    if cut:
        joined = _cut(joined)
    elif has_too_many_containers(joined, _MAX_CONTAINERS):
        # Python 3.13 would parse 9,000 levels, at which other versions raise RecursionError.
        raise ValueError("nested too deeply")
    try:
        return json.loads(joined, strict=strict, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _decoded(text: bytes) -> str:
    """Decode UTF-8 that contains incomplete characters. The beginning of each becomes a lone surrogate.

    Some text in GBK looks like a row of such beginnings. Therefore, directly after a beginning of one byte, another
    beginning is accepted only if the text also contains a complete UTF-8 character of at least three bytes.

    Raises: UnicodeDecodeError, if the text is in another encoding.
    """
    parts = list[str]()
    start = 0  # the beginning of the bytes that are not decoded yet
    length = 0  # the number of bytes of the previous incomplete character
    while True:
        try:
            return "".join((*parts, text[start:].decode("utf-8", "surrogatepass")))
        except UnicodeDecodeError as exc:
            begin, end = start + exc.start, start + exc.end
            has_too_many = len(parts) >= 2 * _MAX_INCOMPLETE  # each incomplete character adds two parts
            # No cut-off character begins with such a byte. Python always uses this English reason.
            if exc.reason == "invalid start byte" or has_too_many:
                raise
            follows_another = bool(parts) and begin == start
            if follows_another and length == 1 and _WHOLE_CHARACTER.search(text) is None:
                raise
            parts += text[start:begin].decode("utf-8", "surrogatepass"), _LONE_SURROGATE
            start, length = end, end - begin


def _cut(text: str) -> str:
    """Replace the values that are nested too deeply with null, and the numbers with too many digits with 0.

    This function only finds brackets, strings and numbers, so the text need not be valid JSON.
    """
    parts, depth = list[str](), 0
    begin = 0  # the beginning of the text that is copied next
    for match in _SIZE_TOKEN.finditer(text):
        start, end = match.span()
        piece = match[0]
        if piece in "[{":
            depth += 1
            if depth == _MAX_DEPTH + 1:
                parts += text[begin:start], "null"
        elif piece in "]}":
            depth -= 1
            if depth == _MAX_DEPTH:
                begin = end
        elif not piece.startswith('"') and depth <= _MAX_DEPTH:
            parts += text[begin:start], "0"
            begin = end
    return "".join((*parts, text[begin:]))
