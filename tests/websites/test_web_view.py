"""A site inside the mini-program: its web-view opens the page, and the mini-program answers without a scan."""

import json
import re
from asyncio import create_task, gather
from collections.abc import Awaitable, Callable
from dataclasses import replace
from html import unescape
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID

import asyncpg
import httpx
import pytest

from tests.fakes import OTHER_APP, Clock, WeChatByRespx
from tests.problems import problem_of
from tests.sweeps import Sweep
from tests.websites.browsers import ASKED, Browser, exchanged, id_claims, refused, wechat_thinking
from tests.world import (
    CALLBACK,
    AddSite,
    GetPhone,
    LogLines,
    MakeClient,
    MakeServices,
    Phone,
    Rows,
    Site,
    bearer,
    leave,
)
from wxauth.server.console.sessions import ConsoleSessions
from wxauth.server.core.services import Services
from wxauth.server.core.trail import SENT_TO_SIBLINGS, EventType
from wxauth.server.housekeeping.housekeeping import sweep
from wxauth.server.users.merging import link_unionid

WEB_VIEW = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 "
    "MicroMessenger/8.0.60(0x18003c2f) NetType/WIFI Language/zh_CN miniProgram/wx1234567890abcdef"
)
IN_WEB_VIEW = {"User-Agent": WEB_VIEW}
PATH = "/v1/me/authorizations"


async def answer(phone: Phone, **parameters: Any) -> httpx.Response:
    """The mini-program answers the site's request."""
    body = {"login_code": phone.wx_login(), **ASKED, **parameters}
    body = {name: value for name, value in body.items() if value is not ...}
    return await phone.client.post(PATH, json=body, headers=bearer(phone.tokens))


def redirect_parameters(answer: httpx.Response, to: str = CALLBACK) -> dict[str, str]:
    """The parameters that the site is sent."""
    assert answer.status_code == 200, answer.text
    url = answer.json()["redirect_to"]
    assert url.startswith(f"{to}?"), url
    return {name: value for name, [value] in parse_qs(urlsplit(url).query).items()}


async def code_of(phone: Phone, **parameters: Any) -> str:
    return redirect_parameters(await answer(phone, **parameters))["code"]


def opened_by(page: httpx.Response) -> tuple[str, dict[str, str]]:
    """The page of the mini-program that a page in a web-view asks for, and its query as the mini-program reads it."""
    assert page.status_code == 200, page.text
    found = re.search(r'data-page="([^"]+)"', page.text)
    assert found, page.text
    url = json.loads(unescape(found[1]))["url"]
    assert "+" not in url
    path, _, query = url.partition("?")
    return path, {name: value for name, [value] in parse_qs(query, strict_parsing=True).items()}


async def count(rows: Rows, what: str) -> int:
    return await rows.fetchval(f"SELECT count(*) FROM {what}")


# The flow.


async def test_a_site_in_the_web_view_logs_in_without_a_code_to_scan(
    shop: Site, browser: Browser, phone: Phone, clock: Clock, rows: Rows
) -> None:
    logged_in_at = clock()
    clock.advance(minutes=10)
    page = await browser.client.get(f"/v1/authorize?{urlencode(ASKED)}", headers=IN_WEB_VIEW)
    path, query = opened_by(page)
    assert (path, query) == ("/pages/authorize/authorize", ASKED)
    sent = redirect_parameters(await answer(phone, **query))
    assert (sent["state"], sent["iss"], set(sent)) == ("s-1", "https://auth.test", {"code", "state", "iss"})
    tokens = (await exchanged(shop, sent["code"])).json()
    claims = await id_claims(browser.client, tokens["id_token"])
    assert (claims["sub"], claims["nonce"], claims["amr"]) == (phone.user_id, "n-1", ["wechat_mini_program"])
    assert claims["auth_time"] == int(logged_in_at.timestamp())
    assert (await browser.client.get("/v1/userinfo", headers=bearer(tokens))).json()["sub"] == phone.user_id
    listed = (await phone.client.get("/v1/me/sessions", headers=bearer(phone.tokens))).json()["items"]
    assert sorted(session["client_id"] or "" for session in listed) == ["", "shop"]
    assert await count(rows, "site_logins WHERE scene_hash IS NOT NULL") == 0


