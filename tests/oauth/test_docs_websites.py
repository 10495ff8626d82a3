"""The examples in docs/websites.md run, and each attack that the guides name has its test."""

import re
import warnings
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.test_readme import code_blocks, table
from wxauth.server.cli.clients import clients
from wxauth.server.service.app import create_api

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/websites.md"
TESTS = "\n".join(file.read_text() for file in sorted(ROOT.glob("tests/**/test_*.py")))


@pytest.mark.parametrize("page", ["websites-security.md", "doors.md"])
def test_each_attack_has_a_test(page: str) -> None:
    for attack, defence, test in table(GUIDE.with_name(page), "attack"):
        assert attack
        assert defence
        assert re.search(rf"^(async )?def {test.strip('`')}\(", TESTS, re.MULTILINE), test


def test_the_options_are_those_of_the_command() -> None:
    documented = {option.strip("`") for option, _ in table(GUIDE, "option")}
    add = clients.commands["add"]
    options = {name for parameter in add.params for name in parameter.opts if name.startswith("--")}
    assert documented == options - {"--json"}


@pytest.mark.slow
def test_every_endpoint_named_in_the_docs_exists() -> None:
    paths = create_api().openapi()["paths"].keys()
    named = set(re.findall(r"https://auth\.example\.com(/v1/\w+)", GUIDE.read_text()))
    assert named
    assert named <= paths


def test_grafanas_configuration_is_valid() -> None:
    config = ConfigParser(interpolation=None)
    [text] = code_blocks(GUIDE, "ini")
    config.read_string(text)
    assert config["auth.generic_oauth"]["use_pkce"] == "true"


@pytest.mark.no_database
async def test_the_site_shown_can_be_run() -> None:
    [source] = code_blocks(GUIDE, "python")
    namespace: dict[str, Any] = {}
    with warnings.catch_warnings(record=True):  # Authlib warns of a change in its next version
        exec(source, namespace)
    transport = httpx.ASGITransport(namespace["app"])
    async with httpx.AsyncClient(transport=transport, base_url="https://shop.example.com") as client:
        assert (await client.get("/")).json() is None
        answer = await client.get("/logout")
    assert answer.headers["location"].startswith("https://auth.example.com/v1/end_session?id_token_hint=")
    assert {route.path for route in namespace["app"].routes} == {"/", "/login", "/callback", "/logout"}
