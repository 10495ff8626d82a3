"""Sites added with `--sso` share the login of a browser: who has scanned for one goes on to the next by a button."""

import re
from asyncio import create_task, gather
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from jose import jwt

from tests.fakes import Clock
from tests.websites.browsers import ASKED, Browser, Tab, exchanged, hidden_fields, id_claims, refused, sent, tokens_of
from tests.world import (
    CALLBACK,
    AddSite,
    Admin,
    GetPhone,
    LogIn,
    MakeClient,
    MakeServices,
    Phone,
    Rows,
    Site,
    bearer,
    leave,
    make_admin,
    until_locked,
)
from wxauth.server.core.services import Services
from wxauth.server.housekeeping.housekeeping import sweep
from wxauth.server.limits.turns import AT_ONCE

ADMIN_CALLBACK = "https://admin.example.com/callback"
COOKIE = "__Host-wxauth-login"


@dataclass(frozen=True, slots=True)
class PersonPage:
    """A page that shows a person, and its two buttons."""

    browser: Browser
    html: str

    @property
    def request_id(self) -> str:
        found = re.search(r'action="/v1/authorize/([\w-]{22})/continue"', self.html)
        assert found, self.html
        return found[1]

    async def press(self, button: str = "continue", browser: Browser | None = None) -> httpx.Response:
        path, fields = f"/v1/authorize/{self.request_id}/{button}", hidden_fields(self.html)
        return await (browser or self.browser).client.post(path, data=fields)


TO_ADMIN = {"client_id": "admin", "redirect_uri": ADMIN_CALLBACK}


async def person_page(browser: Browser, **parameters: str | None) -> PersonPage:
    answer = await browser.open(**{**TO_ADMIN, **parameters})
    assert answer.status_code == 200, answer.headers.get("location", answer.text)
    return PersonPage(browser, answer.text)


def shows(answer: httpx.Response, name: str | None = None) -> bool:
    """Whether the answer is a page with a person, the one of this name."""
    return "/continue" in answer.text and (name is None or name in answer.text)


def code_in(answer: httpx.Response) -> str:
    return sent(answer, ADMIN_CALLBACK)["code"]


async def entered(browser: Browser, desk: Site) -> dict[str, Any]:
    """The tokens of the second site, by a press of the button."""
    answer = await exchanged(desk, code_in(await (await person_page(browser)).press()), redirect_uri=ADMIN_CALLBACK)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.fixture
def browser(make_client: MakeClient, services: Services) -> Browser:
    return Browser(make_client(services))


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    return await add_site(sso=True, logout_uris=["https://shop.example.com/bye"])


@pytest.fixture
async def desk(add_site: AddSite) -> Site:
    return await add_site("admin", title="Admin", redirect_uris=[ADMIN_CALLBACK], sso=True)


@pytest.fixture
async def named(phone: Phone) -> Phone:
    assert (await phone.ask("PATCH", json={"nickname": "Alice <A>"})).status_code == 200
    return phone


@pytest.mark.slow
async def test_who_has_scanned_for_one_site_goes_on_to_another_by_a_button(
    shop: Site, desk: Site, browser: Browser, named: Phone, clock: Clock, rows: Rows
) -> None:
    first = await id_claims(browser.client, (await tokens_of(shop, browser, named))["id_token"])
    clock.advance(seconds=100)
    page = await browser.open(**TO_ADMIN, ui_locales="en")
    assert (page.status_code, "/v1/scans/" in page.text) == (200, False)
    assert "Log in to Admin" in page.text
    assert "Continue as Alice &lt;A&gt;" in page.text
    policy = page.headers["content-security-policy"]
    assert "form-action 'self' https://admin.example.com https:" in policy
    answer = await PersonPage(browser, page.text).press()
    assert sent(answer, ADMIN_CALLBACK).keys() == {"code", "state", "iss"}
    tokens = await exchanged(desk, code_in(answer), redirect_uri=ADMIN_CALLBACK)
    assert tokens.status_code == 200, tokens.text
    second = await id_claims(browser.client, tokens.json()["id_token"], audience="admin")
    assert [second[name] for name in ("sub", "auth_time", "amr", "nonce")] == [
        *(first[name] for name in ("sub", "auth_time", "amr")),
        "n-1",
    ]
    assert second["sid"] != first["sid"]
    events = await rows.fetch("SELECT data FROM events WHERE type = 'site.authorized' ORDER BY id")
    assert [row["data"] for row in events] == [
        '{"door": "scan", "client_id": "shop"}',
        '{"door": "sso", "client_id": "admin"}',
    ]
    metrics = (await browser.client.get("/metrics")).text
    assert 'wxauth_doors_total{door="sso",outcome="logged_in"} 1.0' in metrics


async def test_the_export_of_ones_own_data_has_the_logins_of_browsers(
    shop: Site, desk: Site, browser: Browser, phone: Phone
) -> None:
    await tokens_of(shop, browser, phone)
    await entered(browser, desk)
    assert (await phone.ask("GET", "/export")).json()["browsers"] == [
        {
            "app_id": phone.tokens["user"]["app_id"],
            "openid": phone.tokens["user"]["openid"],
            "authenticated_at": "2026-11-20T08:00:00Z",
            "authenticated_by": "wechat_scan",
            "sites": ["admin", "shop"],
        }
    ]


