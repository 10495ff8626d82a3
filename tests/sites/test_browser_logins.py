"""Sites added with `--sso` share the login of a browser.

A user who has scanned for one site logs in to the next site with a button.
"""

import re
from asyncio import gather
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from jose import jwt

from tests.conftest import made_of_fixtures
from tests.sites.browsers import ASKED, BYE, FORM, House, Tab, hidden_fields, refused, sent
from tests.sites.persons import ADMIN_CALLBACK, TO_ADMIN, PersonPage, code_in, person_page
from tests.world import AddSite, Admin, Body, GetPhone, Phone, Site, bearer, body_of, leave, recorded

COOKIE = "__Host-wxauth-login"
IN_WEB_VIEW = {"User-Agent": "MicroMessenger miniProgram"}


def shows(answer: httpx.Response, name: str | None = None) -> bool:
    """Return whether the response is a page that shows a user, or the user with this name."""
    return "/continue" in answer.text and (name is None or name in answer.text)


def is_asked_anew(answer: httpx.Response) -> bool:
    """Return whether pressing the button has led back to the page of the request."""
    return answer.status_code == 303 and answer.headers["location"].startswith("/v1/authorize?")


@dataclass(slots=True, kw_only=True)
class Pair(House):
    """A house with a second site, the desk, which shares the login of the browser."""

    desk: Site
    root: Admin
    logged_in: dict[str, Body] = field(default_factory=dict)
    """The tokens of both sites by the site's name, if Alice has logged in to both sites."""

    async def page(self, **parameters: str | None) -> PersonPage:
        """Return the desk's page that shows a user."""
        return await person_page(self.browser, **parameters)

    async def redeem_at_desk(self, code: str) -> httpx.Response:
        return await self.redeem(code, self.desk, redirect_uri=ADMIN_CALLBACK)

    async def enter_desk(self) -> Body:
        """Press the button, and return the desk's tokens."""
        return body_of(await self.redeem_at_desk(code_in(await (await self.page()).press())))

    async def log_in_to_both(self) -> None:
        self.logged_in = {"shop": await self.tokens(), "admin": await self.enter_desk()}

    async def bob(self) -> Phone:
        return await self.get_phone("bob")

    def session_id(self, site: str) -> str:
        return str(jwt.get_unverified_claims(self.logged_in[site]["access_token"])["sid"])

    async def has_login(self) -> bool:
        """Return whether the browser still has a login. A banned user's login doesn't count."""
        is_shown = shows(await self.browser.open())
        value, age = self.browser.client.cookies[COOKIE].encode(), self.stage.clock() - timedelta(seconds=28800)
        found = await self.stage.number(
            "browser_logins WHERE cookie_hash = sha256($1) AND authenticated_at > $2", value, age
        )
        assert is_shown == (found > 0)
        return is_shown

    async def log_out_by_page(self) -> httpx.Response:
        """Confirm the question whether to log out."""
        asked = hidden_fields(await self.log_out())
        assert "confirmed" in asked
        return await self.browser.client.post("/v1/end_session", data=asked)


LOGOUT = "http://127.0.0.1/logout"
pytestmark = pytest.mark.shop(sso=True, logout_uris=[BYE], device=True, backchannel_logout_uri=LOGOUT)


@pytest.fixture
async def desk(add_site: AddSite) -> Site:
    uris = {"redirect_uris": [ADMIN_CALLBACK], "backchannel_logout_uri": LOGOUT}
    return await add_site("admin", title="Admin", sso=True, **uris)


@pytest.fixture
async def phone(get_phone: GetPhone) -> Phone:
    phone = await get_phone("alice")
    assert (await phone.ask("PATCH", json={"nickname": "Alice <A>"})).status_code == 200
    return phone


@pytest.fixture
def pair(request: pytest.FixtureRequest) -> Pair:
    return made_of_fixtures(Pair, request)


