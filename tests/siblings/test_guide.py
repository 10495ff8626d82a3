"""The examples in the guides to the verification of tokens work as shown."""

import sys
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from fastapi import Depends
from jose.jwt import get_unverified_claims

from tests.docs import block, code_blocks, guide, table
from tests.problems import problem_of
from wxauth_guard import BearerGuard
from wxauth_guard.testing import USER_ID, TestIssuer

pytestmark = pytest.mark.parametrize("language", ["", "zh"], ids=["English", "Chinese"])


def run(block: str) -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(block, namespace)
    return namespace


def test_the_table_of_claims_has_every_claim(language: str) -> None:
    rows = {name.strip("`"): there for name, there, _ in table(guide("access-token", language), "claim|声明")}
    always = [name for name, there in rows.items() if there.startswith(("always", "总有"))]
    assert always == list(get_unverified_claims(TestIssuer().token()))
    assert rows.keys() - set(always) == {"roles", "app_id", "scope", "external_id"}


@pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient`")
def test_the_tests_shown_pass_with_the_service_shown(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    page = guide("siblings", language)
    app, tests = code_blocks(page, "python")
    service, issuer = SimpleNamespace(**run(app)), TestIssuer()
    monkeypatch.setitem(sys.modules, "app", service)
    shown = [test for name, test in run(tests).items() if name.startswith("test_")]
    for test in shown:
        test(issuer)
    assert f"`{len(shown)} passed`" in page.read_text()


async def test_both_routes_of_the_service_shown_reject_a_website_with_a_title(language: str) -> None:
    service, issuer = run(block(guide("siblings", language), "async def erase")), TestIssuer()
    headers = issuer.headers(scope="openid roles", roles=["clerk"])
    transport = httpx.ASGITransport(service["app"])
    with issuer.trusted_by(service["guard"]):
        async with httpx.AsyncClient(transport=transport, base_url="http://sibling.test", headers=headers) as client:
            problem_of(await client.get("/orders"), "insufficient_scope", 403)
            problem_of(await client.delete("/orders/7"), "insufficient_scope", 403)


async def test_the_middleware_shown_guards_all_but_the_public_path(language: str) -> None:
    shown = run(block(guide("siblings-frameworks", language), "BearerMiddleware"))
    issuer = TestIssuer(issuer="http://127.0.0.1:8000")
    transport = httpx.ASGITransport(shown["app"])
    with issuer.trusted_by(shown["guard"]):
        async with httpx.AsyncClient(transport=transport, base_url="http://sibling.test") as client:
            assert (await client.get("/orders")).status_code == 401
            assert (await client.get("/healthz")).text == "ok\n"
            assert (await client.get("/orders", headers=issuer.headers(openid="o1"))).text == "o1\n"


async def test_a_refusal_in_fastapi_has_the_projects_own_envelope(language: str) -> None:
    text = block(guide("siblings-frameworks", language), "exception_handler(WxAuthError)")
    shown, guard = run(text), BearerGuard(issuer="https://auth.test")
    shown["app"].get("/orders", dependencies=[Depends(guard)])(lambda: {})
    transport = httpx.ASGITransport(shown["app"])
    async with httpx.AsyncClient(transport=transport, base_url="http://sibling.test") as client:
        for language, message in (("zh-CN", "请先登录"), ("en", "Please log in.")):
            answer = await client.get("/orders", headers={"Accept-Language": language})
            assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert answer.json()["code"] == 401
            assert answer.json()["message"].startswith(message)


@pytest.mark.filterwarnings("ignore:Using `httpx` with `starlette.testclient`")
def test_the_test_shown_of_a_sensitive_request_passes(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    app, tests = code_blocks(guide("siblings", language), "python")
    page = guide("siblings-frameworks", language)
    monkeypatch.setitem(sys.modules, "app", SimpleNamespace(**run(app + block(page, "async def refund"))))
    run(tests + block(page, "def test_a_banned"))["test_a_banned_user_gets_no_refund"](TestIssuer())


async def test_a_sensitive_request_is_answered_as_wxauth_says(language: str) -> None:
    shown = block(guide("siblings-frameworks", language), "async def refund")
    service = run(block(guide("siblings", language), "async def erase") + shown)
    issuer, transport = TestIssuer(), httpx.ASGITransport(service["app"])
    with issuer.trusted_by(service["guard"]):
        async with httpx.AsyncClient(transport=transport, base_url="http://sibling.test") as client:
            problem_of(await client.post("/orders/7/refund"), "missing_token", 401)
            assert (await client.post("/orders/7/refund", headers=issuer.headers())).status_code == 204
            with issuer.unreachable():
                refund = await client.post("/orders/7/refund", headers=issuer.headers())
            problem_of(refund, "verification_unavailable", 503)
            issuer.ban(USER_ID)
            refund = await client.post("/orders/7/refund", headers=issuer.headers())
            problem_of(refund, "session_revoked", 401)
