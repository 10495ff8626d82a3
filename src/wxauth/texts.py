"""Texts, with the standard library alone: what a person has written; secrets; JSON of others."""

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
"""What has no width, and joins or divides the characters beside it."""
_TAGS: Final = "\U000e0000-\U000e007f"
_UNSEEN: Final = (
    f"{_DIACRITICS}{_SELECTORS}{_JOINERS}"
    "\u115f\u1160\u17b4\u17b5\u206a-\u206f\u2800\u3164\uffa0\ufff9-\ufffb\U00013430-\U0001343f\U00013441\U00013442"
    "\U00016fe4\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0080-\U000e00ff\U000e01f0-\U000e0fff"
)
"""What shows nothing without a character beside it, such as the fillers of Hangul."""
_GONE: Final = (
    "\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # controls other than line breaks and tabs
    "\xad\u061c\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff0-\ufff8"  # bidirectional controls, ignorable ones
    "\ud800-\uf8ff\ufdd0-\ufdef\U000f0000-\U0010ffff"  # surrogates, private use, noncharacters
    + "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in range(0, 0xF0000, 0x10000))
)
_TO_CLEAN = re.compile(rf"[{_GONE}{_TAGS}{_UNSEEN}]")
_GOING = re.compile(rf"(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{{3,6}}\U000e007f)|[{_GONE}{_TAGS}]+")
"""A flag of a region, which stays, or what goes everywhere."""
_UNWRITTEN = re.compile(
    rf"(?=[{_SELECTORS}{_JOINERS}])(?<=[#*0-9\xa9\xae\u0530-\U0010ffff])(?<![\s{_UNSEEN}])"
    rf"([{_SELECTORS}]?)[{_SELECTORS}]*"
    rf"(?:([{_JOINERS}])[{_SELECTORS}{_JOINERS}]*(?=[\u0530-\U0010ffff])(?![\s{_UNSEEN}]))?[{_SELECTORS}{_JOINERS}]*"
    rf"|[{_SELECTORS}{_JOINERS}]+"
)
"""Selectors and joiners. One of each stays in emoji and in scripts that have them: not in Latin, Greek, Cyrillic."""
_STACKED = re.compile(rf"([{_DIACRITICS}]{{2}})[{_DIACRITICS}]+")
_SEEN = re.compile(rf"[^\s{_UNSEEN}]")
_WHOLE = re.compile(rb"[\xe1-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
"""A character of UTF-8 that text in another encoding hardly ever has."""
_MOST_CUT: Final = 100
"""How many characters of a text may be cut. What has more is no cut text."""
_MOST_CONTAINERS: Final = 1000
_DEEPEST: Final = 100
# One without an end reaches to the end of the text: else each of its quotes would be tried as a beginning.
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
_LARGE = re.compile(rf"{_STRING.pattern}|[\[\]{{}}]|[0-9]{{1000,}}", re.DOTALL)
"""What makes JSON too large to be read, and the strings in which it does not count."""


def clean_text(text: str) -> str:
    """A person's text without what disturbs the text beside it, in one line; empty if it shows nothing.

    Joined emoji, and the marks and joiners of scripts, stay whole. So do characters that this Python does not know yet.
    """
    if _TO_CLEAN.search(text):
        text = _STACKED.sub(r"\1", _UNWRITTEN.sub(r"\1\2", _GOING.sub(r"\1", text)))
        text = text if _SEEN.search(text) else ""
    return " ".join(text.split())


def new_secret() -> str:
    """256 random bits."""
    return secrets.token_urlsafe(_SECRET_BYTES)


def hash_of(secret: str) -> bytes:
    """The hash that is stored in place of a secret with 128 random bits or more."""
    # Slow hashes protect passwords that people choose. Nobody can guess such a secret, however fast the hash is, and a
    # slow one would slow down every request.
    return sha256(secret.encode()).digest()


def read_loosely(text: bytes, *, strict: bool = True, cut: bool = False) -> Any:
    """JSON whose texts may have halves of characters, which become lone surrogates, and raw controls if not `strict`.

    With `cut`, what is nested deeper than anybody reads is null, and a number of 1,000 digits is 0. A byte order mark
    is skipped. Raises: ValueError.
    """
    halves = _decoded(text.removeprefix(BOM_UTF8))
    whole = halves.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")  # joins two halves
    if cut:
        whole = _cut(whole)
    elif has_too_many_containers(whole, _MOST_CONTAINERS):  # Python 3.13 reads 9,000 levels, where others give up
        raise ValueError("nested too deeply")
    try:
        return json.loads(whole, strict=strict, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _decoded(text: bytes) -> str:
    """UTF-8 in which characters may be cut: the beginning of one becomes a lone surrogate. Raises: UnicodeDecodeError.

    Text in GBK is no such text. Some of it looks like beginnings in a row, so after one of a single byte another one is
    taken only if there is a whole character of UTF-8 somewhere.
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
