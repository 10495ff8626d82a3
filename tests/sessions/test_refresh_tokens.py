"""Refresh tokens: one spelling for each, and none that we did not make."""

import re
import string
from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import UUID

import pytest

from wxauth.server.sessions.refresh_rows import RefreshTokens

KEY, FORMER_KEY, OTHER_KEY = (bytes([n]) * 32 for n in range(3))
SESSION = UUID("01933c5e-8f1b-7d20-a4c5-93b1f0a7e6d2")
TOKENS = RefreshTokens([KEY, FORMER_KEY])
TOKEN = TOKENS.issue(SESSION, 7)


def test_a_token_says_which_session_and_generation() -> None:
    assert re.fullmatch(r"wxr_[A-Za-z0-9_-]{70}", TOKEN)
    assert TOKENS.parse(TOKEN) == (SESSION, 7)


@pytest.mark.parametrize("generation", [0, 1, 2**31 - 1, 2**32 - 1])
def test_a_token_can_hold_any_generation(generation: int) -> None:
    parsed = TOKENS.parse(TOKENS.issue(SESSION, generation))
    assert parsed is not None
    assert parsed.generation == generation


def test_the_same_session_and_generation_have_the_same_token() -> None:
    assert TOKENS.issue(SESSION, 7) == TOKEN
    assert len({TOKENS.issue(SESSION, n) for n in range(100)}) == 100


def test_the_first_key_makes_tokens_and_tokens_of_every_key_are_accepted() -> None:
    assert TOKENS.parse(RefreshTokens([FORMER_KEY]).issue(SESSION, 7)) == (SESSION, 7)
    assert RefreshTokens([KEY]).parse(TOKEN) == (SESSION, 7)
    assert RefreshTokens([FORMER_KEY]).parse(TOKEN) is None
    assert RefreshTokens([OTHER_KEY]).parse(TOKEN) is None


@pytest.mark.parametrize(
    "token",
    [
        "",
        "wxr_",
        TOKEN[4:],
        TOKEN[:-1],
        TOKEN + "A",
        TOKEN + "=",
        TOKEN + "==",
        TOKEN + "\n",
        " " + TOKEN,
        TOKEN.upper(),
        "wxa_" + TOKEN[4:],
        TOKEN.replace("wxr_", "wxr-"),
        TOKEN[:20] + "+" + TOKEN[21:],
        TOKEN[:20] + "é" + TOKEN[21:],
        TOKEN[:20] + "\ud800" + TOKEN[21:],
        TOKEN[:20] + "\0" + TOKEN[21:],
        TOKEN[:20] + "٣" + TOKEN[21:],
        TOKEN * 1000,
    ],
    ids=len,
)
def test_text_of_another_form_is_no_refresh_token(token: str) -> None:
    assert TOKENS.parse(token) is None


def test_a_refresh_token_with_any_altered_character_is_refused() -> None:
    alphabet = string.ascii_letters + string.digits + "-_"
    for position in range(4, len(TOKEN)):
        for character in set(alphabet) - {TOKEN[position]}:
            assert TOKENS.parse(TOKEN[:position] + character + TOKEN[position + 1 :]) is None


def test_the_mac_of_another_token_does_not_fit() -> None:
    raw, other = (urlsafe_b64decode(TOKENS.issue(SESSION, n)[4:] + "==") for n in (7, 8))
    assert TOKENS.parse("wxr_" + urlsafe_b64encode(other[:20] + raw[20:]).rstrip(b"=").decode()) is None


def test_the_repr_of_the_tokens_hides_the_key() -> None:
    assert repr(KEY)[2:-1] not in repr(TOKENS)
