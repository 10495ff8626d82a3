"""Names are cleaned.

The tests show which characters stay and which characters are removed.
"""

import unicodedata

import pytest

from tests.sweeps import swept
from wxauth.texts import clean_text

pytestmark = pytest.mark.no_database

SCOTLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f"


@swept(
    "name",
    [
        "小明",
        "Anna-Lena O’Neil",
        "👨‍👩‍👧",
        "❤️",
        "❤️‍🔥 you",
        "👩🏽‍🚀",
        "🏴‍☠️",
        "1️⃣",
        "©️",
        SCOTLAND,
        "می‌خواهم",
        "ශ්‍රී",
        "র‍্যাব",
        "ᠮᠠ᠎ᠠ ᠠ᠋",
        "葛\U000e0100西",
        "葛\U000e0100",
        "e\u0301\u0302",
        "ก็็็็็",
        "עִבְרִ֑ית",
        "한\u3164글",
        "\U0001faea\U0001fadd",
        "x\U000323b1",
        "a\ufffdb",
    ],
    ids=ascii,
)
def test_a_name_stays_as_people_write_it(name: str) -> None:
    assert clean_text(name) == name


@swept(
    ("name", "stored"),
    [
        ("\u0014琦娅🍭", "琦娅🍭"),
        (" a\t\r\n\u2028\u3000 b\x85\xa0", "a b"),
        ("微信" + "\u2003" * 40 + "官方", "微信 官方"),
        ("a \u200d\x01 b", "a b"),
        *((f"a{each}b", "ab") for each in "\0\x1b\x1f\x7f\x9f\u061c\u200e\u200f\u202a\u202e\u2066\u2069"),
        *((f"小{each}明", "小明") for each in "\xad\u2060\u2065\ufeff\ufff0\ufff8\ue000\uf8ff\U000f0000\U0010fffd"),
        *((f"小{each}明", "小明") for each in "\ufdd0\ufdef\ufffe\uffff\U0001fffe\U0010ffff\ud83d\udc00\udfff"),
        *((f"小{each}明", "小明") for each in "\U000e0001\U000e0041\U000e007f"),
        (SCOTLAND[:-1], SCOTLAND[0]),
        ("🏳" + SCOTLAND[1:], "🏳"),
        ("a" + "\u0301" * 63, "a\u0301\u0301"),
        ("a\u0301\u200d\u0308\x01\u20dd\u1ab0\ufe20b", "a\u0301\u0308b"),
        *((f"\u200d小 {each}明{each}", "小 明") for each in ("\u200b", "\u200c", "\u200d", "\u180e")),
        ("\ufe0f小 \ufe0f明\ufe0f\ufe0e", "小 明\ufe0f"),
        *((f"a{each}b{each}", "ab") for each in ("\u200b", "\u200c", "\u200d", "\ufe0f", "\u180b", "\U000e0100")),
        ("👨‍‍👩", "👨‍👩"),
        *((each * 3, "") for each in "\u115f\u1160\u3164\uffa0\u2800\u3000\u200b\u200d\ufe0f\U000e0100\u180b\u0301 "),
        *((each * 3, "") for each in "\u206a\u206f\U00013430\U00013441\U00016fe4\U000e0080\U000e0fff"),
    ],
    ids=ascii,
)
def test_what_shows_nothing_or_disturbs_the_text_beside_it_goes(name: str, stored: str) -> None:
    assert clean_text(name) == stored
    assert clean_text(stored) == stored


def test_a_character_of_any_other_kind_stays() -> None:
    kinds = {"Cc", "Cf", "Co", "Cs", "Cn", "Mn", "Me", "Zs", "Zl", "Zp"}
    shown = [chr(code) for code in range(0x110000) if unicodedata.category(chr(code)) not in kinds]
    assert [each for each in shown if clean_text(f"小{each}明") != f"小{each}明"] == []


def test_a_name_is_cleaned_in_time_that_grows_with_its_length() -> None:
    for name in ("\u200d", "小\ufe0f\u200d", SCOTLAND[:2], "a ", "\u0301", "\x01"):
        clean_text(f"小{name * 200_000}明")
