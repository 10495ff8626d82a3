"""An error about a parameter names it if wxauth reads it, and never echoes another name."""

import re
from pathlib import Path

import pytest

from wxauth.clients.oauth_errors import OAuthError
from wxauth.clients.oauth_requests import parse_parameters, refuse_repeated

SOURCE = Path(__file__).parents[2] / "src" / "wxauth"
READ = re.compile(r'\b(?:form|parameters)\.(?:get|required)\("(\w+)"')


def test_each_parameter_that_is_read_is_named_if_it_is_repeated() -> None:
    sources = [path.read_text() for package in ("clients", "sites") for path in (SOURCE / package).rglob("*.py")]
    names = {name for source in sources for name in READ.findall(source)}
    assert names >= {"client_id", "token", "number", "code_challenge"}
    for name in sorted(names - {"resource"}):  # for which the error says more
        assert description_of(name) == f"a parameter occurs twice: {name}"
    assert description_of("evil") == "a parameter occurs twice"


def description_of(repeated: str) -> str:
    with pytest.raises(OAuthError) as refusal:
        refuse_repeated(parse_parameters(f"{repeated}=a&{repeated}=b"))
    return refusal.value.description
