"""Functions that clean the texts of users and clients, and that check titles."""

import re
from typing import Final

MAX_TITLE_LENGTH: Final = 64

# The following texts are sets of characters, to be written between the brackets of a regular expression.

# The marks of Latin, Greek and Cyrillic letters can be stacked without a limit.
_DIACRITICS: Final = "\u0300-\u036f\u1ab0-\u1aff\u1dc0-\u1dff\u20d0-\u20ff\ufe20-\ufe2f"
# Variation selectors choose a form of the character before them.
_SELECTORS: Final = "\u180b-\u180d\u180f\ufe00-\ufe0f\U000e0100-\U000e01ef"
_JOINERS: Final = "\u180e\u200b-\u200d"  # zero-width
_TAGS: Final = "\U000e0000-\U000e007f"  # spell the code of a region in the emoji of the region's flag
# These characters are invisible by themselves, for example combining accents and the fillers of Hangul.
_INVISIBLE: Final = (
    f"{_DIACRITICS}{_SELECTORS}{_JOINERS}"
    "\u115f\u1160\u17b4\u17b5\u206a-\u206f\u2800\u3164\uffa0\ufff9-\ufffb\U00013430-\U0001343f\U00013441\U00013442"
    "\U00016fe4\U0001bca0-\U0001bca3\U0001d159\U0001d173-\U0001d17a\U000e0080-\U000e00ff\U000e01f0-\U000e0fff"
)
_CONTROLS: Final = "\0-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"  # without tabs, line breaks and form feeds, which become spaces
# Unicode calls these characters default ignorable: programs that do not know them show nothing in their place. Some of
# them reorder the text around them, for example bidirectional controls.
_IGNORED: Final = "\xad\u061c\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ufff0-\ufff8"
# These are surrogates, characters for private use, noncharacters, and the last two planes.
_UNASSIGNABLE: Final = "\ud800-\uf8ff\ufdd0-\ufdef\U000f0000-\U0010ffff"
_PLANES: Final = range(0, 0xF0000, 0x10000)  # except for those in `_UNASSIGNABLE`
_ENDS_OF_PLANES: Final = "".join(f"{chr(plane + 0xFFFE)}{chr(plane + 0xFFFF)}" for plane in _PLANES)  # noncharacters
_REMOVED: Final = f"{_CONTROLS}{_IGNORED}{_UNASSIGNABLE}{_ENDS_OF_PLANES}"

_NEEDS_CLEANING: Final = re.compile(rf"[{_REMOVED}{_TAGS}{_INVISIBLE}]")  # most texts contain no such character
# The group contains a flag, such as Scotland's.
_FLAG_OR_REMOVED: Final = re.compile(
    rf"(\U0001f3f4[\U000e0030-\U000e0039\U000e0061-\U000e007a]{{3,6}}\U000e007f)|[{_REMOVED}{_TAGS}]+"
)
_JOINABLE: Final = r"\u0530-\U0010ffff"  # emoji, and scripts other than Latin, Greek and Cyrillic
# The characters #, * and digits begin keycap emoji.
_AFTER_SELECTABLE: Final = rf"(?<=[#*0-9\xa9\xae{_JOINABLE}])(?<![\s{_INVISIBLE}])"
# Of the selectors and joiners, only those in the two groups remain. For example, one U+FE0F and one U+200D remain
# between a heart and a flame, so that the emoji is still a burning heart.
_NEEDLESS_JOINERS: Final = re.compile(
    # The first group keeps the first selector after a character that can have one, but not the selectors after it.
    rf"(?=[{_SELECTORS}{_JOINERS}]){_AFTER_SELECTABLE}([{_SELECTORS}]?)[{_SELECTORS}]*"
    # The second group keeps the first joiner if a visible character in `_JOINABLE` follows the selectors and joiners.
    rf"(?:([{_JOINERS}])[{_SELECTORS}{_JOINERS}]*(?=[{_JOINABLE}])(?![\s{_INVISIBLE}]))?[{_SELECTORS}{_JOINERS}]*"
    # After any other character, no selector or joiner remains.
    rf"|[{_SELECTORS}{_JOINERS}]+"
)
_STACKED_DIACRITICS: Final = re.compile(rf"([{_DIACRITICS}]{{2}})[{_DIACRITICS}]+")
_VISIBLE: Final = re.compile(rf"[^\s{_INVISIBLE}]")


def clean_text(text: str) -> str:
    """Return a text of a user or a client as one line, without characters that disturb the text around it.

    The result is empty if no character of the text is visible. Joined emoji, and the marks and joiners that scripts
    need, remain. Characters that this version of Python does not know yet also remain.
    """
    if _NEEDS_CLEANING.search(text):
        text = _FLAG_OR_REMOVED.sub(r"\1", text)
        text = _NEEDLESS_JOINERS.sub(r"\1\2", text)
        text = _STACKED_DIACRITICS.sub(r"\1", text)
        if _VISIBLE.search(text) is None:
            return ""
    return " ".join(text.split())


def is_title(text: str) -> bool:
    """Return whether a text is one line of 1 to 64 characters, without tabs or what `clean_text` removes."""
    is_one_line = text.splitlines() == [text]
    words = " ".join(text.split())
    is_clean = words != "" and "\t" not in text and clean_text(text) == words
    return len(text) <= MAX_TITLE_LENGTH and is_one_line and is_clean
