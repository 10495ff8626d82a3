"""The examples in the guides to the verification of tokens work as shown."""

import sys
from contextlib import nullcontext
from email.message import Message
from types import SimpleNamespace
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request
from uuid import uuid4

import httpx
import pytest
from fastapi import Depends
from jose.jwt import get_unverified_claims

from tests.docs import block, code_blocks, guide, table
from tests.problems import problem_of
from wxauth_guard import BearerGuard
from wxauth_guard.testing import TestIssuer

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


async def test_a_sensitive_request_is_answered_as_wxauth_says(language: str, monkeypatch: pytest.MonkeyPatch) -> None:
    frameworks, issuer = guide("siblings-frameworks", language), TestIssuer()
    asking = run(block(frameworks, "wxauth_user.py"))
    monkeypatch.setitem(sys.modules, "wxauth_user", SimpleNamespace(**asking))
    service = run(block(guide("siblings", language), "async def erase") + block(frameworks, "def current_customer"))
    transport = httpx.ASGITransport(service["app"])

    def answering(answer: Message | Exception) -> Any:
        def urlopen(request: Request, *, timeout: float) -> Any:
            assert request.full_url == "http://127.0.0.1:8000/v1/verify?"
            if isinstance(answer, Exception):
                raise answer
            return nullcontext(SimpleNamespace(headers=answer))

        return urlopen

    known = Message()
    known["X-Auth-User-Id"] = str(uuid4())
    banned = HTTPError("", 401, "", Message(), None)
    with issuer.trusted_by(service["guard"]):
        async with httpx.AsyncClient(transport=transport, base_url="http://sibling.test") as client:
            problem_of(await client.post("/orders/7/refund"), "missing_token", 401)
            for answer, status in ((known, 204), (banned, 401), (URLError("away"), 503)):
                asking["urlopen"] = answering(answer)
                refund = await client.post("/orders/7/refund", headers=issuer.headers())
                assert refund.status_code == status
            service["app"].dependency_overrides[service["current_customer"]] = service["customer"]
            assert (await client.post("/orders/7/refund", headers=issuer.headers())).status_code == 204