@pytest.mark.slow
async def test_who_has_scanned_for_one_site_goes_on_to_another_by_a_button(pair: Pair) -> None:
    first = await pair.claims(await pair.tokens())
    pair.stage.clock.advance(seconds=100)
    page = await pair.browser.open(**TO_ADMIN, ui_locales="en")
    assert (page.status_code, "/v1/scans/" in page.text) == (200, False)
    assert "Log in to Admin" in page.text
    assert "Continue as Alice &lt;A&gt;" in page.text
    answer = await PersonPage(pair.browser, page.text).press()
    assert sent(answer, ADMIN_CALLBACK).keys() == {"code", "state", "iss"}
    second = await pair.claims((await pair.redeem_at_desk(code_in(answer))).json(), "admin")
    same = ("sub", "auth_time", "amr", "nonce")
    assert {name: second[name] for name in same} == {name: first[name] for name in same}
    assert second["sid"] != first["sid"]
    authorized = [({"door": door, "client_id": site},) for door, site in (("scan", "shop"), ("sso", "admin"))]
    assert await recorded(pair.stage.rows, "data", "type = 'site.authorized'") == authorized
    assert 'wxauth_doors_total{door="sso",outcome="logged_in"} 1.0' in await pair.metrics()
    user = pair.phone.tokens["user"]
    assert (await pair.phone.ask("GET", "/export")).json()["browsers"] == [
        {
            "app_id": user["app_id"],
            "openid": user["openid"],
            "authenticated_at": "2026-11-20T08:00:00Z",
            "authenticated_by": "wechat_scan",
            "sites": ["admin", "shop"],
        }
    ]


@pytest.mark.requirement("asvs-7.2.4")
async def test_the_cookie_is_new_at_each_proof_and_stored_as_a_hash(house: House) -> None:
    tab = await house.browser.show()
    await tab.decided_by(house.phone)
    cookie = (await tab.go_on()).headers["set-cookie"]
    assert re.fullmatch(COOKIE + r"=[\w-]{43}; HttpOnly; Path=/; SameSite=lax; Secure", cookie), cookie
    first = house.browser.client.cookies[COOKIE]
    assert (await tab.go_on()).headers["set-cookie"] == cookie, "the same proof"
    await house.tokens(prompt="login")
    second = house.browser.client.cookies[COOKIE]
    assert first != second
    assert await house.stage.number("browser_logins") == 1
    for value, count in ((first, 0), (second, 1)):
        assert await house.stage.number("browser_logins WHERE cookie_hash = sha256($1)", value.encode()) == count
    assert second not in str(await house.stage.rows.fetch("SELECT * FROM browser_logins"))


@pytest.mark.parametrize("has_login", [False, True])
@pytest.mark.slow
async def test_two_tabs_that_go_on_at_once_have_one_login(pair: Pair, has_login: bool) -> None:
    if has_login:
        await pair.tokens()
    tabs = [await pair.browser.show(prompt="login"), await pair.browser.show(**TO_ADMIN, prompt="login")]
    for tab in tabs:
        await tab.decided_by(pair.phone)
    client = pair.browser.client
    before = {"Cookie": "; ".join(f"{each.name}={each.value}" for each in client.cookies.jar)}
    paths = [f"/v1/authorize/{tab.request_id}/next" for tab in tabs]
    first, second = await gather(*(client.get(path, headers=before) for path in paths))
    assert first.headers["set-cookie"] == second.headers["set-cookie"], "whichever comes last is the browser's"
    assert await pair.stage.number("browser_logins") == 1
    tokens = await pair.redeem(sent(first)["code"]), await pair.redeem_at_desk(code_in(second))
    assert (await pair.log_out_by_page()).status_code == 200
    for site, each in zip((pair.shop, pair.desk), tokens, strict=True):
        refused(await site.refresh(each.json()), "invalid_grant")


async def test_neighbours_cookies_hide_neither_a_login_nor_a_sign_out(pair: Pair) -> None:
    pair.browser.client.cookies.set("neighbour", "x" * 60_000)
    await pair.log_in_to_both()
    assert code_in(await pair.browser.open(**TO_ADMIN, prompt="none"))
    await pair.log_out_by_page()
    assert sent(await pair.browser.open(prompt="none"))["error"] == "login_required"


@pytest.mark.parametrize("value", ["x" * 43, "short", ""])
@pytest.mark.requirement("asvs-7.6.2")
async def test_a_planted_cookie_is_nobodys_login_and_is_not_kept(house: House, value: str) -> None:
    cookies = house.browser.client.cookies
    cookies.set(COOKIE, value)
    answer = await house.browser.open()
    assert "/v1/scans/" in answer.text
    reported = await Tab(house.browser, answer.text).approved_by(house.phone)
    assert (await house.redeem(reported["code"])).status_code == 200
    assert len({cookie.value for cookie in cookies.jar if cookie.name == COOKIE} - {value}) == 1