async def test_the_cookie_is_new_at_each_proof_and_stored_as_a_hash(
    shop: Site, browser: Browser, phone: Phone, rows: Rows
) -> None:
    tab = await browser.show()
    await tab.decided_by(phone)
    answer = await tab.go_on()
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(COOKIE + r"=[\w-]{43}; HttpOnly; Path=/; SameSite=lax; Secure", cookie), cookie
    first = browser.client.cookies[COOKIE]
    assert (await tab.go_on()).headers["set-cookie"] == cookie, "the same proof"
    await tokens_of(shop, browser, phone, prompt="login")
    second = browser.client.cookies[COOKIE]
    assert first != second
    assert await rows.fetchval("SELECT count(*) FROM browser_logins") == 1
    for value, count in ((first, 0), (second, 1)):
        stored = await rows.fetchval(
            "SELECT count(*) FROM browser_logins WHERE cookie_hash = sha256($1)", value.encode()
        )
        assert stored == count
    assert first.encode() not in str(await rows.fetch("SELECT * FROM browser_logins")).encode()


@pytest.mark.parametrize("has_login", [False, True])
@pytest.mark.slow
async def test_two_tabs_that_go_on_at_once_have_one_login(
    shop: Site, desk: Site, browser: Browser, phone: Phone, rows: Rows, has_login: bool
) -> None:
    if has_login:
        await tokens_of(shop, browser, phone)
    tabs = [await browser.show(prompt="login"), await browser.show(**TO_ADMIN, prompt="login")]
    for tab in tabs:
        await tab.decided_by(phone)
    sent_before = {"Cookie": "; ".join(f"{each.name}={each.value}" for each in browser.client.cookies.jar)}
    paths = [f"/v1/authorize/{tab.request_id}/next" for tab in tabs]
    first, second = await gather(*(browser.client.get(path, headers=sent_before) for path in paths))
    assert first.headers["set-cookie"] == second.headers["set-cookie"], "whichever comes last is the browser's"
    assert await rows.fetchval("SELECT count(*) FROM browser_logins") == 1
    tokens = [
        (await exchanged(shop, sent(first)["code"])).json(),
        (await exchanged(desk, code_in(second), redirect_uri=ADMIN_CALLBACK)).json(),
    ]
    fields = hidden_fields(await browser.client.get("/v1/end_session"))
    assert (await browser.client.post("/v1/end_session", data=fields)).status_code == 200
    for site, each in zip((shop, desk), tokens, strict=True):
        refused(await site.refresh(each), "invalid_grant")


@pytest.mark.parametrize("value", ["x" * 43, "short", ""])
async def test_a_planted_cookie_is_nobodys_login_and_is_not_kept(
    shop: Site, browser: Browser, phone: Phone, value: str
) -> None:
    browser.client.cookies.set(COOKIE, value)
    answer = await browser.open()
    assert "/v1/scans/" in answer.text
    reported = await Tab(browser, answer.text).approved_by(phone)
    assert (await exchanged(shop, reported["code"])).status_code == 200
    values = {cookie.value for cookie in browser.client.cookies.jar if cookie.name == COOKIE}
    assert len(values - {value}) == 1


async def test_only_doors_that_prove_who_uses_this_browser_make_a_login(
    shop: Site, desk: Site, add_site: AddSite, browser: Browser, phone: Phone, rows: Rows
) -> None:
    await add_site("plain")
    device = await add_site("device", device=True, redirect_uris=[CALLBACK], sso=True)
    started = await device.start()
    assert (await phone.scan(started)).json()["sso_ttl"] is None
    await phone.approve(started)
    tab = await browser.show()
    typed = (await phone.claim(user_code=tab.found(r"([B-Z]{4}-[B-Z]{4})"))).json()
    assert (typed["sso_ttl"], (await phone.decide(typed["id"])).status_code) == (None, 204)
    assert "code" in sent(await tab.go_on())
    for parameters, user_agent in (({"client_id": "plain"}, ""), ({"door": "scan"}, "MicroMessenger miniProgram")):
        browser.client.headers["User-Agent"] = user_agent
        tab = await browser.show(**parameters)
        assert (await tab.decided_by(phone))["sso_ttl"] is None, parameters
        await tab.go_on()
    assert COOKIE not in browser.client.cookies
    del browser.client.headers["User-Agent"]
    assert (await (await browser.show()).decided_by(phone))["sso_ttl"] == 28800
    assert await rows.fetchval("SELECT count(*) FROM browser_logins") == 0, "not yet: the browser has not come back"


async def test_a_site_without_sso_and_a_web_view_use_no_login(
    shop: Site, add_site: AddSite, browser: Browser, phone: Phone
) -> None:
    await add_site("plain")
    await tokens_of(shop, browser, phone)
    assert not shows(await browser.open(client_id="plain"))
    in_web_view = await browser.client.get(
        (await browser.open()).request.url, headers={"User-Agent": "MicroMessenger miniProgram"}
    )
    assert "web-view.js" in in_web_view.text
    assert shows(await browser.open())


