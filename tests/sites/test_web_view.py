"""A site opens in the mini-program's web-view, and the mini-program approves the login without a scan."""

import json
import re
from asyncio import gather
from collections.abc import Awaitable, Callable
from dataclasses import replace
from html import unescape
from typing import Any

import httpx
import pytest

from tests.problems import problem_of
from tests.sites.browsers import ASKED, Browser, House, found_in, opened_by, refused, sent
from tests.sites.persons import CONSOLE
from tests.sites.street import IN_WECHAT
from tests.sweeps import Sweep, swept
from tests.world import CALLBACK, recorded
from wxauth.console.sessions import ConsoleSessions
from wxauth.core.trail import SENT_TO_SIBLINGS, EventType

IN_WEB_VIEW = {"User-Agent": f"{IN_WECHAT} miniProgram/wx1234567890abcdef"}
Ask = Callable[..., Awaitable[httpx.Response]]


# Tests of the flow.


async def test_a_site_in_the_web_view_logs_in_without_a_code_to_scan(house: House) -> None:
    logged_in_at = house.stage.clock()
    house.stage.clock.advance(minutes=10)
    path, query = opened_by(await house.browser.open(headers=IN_WEB_VIEW))
    assert (path, query) == ("/pages/authorize/authorize", ASKED)
    reported = sent(await house.answer(**query))
    assert (reported["state"], reported["iss"], set(reported)) == ("s-1", "https://auth.test", {"code", "state", "iss"})
    tokens = (await house.redeem(reported["code"])).json()
    claims, me = await house.claims(tokens), house.phone.user_id
    assert (claims["sub"], claims["nonce"], claims["amr"]) == (me, "n-1", ["wechat_mini_program"])
    assert claims["auth_time"] == int(logged_in_at.timestamp())
    assert (await house.userinfo(tokens)).json()["sub"] == me
    listed = (await house.phone.ask("GET", "/sessions")).json()["items"]
    assert sorted(session["client_id"] or "" for session in listed) == ["", "shop"]
    assert await house.stage.number("site_logins WHERE scene_hash IS NOT NULL") == 0


async def test_the_page_hands_on_every_parameter_as_the_mini_program_can_read_it(house: House) -> None:
    uri = f"{CALLBACK}?a=1&b=%20"
    await house.change(title='<b>"Shop"</b>', redirect_uris=[uri])
    browser = Browser(await house.stage.make(site_page="sub/pages/in/in"))
    changed = {"redirect_uri": uri, "state": """a b+c&d=é'"<!~*()>%25""", "ui_locales": "zh", "login_hint": "x"}
    for method in ("GET", "POST"):
        page = await browser.open(method, headers=IN_WEB_VIEW, **changed)
        opened, query = opened_by(page)
        assert (opened, list(query.items())) == ("/sub/pages/in/in", list({**ASKED, **changed}.items()))
        assert "登录 &lt;b&gt;&#34;Shop&#34;&lt;/b&gt;" in page.text
        assert page.text.count("<button") == 1
        assert "unsafe" not in page.headers["content-security-policy"]


async def test_a_page_in_a_web_view_starts_no_scan_and_counts_against_no_address(house: House) -> None:
    browser = Browser(await house.stage.make(scan_rate_limit="1/minute"))
    pages = [await browser.open(headers=IN_WEB_VIEW) for _ in range(3)]
    assert [page.status_code for page in pages] == [200] * 3
    assert await house.stage.number("site_logins") == 0
    [link] = re.findall(r'<noscript><a class="button" href="([^"]+)"', pages[0].text)
    code_url = unescape(link)
    assert json.loads(unescape(found_in(pages[0], r'data-page="([^"]+)"')))["codeUrl"] == code_url
    with_code, again = [await browser.client.get(code_url, headers=IN_WEB_VIEW) for _ in range(2)]
    assert re.search(r"[B-Z]{4}-[B-Z]{4}", with_code.text)
    assert again.status_code == 429


