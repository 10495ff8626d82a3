"""Functions for text that need only the standard library: the cleaning of users' texts, secrets, and lenient JSON."""

import json
import re
import secrets
from codecs import BOM_UTF8
from hashlib import sha256
from typing import Any, Final

from wxauth_guard.texts import has_too_many_containers, refuse_constant

_SECRET_BYTES: Final = 32
_DIACRITICS: Final = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
_SELECTORS: Final = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_JOINERS: Final = "\u180e\u200b-\u200d"
"""The zero-width characters that join or separate the characters next to them."""
_TAGS: Final = "\U000e0000-\U000e007f"
_UNSEEN: Final = (
    f"{_DIACRITICS}{_SELECTORS}{_JOINERS}"
    "\u115f\u1160\u17b4\u17b5\u206a-\u206f\u2800\u3164\uffa0\ufff9-\ufffb\U00013430-\U0001343f\U00013441\U00013442"
    "\U00016fe4\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0080-\U000e00ff\U000e01f0-\U000e0fff"
)
"""The characters that are invisible by themselves, for example combining accents and the fillers of Hangul."""
_GONE: Final = (
    "\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # control characters other than line breaks and tabs
    # bidirectional controls and other characters that programs ignore
    "\xad\u061c\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff0-\ufff8"
    "\ud800-\uf8ff\ufdd0-\ufdef\U000f0000-\U0010ffff"  # surrogates, private use and noncharacters
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0xF0000, 0x10000))
)
_TO_CLEAN = re.compile(rf"[{_GONE}{_TAGS}{_UNSEEN}]")
_GOING = re.compile(rf"(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{{3,6}}\U000e007f)|[{_GONE}{_TAGS}]+")
"""The flag of a region, which remains, or some of the characters that are removed everywhere."""
_UNWRITTEN = re.compile(
    rf"(?=[{_SELECTORS}{_JOINERS}])(?<=[#*0-9\xa9\xae\u0530-\U0010ffff])(?<![\s{_UNSEEN}])"
    rf"([{_SELECTORS}]?)[{_SELECTORS}]*"
    rf"(?:([{_JOINERS}])[{_SELECTORS}{_JOINERS}]*(?=[\u0530-\U0010ffff])(?![\s{_UNSEEN}]))?[{_SELECTORS}{_JOINERS}]*"
    rf"|[{_SELECTORS}{_JOINERS}]+"
)
"""The variation selectors and joiners that are removed.

One of each remains in emoji, and in scripts that use them. Latin, Greek and Cyrillic do not use them.
"""
_STACKED = re.compile(rf"([{_DIACRITICS}]{{2}})[{_DIACRITICS}]+")
_SEEN = re.compile(rf"[^\s{_UNSEEN}]")
_WHOLE = re.compile(rb"[\xe1-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
"""A UTF-8 character whose bytes hardly ever occur in text of another encoding."""
_MOST_CUT: Final = 100
"""The largest number of incomplete characters in a text. A text with more of them is probably not UTF-8."""
_MOST_CONTAINERS: Final = 1000
_DEEPEST: Final = 100
# A string without a closing quote extends to the end of the text. Otherwise the search would try each of the text's
# quotes as the beginning of a string.
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_LARGE = re.compile(rf"{_STRING.pattern}|[\[\]{{}}]|[0-9]{{1000,}}", re.DOTALL)
"""The brackets and long numbers that make JSON too large to read, and the strings, in which they do not count."""


def clean_text(text: str) -> str:
    """Return a user's text as one line, without characters that disturb the text around it.

    The result is empty if no character of the text is visible. Joined emoji, and the marks and joiners that scripts
    need, remain. Characters that this version of Python does not know yet also remain.
    """
    if _TO_CLEAN.search(text):
        text = _STACKED.sub(r"\1", _UNWRITTEN.sub(r"\1\2", _GOING.sub(r"\1", text)))
        text = text if _SEEN.search(text) else ""
    return " ".join(text.split())


def is_title(text: str) -> bool:
    """Return whether a text can be a title: a visible line of 1 to 64 characters, all of which `clean_text` keeps."""
    is_one_line = text.splitlines() == [text] and "\t" not in text
    return len(text) <= 64 and is_one_line and clean_text(text) == " ".join(text.split()) != ""


def new_secret() -> str:
    """Return 256 random bits in base64url."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_of(secret: str) -> bytes:
    """Return the hash that is stored instead of a secret. The secret must have at least 128 random bits."""
    # Slow hashes protect passwords that people choose. Nobody can guess a random secret, however fast its hash is, and
    # a slow hash would delay every request.
    return sha256(secret.encode()).digest()


def read_loosely(text: bytes, *, strict: bool = True, cut: bool = False) -> Any:
    """Parse JSON that WeChat has written, and that may contain incomplete characters, which become lone surrogates.

    If not `strict`, strings may also contain control characters. If `cut`, values that are nested too deeply become
    null, and numbers of 1,000 digits become 0. A byte order mark is skipped.

    Raises: ValueError.
    """
    halves = _decoded(text.removeprefix(BOM_UTF8))
    # This conversion joins the two halves of a character that was written as two surrogates.
    whole = halves.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    if cut:
        whole = _cut(whole)
    elif has_too_many_containers(whole, _MOST_CONTAINERS):
        # Python 3.13 parses 9,000 levels, where other versions give up.
        raise ValueError("nested too deeply")
    try:
        return json.loads(whole, strict=strict, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _decoded(text: bytes) -> str:
    """Decode UTF-8 with incomplete characters. The beginning of such a character becomes a lone surrogate.

    Some text in GBK looks like a row of such beginnings. Therefore, after a beginning of one byte, another beginning is
    accepted only if the text contains a whole character of UTF-8.

    Raises: UnicodeDecodeError, if the text is in another encoding.
    """
    parts, start, length = list[str](), 0, 0
    while True:
        try:
            return "".join((*parts, text[start:].decode("utf-8", "surrogatepass")))
        except UnicodeDecodeError as exc:
            begin, end = start + exc.start, start + exc.end
            is_in_a_row = bool(parts) and begin == start
            if exc.reason == "invalid start byte" or len(parts) >= 2 * _MOST_CUT:
                raise
            if is_in_a_row and length == 1 and _WHOLE.search(text) is None:
                raise
            parts += text[start:begin].decode("utf-8", "surrogatepass"), "\ud83d"
            start, length = end, end - begin


def _cut(text: str) -> str:
    kept, depth, begin = list[str](), 0, 0
    for found in _LARGE.finditer(text):
        start, end = found.span()
        if found[0] in "[{":
            depth += 1
            if depth == _DEEPEST + 1:
                kept += text[begin:start], "null"
        elif found[0] in "]}":
            depth -= 1
            begin = end if depth == _DEEPEST else begin
        elif found[0][0] != '"' and depth <= _DEEPEST:
            kept += text[begin:start], "0"
            begin = end
    return "".join((*kept, text[begin:]))