async def test_the_cookies_of_another_browser_and_a_stolen_request_id_are_of_no_use(
    shop: Site, desk: Site, browser: Browser, named: Phone, make_client: MakeClient, services: Services
) -> None:
    await tokens_of(shop, browser, named)
    page = await person_page(browser)
    thief = Browser(make_client(services))
    for button in ("continue", "another"):
        assert (await page.press(button, thief)).status_code == 404
    await thief.open()  # has a cookie of its own
    for button in ("continue", "another"):
        assert (await page.press(button, thief)).status_code == 404
    # Forged by another site: the browser sends no cookie.
    answer = await make_client(services).post(f"/v1/authorize/{page.request_id}/continue")
    assert answer.status_code == 404
    assert (await browser.client.get(f"/v1/authorize/{page.request_id}/continue")).status_code == 405
    assert (await browser.client.post("/v1/authorize/AAAAAAAAAAAAAAAAAAAAAA/continue")).status_code == 404
    assert "code" in sent(await page.press(), ADMIN_CALLBACK)


async def test_the_page_is_good_for_ten_minutes(
    shop: Site, desk: Site, browser: Browser, named: Phone, clock: Clock
) -> None:
    await tokens_of(shop, browser, named)
    page = await person_page(browser)
    clock.advance(seconds=599)
    assert "code" in sent(await page.press(), ADMIN_CALLBACK)
    clock.advance(seconds=1)
    assert (await page.press()).status_code == 404
    assert (await page.press("another")).status_code == 404


async def test_a_press_counts_for_the_person_whom_the_page_showed(
    shop: Site, desk: Site, browser: Browser, named: Phone, get_phone: GetPhone
) -> None:
    bob = await get_phone("bob")
    assert (await bob.ask("PATCH", json={"nickname": "Bob"})).status_code == 200
    await tokens_of(shop, browser, named)
    page = await person_page(browser)
    await tokens_of(shop, browser, named, prompt="login")
    assert "code" in sent(await page.press(), ADMIN_CALLBACK), "the same person has renewed the login"
    await tokens_of(shop, browser, bob, prompt="login")
    answer = await page.press()
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/v1/authorize?")
    anew = await browser.client.get(answer.headers["location"])
    assert shows(anew, "Bob")
    claims = await exchanged(desk, code_in(await PersonPage(browser, anew.text).press()), redirect_uri=ADMIN_CALLBACK)
    assert (await id_claims(browser.client, claims.json()["id_token"], audience="admin"))["sub"] == bob.user_id


async def test_another_account_leads_to_the_ordinary_page(
    shop: Site, desk: Site, browser: Browser, named: Phone, get_phone: GetPhone
) -> None:
    await tokens_of(shop, browser, named)
    page = await person_page(browser, state="s-2", prompt="select_account")
    answer = await page.press("another")
    assert (answer.status_code, answer.headers["cache-control"]) == (303, "no-store")
    ordinary = await browser.client.get(answer.headers["location"])
    assert "/v1/scans/" in ordinary.text
    bob, tab = await get_phone("bob"), Tab(browser, ordinary.text)
    await tab.decided_by(bob)
    reported = sent(await tab.go_on(), ADMIN_CALLBACK)
    assert reported["state"] == "s-2"
    tokens = (await exchanged(desk, reported["code"], redirect_uri=ADMIN_CALLBACK)).json()
    assert (await id_claims(browser.client, tokens["id_token"], audience="admin"))["sub"] == bob.user_id


@pytest.mark.parametrize("button", ["continue", "another"])
async def test_a_press_on_a_page_whose_request_is_too_long_to_repeat_is_a_mistake(
    shop: Site, desk: Site, browser: Browser, named: Phone, button: str
) -> None:
    await tokens_of(shop, browser, named)
    asked = {name: value for name, value in {**ASKED, **TO_ADMIN}.items() if name != "state"}
    form = f"{urlencode(asked)}&state={'中' * 3000}"
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    page = await browser.client.post("/v1/authorize", content=form.encode(), headers=headers)
    assert shows(page)
    assert (await PersonPage(browser, page.text).press(button)).status_code == 400


async def test_prompts_and_max_age(
    shop: Site, desk: Site, browser: Browser, named: Phone, clock: Clock, make_client: MakeClient, services: Services
) -> None:
    nobody = Browser(make_client(services))
    assert sent(await nobody.open(prompt="none"))["error"] == "login_required"
    await tokens_of(shop, browser, named)
    assert (await sent_silently(browser, shop)).status_code == 200, "the proof's own code counts"
    silent = sent(await browser.open(**TO_ADMIN, prompt="none"), ADMIN_CALLBACK)
    assert (silent["error"], silent["state"]) == ("interaction_required", "s-1")
    for prompt in ("consent", "select_account", "consent select_account"):
        assert shows(await browser.open(prompt=prompt)), prompt
    for prompt in ("login", "login consent"):
        assert "/v1/scans/" in (await browser.open(prompt=prompt)).text, prompt
    assert "error" in sent(await browser.open(prompt="none login"))
    await (await person_page(browser)).press()
    assert "code" in sent(await browser.open(**TO_ADMIN, prompt="none"), ADMIN_CALLBACK), (
        "given before, if not redeemed"
    )
    assert "/v1/scans/" in (await browser.open(max_age="0")).text
    clock.advance(seconds=60)
    assert shows(await browser.open(max_age="60"))
    page = await person_page(browser, max_age="60")
    clock.advance(seconds=1)
    assert "/v1/scans/" in (await browser.open(max_age="60")).text
    assert sent(await browser.open(max_age="60", prompt="none"))["error"] == "login_required"
    assert (await page.press()).headers["location"].startswith("/v1/authorize?"), "the press checks it again"