@pytest.mark.requirement("asvs-6.1.3")
async def test_only_doors_that_prove_who_uses_this_browser_make_a_login(house: House) -> None:
    await house.add_site("plain")
    started, client = await house.shop.start(), house.browser.client
    assert (await house.phone.scan(started)).json()["sso_ttl"] is None
    await house.phone.approve(started)
    tab = await house.browser.show()
    assert (await tab.typed_by(house.phone))["sso_ttl"] is None
    assert "code" in sent(await tab.go_on())
    for parameters, user_agent in (({"client_id": "plain"}, ""), ({"door": "scan"}, "MicroMessenger miniProgram")):
        client.headers["User-Agent"] = user_agent
        tab = await house.browser.show(**parameters)
        assert (await tab.decided_by(house.phone))["sso_ttl"] is None, parameters
        await tab.go_on()
    assert COOKIE not in client.cookies
    del client.headers["User-Agent"]
    assert (await (await house.browser.show()).decided_by(house.phone))["sso_ttl"] == 28800
    assert await house.stage.number("browser_logins") == 0, "not yet: the browser has not come back"


async def test_a_site_without_sso_and_a_web_view_use_no_login(house: House) -> None:
    await house.add_site("plain")
    await house.tokens()
    assert not shows(await house.browser.open(client_id="plain"))
    assert "web-view.js" in (await house.browser.open(headers=IN_WEB_VIEW)).text
    assert shows(await house.browser.open())


async def test_a_page_is_of_use_to_its_own_browser_alone_and_for_ten_minutes(pair: Pair) -> None:
    await pair.tokens()
    page, thief, with_cookie = await pair.page(), pair.another_browser(), pair.another_browser()
    await with_cookie.open()
    # The first browser sends no cookie, as in a request that another site has forged.
    for browser in (thief, with_cookie):
        for button in ("continue", "another"):
            assert (await page.press(button, browser)).status_code == 404
    client = pair.browser.client
    assert (await client.get(f"/v1/authorize/{page.request_id}/continue")).status_code == 405
    assert (await client.post("/v1/authorize/AAAAAAAAAAAAAAAAAAAAAA/continue")).status_code == 404
    pair.stage.clock.advance(seconds=599)
    assert code_in(await page.press())
    pair.stage.clock.advance(seconds=1)
    for button in ("continue", "another"):
        assert (await page.press(button)).status_code == 404


async def test_a_press_counts_for_the_person_whom_the_page_showed(pair: Pair) -> None:
    bob = await pair.bob()
    assert (await bob.ask("PATCH", json={"nickname": "Bob"})).status_code == 200
    await pair.tokens()
    page = await pair.page()
    await pair.tokens(prompt="login")
    assert code_in(await page.press()), "the same person has renewed the login"
    await pair.tokens(bob, prompt="login")
    answer = await page.press()
    assert is_asked_anew(answer)
    anew = await pair.browser.client.get(answer.headers["location"])
    assert shows(anew, "Bob")
    tokens = await pair.redeem_at_desk(code_in(await PersonPage(pair.browser, anew.text).press()))
    assert (await pair.claims(tokens.json(), "admin"))["sub"] == bob.user_id


async def test_two_people_go_on_each_in_their_own_browser(pair: Pair) -> None:
    people = [(pair.another_browser(), phone) for phone in (pair.phone, await pair.bob())]
    for pair.browser, phone in people:
        await pair.tokens(phone)
    for pair.browser, phone in reversed(people):
        assert (await pair.claims(await pair.enter_desk(), "admin"))["sub"] == phone.user_id


async def test_another_account_leads_to_the_ordinary_page(pair: Pair) -> None:
    await pair.tokens()
    answer = await (await pair.page(state="s-2", prompt="select_account")).press("another")
    assert (answer.status_code, answer.headers["cache-control"]) == (303, "no-store")
    bob, tab = await pair.bob(), Tab(pair.browser, (await pair.browser.client.get(answer.headers["location"])).text)
    reported = await tab.approved_by(bob, to=ADMIN_CALLBACK)
    assert reported["state"] == "s-2"
    tokens = (await pair.redeem_at_desk(reported["code"])).json()
    assert (await pair.claims(tokens, "admin"))["sub"] == bob.user_id


