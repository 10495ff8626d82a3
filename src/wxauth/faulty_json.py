"""The parser of JSON from other programs, which might have cut characters off, or nested values too deeply."""

import json
import re
from codecs import BOM_UTF8
from typing import Any, Final

from wxauth_guard.json_texts import has_too_many_containers, refuse_constant

# These bytes hardly ever occur in text of another encoding.
_WHOLE_CHARACTER: Final = re.compile(rb"[\xe1-\xef][\x80-\xbf]{2}|[\xf0-\xf4][\x80-\xbf]{3}")
_LONE_SURROGATE: Final = "\ud83d"  # in place of an incomplete character: in UTF-16, most emoji begin with it
_MAX_INCOMPLETE: Final = 100  # text with more is probably not UTF-8
_MAX_CONTAINERS: Final = 1000
_MAX_DEPTH: Final = 100
# A string without a closing quote extends to the end of the text. Otherwise, the search would try each of the text's
# quotes as the beginning of a string, and take quadratic time.
_STRING: Final = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"?', re.DOTALL)
# Python refuses to parse an integer of more than 4,300 digits, and no useful number has even 1,000.
_SIZE_TOKEN: Final = re.compile(rf"{_STRING.pattern}|[\[{{]+|[\]}}]+|[0-9]{{1000,}}", re.DOTALL)


def read_loosely(text: bytes, *, strict: bool = True, prune: bool = False) -> Any:
    """Parse JSON that may contain incomplete characters (see `loose_text`).

    Args:
        text: UTF-8.
        strict: Whether control characters in strings are an error, as in `json.loads`.
        prune: Whether values nested more than 100 levels deep become null, and series of 1,000 or more digits 0.
            Otherwise, more than 1,000 arrays and objects are an error, and so are integers of more than 4,300 digits.

    Raises: ValueError.
    """
    try:
        return json.loads(loose_text(text, prune=prune), strict=strict, parse_constant=refuse_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def loose_text(text: bytes, *, prune: bool = False) -> str:
    """Decode JSON in UTF-8, in which incomplete characters become lone surrogates. A byte order mark is skipped.

    WeChat and mini-programs send such JSON if they have cut a text off in the middle of a character.

    Raises: ValueError, also if the JSON has too many arrays and objects, unless `prune` is set.
    """
    decoded = _decoded(text.removeprefix(BOM_UTF8))
    # This conversion joins the two halves of a character that was written as two surrogates.
    joined = decoded.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")
    if prune:
        return _pruned(joined)
    if has_too_many_containers(joined, _MAX_CONTAINERS):
        # Text with few arrays and objects has few levels, so this limit also bounds the depth. Without it, Python 3.13
        # would parse 9,000 levels. Python 3.11 refuses 1,000 levels, and fewer if it already runs many nested calls.
        raise ValueError("too many arrays and objects")
    return joined


def _decoded(text: bytes) -> str:
    parts = list[str]()
    start = 0  # the position of the first byte that is not decoded yet
    previous_length = 0  # the number of bytes of the previous incomplete character
    while True:
        try:
            return "".join((*parts, text[start:].decode("utf-8", "surrogatepass")))
        except UnicodeDecodeError as exc:
            begin = start + exc.start
            end = start + exc.end
            has_too_many = len(parts) >= 2 * _MAX_INCOMPLETE  # each incomplete character adds two parts
            # A character that was cut off begins with a valid byte. Python does not translate this reason.
            if exc.reason == "invalid start byte" or has_too_many:
                raise
            follows_another = bool(parts) and begin == start
            # Some text in GBK looks like a series of incomplete characters of one byte. Such a series is accepted only
            # if the text also contains a complete UTF-8 character of at least three bytes.
            if follows_another and previous_length == 1 and _WHOLE_CHARACTER.search(text) is None:
                raise
            parts += text[start:begin].decode("utf-8", "surrogatepass"), _LONE_SURROGATE
            start, previous_length = end, end - begin


def _pruned(text: str) -> str:
    parts = list[str]()
    depth = 0
    copied_to = 0  # the position up to which the text is copied or replaced
    for match in _SIZE_TOKEN.finditer(text):  # brackets, strings and long numbers, even if the text is not valid JSON
        start, end = match.span()
        piece = match[0]
        # Brackets are looked at in rows, so that thousands of them take no time.
        if piece[0] in "[{":
            if depth <= _MAX_DEPTH < depth + len(piece):
                parts += text[copied_to : start + _MAX_DEPTH - depth], "null"
            depth += len(piece)
        elif piece[0] in "]}":
            if depth - len(piece) <= _MAX_DEPTH < depth:
                copied_to = start + depth - _MAX_DEPTH
            depth -= len(piece)
        elif not piece.startswith('"') and depth <= _MAX_DEPTH:
            parts += text[copied_to:start], "0"
            copied_to = end
    return "".join((*parts, text[copied_to:]))