async def sent_silently(browser: Browser, site: Site) -> httpx.Response:
    return await exchanged(site, sent(await browser.open(prompt="none"))["code"])


async def test_the_press_that_the_proof_s_own_time_ends_is_of_no_use(
    shop: Site,
    desk: Site,
    browser: Browser,
    named: Phone,
    clock: Clock,
    make_services: MakeServices,
    make_client: MakeClient,
) -> None:
    await tokens_of(shop, browser, named)
    page = await person_page(browser)
    shorter = make_client(await make_services(sso_ttl=60))
    shorter.cookies = browser.client.cookies
    off = make_client(await make_services(sso_ttl=0))
    off.cookies = browser.client.cookies
    assert shows(await Browser(shorter).open())
    assert not shows(await Browser(off).open())
    assert (await page.press("continue", Browser(off))).headers["location"].startswith("/v1/authorize?")
    clock.advance(seconds=60)
    assert not shows(await Browser(shorter).open()), "a shorter setting counts at once"
    assert shows(await browser.open())
    clock.advance(seconds=28740 - 30)
    answer = await (await person_page(browser)).press()
    clock.advance(seconds=30)
    assert not shows(await browser.open())
    refused(await exchanged(desk, code_in(answer), redirect_uri=ADMIN_CALLBACK), "invalid_grant")


@pytest.mark.slow
async def test_a_browser_gets_sixty_codes_in_any_minute_over_all_replicas(
    shop: Site,
    desk: Site,
    browser: Browser,
    named: Phone,
    clock: Clock,
    make_services: MakeServices,
    make_client: MakeClient,
) -> None:
    await tokens_of(shop, browser, named)
    other = make_client(await make_services())
    other.cookies = browser.client.cookies
    page = await person_page(browser)
    assert "code" in sent(await page.press(), ADMIN_CALLBACK)
    clock.advance(seconds=59)
    for number in range(59):
        assert "code" in sent(await page.press("continue", Browser(other) if number % 2 else None), ADMIN_CALLBACK)
    assert sent(await page.press(), ADMIN_CALLBACK)["error"] == "temporarily_unavailable"
    clock.advance(seconds=1)
    assert "code" in sent(await page.press(), ADMIN_CALLBACK)
    refusal = sent(await browser.open(prompt="none"))
    assert refusal["error"] == "temporarily_unavailable", "of any minute"


@pytest.mark.slow
@pytest.mark.parametrize("how", ["silently", "by the button"])
async def test_forty_requests_of_one_browser_leave_transactions_for_others(
    shop: Site, desk: Site, browser: Browser, named: Phone, login: LogIn, rows: Rows, how: str
) -> None:
    await tokens_of(shop, browser, named)
    bob, page = await login("bob"), await person_page(browser)
    await page.press()
    async with rows.transaction():
        await rows.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", named.user_id)
        waiting = [
            create_task(page.press() if how == "by the button" else browser.open(**TO_ADMIN, prompt="none"))
            for _ in range(40)
        ]
        await until_locked(rows, AT_ONCE)
        answer = await shop.client.patch("/v1/me", json={"nickname": "Bob"}, headers=bearer(bob))
        assert answer.status_code == 200
        assert await rows.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") == AT_ONCE
    assert all(code_in(answer) for answer in await gather(*waiting))


async def test_a_page_keeps_what_the_site_asked_and_nothing_more(
    shop: Site, browser: Browser, named: Phone, rows: Rows
) -> None:
    await tokens_of(shop, browser, named)
    page = PersonPage(browser, (await browser.open(state="s-2", ui_locales="zh-CN", junk="x" * 4096)).text)
    kept = await rows.fetchval("SELECT query FROM site_logins WHERE query IS NOT NULL")
    assert parse_qs(kept) == {
        **{name: [value] for name, value in ASKED.items()},
        "state": ["s-2"],
        "ui_locales": ["zh-CN"],
    }
    assert "code" in sent(await page.press())


@pytest.mark.parametrize("button", ["continue", "another"])
async def test_a_page_of_a_named_person_stores_no_hint_and_repeats_it_when_it_is_stale(
    shop: Site, desk: Site, browser: Browser, named: Phone, rows: Rows, button: str
) -> None:
    await tokens_of(shop, browser, named)
    hint = (await entered(browser, desk))["id_token"]
    page = await person_page(browser, id_token_hint=hint)
    stored = str(await rows.fetch("SELECT * FROM site_logins"))
    assert hint not in stored, "it has the name and the number of the person, whose erasure would not find it here"
    if button == "continue":
        assert "code" in sent(await page.press(), ADMIN_CALLBACK)
        await tokens_of(shop, browser, named, prompt="login")
        browser.client.cookies.delete(COOKIE)
    answer = await page.press(button)
    assert answer.status_code == 303
    assert parse_qs(urlsplit(answer.headers["location"]).query)["id_token_hint"] == [hint]


