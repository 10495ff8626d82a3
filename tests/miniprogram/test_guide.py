"""The examples and statements of the guides for mini-programs hold."""

import json
import re
import sys

import pytest

from tests.docs import block, both_languages, code_blocks, guide
from tests.programs import output_of
from tests.world import Client, body_of

TRIED_ONCE_MORE = {"code_used", "invalid_code", "wechat_unavailable", "wechat_timeout"}
"""The service's error codes for which the client repeats a login once, with a new code."""


@both_languages
@pytest.mark.usefixtures("simulated")
async def test_the_tutorials_body_is_taken_as_it_is(language: str, client: Client) -> None:
    body = code_blocks(guide("mini-program-tutorials", language), "sh")[-1].split("'")[-2]
    answer = body_of(await client.post("/v1/login", json=json.loads(body)))
    user = answer["user"]
    assert (user["nickname"], user["avatar_url"]) == ("Alice", "https://example.com/1.png")


@both_languages
def test_the_failures_that_the_client_retries_are_shown(language: str) -> None:
    text = guide("mini-program", language).read_text()
    [retried] = re.findall(r"(?:After|遇到) ([^.。]*(?:the SDK logs the user in once more|再登录一次))", text)
    assert set(re.findall(r"`(\w+)`", retried)) == TRIED_ONCE_MORE


MIDDLEWARE = """
import django.conf, sys
from django.test import RequestFactory
django.conf.settings.configure()
for method, *wanted in ("POST", "PATCH"), ("POST",), ("POST", "DELETE"), ("GET", "PATCH"):
    headers = {"X-HTTP-Method-Override": wanted[0]} if wanted else {}
    request = RequestFactory().generic(method, "/cart", headers=headers)
    print(patched(lambda request: request.method)(request))
"""


@pytest.mark.process
def test_the_middleware_for_patch_changes_only_a_post_that_asks_for_it() -> None:
    shown = block("docs/build/mini-program-recipes.md", "def patched")
    assert output_of(sys.executable, "-c", shown + MIDDLEWARE).split() == ["PATCH", "POST", "POST", "GET"]