async def test_a_press_on_a_page_whose_request_is_too_long_to_repeat_is_a_mistake(pair: Pair) -> None:
    await pair.tokens()
    asked = {name: value for name, value in {**ASKED, **TO_ADMIN}.items() if name != "state"}
    form = f"{urlencode(asked)}&state={'中' * 3000}"  # this state becomes three times as long in a link
    page = await pair.browser.client.post("/v1/authorize", content=form.encode(), headers=FORM)
    assert shows(page)
    for button in ("continue", "another"):
        assert (await PersonPage(pair.browser, page.text).press(button)).status_code == 400


@pytest.mark.requirement("oidc-3.1.2.1")
async def test_prompts_and_max_age(pair: Pair) -> None:
    browser = pair.browser
    assert sent(await pair.another_browser().open(prompt="none"))["error"] == "login_required"
    await pair.tokens()
    own = sent(await browser.open(prompt="none"))["code"]
    assert (await pair.redeem(own)).status_code == 200, "the proof's own code counts"
    silent = sent(await browser.open(**TO_ADMIN, prompt="none"), ADMIN_CALLBACK)
    assert (silent["error"], silent["state"]) == ("interaction_required", "s-1")
    for prompt in ("consent", "select_account", "consent select_account"):
        assert shows(await browser.open(prompt=prompt)), prompt
    for prompt in ("login", "login consent"):
        assert "/v1/scans/" in (await browser.open(prompt=prompt)).text, prompt
    await (await pair.page()).press()
    assert code_in(await browser.open(**TO_ADMIN, prompt="none")), "given before, if not redeemed"
    assert "/v1/scans/" in (await browser.open(max_age="0")).text
    pair.stage.clock.advance(seconds=60)
    assert shows(await browser.open(max_age="60"))
    page = await pair.page(max_age="60")
    pair.stage.clock.advance(seconds=1)
    assert "/v1/scans/" in (await browser.open(max_age="60")).text
    assert sent(await browser.open(max_age="60", prompt="none"))["error"] == "login_required"
    assert is_asked_anew(await page.press()), "the press checks it again"


async def test_a_new_proof_of_the_same_person_is_the_time_of_the_browsers_login(pair: Pair) -> None:
    await pair.log_in_to_both()
    pair.stage.clock.advance(seconds=100)
    assert sent(await pair.browser.open(max_age="60", prompt="none"))["error"] == "login_required"
    proved = await pair.claims(await pair.tokens(prompt="login"))
    pair.stage.clock.advance(seconds=60)
    answer = await pair.redeem_at_desk(code_in(await pair.browser.open(**TO_ADMIN, max_age="60", prompt="none")))
    assert (await pair.claims(body_of(answer), "admin"))["auth_time"] == proved["auth_time"]
    pair.stage.clock.advance(seconds=28800 - 100)
    assert shows(await pair.browser.open()), "it lasts from the new proof on"


async def test_the_press_that_the_proof_s_own_time_ends_is_of_no_use(pair: Pair) -> None:
    await pair.tokens()
    page, (shorter, off) = await pair.page(), [await pair.replicas_browser(sso_ttl=ttl) for ttl in (60, 0)]
    assert shows(await shorter.open())
    assert not shows(await off.open())
    assert is_asked_anew(await page.press("continue", off))
    pair.stage.clock.advance(seconds=60)
    assert not shows(await shorter.open()), "a shorter setting counts at once"
    assert shows(await pair.browser.open())
    pair.stage.clock.advance(seconds=28740 - 30)
    answer = await (await pair.page()).press()
    pair.stage.clock.advance(seconds=30)
    assert not shows(await pair.browser.open())
    refused(await pair.redeem_at_desk(code_in(answer)), "invalid_grant")


@pytest.mark.settings(sso_ttl=60)
async def test_a_page_goes_on_again_when_the_login_that_it_has_made_is_too_old(pair: Pair) -> None:
    tab = await pair.browser.show()
    await tab.approved_by(pair.phone)
    assert shows(await pair.browser.open())
    pair.stage.clock.advance(seconds=60)
    assert (await pair.redeem(sent(await tab.go_on())["code"])).status_code == 200
    assert not shows(await pair.browser.open()), "the same proof makes no second login"