@pytest.mark.slow
async def test_of_one_login_each_site_has_twenty_open_sessions(
    shop: Site, desk: Site, browser: Browser, named: Phone, clock: Clock, rows: Rows
) -> None:
    first = await tokens_of(shop, browser, named)
    tokens = []
    for _ in range(21):
        clock.advance(seconds=5)
        tokens.append(await entered(browser, desk))
    refused(await desk.refresh(tokens[0]), "invalid_grant")
    assert (await desk.refresh(tokens[1])).status_code == 200
    assert (await shop.refresh(first)).status_code == 200
    ended = await rows.fetch("SELECT data FROM events WHERE type = 'session.ended'")
    assert ['"reason": "replaced"' in row["data"] for row in ended] == [True]
    assert shows(await browser.open()), "the login stays"


async def test_what_has_ended_is_swept_in_batches(
    shop: Site,
    desk: Site,
    browser: Browser,
    named: Phone,
    get_phone: GetPhone,
    clock: Clock,
    services: Services,
    rows: Rows,
) -> None:
    await tokens_of(shop, browser, named)
    await rows.execute(
        "INSERT INTO browser_logins"
        " (id, browser_hash, cookie_hash, proof_id, app_id, openid, authenticated_at, authenticated_by)"
        " SELECT gen_random_uuid(), sha256(n::text::bytea), sha256(n::text::bytea), gen_random_uuid(), app_id, openid,"
        " $1, 'wechat_scan'"
        "   FROM identities, generate_series(1, 2500) n",
        clock(),
    )
    await sweep(services, pause=0)
    assert await rows.fetchval("SELECT count(*) FROM browser_logins") == 2501
    clock.advance(seconds=28800)
    await tokens_of(shop, browser, await get_phone())
    clock.advance(seconds=61)
    await sweep(services, pause=0)
    assert await rows.fetchval("SELECT count(*) FROM browser_logins") == 1
    assert shows(await browser.open())


# What ends.

Ends = dict[str, str | None]
"""The name of a site, and the reason why its session has ended; None: it is open."""


@dataclass(slots=True)
class House:
    """Alice's browser, which has logged in to two sites by one login, and who may end that."""

    browser: Browser
    alice: Phone
    bob: Phone
    root: Admin
    shop: Site
    desk: Site
    tokens: dict[str, dict[str, Any]]
    clock: Clock
    rows: Rows
    replica: Callable[..., Awaitable[httpx.AsyncClient]]
    """Another replica, with other settings."""

    def session_id(self, site: str) -> str:
        claims: dict[str, Any] = jwt.get_unverified_claims(self.tokens[site]["access_token"])
        return claims["sid"]

    async def ends(self) -> Ends:
        """How the sessions have ended."""
        query = "SELECT revoked_reason FROM sessions WHERE id = $1::text::uuid"
        return {site: await self.rows.fetchval(query, self.session_id(site)) for site in ("shop", "admin")}

    async def has_login(self) -> bool:
        """Whether the browser still has one, which a banned person's is as little as one that has been deleted."""
        is_shown = shows(await self.browser.open(client_id="shop"))
        value = self.browser.client.cookies[COOKIE].encode()
        age = self.clock() - timedelta(seconds=28800)
        query = "SELECT count(*) FROM browser_logins WHERE cookie_hash = sha256($1) AND authenticated_at > $2"
        assert is_shown == (await self.rows.fetchval(query, value, age) > 0)
        return is_shown


@pytest.fixture
async def house(
    shop: Site,
    desk: Site,
    browser: Browser,
    get_phone: GetPhone,
    rows: Rows,
    clock: Clock,
    login: LogIn,
    make_client: MakeClient,
    make_services: MakeServices,
) -> House:
    root = await make_admin(shop.client, rows, await login("root"))
    alice, bob = await get_phone("alice"), await get_phone("bob")
    tokens = {"shop": await tokens_of(shop, browser, alice), "admin": await entered(browser, desk)}

    async def replica(**settings: Any) -> httpx.AsyncClient:
        return make_client(await make_services(**settings))

    return House(browser, alice, bob, root, shop, desk, tokens, clock, rows, replica)


Act = Callable[[House], Awaitable[object]]


async def time_passes(house: House) -> None:
    house.clock.advance(seconds=28800)


async def a_ban(house: House) -> None:
    await house.root.change(house.alice.user_id, status="disabled")


async def a_ban_that_is_lifted(house: House) -> None:
    await a_ban(house)
    await house.root.change(house.alice.user_id, status="active")


async def an_erasure(house: House) -> None:
    assert (await leave(house.shop.client, house.alice.tokens)).status_code == 204


async def the_person_leaves(house: House) -> None:
    replica = await house.replica(erasure_grace_days=7)
    assert (await leave(replica, house.alice.tokens)).status_code == 202


async def an_administrators_erasure(house: House) -> None:
    assert (await house.root.ask("DELETE", f"/users/{house.alice.user_id}")).status_code == 204


async def a_merge_into_another_user(house: House) -> None:
    assert (await house.root.merge(house.alice.user_id, into=house.bob.user_id)).status_code == 200