async def test_the_page_hands_on_every_parameter_as_the_mini_program_can_read_it(
    add_site: AddSite, make_services: MakeServices, make_client: MakeClient
) -> None:
    await add_site(title='<b>"Shop"</b>', redirect_uris=[f"{CALLBACK}?a=1&b=%20"])
    browser = Browser(make_client(await make_services(site_page="sub/pages/in/in")))
    asked = {
        **ASKED,
        "redirect_uri": f"{CALLBACK}?a=1&b=%20",
        "state": """a b+c&d=é'"<!~*()>%25""",
        "ui_locales": "zh",
        "login_hint": "x",
    }
    by_link = await browser.client.get(f"/v1/authorize?{urlencode(asked)}", headers=IN_WEB_VIEW)
    by_form = await browser.client.post("/v1/authorize", data=asked, headers=IN_WEB_VIEW)
    for page in (by_link, by_form):
        opened, query = opened_by(page)
        assert (opened, list(query.items())) == ("/sub/pages/in/in", list(asked.items()))
        assert "登录 &lt;b&gt;&quot;Shop&quot;&lt;/b&gt;" in page.text
        assert page.text.count("<button") == 1
        assert "unsafe" not in page.headers["content-security-policy"]


async def test_a_page_in_a_web_view_starts_no_scan_and_counts_against_no_address(
    shop: Site, make_services: MakeServices, make_client: MakeClient, rows: Rows
) -> None:
    client = make_client(await make_services(scan_rate_limit="1/minute"))
    for _ in range(3):
        page = await client.get(f"/v1/authorize?{urlencode(ASKED)}", headers=IN_WEB_VIEW)
        assert page.status_code == 200
    assert await count(rows, "site_logins") == 0
    found = re.search(r'<noscript><a class="button" href="([^"]+)"', page.text)
    assert found
    code_url = unescape(found[1])
    assert json.loads(unescape(page.text.split('data-page="')[1].split('"')[0]))["codeUrl"] == code_url
    with_code = await client.get(code_url, headers=IN_WEB_VIEW)
    assert re.search(r"[B-Z]{4}-[B-Z]{4}", with_code.text)
    assert (await client.get(code_url, headers=IN_WEB_VIEW)).status_code == 429


async def test_a_wrong_request_in_a_web_view_ends_as_in_any_browser(shop: Site, browser: Browser) -> None:
    for wrong, status in (({"client_id": "nobody"}, 400), ({"redirect_uri": "https://evil.example/"}, 400)):
        page = await browser.client.get(f"/v1/authorize?{urlencode({**ASKED, **wrong})}", headers=IN_WEB_VIEW)
        assert (page.status_code, "data-page" in page.text) == (status, False)
    back = await browser.client.get(f"/v1/authorize?{urlencode({**ASKED, 'scope': 'no'})}", headers=IN_WEB_VIEW)
    assert "error=invalid_scope" in back.headers["location"]


# Checks.


async def test_an_error_for_the_site_is_a_url(shop: Site, phone: Phone) -> None:
    for parameters, error in (
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"response_type": ...}, "invalid_request"),
        ({"scope": "nonsense"}, "invalid_scope"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"code_challenge": ...}, "invalid_request"),
        ({"request_uri": "https://x"}, "request_uri_not_supported"),
        ({"prompt": "none"}, "login_required"),
        ({"state": "s" * 4097}, "invalid_request"),
    ):
        sent = redirect_parameters(await answer(phone, **parameters))
        assert (sent["error"], sent["iss"], "code" in sent) == (error, "https://auth.test", False)
        assert sent.get("state") == (None if "state" in parameters else "s-1")