@pytest.mark.slow
async def test_a_browser_gets_sixty_codes_in_any_minute_over_all_replicas(pair: Pair) -> None:
    await pair.tokens()
    other, page = await pair.replicas_browser(), await pair.page()
    assert code_in(await page.press())
    pair.stage.clock.advance(seconds=59)
    for number in range(59):
        assert code_in(await page.press("continue", other if number % 2 else None))
    assert sent(await page.press(), ADMIN_CALLBACK)["error"] == "temporarily_unavailable"
    pair.stage.clock.advance(seconds=1)
    assert code_in(await page.press())
    assert sent(await pair.browser.open(prompt="none"))["error"] == "temporarily_unavailable", "of any minute"


async def test_a_page_keeps_what_the_site_asked_and_nothing_more(house: House) -> None:
    await house.tokens()
    page = await house.browser.open(state="s-2", ui_locales="zh-CN", junk="x" * 4096)
    kept = await house.stage.rows.fetchval("SELECT query FROM site_logins WHERE query IS NOT NULL")
    asked = {**ASKED, "state": "s-2", "ui_locales": "zh-CN"}
    assert parse_qs(kept) == {name: [value] for name, value in asked.items()}
    assert "code" in sent(await PersonPage(house.browser, page.text).press())


@pytest.mark.parametrize("button", ["continue", "another"])
async def test_a_page_of_a_named_person_stores_no_hint_and_repeats_it_when_it_is_stale(pair: Pair, button: str) -> None:
    await pair.tokens()
    hint = (await pair.enter_desk())["id_token"]
    page = await pair.page(id_token_hint=hint)
    stored = str(await pair.stage.rows.fetch("SELECT * FROM site_logins"))
    assert hint not in stored, "it has the name and the number of the person, whose erasure would not find it here"
    if button == "continue":
        assert code_in(await page.press())
        await pair.tokens(prompt="login")
        pair.browser.client.cookies.delete(COOKIE)
    answer = await page.press(button)
    assert is_asked_anew(answer)
    assert parse_qs(urlsplit(answer.headers["location"]).query)["id_token_hint"] == [hint]


@pytest.mark.slow
async def test_of_one_login_each_site_has_twenty_open_sessions(pair: Pair) -> None:
    first, tokens = await pair.tokens(), []
    for _ in range(21):
        pair.stage.clock.advance(seconds=5)
        tokens.append(await pair.enter_desk())
    refused(await pair.desk.refresh(tokens[0]), "invalid_grant")
    assert (await pair.desk.refresh(tokens[1])).status_code == 200
    assert (await pair.shop.refresh(first)).status_code == 200
    [(ended,)] = await recorded(pair.stage.rows, "data", "type = 'session.ended'")
    assert ended["reason"] == "replaced"
    assert await pair.stage.rows.fetchval(
        "SELECT array_agg(name) FROM deliveries JOIN clients ON clients.id = receiver_id"
    ) == ["admin"]
    assert shows(await pair.browser.open()), "the login stays"


async def test_what_has_ended_is_swept_in_batches(house: House) -> None:
    await house.tokens()
    await house.stage.rows.execute(
        "INSERT INTO browser_logins"
        " (id, browser_hash, cookie_hash, proof_id, app_id, openid, authenticated_at, authenticated_by)"
        " SELECT gen_random_uuid(), sha256(n::text::bytea), sha256(n::text::bytea), gen_random_uuid(), app_id, openid,"
        " $1, 'wechat_scan'"
        "   FROM identities, generate_series(1, 2500) n",
        house.stage.clock(),
    )
    await house.sweep()
    assert await house.stage.number("browser_logins") == 2501
    house.stage.clock.advance(seconds=28800)
    await house.tokens(await house.get_phone())
    await house.sweep(after=61)
    assert await house.stage.number("browser_logins") == 1
    assert shows(await house.browser.open())


# Tests of what ends a login.


Act = Callable[[Pair], Awaitable[httpx.Response | object]]
Ends = dict[str, str | None]
"""The names of sites, with the reason why each site's session has ended. None means that the session is open."""


def merging(former: str, into: str) -> Act:
    async def merge(pair: Pair) -> httpx.Response:
        ids = {"alice": pair.phone.user_id, "bob": (await pair.bob()).user_id}
        return await pair.root.merge(ids[former], into=ids[into])

    return merge


def splitting_off(person: str) -> Act:
    async def split(pair: Pair) -> httpx.Response:
        user = {"alice": pair.phone, "bob": await pair.bob()}[person].tokens["user"]
        identity = {name: user[name] for name in ("app_id", "openid")}
        await merging("bob", "alice")(pair)
        return await pair.root.ask("POST", f"/users/{pair.phone.user_id}/split", json=identity)

    return split


