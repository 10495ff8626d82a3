"""The examples and statements of the guides for mini-programs hold."""

import json
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient

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


@pytest.mark.parametrize("language", ["docs", "docs/zh"])
def test_a_payment_link_works_once_for_its_order_and_for_five_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shop: dict[str, Any] = {}
    exec(block(f"{language}/build/mini-program-recipes.md", "def start_payment"), shop)
    alice, bob = SimpleNamespace(id="alice"), SimpleNamespace(id="bob")
    shop["database"].execute("INSERT INTO orders VALUES (7, 'alice', 100), (8, 'bob', 100)")
    now = [1_800_000_000.0]
    monkeypatch.setattr(shop["time"], "time", lambda: now[0])
    client = TestClient(shop["app"])

    def link(order: int, user: SimpleNamespace) -> str | int:
        shop["app"].dependency_overrides[shop["guard"]] = lambda: user
        answer = client.post(f"/orders/{order}/payment-link")
        return str(answer.json()["url"].partition("#")[2]) if answer.status_code == 200 else answer.status_code

    def pay(code: str | int) -> tuple[int, Any]:
        answer = client.post("/payments", json={"code": code})
        return answer.status_code, answer.json().get("order_id")

    assert [link(8, alice), link(9, alice)] == [404, 404]
    code = link(7, alice)
    assert str(code) not in (tmp_path / "shop.db").read_bytes().decode("latin-1")
    assert [pay(code), pay(code), pay("made up")] == [(200, 7), (410, None), (410, None)]
    first, second = link(7, alice), link(7, alice)
    assert [pay(first), pay(second)] == [(410, None), (200, 7)]
    late = link(8, bob)
    now[0] += 301
    assert pay(late) == (410, None)
    shop["app"].dependency_overrides.clear()
    assert client.post("/orders/7/payment-link").status_code == 401