async def a_merge_of_another_user(house: House) -> None:
    assert (await house.root.merge(house.bob.user_id, into=house.alice.user_id)).status_code == 200


async def identity_of(house: House, phone: Phone) -> dict[str, str]:
    identity = (await phone.ask("GET", "/identities")).json()["items"]
    return {"app_id": identity[0]["app_id"], "openid": identity[0]["openid"]}


async def a_split_of_the_person(house: House) -> None:
    identity = await identity_of(house, house.alice)
    await a_merge_of_another_user(house)
    path = f"/users/{house.alice.user_id}/split"
    assert (await house.root.ask("POST", path, json=identity)).status_code == 200


async def a_split_of_another(house: House) -> None:
    identity = await identity_of(house, house.bob)
    await a_merge_of_another_user(house)
    path = f"/users/{house.alice.user_id}/split"
    assert (await house.root.ask("POST", path, json=identity)).status_code == 200


async def a_sign_out_of_all_other_devices(house: House) -> None:
    assert (await house.alice.ask("DELETE", "/sessions")).status_code == 204


async def an_administrators_sign_out_everywhere(house: House) -> None:
    assert (await house.root.ask("DELETE", f"/users/{house.alice.user_id}/sessions")).status_code == 204


async def a_role_of_staff(house: House) -> None:
    await house.root.change(house.alice.user_id, roles=["support"])


async def another_role(house: House) -> None:
    await house.root.change(house.alice.user_id, roles=["staff"])


async def another_persons_proof(house: House) -> None:
    former = house.browser.client.cookies[COOKIE]
    tab = await house.browser.show(prompt="login")
    assert "code" in await tab.approved_by(house.bob)
    # The browser has bob's login now: the test asks about the former one.
    house.browser.client.cookies.delete(COOKIE)
    house.browser.client.cookies.set(COOKIE, former)


async def another_persons_typed_code(house: House) -> None:
    tab = await house.browser.show(prompt="login")
    claimed = await house.bob.claim(user_code=tab.found(r"([B-Z]{4}-[B-Z]{4})"))
    await house.bob.decide(claimed.json()["id"])
    assert "code" in sent(await tab.go_on())


async def another_persons_proof_for_a_site_without_sso(house: House) -> None:
    assert (await house.root.ask("PATCH", "/clients/shop", json={"sso": False})).status_code == 200
    assert "code" in await (await house.browser.show()).approved_by(house.bob)
    assert (await house.root.ask("PATCH", "/clients/shop", json={"sso": True})).status_code == 200


async def a_new_proof_of_the_person(house: House) -> None:
    assert "code" in await (await house.browser.show(prompt="login")).approved_by(house.alice)


async def the_sites_own_sign_out(house: House) -> None:
    asked = {"id_token_hint": house.tokens["admin"]["id_token"]}
    assert (await house.browser.client.get("/v1/end_session", params=asked)).status_code == 200


async def a_sign_out_with_the_hint_of_a_session_that_has_ended(house: House) -> None:
    await a_revocation(house)
    await the_sites_own_sign_out(house)


async def a_confirmed_sign_out_without_a_hint(house: House) -> None:
    asked = await house.browser.client.get("/v1/end_session")
    assert (await house.browser.client.post("/v1/end_session", data=fields_of(asked))).status_code == 200


async def a_sign_out_with_a_hint_from_another_browser(house: House) -> None:
    asked = {"id_token_hint": house.tokens["admin"]["id_token"]}
    assert (await house.shop.client.get("/v1/end_session", params=asked)).status_code == 200


async def a_sign_out_of_another_person_in_this_browser(house: House) -> None:
    plain = Browser(house.shop.client)
    tokens = await tokens_of(house.shop, plain, house.bob)
    asked = {"id_token_hint": tokens["id_token"]}
    assert (await house.browser.client.get("/v1/end_session", params=asked)).status_code == 200


async def the_end_of_one_session_from_the_phone(house: House) -> None:
    path = f"/sessions/{house.session_id('admin')}"
    assert (await house.alice.ask("DELETE", path)).status_code == 204


async def an_administrators_end_of_one_session(house: House) -> None:
    path = f"/users/{house.alice.user_id}/sessions/{house.session_id('admin')}"
    assert (await house.root.ask("DELETE", path)).status_code == 204


async def an_administrators_end_of_an_expired_session(house: House) -> None:
    await house.rows.execute("UPDATE sessions SET expires_at = $1 WHERE client_id = 'admin'", house.clock())
    await an_administrators_end_of_one_session(house)


async def a_revocation(house: House) -> None:
    token = house.tokens["admin"]["refresh_token"]
    assert (await house.desk.post("/v1/revoke", token=token)).status_code == 200


async def a_logout(house: House) -> None:
    headers = bearer(house.tokens["admin"])
    assert (await house.desk.client.post("/v1/logout", headers=headers)).status_code == 204


async def a_reuse_of_a_refresh_token(house: House) -> None:
    assert (await house.desk.refresh(house.tokens["admin"])).status_code == 200
    house.clock.advance(seconds=61)
    refused(await house.desk.refresh(house.tokens["admin"]), "invalid_grant")