async def change(pair: Pair, **fields: Any) -> None:
    await pair.root.change(pair.phone.user_id, **fields)


async def a_ban_that_is_lifted(pair: Pair) -> None:
    for status in ("disabled", "active"):
        await change(pair, status=status)


async def another_persons_proof(pair: Pair) -> None:
    cookies, former = pair.browser.client.cookies, pair.browser.client.cookies[COOKIE]
    assert await pair.code(await pair.bob(), prompt="login")
    # The browser now has Bob's login, but the test asks about the previous login.
    cookies.delete(COOKIE)
    cookies.set(COOKIE, former)


async def another_persons_typed_code(pair: Pair) -> None:
    tab = await pair.browser.show(prompt="login")
    await tab.typed_by(await pair.bob())
    assert "code" in sent(await tab.go_on())


async def a_proof_without_sso(pair: Pair) -> None:
    await pair.change(sso=False)
    assert await pair.code(await pair.bob())
    await pair.change(sso=True)


async def sign_out_another_person(pair: Pair) -> httpx.Response:
    browser, pair.browser = pair.browser, pair.another_browser()
    hint = (await pair.tokens(await pair.bob()))["id_token"]
    pair.browser = browser
    return await pair.log_out(id_token_hint=hint)


async def revoke(pair: Pair) -> httpx.Response:
    return await pair.desk.post("/v1/revoke", token=pair.logged_in["admin"]["refresh_token"])


async def sign_out_with_a_hint(pair: Pair) -> httpx.Response:
    return await pair.log_out(id_token_hint=pair.logged_in["admin"]["id_token"])


async def revoke_and_sign_out(pair: Pair) -> httpx.Response:
    await revoke(pair)
    return await sign_out_with_a_hint(pair)


def deleted_by_staff(path: str = "") -> Act:
    return lambda pair: pair.root.ask("DELETE", f"/users/{pair.phone.user_id}{path}")


async def end_one_by_staff(pair: Pair) -> httpx.Response:
    return await pair.root.ask("DELETE", f"/users/{pair.phone.user_id}/sessions/{pair.session_id('admin')}")


async def end_an_expired_one_by_staff(pair: Pair) -> httpx.Response:
    await pair.stage.rows.execute("UPDATE sessions SET expires_at = $1 WHERE client_id = 'admin'", pair.stage.clock())
    return await end_one_by_staff(pair)


async def reuse(pair: Pair) -> None:
    assert (await pair.desk.refresh(pair.logged_in["admin"])).status_code == 200
    pair.stage.clock.advance(seconds=61)
    refused(await pair.desk.refresh(pair.logged_in["admin"]), "invalid_grant")


async def time_passes(pair: Pair) -> None:
    pair.stage.clock.advance(seconds=28800)


async def the_person_leaves(pair: Pair) -> httpx.Response:
    return await leave(await pair.stage.make(erasure_grace_days=7), pair.phone.tokens)


def both(reason: str | None) -> Ends:
    return {"shop": reason, "admin": reason}


def one(reason: str) -> Ends:
    return {"shop": None, "admin": reason}