async def test_an_error_that_must_not_reach_the_site_has_no_url(
    shop: Site, add_site: AddSite, phone: Phone, wechat: WeChatByRespx, rows: Rows
) -> None:
    await add_site("television", redirect_uris=[], device=True)
    asked = len(wechat.calls)
    with Sweep() as sweep:
        for parameters in (
            {"client_id": "nobody"},
            {"client_id": ...},
            {"client_id": "wxauth-admin", "redirect_uri": "https://auth.test/admin/", "scope": "wxauth:admin"},
            {"client_id": "television"},
            {"client_id": "television", "redirect_uri": ...},
            {"redirect_uri": "https://evil.example/"},
            {"redirect_uri": ...},
            {"redirect_uri": f"{CALLBACK}/"},
            {"state": None},
            {"state": 1},
            {"state": ["s-1"]},
            {"max_age": 300},
            {"state": "\x00"},
            {"nonce": "n" * 4097},
            {f"p{number}": "x" for number in range(101)},
            {"login_code": ""},
            {"login_code": ...},
            {"login_code": "c" * 257},
        ):
            with sweep.case(str(parameters)[:60]):
                problem_of(await answer(phone, **parameters), "invalid_request", 422)
    assert len(wechat.calls) == asked
    assert await count(rows, "site_logins") == 0


async def test_however_many_mistakes_a_request_has_answer_and_log_stay_short(
    shop: Site, phone: Phone, log_lines: LogLines
) -> None:
    for wrong in ({f"p{number}": number for number in range(3000)}, {"p" * 50_000: 1}):
        refusal = await answer(phone, **wrong)
        assert problem_of(refusal, "invalid_request", 422)["errors"]
        assert len(refusal.text) < 4000
        assert len(str(log_lines()[-1])) < 2000


async def test_the_console_is_no_site_in_a_web_view(
    phone: Phone, make_services: MakeServices, make_client: MakeClient
) -> None:
    services = await make_services(admin_page=True)
    await services[ConsoleSessions].add_as_site()
    in_service = replace(phone, client=make_client(services))
    asked = {**ASKED, "client_id": "wxauth-admin", "redirect_uri": "https://auth.test/admin/", "scope": "wxauth:admin"}
    for mistake in ({}, {"prompt": "none"}, {"code_challenge_method": "plain"}, {"scope": "nonsense"}):
        problem_of(await answer(in_service, **{**asked, **mistake}), "invalid_request", 422)
    page = await in_service.client.get(f"/v1/authorize?{urlencode(asked)}", headers=IN_WEB_VIEW)
    assert re.search(r"[B-Z]{4}-[B-Z]{4}", page.text)


@pytest.mark.oldest_postgres
async def test_a_near_site_requires_no_common_network_in_a_web_view(add_site: AddSite, phone: Phone) -> None:
    near = await add_site(near=True)
    assert (await exchanged(near, await code_of(phone))).status_code == 200


async def test_a_site_that_asks_for_a_new_login_refuses_an_old_login(shop: Site, phone: Phone, clock: Clock) -> None:
    clock.advance(seconds=30)
    for parameters in ({"prompt": "login"}, {"max_age": "0"}, {"max_age": "29"}):
        assert "code" in redirect_parameters(await answer(phone, **parameters))
    clock.advance(seconds=1)
    for parameters in ({"prompt": "login"}, {"prompt": "consent login"}, {"max_age": "0"}, {"max_age": "30"}):
        assert redirect_parameters(await answer(phone, **parameters))["error"] == "login_required"
    for parameters in ({"max_age": "31"}, {"max_age": "9" * 4000}, {"prompt": "consent"}):
        assert "code" in redirect_parameters(await answer(phone, **parameters))


# Attacks.


async def test_a_bearer_alone_opens_no_session_of_a_site(
    shop: Site, phone: Phone, wechat: WeChatByRespx, rows: Rows
) -> None:
    of_mallory = await answer(phone, login_code=wechat.code_for("mallory"))
    problem_of(of_mallory, "wrong_person", 403)
    spent = phone.wx_login()
    assert (await answer(phone, login_code=spent)).status_code == 200
    problem_of(await answer(phone, login_code=spent), "invalid_code", 400)
    assert await count(rows, "site_logins") == 1
    assert await count(rows, "events WHERE type = 'site.authorized'") == 1