async def twenty_newer_sessions(house: House) -> None:
    for _ in range(20):
        await entered(house.browser, house.desk)


async def the_removal_of_the_site(house: House) -> None:
    assert (await house.root.ask("DELETE", "/clients/admin")).status_code == 204


def fields_of(page: httpx.Response) -> dict[str, str]:
    """The hidden fields of the page that asks whether to log out."""
    found = hidden_fields(page)
    assert "confirmed" in found, page.text
    return found


def both(reason: str | None) -> Ends:
    return {"shop": reason, "admin": reason}


def one(reason: str) -> Ends:
    return {"shop": None, "admin": reason}


ENDED, STAYS = False, True


@pytest.mark.slow
@pytest.mark.parametrize(
    ("act", "has_login", "ends"),
    [
        (time_passes, ENDED, both(None)),
        (a_ban, ENDED, both("banned")),
        (a_ban_that_is_lifted, ENDED, both("banned")),
        (an_erasure, ENDED, both("erased")),
        (an_administrators_erasure, ENDED, both("erased")),
        (the_person_leaves, ENDED, both("leaving")),
        (a_merge_into_another_user, ENDED, both("merged")),
        (a_merge_of_another_user, STAYS, both(None)),
        (a_split_of_the_person, ENDED, both("administrator")),
        (a_split_of_another, STAYS, both(None)),
        (a_sign_out_of_all_other_devices, ENDED, both("signed_out_elsewhere")),
        (an_administrators_sign_out_everywhere, ENDED, both("administrator")),
        (a_role_of_staff, ENDED, both("administrator")),
        (another_role, STAYS, both(None)),
        (another_persons_proof, ENDED, both("signed_out")),
        (another_persons_typed_code, ENDED, both("signed_out")),
        (another_persons_proof_for_a_site_without_sso, STAYS, both(None)),
        (a_new_proof_of_the_person, STAYS, both(None)),
        (the_sites_own_sign_out, ENDED, both("signed_out")),
        (a_sign_out_with_the_hint_of_a_session_that_has_ended, ENDED, both("signed_out")),
        (a_confirmed_sign_out_without_a_hint, ENDED, both("signed_out")),
        (a_sign_out_with_a_hint_from_another_browser, STAYS, one("signed_out")),
        (a_sign_out_of_another_person_in_this_browser, STAYS, both(None)),
        (the_end_of_one_session_from_the_phone, ENDED, one("signed_out_elsewhere")),
        (an_administrators_end_of_one_session, ENDED, one("administrator")),
        (an_administrators_end_of_an_expired_session, STAYS, one("administrator")),
        (a_revocation, STAYS, one("signed_out")),
        (a_logout, STAYS, one("signed_out")),
        (a_reuse_of_a_refresh_token, STAYS, one("reused")),
        (twenty_newer_sessions, STAYS, one("replaced")),
        (the_removal_of_the_site, STAYS, one("administrator")),
    ],
)
async def test_what_ends_the_login_of_a_browser_and_the_sessions_of_its_sites(
    house: House, act: Act, has_login: bool, ends: Ends
) -> None:
    code = sent(await PersonPage(house.browser, (await house.browser.open()).text).press())["code"]
    await act(house)
    assert await house.has_login() == has_login
    gone = act in (an_erasure, an_administrators_erasure)
    assert await house.ends() == (both(None) if gone else ends)
    if gone:
        for site in (house.shop, house.desk):
            refused(await site.refresh(house.tokens[site.name]), "invalid_grant")
        assert await house.rows.fetchval("SELECT count(*) FROM sessions WHERE client_id IS NOT NULL") == 0
    answer = await exchanged(house.shop, code)
    if has_login and act not in (a_reuse_of_a_refresh_token,):
        assert answer.status_code == 200, answer.text
    else:
        refused(answer, "invalid_grant")


@pytest.mark.slow
@pytest.mark.parametrize(
    "act",
    [
        a_ban_that_is_lifted,
        an_erasure,
        a_merge_into_another_user,
        a_split_of_the_person,
        a_sign_out_of_all_other_devices,
        an_administrators_sign_out_everywhere,
    ],
)
async def test_the_login_of_a_browser_ends_also_where_none_of_its_sessions_is_open(house: House, act: Act) -> None:
    for site in (house.shop, house.desk):
        await site.post("/v1/revoke", token=house.tokens[site.name]["refresh_token"])
    assert await house.has_login()
    await act(house)
    assert not await house.has_login()


# Logging out without a hint.


BYE = "https://shop.example.com/bye"


async def test_a_sign_out_without_a_hint_asks_first_and_goes_back_to_the_site_that_is_named(house: House) -> None:
    client = house.browser.client
    asked = {"client_id": "shop", "post_logout_redirect_uri": BYE, "state": "a b", "ui_locales": "en"}
    page = await client.get("/v1/end_session", params=asked)
    assert (page.status_code, "Log out?" in page.text) == (200, True)
    policy = page.headers["content-security-policy"]
    assert "form-action 'self' https://shop.example.com https:" in policy
    assert await house.has_login()
    answer = await client.post("/v1/end_session", data=fields_of(page))
    assert (answer.status_code, answer.headers["location"]) == (303, f"{BYE}?state=a+b")
    assert not await house.has_login()
    for again in (await client.post("/v1/end_session", data=fields_of(page)), await client.get("/v1/end_session")):
        assert (again.status_code, "Nobody is logged in" in again.text) == (200, True)


