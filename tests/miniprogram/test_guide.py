"""The examples and statements of docs/build/mini-program.md hold."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests.docs import block, code_blocks, failures, guide
from tests.programs import output_of
from tests.world import Client, body_of

PAGES = [guide("mini-program"), guide("mini-program", "zh")]
TRIED_ONCE_MORE = {"code_used", "invalid_code", "wechat_unavailable", "wechat_timeout"}
"""Of the service's answers to a login; by the client, with a fresh code."""
OF_THE_CLIENT = {
    "network_error",
    "timeout",
    "aborted",
    "wx_login_failed",
    "login_required",
    "single_page",
    "phone_refused",
    "phone_unavailable",
    "phone_quota_used_up",
    "domain_not_allowed",
    "no_platform",
    "invalid_argument",
    "origin_not_allowed",
    "http_error",
}
"""The client's own error codes."""

each_page = pytest.mark.parametrize("page", PAGES, ids=["English", "Chinese"])


@each_page
@pytest.mark.usefixtures("simulated")
async def test_the_tutorials_body_is_taken_as_it_is(page: Path, client: Client) -> None:
    body = code_blocks(page, "sh")[-1].split("'")[-2]
    answer = body_of(await client.post("/v1/login", json=json.loads(body)))
    user = answer["user"]
    assert (user["nickname"], user["avatar_url"]) == ("Alice", "https://example.com/1.png")


@each_page
def test_the_failures_that_the_client_retries_are_shown(page: Path) -> None:
    [retried] = re.findall(r"(?:After|遇到) ([^.。]*(?:the client logs in once more|再登录一次))", page.read_text())
    assert set(re.findall(r"`(\w+)`", retried)) == TRIED_ONCE_MORE


@each_page
def test_every_code_of_the_client_is_shown(page: Path) -> None:
    [rows] = re.findall(r"^\| `code` \|.*\n\|[-|]+\|\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    shown = set(re.findall(r"^\| (`.*?`) \|", rows, re.MULTILINE))
    codes = {code for cell in shown for code in re.findall(r"`(\w+)`", cell)}
    of_the_service = {kind.code for kind in failures()}
    assert codes - of_the_service == OF_THE_CLIENT


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
    shown = block("docs/build/mini-program.md", "def patched")
    assert output_of(sys.executable, "-c", shown + MIDDLEWARE).split() == ["PATCH", "POST", "POST", "GET"]