async def test_the_session_of_a_site_answers_for_no_other_site(shop: Site, phone: Phone, add_site: AddSite) -> None:
    await add_site("other")
    tokens = (await exchanged(shop, await code_of(phone))).json()
    of_a_site = replace(phone, tokens=tokens)
    problem_of(await answer(of_a_site, client_id="other"), "insufficient_scope", 403)


async def test_a_code_is_bound_to_client_redirect_uri_and_verifier_and_lives_a_minute(
    shop: Site, add_site: AddSite, phone: Phone, clock: Clock
) -> None:
    other = await add_site("other")
    code = await code_of(phone)
    refused(await exchanged(other, code), "invalid_grant")
    refused(await exchanged(shop, code, redirect_uri=f"{CALLBACK}/"), "invalid_grant")
    refused(await exchanged(shop, code, code_verifier="x" * 43), "invalid_grant")
    clock.advance(seconds=59)
    assert (await exchanged(shop, code)).status_code == 200
    code = await code_of(phone)
    clock.advance(seconds=60)
    refused(await exchanged(shop, code), "invalid_grant")


async def test_a_code_that_comes_again_ends_the_session_that_it_made(shop: Site, phone: Phone, rows: Rows) -> None:
    code = await code_of(phone)
    tokens = (await exchanged(shop, code)).json()
    refused(await exchanged(shop, code), "invalid_grant")
    refused(await shop.refresh(tokens), "invalid_grant")
    assert (await phone.client.get("/v1/me", headers=bearer(phone.tokens))).status_code == 200


async def test_of_two_replicas_with_one_code_one_opens_a_session_and_the_other_ends_it(
    shop: Site, phone: Phone, make_services: MakeServices, make_client: MakeClient, rows: Rows
) -> None:
    replicas = [replace(shop, client=make_client(await make_services())) for _ in range(2)]
    code = await code_of(phone)
    answers = await gather(*(exchanged(replicas[number % 2], code) for number in range(6)))
    assert sum(answer.status_code == 200 for answer in answers) == 1
    assert await count(rows, "sessions WHERE client_id = 'shop'") == 1
    assert await count(rows, "sessions WHERE client_id = 'shop' AND revoked_at IS NULL") == 0


Meanwhile = Callable[[Phone, asyncpg.Connection], Awaitable[object]]


async def ban(phone: Phone, rows: Rows) -> None:
    await rows.execute("UPDATE users SET status = 'disabled' WHERE id = $1", UUID(phone.user_id))


async def erase(phone: Phone, rows: Rows) -> None:
    assert (await leave(phone.client, phone.tokens)).status_code == 204


async def sign_out(phone: Phone, rows: Rows) -> None:
    assert (await phone.client.post("/v1/logout", headers=bearer(phone.tokens))).status_code == 204


@pytest.mark.parametrize("meanwhile", [ban, erase, sign_out])
async def test_a_user_who_may_no_longer_log_in_gets_no_tokens_for_a_code(
    shop: Site, phone: Phone, rows: Rows, meanwhile: Meanwhile
) -> None:
    code = await code_of(phone)
    await meanwhile(phone, rows)
    refused(await exchanged(shop, code), "invalid_grant")
    assert await count(rows, "sessions WHERE client_id = 'shop'") == 0


@pytest.mark.parametrize("meanwhile", [ban, erase, sign_out])
async def test_a_user_who_is_shut_out_while_wechat_is_asked_gets_no_code(
    shop: Site, phone: Phone, rows: Rows, wechat: WeChatByRespx, meanwhile: Meanwhile
) -> None:
    async with wechat_thinking(wechat) as is_asked:
        answering = create_task(answer(phone))
        await is_asked()
        await meanwhile(phone, rows)
    problem_of(await answering, "invalid_token", 401)
    assert await count(rows, "site_logins") == 0
    assert await count(rows, "events WHERE type = 'site.authorized'") == 0