async def test_another_site_can_end_no_login_of_a_browser(
    house: House, make_client: MakeClient, services: Services
) -> None:
    client = house.browser.client
    fields = fields_of(await client.get("/v1/end_session"))
    for wrong in ({}, {"confirmed": ""}, {"confirmed": "x" * 43}, {"confirmed": "\u0416"}):
        answer = await client.post("/v1/end_session", data=wrong)
        assert (answer.status_code, "Log out?" in answer.text) == (200, True)
    assert "Log out?" in (await client.get("/v1/end_session", params=fields)).text, "by a form alone"
    # A form of another site comes without the cookie, and is led on by GET.
    answer = await client.post("/v1/end_session", data=fields, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 303
    assert answer.headers["location"].startswith("/v1/end_session?confirmed=")
    assert "Log out?" in (await client.get(answer.headers["location"])).text
    answer = await make_client(services).post("/v1/end_session", data=fields)
    assert (answer.status_code, "Nobody is logged in" in answer.text) == (200, True)
    evil = {"post_logout_redirect_uri": "https://evil.example/"}
    assert await house.has_login()
    answer = await client.post("/v1/end_session", data={**fields, "client_id": "shop", **evil})
    assert (answer.status_code, "location" in answer.headers) == (200, False)


async def test_a_wrong_request_to_log_out_ends_nothing_and_leads_nowhere(house: House) -> None:
    hint = house.tokens["shop"]["id_token"]
    bye = {"post_logout_redirect_uri": BYE}
    for method in ("GET", "POST"):
        for wrong in (
            {"id_token_hint": hint, "client_id": "admin", **bye},
            {"id_token_hint": f"{hint[:-6]}AAAAAA", **bye},
            {"id_token_hint": house.tokens["shop"]["access_token"], **bye},
            {"id_token_hint": hint, "state": ["a", "b"], **bye},
        ):
            sent_in: dict[str, Any] = {"params": wrong} if method == "GET" else {"data": wrong}
            answer = await house.browser.client.request(method, "/v1/end_session", **sent_in)
            assert (answer.status_code, "location" in answer.headers) == (400, False)
    assert await house.ends() == both(None)
    assert await house.has_login()
    answer = await house.browser.client.post("/v1/end_session", data={"id_token_hint": hint, **bye})
    assert (answer.status_code, answer.headers["location"]) == (303, BYE)


# Races.


@pytest.mark.slow
@pytest.mark.own_database
@pytest.mark.parametrize("first", ["act", "press"])
@pytest.mark.parametrize(
    "act",
    [a_ban, a_merge_into_another_user, a_sign_out_of_all_other_devices, another_persons_typed_code],
)
async def test_of_a_press_and_an_end_at_once_no_session_is_left(
    house: House, act: Act, first: str, make_services: MakeServices, make_client: MakeClient
) -> None:
    page = await person_page(house.browser)
    other = make_client(await make_services())
    other.cookies = house.browser.client.cookies
    async with house.rows.transaction():
        await house.rows.execute("SELECT FROM users FOR UPDATE")
        steps: dict[str, Callable[[], Any]] = {
            "act": lambda: act(house),
            "press": lambda: page.press("continue", Browser(other)),
        }
        tasks = {}
        for number, name in enumerate(sorted(steps, key=lambda name: name != first)):
            tasks[name] = create_task(steps[name]())
            await until_locked(house.rows, number + 1)
    answer = await tasks["press"]
    await tasks["act"]
    location = answer.headers["location"]
    if "code=" in location:
        refused(await exchanged(house.desk, code_in(answer), redirect_uri=ADMIN_CALLBACK), "invalid_grant")
    else:
        assert location.startswith("/v1/authorize?")
    assert set((await house.ends()).values()) & {None} == set()


async def test_two_presses_at_two_replicas_give_two_codes_of_one_login(
    shop: Site, desk: Site, browser: Browser, named: Phone, make_services: MakeServices, make_client: MakeClient
) -> None:
    await tokens_of(shop, browser, named)
    other = make_client(await make_services())
    other.cookies = browser.client.cookies
    page = await person_page(browser)
    answers = await gather(page.press(), page.press("continue", Browser(other)))
    for answer in answers:
        assert (await exchanged(desk, code_in(answer), redirect_uri=ADMIN_CALLBACK)).status_code == 200


async def test_a_removed_site_that_is_added_anew_has_to_show_its_name_again(house: House) -> None:
    assert "code" in sent(await house.browser.open(**TO_ADMIN, prompt="none"), ADMIN_CALLBACK)
    added = (await house.root.ask("GET", "/clients")).json()["items"]
    (site,) = [each for each in added if each["name"] == "admin"]
    await the_removal_of_the_site(house)
    kept = {name: site[name] for name in ("name", "title", "redirect_uris", "sso")}
    assert (await house.root.ask("POST", "/clients", json=kept)).status_code == 200
    answer = sent(await house.browser.open(**TO_ADMIN, prompt="none"), ADMIN_CALLBACK)
    assert answer["error"] == "interaction_required"