ENDED, STAYS = False, True
NOBODY, DESK, BOTH = "", "admin", "admin shop"
"""The sites that learn of an end from a logout token."""
ACTS: dict[str, tuple[Act, bool, Ends, str]] = {
    "time": (time_passes, ENDED, both(None), NOBODY),
    "a ban": (lambda pair: change(pair, status="disabled"), ENDED, both("banned"), BOTH),
    "a ban that is lifted": (a_ban_that_is_lifted, ENDED, both("banned"), BOTH),
    "an erasure": (lambda pair: leave(pair.stage.client, pair.phone.tokens), ENDED, both(None), BOTH),
    "an erasure by staff": (deleted_by_staff(), ENDED, both(None), BOTH),
    "the person leaves": (the_person_leaves, ENDED, both("leaving"), BOTH),
    "a merge into another user": (merging("alice", "bob"), ENDED, both("merged"), BOTH),
    "a merge of another user": (merging("bob", "alice"), STAYS, both(None), NOBODY),
    "a split of the person": (splitting_off("alice"), ENDED, both("administrator"), BOTH),
    "a split of another": (splitting_off("bob"), STAYS, both(None), NOBODY),
    "a sign-out of all other devices": (
        lambda pair: pair.phone.ask("DELETE", "/sessions"),
        *(ENDED, both("signed_out_elsewhere"), BOTH),
    ),
    "a sign-out everywhere by staff": (deleted_by_staff("/sessions"), ENDED, both("administrator"), BOTH),
    "a role of staff": (lambda pair: change(pair, roles=["support"]), ENDED, both("administrator"), BOTH),
    "another role": (lambda pair: change(pair, roles=["staff"]), STAYS, both(None), NOBODY),
    "another person's proof": (another_persons_proof, ENDED, both("signed_out"), BOTH),
    "another person's typed code": (another_persons_typed_code, ENDED, both("signed_out"), BOTH),
    "another person's proof for a site without sso": (a_proof_without_sso, STAYS, both(None), NOBODY),
    "a new proof of the person": (lambda pair: pair.code(prompt="login"), STAYS, both(None), NOBODY),
    "a sign-out by the site": (sign_out_with_a_hint, ENDED, both("signed_out"), BOTH),
    "a sign-out by the site, whose session has ended": (revoke_and_sign_out, ENDED, both("signed_out"), "shop"),
    "a confirmed sign-out without a hint": (lambda pair: pair.log_out_by_page(), ENDED, both("signed_out"), BOTH),
    "a sign-out with a hint from another browser": (
        lambda pair: pair.stage.client.get(
            "/v1/end_session", params={"id_token_hint": pair.logged_in["admin"]["id_token"]}
        ),
        *(STAYS, one("signed_out"), DESK),
    ),
    # Only the shop learns of it, because only the other person's session at the shop ends.
    "a sign-out of another person in this browser": (sign_out_another_person, STAYS, both(None), "shop"),
    "an end from the phone": (
        lambda pair: pair.phone.ask("DELETE", f"/sessions/{pair.session_id('admin')}"),
        *(ENDED, one("signed_out_elsewhere"), DESK),
    ),
    "an end by staff": (end_one_by_staff, ENDED, one("administrator"), DESK),
    "an end of an expired one by staff": (end_an_expired_one_by_staff, STAYS, one("administrator"), NOBODY),
    "a revocation": (revoke, STAYS, one("signed_out"), NOBODY),
    "a logout": (
        lambda pair: pair.stage.client.post("/v1/logout", headers=bearer(pair.logged_in["admin"])),
        *(STAYS, one("signed_out"), NOBODY),
    ),
    "a reuse of a refresh token": (reuse, STAYS, one("reused"), DESK),
    "the removal of the site": (
        lambda pair: pair.root.ask("DELETE", "/clients/admin"),
        *(STAYS, one("administrator"), NOBODY),
    ),
}


async def do(pair: Pair, name: str) -> None:
    done = await ACTS[name][0](pair)
    assert not isinstance(done, httpx.Response) or done.is_success, done.text


@pytest.mark.usefixtures("bystander")
@pytest.mark.slow
@pytest.mark.parametrize("name", ACTS)
@pytest.mark.requirement("asvs-7.1.3")
async def test_what_ends_the_login_of_a_browser_and_the_sessions_of_its_sites(pair: Pair, name: str) -> None:
    _, has_login, ends, told = ACTS[name]
    await pair.log_in_to_both()
    code = sent(await PersonPage(pair.browser, (await pair.browser.open()).text).press())["code"]
    await do(pair, name)
    assert await pair.has_login() == has_login
    reason = "SELECT revoked_reason FROM sessions WHERE id = $1::text::uuid"
    assert {site: await pair.stage.rows.fetchval(reason, pair.session_id(site)) for site in ends} == ends
    waiting = await pair.stage.rows.fetch(
        "SELECT name FROM deliveries JOIN clients ON clients.id = receiver_id ORDER BY name"
    )
    assert " ".join(row["name"] for row in waiting) == told
    if name in ("an erasure", "an erasure by staff"):
        for site in (pair.shop, pair.desk):
            refused(await site.refresh(pair.logged_in[site.name]), "invalid_grant")
        assert await pair.stage.number("sessions WHERE client_id IS NOT NULL") == 0
    answer = await pair.redeem(code)
    if has_login and name != "a reuse of a refresh token":
        assert answer.status_code == 200, answer.text
    else:
        refused(answer, "invalid_grant")