async def test_a_person_who_is_merged_between_code_and_token_is_followed(
    shop: Site, phone: Phone, wechat: WeChatByRespx, browser: Browser, services: Services, clock: Clock
) -> None:
    other = wechat.code_for("one", app_id=OTHER_APP["app_id"], unionid="union-1")
    body = {"code": other, "app_id": OTHER_APP["app_id"]}
    remaining = (await phone.client.post("/v1/login", json=body)).json()["user"]["id"]
    code = await code_of(phone)
    openid, app_id = phone.tokens["user"]["openid"], phone.tokens["user"]["app_id"]
    await link_unionid(services.database, app_id=app_id, openid=openid, unionid="union-1", now=clock())
    tokens = (await exchanged(shop, code)).json()
    claims = await id_claims(browser.client, tokens["id_token"])
    assert (claims["sub"], remaining != phone.user_id) == (remaining, True)


@pytest.mark.slow
async def test_sixty_requests_a_minute_of_one_user_are_answered_over_all_replicas(
    shop: Site,
    phone: Phone,
    get_phone: GetPhone,
    make_services: MakeServices,
    make_client: MakeClient,
    clock: Clock,
    rows: Rows,
) -> None:
    replicas = [replace(phone, client=make_client(await make_services(login_rate_limit=""))) for _ in range(2)]
    codes = await gather(*(answer(replicas[number % 2]) for number in range(40)))
    errors = await gather(*(answer(replicas[number % 2], scope="nonsense") for number in range(30)))
    assert sum(each.status_code == 200 for each in (*codes, *errors)) == 60
    limited = next(each for each in errors if each.status_code != 200)
    problem_of(limited, "rate_limited", 429)
    assert 1 <= int(limited.headers["retry-after"]) <= 60
    problem_of(await answer(phone), "rate_limited", 429)
    assert await count(rows, "site_logins") == 40
    assert (await answer(await get_phone("bob"))).status_code == 200
    clock.advance(seconds=60)
    assert (await answer(phone)).status_code == 200


# Stored rows and events.


async def test_a_code_is_stored_as_a_hash_and_swept_an_hour_after_its_end(
    shop: Site, phone: Phone, services: Services, clock: Clock, rows: Rows
) -> None:
    code = await code_of(phone)
    stored = repr(await rows.fetch("SELECT * FROM site_logins"))
    assert code not in stored
    assert code.encode().hex() not in stored
    clock.advance(seconds=60 + 3599)
    await sweep(services, pause=0)
    assert await count(rows, "site_logins") == 1  # so long its reuse is noticed
    clock.advance(seconds=2)
    await sweep(services, pause=0)
    assert await count(rows, "site_logins") == 0


async def test_an_answer_is_in_the_trail_alone_and_counted_by_its_door(
    shop: Site, phone: Phone, wechat: WeChatByRespx, rows: Rows
) -> None:
    code = await code_of(phone)
    event = await rows.fetchrow("SELECT * FROM events WHERE type = 'site.authorized'")
    assert (event["actor"], str(event["user_id"]), json.loads(event["data"])) == (
        phone.user_id,
        phone.user_id,
        {"client_id": "shop", "door": "mini_program"},
    )
    assert (event["app_id"], str(event["ip"])) == (wechat_app(phone), "127.0.0.1")
    assert EventType.SITE_AUTHORIZED not in SENT_TO_SIBLINGS
    await exchanged(shop, code)
    await answer(phone, login_code=wechat.code_for("mallory"))
    wechat.answers(httpx.ConnectError("no"), httpx.ConnectError("no"), httpx.ConnectError("no"))
    problem_of(await answer(phone), "wechat_unavailable", 503)
    metrics = (await phone.client.get("/metrics")).text
    for outcome in ("logged_in", "refused", "failed"):
        assert f'wxauth_doors_total{{door="mini_program",outcome="{outcome}"}} 1.0' in metrics
    assert 'wxauth_scans_total{outcome="redeemed"} 0.0' in metrics
    assert 'wxauth_doors_total{door="scan",outcome="logged_in"} 0.0' in metrics


def wechat_app(phone: Phone) -> str:
    return phone.tokens["user"]["app_id"]