async def test_a_wrong_request_in_a_web_view_ends_as_in_any_browser(house: House) -> None:
    for wrong in ({"client_id": "nobody"}, {"redirect_uri": "https://evil.example/"}):
        page = await house.browser.open(headers=IN_WEB_VIEW, **wrong)
        assert (page.status_code, "data-page" in page.text) == (400, False)
    back = await house.browser.open(headers=IN_WEB_VIEW, scope="no")
    assert "error=invalid_scope" in back.headers["location"]


# Tests of the checks.


@swept(
    ("parameters", "error"),
    [
        ({"scope": "nonsense"}, "invalid_scope"),
        ({"code_challenge": ...}, "invalid_request"),
        ({"prompt": "none"}, "login_required"),
        ({"state": "s" * 4097}, "invalid_request"),
    ],
)
async def test_an_error_for_the_site_is_a_url(house: House, parameters: dict[str, Any], error: str) -> None:
    reported = sent(await house.answer(**parameters))
    assert (reported["error"], reported["iss"], "code" in reported) == (error, "https://auth.test", False)
    assert reported.get("state") == (None if "state" in parameters else "s-1")


async def test_an_error_that_must_not_reach_the_site_has_no_url(house: House) -> None:
    await house.add_site("television", redirect_uris=[], device=True)
    asked = len(house.stage.wechat.calls)
    with Sweep() as sweep:
        for parameters in (
            {"client_id": "nobody"},
            {"client_id": ...},
            CONSOLE,
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
                problem_of(await house.answer(**parameters), "invalid_request", 422)
    assert len(house.stage.wechat.calls) == asked
    assert await house.stage.number("site_logins") == 0


async def test_a_refusal_names_the_field_that_is_wrong(house: House) -> None:
    no_site = {"field": "client_id", "message": "must be the id of a site that a mini-program may log in to"}
    other_uri = {"field": "redirect_uri", "message": "must be a redirect URI of the site"}
    with Sweep() as sweep:
        for parameters, error in (
            ({"client_id": "nobody"}, no_site),
            ({"client_id": ...}, no_site),
            (CONSOLE, no_site),
            ({"redirect_uri": "https://evil.example/"}, other_uri),
            ({"redirect_uri": ...}, other_uri),
        ):
            with sweep.case(str(parameters)[:60]):
                refusal = problem_of(await house.answer(**parameters), "invalid_request", 422)
                assert refusal["errors"] == [error]


async def test_however_many_mistakes_a_request_has_answer_and_log_stay_short(house: House) -> None:
    for wrong in ({f"p{number}": number for number in range(3000)}, {"p" * 50_000: 1}):
        refusal = await house.answer(**wrong)
        assert problem_of(refusal, "invalid_request", 422)["errors"]
        assert len(refusal.text) < 4000
        assert len(str(house.stage.log_lines()[-1])) < 2000


async def test_the_console_is_no_site_in_a_web_view(house: House) -> None:
    services = await house.stage.make_services(admin_page=True)
    await services[ConsoleSessions].add_as_site()
    house.phone.client = house.stage.make_client(services)
    for mistake in ({}, {"prompt": "none"}, {"code_challenge_method": "plain"}, {"scope": "nonsense"}):
        problem_of(await house.answer(**{**CONSOLE, **mistake}), "invalid_request", 422)
    page = await Browser(house.phone.client).open(headers=IN_WEB_VIEW, **CONSOLE)
    assert re.search(r"[B-Z]{4}-[B-Z]{4}", page.text)


@pytest.mark.oldest_postgres
async def test_a_near_site_requires_no_common_network_in_a_web_view(house: House) -> None:
    await house.change(near=True)
    assert (await house.redeem(sent(await house.answer())["code"])).status_code == 200


async def test_a_site_that_asks_for_a_new_login_refuses_an_old_login(house: House) -> None:
    house.stage.clock.advance(seconds=30)
    for parameters in ({"prompt": "login"}, {"max_age": "0"}, {"max_age": "29"}):
        assert "code" in sent(await house.answer(**parameters))
    house.stage.clock.advance(seconds=1)
    for parameters in ({"prompt": "login"}, {"prompt": "consent login"}, {"max_age": "0"}, {"max_age": "30"}):
        assert sent(await house.answer(**parameters))["error"] == "login_required"
    for parameters in ({"max_age": "31"}, {"max_age": "9" * 4000}, {"prompt": "consent"}):
        assert "code" in sent(await house.answer(**parameters))


# Tests of attacks.


@pytest.mark.parametrize("ask", [House.answer, House.id_token])
async def test_a_bearer_alone_opens_no_session_of_a_site_and_gets_no_id_token(house: House, ask: Ask) -> None:
    await house.change(phone_id_token=True)
    problem_of(await ask(house, login_code=house.stage.wechat.code_for("mallory")), "wrong_person", 403)
    spent = house.phone.wx_login()
    assert (await ask(house, login_code=spent)).status_code == 200
    problem_of(await ask(house, login_code=spent), "invalid_code", 400)
    problem_of(await ask(house, login_code=None), "invalid_request", 422)
    assert await house.stage.number("site_logins") == (1 if ask is House.answer else 0)
    assert await house.stage.number("events WHERE type = 'site.authorized'") == 1


async def test_a_code_ends_with_the_phones_session_and_after_a_minute(house: House) -> None:
    code = sent(await house.answer())["code"]
    house.stage.clock.advance(seconds=60)
    refused(await house.redeem(code), "invalid_grant")
    code = sent(await house.answer())["code"]
    await house.sign_out_phone()
    refused(await house.redeem(code), "invalid_grant")
    assert await house.stage.number("sessions WHERE client_id = 'shop'") == 0


@pytest.mark.slow
async def test_sixty_requests_a_minute_of_one_user_are_answered_over_all_replicas(house: House) -> None:
    await house.change(phone_id_token=True)
    replicas = [replace(house.phone, client=await house.stage.make(login_rate_limit="")) for _ in range(2)]
    good = await gather(*(ask(phone) for phone in replicas * 11 for ask in (house.answer, house.id_token)))
    errors = await gather(*(house.answer(phone, scope="nonsense") for phone in replicas * 13))
    assert sum(each.status_code == 200 for each in (*good, *errors)) == 60
    limited = [*(each for each in errors if each.status_code != 200), await house.answer(), await house.id_token()]
    for each in limited:
        problem_of(each, "rate_limited", 429)
        assert 1 <= int(each.headers["retry-after"]) <= 60
    assert await house.stage.number("site_logins") == 22
    bob = await house.get_phone("bob")
    assert [(await ask(bob)).status_code for ask in (house.answer, house.id_token)] == [200] * 2
    house.stage.clock.advance(seconds=60)
    hint = (await house.redeem(sent(await house.answer())["code"])).json()["id_token"]
    named = await gather(*(house.answer(bob, id_token_hint=hint) for _ in range(61)))
    assert sorted(each.status_code for each in named) == [200] * 60 + [429]


# Tests of stored rows and events.


async def test_an_answer_and_an_id_token_are_in_the_trail_alone_and_counted_by_their_door(house: House) -> None:
    await house.change(phone_id_token=True)
    me, mallory = house.phone.user_id, house.stage.wechat.code_for
    for door, ask in (("mini_program", house.answer), ("phone", house.id_token)):
        answer = await ask()
        *_, event = await recorded(house.stage.rows, "actor, user_id, ip, app_id, data", "type = 'site.authorized'")
        app_id = house.phone.tokens["user"]["app_id"]
        assert event == (me, me, "127.0.0.1", app_id, {"client_id": "shop", "door": door})
        if door == "mini_program":
            await house.redeem(sent(answer)["code"])
        await ask(login_code=mallory("mallory"))
        house.stage.wechat.answers(*[httpx.ConnectError("no")] * 3)
        problem_of(await ask(), "wechat_unavailable", 503)
        house.stage.wechat.route.mock(side_effect=house.stage.wechat.answer_to)
        metrics = await house.metrics()
        for outcome in ("logged_in", "refused", "failed"):
            assert f'wxauth_doors_total{{door="{door}",outcome="{outcome}"}} 1.0' in metrics
    assert EventType.SITE_AUTHORIZED not in SENT_TO_SIBLINGS
    assert 'wxauth_doors_total{door="scan",outcome="logged_in"} 0.0' in metrics