@pytest.mark.usefixtures("bystander")
@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "a ban that is lifted",
        "an erasure",
        "a merge into another user",
        "a split of the person",
        "a sign-out of all other devices",
        "a sign-out everywhere by staff",
    ],
)
async def test_the_login_of_a_browser_ends_also_where_none_of_its_sessions_is_open(pair: Pair, name: str) -> None:
    await pair.log_in_to_both()
    for site in (pair.shop, pair.desk):
        await site.post("/v1/revoke", token=pair.logged_in[site.name]["refresh_token"])
    assert await pair.has_login()
    await do(pair, name)
    assert not await pair.has_login()


# Tests of a logout without a hint.


async def test_a_browser_without_a_login_that_logs_out_of_a_site_finds_a_link_back(house: House) -> None:
    await house.change(logout_uris=[BYE])
    back = {"client_id": "shop", "post_logout_redirect_uri": BYE}
    for parameters, link in [
        ({**back, "state": "a&b"}, f'href="{BYE}?state=a%26b"'),
        (back, f'href="{BYE}"'),
        ({**back, "client_id": "other"}, None),
        ({**back, "post_logout_redirect_uri": "https://evil.example/"}, None),
        ({"client_id": "shop"}, None),
    ]:
        answer = await house.log_out(**parameters)
        assert (answer.status_code, "You are not logged in" in answer.text) == (200, True)
        assert (link or "Back to") in answer.text if link else "Back to" not in answer.text, parameters


@pytest.mark.requirement("asvs-10.6.2")
async def test_another_site_can_end_no_login_of_a_browser(pair: Pair) -> None:
    await pair.tokens()
    client = pair.browser.client
    fields = hidden_fields(await pair.log_out())
    for wrong in ({}, {"confirmed": ""}, {"confirmed": "x" * 43}, {"confirmed": "\u0416"}):
        answer = await client.post("/v1/end_session", data=wrong)
        assert (answer.status_code, "Log out?" in answer.text) == (200, True)
    assert "Log out?" in (await pair.log_out(**fields)).text, "by a form alone"
    # A form from another site arrives without the cookie, so wxauth redirects it to a GET request.
    answer = await client.post("/v1/end_session", data=fields, headers={"Sec-Fetch-Site": "cross-site"})
    assert answer.status_code == 303
    assert answer.headers["location"] == f"/v1/end_session?{urlencode(fields)}"
    assert "Log out?" in (await client.get(answer.headers["location"])).text
    answer = await pair.another_browser().client.post("/v1/end_session", data=fields)
    assert (answer.status_code, "You are not logged in" in answer.text) == (200, True)
    assert await pair.has_login()
    evil = {"client_id": "shop", "post_logout_redirect_uri": "https://evil.example/"}
    answer = await client.post("/v1/end_session", data={**fields, **evil})
    assert (answer.status_code, "location" in answer.headers) == (200, False)


# Tests of races.


@pytest.mark.slow
@pytest.mark.own_database
@pytest.mark.parametrize("first", ["act", "press"])
@pytest.mark.parametrize(
    "name", ["a ban", "a merge into another user", "a sign-out of all other devices", "another person's typed code"]
)
async def test_of_a_press_and_an_end_at_once_no_session_is_left(pair: Pair, name: str, first: str) -> None:
    await pair.log_in_to_both()
    await pair.bob()
    page, other = await pair.page(), await pair.replicas_browser()
    press = partial(page.press, "continue", other)
    answer = (await pair.at_once("users", first, act=partial(do, pair, name), press=press))["press"]
    if "code=" in answer.headers["location"]:
        refused(await pair.redeem_at_desk(code_in(answer)), "invalid_grant")
    else:
        assert is_asked_anew(answer)
    ids = [pair.session_id(site) for site in ("shop", "admin")]
    assert await pair.stage.number("sessions WHERE id::text = ANY ($1) AND revoked_at IS NULL", ids) == 0


async def test_a_removed_site_that_is_added_anew_has_to_show_its_name_again(pair: Pair) -> None:
    await pair.log_in_to_both()
    assert code_in(await pair.browser.open(**TO_ADMIN, prompt="none"))
    await do(pair, "the removal of the site")
    await pair.add_site("admin", redirect_uris=[ADMIN_CALLBACK], sso=True)
    answer = sent(await pair.browser.open(**TO_ADMIN, prompt="none"), ADMIN_CALLBACK)
    assert answer["error"] == "interaction_required"
