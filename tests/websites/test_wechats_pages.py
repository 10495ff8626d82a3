"""Login by WeChat's own page: in WeChat's browser by a service account, on a computer by a website app."""

import re
from asyncio import create_task, gather, sleep
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from html import unescape
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from tests.fakes import Clock, Secrets
from tests.sweeps import Sweep
from tests.websites import browsers
from tests.websites import test_web_view as web_view
from tests.websites.browsers import ASKED, exchanged, hidden_fields, id_claims
from tests.world import (
    CALLBACK,
    EDGE,
    AddSite,
    Client,
    LogLines,
    MakeClient,
    MakeServices,
    Phone,
    Rows,
    Site,
    bearer,
    leave,
    log_in,
    make_admin,
    until,
)
from wxauth.server.console.sessions import ConsoleSessions
from wxauth.server.core.services import Services
from wxauth.server.dev.wechat import ACCOUNT, APPS, MOBILE_APP, WEBSITE, CodeRequest, Simulator, create_simulator
from wxauth.server.dev.wechat.controls import Visitor, openid_of, unionid_of
from wxauth.server.housekeeping.housekeeping import sweep
from wxauth.server.service.build import Waits
from wxauth.server.users.merging import link_unionid

IN_WECHAT = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Mobile/15E148 "
    "MicroMessenger/8.0.60(0x18003c2f) NetType/WIFI Language/zh_CN"
)
ON_A_COMPUTER_IN_WECHAT = EDGE + " MicroMessenger/7.0.20.1781(0x6700143B) NetType/WIFI WindowsWechat Language/zh_CN"
SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) Version/18.5 Mobile/15E148 Safari/604.1"
MINI, PAGE, COMPUTER = APPS[0]["app_id"], ACCOUNT["app_id"], WEBSITE["app_id"]
ALL = (*APPS, ACCOUNT, WEBSITE, MOBILE_APP)
USER_AGENTS = {"account": IN_WECHAT, "website": EDGE}
DOORS = pytest.mark.parametrize("door", ["account", "website"])
OVER = "https://auth.test/v1/authorize/wechat"


@pytest.fixture
def simulator(clock: Clock) -> Simulator:
    simulator = Simulator(lambda: clock().timestamp())
    for app_id in (PAGE, COMPUTER):
        simulator.account(app_id).callback_domains = frozenset({"auth.test"})
    return simulator


@pytest.fixture
def make_services(make_simulated_services: MakeServices) -> MakeServices:
    async def make(**settings: Any) -> Services:
        return await make_simulated_services(**{"apps": ALL, "waits": Waits(wechat_busy=(0, 0)), **settings})

    return make


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    return await make_services()


@dataclass(frozen=True, slots=True)
class Browser:
    """A browser with its cookies, and the person who holds it."""

    client: Client
    wechat: httpx.AsyncClient
    user_agent: str
    person: str = "alice"

    async def get(self, url: str, client: Client | None = None) -> httpx.Response:
        return await (client or self.client).get(url, headers={"User-Agent": self.user_agent})

    async def open(self, **parameters: str) -> str:
        """The page's URL of the button."""
        page = await self.get(f"/v1/authorize?{urlencode({**ASKED, **parameters})}")
        assert page.status_code == 200, page.headers.get("location")
        found = re.search(r'href="(/v1/authorize/[\w-]{22}/wechat)"', page.text)
        assert found, page.text
        return found[1]

    async def press(self, button: str | None = None, **parameters: str) -> str:
        """The URL of WeChat's page."""
        answer = await self.get(button or await self.open(**parameters))
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    async def allow(self, url: str) -> str:
        """Approve on WeChat's page, and return the URL of the callback."""
        headers = {"User-Agent": self.user_agent, "X-Desk-Person": self.person}
        page = await self.wechat.get(url, headers=headers)
        if page.status_code == 302:
            return page.headers["location"]
        assert page.status_code == 200, page.text
        found = re.search(r'<a href="([^"]+answer=allow)"', page.text)
        assert found, page.text
        answer = await self.wechat.get(unescape(found[1]), headers=headers)
        assert answer.status_code == 302, answer.text
        return answer.headers["location"]

    async def come_back(self, url: str, client: Client | None = None) -> str:
        """The URL to which the callback redirects."""
        answer = await self.get(url, client)
        assert (answer.status_code, answer.headers["cache-control"]) == (303, "no-store"), answer.text
        location: str = answer.headers["location"]
        for text in parse_qsl(urlsplit(url).query):
            assert text[1] not in location
        return location

    async def log_in(self, **parameters: str) -> str:
        return await self.come_back(await self.allow(await self.press(**parameters)))


GetBrowser = Callable[..., Browser]


@pytest.fixture
def get_browser(make_client: MakeClient, services: Services, simulator: Simulator) -> GetBrowser:
    wechat = httpx.ASGITransport(create_simulator(simulator))

    def get(door: str = "account", person: str = "alice", *, at: Services = services) -> Browser:
        client = httpx.AsyncClient(transport=wechat, base_url="https://open.weixin.qq.com")
        return Browser(make_client(at), client, USER_AGENTS.get(door, door), person)

    return get


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    return await add_site(account_app_id=PAGE, website_app_id=COMPUTER)


def redirect_parameters(location: str, to: str = CALLBACK) -> dict[str, str]:
    assert location.startswith(f"{to}?"), location
    return dict(parse_qsl(urlsplit(location).query))


async def tokens_for(site: Site, location: str) -> dict[str, Any]:
    answer = await exchanged(site, redirect_parameters(location)["code"])
    assert answer.status_code == 200, answer.text
    return answer.json()


async def people(rows: Rows) -> int:
    return await rows.fetchval("SELECT (SELECT count(*) FROM users) + (SELECT count(*) FROM identities)")


def asked(simulator: Simulator) -> int:
    return len(simulator.calls_of("access_token"))


# The flow.


@DOORS
async def test_with_form_post_the_page_after_wechats_posts_the_code(
    shop: Site, get_browser: GetBrowser, door: str
) -> None:
    browser = get_browser(door)
    page = await browser.get(await browser.allow(await browser.press(response_mode="form_post")))
    fields = hidden_fields(page)
    assert page.headers["cache-control"] == "no-store"
    assert fields.keys() == {"code", "state", "iss"}
    assert (await exchanged(shop, fields["code"])).status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize(
    ("door", "amr", "app_id"), [("account", "wechat_account", PAGE), ("website", "wechat_website", COMPUTER)]
)
async def test_a_person_logs_in_to_a_site_by_wechats_page(
    shop: Site, get_browser: GetBrowser, rows: Rows, clock: Clock, door: str, amr: str, app_id: str
) -> None:
    alice = await log_in(shop.client)
    browser = get_browser(door)
    url, pressed_at = await browser.press(), clock()
    clock.advance(seconds=50)
    location = await browser.come_back(await browser.allow(url))
    sent = redirect_parameters(location)
    assert (sent["state"], sent["iss"], set(sent)) == ("s-1", "https://auth.test", {"code", "state", "iss"})
    tokens = await tokens_for(shop, location)
    claims = await id_claims(shop.client, tokens["id_token"])
    assert (claims["sub"], claims["nonce"], claims["amr"]) == (alice["user"]["id"], "n-1", [amr])
    assert claims["auth_time"] == int(pressed_at.timestamp())
    listed = (await shop.client.get("/v1/me/sessions", headers=bearer(alice))).json()["items"]
    assert sorted((session["app_id"], session["client_id"] or "") for session in listed) == sorted(
        [(MINI, ""), (app_id, "shop")]
    )
    event = await rows.fetchrow("SELECT * FROM events WHERE type = 'site.authorized'")
    assert event is not None
    assert (event["app_id"], event["data"], str(event["user_id"])) == (
        *(app_id, f'{{"door": "{door}", "client_id": "shop"}}'),
        alice["user"]["id"],
    )
    assert event["ip"] is not None
    metrics = (await shop.client.get("/metrics")).text
    assert f'wxauth_doors_total{{door="{door}",outcome="logged_in"}} 1.0' in metrics
    again = (await shop.refresh(tokens)).json()
    assert "access_token" in again


@pytest.mark.slow
async def test_a_person_who_uses_all_five_doors_in_any_order_is_one_user(
    shop: Site, get_browser: GetBrowser, clock: Clock, rows: Rows
) -> None:
    async def known_to_site(location: str) -> str:
        claims = await shop.client.get("/v1/userinfo", headers=bearer(await tokens_for(shop, location)))
        return claims.json()["sub"]

    async def in_an_app(person: str, app_id: str) -> str:
        return (await log_in(shop.client, person, app_id=app_id))["user"]["id"]

    async def in_web_view(person: str, app_id: str) -> str:
        phone = Phone(shop.client, await log_in(shop.client, person, app_id=app_id), lambda: person)
        page = await get_browser(web_view.WEB_VIEW).get(f"/v1/authorize?{urlencode(ASKED)}")
        _, query = web_view.opened_by(page)
        return await known_to_site((await web_view.answer(phone, **query)).json()["redirect_to"])

    async def in_wechat(person: str, _: str) -> str:
        return await known_to_site(await get_browser("account", person).log_in())

    async def on_a_computer(person: str, _: str) -> str:
        return await known_to_site(await get_browser("website", person).log_in())

    doors = (
        (in_an_app, MINI, "mini_program"),
        (in_web_view, APPS[1]["app_id"], "mini_program"),  # another one, so that the web-view may be first too
        (in_wechat, PAGE, "official_account"),
        (on_a_computer, COMPUTER, "website"),
        (in_an_app, MOBILE_APP["app_id"], "mobile_app"),
    )
    turned = [doors[number:] + doors[:number] for number in range(len(doors))]
    orders = [*turned, *(order[::-1] for order in turned)]
    with Sweep() as cases:
        for number, order in enumerate(orders):
            with cases.case(*(f"{door.__name__}({kind})" for door, _, kind in order)):
                person, users = f"person-{number}", set()
                for door, app_id, _ in order:
                    users.add(await door(person, app_id))
                    clock.advance(seconds=20)
                headers = bearer(await log_in(shop.client, person, app_id=MINI))
                me = (await shop.client.get("/v1/me", headers=headers)).json()
                assert (users, me["unionid"]) == ({me["id"]}, unionid_of(person))
                identities = (await shop.client.get("/v1/me/identities", headers=headers)).json()["items"]
                assert [(it["app_id"], it["kind"], it["openid"]) for it in identities] == [
                    (app_id, kind, openid_of(person, app_id)) for _, app_id, kind in order
                ]
    assert await rows.fetchval("SELECT count(*) FROM users") == len(orders)
    assert await rows.fetchval("SELECT count(*) FROM unionids") == len(orders)


async def test_wechats_page_is_asked_with_its_parameters_in_its_order(
    shop: Site, add_site: AddSite, get_browser: GetBrowser, make_services: MakeServices
) -> None:
    url = await get_browser("account").press()
    state = url.partition("&state=")[2][:32]
    assert re.fullmatch("[0-9a-f]{32}", state)
    back = "https%3A%2F%2Fauth.test%2Fv1%2Fauthorize%2Fwechat"
    assert url == (
        f"https://open.weixin.qq.com/connect/oauth2/authorize?appid={PAGE}&redirect_uri={back}&response_type=code"
        f"&scope=snsapi_userinfo&state={state}&connect_redirect=1#wechat_redirect"
    )
    url = await get_browser("website").press()
    state = url.partition("&state=")[2][:32]
    assert url == (
        f"https://open.weixin.qq.com/connect/qrconnect?appid={COMPUTER}&redirect_uri={back}&response_type=code"
        f"&scope=snsapi_login&state={state}#wechat_redirect"
    )
    optional = [*APPS, {**ACCOUNT, "unionid": "optional"}]
    elsewhere = await make_services(apps=optional, wechat_open_url="http://127.0.0.1:8001")
    url = await get_browser("account", at=elsewhere).press()
    assert url.startswith("http://127.0.0.1:8001/connect/oauth2/authorize?appid=")
    assert "&scope=snsapi_base&" in url


async def test_each_kind_of_browser_gets_its_own_page(
    shop: Site, add_site: AddSite, get_browser: GetBrowser, rows: Rows, services: Services
) -> None:
    await add_site("plain")
    await add_site("near", website_app_id=COMPUTER, near=True)
    await add_site("desktop", website_app_id=COMPUTER)
    await services[ConsoleSessions].add_as_site()
    wecom, web_view = f"{IN_WECHAT} wxwork/4.1.36", f"{IN_WECHAT} miniProgram/{MINI}"
    link = "Log in with WeChat on this computer"
    with Sweep() as sweep:
        for user_agent, name, has_button, has_link, has_code in (
            (IN_WECHAT, "shop", True, False, False),
            (ON_A_COMPUTER_IN_WECHAT, "shop", True, False, False),
            (IN_WECHAT, "plain", False, False, True),
            (IN_WECHAT, "desktop", False, False, True),
            (ON_A_COMPUTER_IN_WECHAT, "desktop", False, True, True),
            (EDGE, "shop", False, True, True),
            (EDGE, "plain", False, False, True),
            (EDGE, "near", False, False, True),
            (SAFARI, "shop", False, False, True),
            (wecom, "shop", False, False, True),
            (web_view, "shop", False, False, False),
        ):
            with sweep.case(f"{name} in {user_agent[-40:]}"):
                asked = {**ASKED, "client_id": name, "ui_locales": "en"}
                page = await get_browser(user_agent).get(f"/v1/authorize?{urlencode(asked)}")
                assert "Log in to Example Shop" in page.text
                assert (
                    re.search(r'class="button" href="/v1/authorize/[\w-]{22}/wechat"', page.text) is not None
                ) == has_button
                assert (link in page.text) == has_link
                assert ("/v1/scans/" in page.text) == has_code
    asked = {**ASKED, "client_id": "wxauth-admin", "redirect_uri": "https://auth.test/admin/"}
    assert "/wechat" not in (await get_browser(EDGE).get(f"/v1/authorize?{urlencode(asked)}")).text
    assert await rows.fetchval("SELECT count(*) FROM site_logins WHERE scene_hash IS NULL") == 2


# The press.


async def test_a_button_works_only_for_its_own_browser_and_site(
    shop: Site, add_site: AddSite, get_browser: GetBrowser, clock: Clock
) -> None:
    browser = get_browser()
    button = await browser.open()
    for other, title in (
        (get_browser(), "登录不是从这里发起的"),
        (get_browser("website"), "This login was not started here"),
    ):
        page = await other.get(button)
        assert (page.status_code, title in page.text) == (404, True)
    assert (await browser.get(button.replace("authorize/", "authorize/x"))).status_code == 404
    await add_site("plain")
    computer = get_browser("website")
    page = await computer.get(f"/v1/authorize?{urlencode({**ASKED, 'client_id': 'plain'})}")
    found = re.search(r"/v1/authorize/([\w-]{22})/next", page.text)
    assert found
    assert (await computer.get(f"/v1/authorize/{found[1]}/wechat")).status_code == 404
    clock.advance(seconds=601)
    assert (await browser.get(button)).status_code == 404


@pytest.mark.slow
@DOORS
async def test_a_request_is_good_for_ten_presses_and_ten_minutes_after_each(
    shop: Site, get_browser: GetBrowser, clock: Clock, services: Services, door: str
) -> None:
    browser = get_browser(door)
    button = await browser.open()
    urls = []
    for _ in range(10):
        urls.append(await browser.press(button))
        clock.advance(seconds=170)
        await sweep(services)
    eleventh = await browser.get(button)
    assert eleventh.status_code == 429
    assert re.search("to the site and start again|回到网站重新开始", eleventh.text), "waiting does not help"
    assert "retry-after" not in eleventh.headers
    assert len(set(urls)) == 10
    assert (await browser.come_back(await browser.allow(urls[0]))).endswith("/wechat/over")  # 1700 s old
    assert "code" in redirect_parameters(await browser.come_back(await browser.allow(urls[-1])))
    assert "code" in redirect_parameters(await browser.come_back(await browser.allow(urls[-2])))
    clock.advance(seconds=431)
    assert (await browser.get(button)).status_code == 404


@DOORS
async def test_a_page_that_has_logged_somebody_in_may_do_so_again(
    shop: Site, get_browser: GetBrowser, door: str
) -> None:
    browser = get_browser(door)
    button = await browser.open()
    sessions = []
    for _ in range(2):  # the second time, the person has gone back from the site
        location = await browser.come_back(await browser.allow(await browser.press(button)))
        sessions.append(await tokens_for(shop, location))
    for tokens in sessions:
        assert (await shop.refresh(tokens)).status_code == 200


async def test_of_presses_at_once_ten_pass(shop: Site, get_browser: GetBrowser) -> None:
    browser = get_browser()
    button = await browser.open()
    answers = await gather(*(browser.get(button) for _ in range(15)))
    assert sorted(answer.status_code for answer in answers) == [303] * 10 + [429] * 5


async def test_presses_count_against_the_limit_of_the_address(
    shop: Site, get_browser: GetBrowser, make_services: MakeServices
) -> None:
    browser = get_browser(at=await make_services(scan_rate_limit="2/minute"))
    button = await browser.open()
    answers = [await browser.get(button) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [303, 303, 429]
    assert "retry-after" in answers[-1].headers


async def test_the_pages_of_neighbours_leave_a_browser_with_a_login_its_own(
    add_site: AddSite, get_browser: GetBrowser, make_services: MakeServices
) -> None:
    shop = await add_site(sso=True, account_app_id=PAGE)
    strict = await make_services(scan_rate_limit="3/minute")
    held, neighbour = browsers.Browser(get_browser("website", at=strict).client), get_browser(at=strict)
    phone = Phone(shop.client, await log_in(shop.client, "alice"), lambda: "alice")
    await browsers.tokens_of(shop, held, phone)
    page = f"/v1/authorize?{urlencode(ASKED)}"
    assert [(await neighbour.get(page)).status_code for _ in range(4)] == [200, 200, 200, 429]
    pages = [await held.open() for _ in range(4)]
    assert [page.status_code for page in pages] == [200, 200, 200, 429], "its own are limited, too"
    assert "/continue" in pages[0].text


async def test_pages_that_nobody_used_are_swept_away(
    shop: Site, get_browser: GetBrowser, clock: Clock, services: Services, rows: Rows
) -> None:
    browser = get_browser()
    await browser.press()
    await browser.open()
    clock.advance(seconds=599)
    await sweep(services)
    assert await rows.fetchrow("SELECT count(page_hash), count(state_hash) FROM site_logins") == (2, 1)
    clock.advance(seconds=2)
    await sweep(services)
    assert await rows.fetchval("SELECT count(*) FROM site_logins") == 0
    assert 'wxauth_scans_total{outcome="expired"} 0.0' in (await shop.client.get("/metrics")).text


# The callback, and who may come back by it.


@DOORS
async def test_a_callback_that_was_sent_to_somebody_logs_nobody_in(
    shop: Site, get_browser: GetBrowser, simulator: Simulator, rows: Rows, door: str
) -> None:
    attacker, victim = get_browser(door, "mallory"), get_browser(door)
    url = await attacker.allow(await attacker.press())
    assert await victim.come_back(url) == OVER
    await victim.press()  # with a cookie of its own, too
    assert await victim.come_back(url) == OVER
    assert (asked(simulator), await people(rows)) == (0, 0)
    page = await victim.get(OVER)
    assert (page.status_code, "go back to the site" in page.text or "回到网站" in page.text) == (404, True)
    assert "code" in redirect_parameters(await attacker.come_back(url)), "another browser's try has not spent the state"


async def test_a_state_that_is_unknown_old_or_spent_asks_wechat_nothing(
    shop: Site, get_browser: GetBrowser, simulator: Simulator, clock: Clock
) -> None:
    browser = get_browser()
    pressed = await browser.press()
    old = await browser.allow(pressed)
    for state in ("0" * 32, "x", "", "%00", "0" * 5000):
        assert await browser.come_back(f"{OVER}?code=abcdefghij&state={state}") == OVER
    assert await browser.come_back(f"{old}&state={'0' * 32}") == OVER
    assert await browser.come_back(f"{OVER}?code=abcdefghij") == OVER
    clock.advance(seconds=600)
    over = await browser.come_back(old)
    assert over.endswith("/wechat/over")
    assert asked(simulator) == 0
    url = await browser.allow(await browser.press())
    assert "code" in redirect_parameters(await browser.come_back(url))
    another = await browser.allow(pressed.partition("state=")[0] + f"state={dict(parse_qsl(url))['state']}")
    assert (await browser.come_back(another)).endswith("/wechat/over")
    assert asked(simulator) == 1


async def test_a_code_of_one_app_is_of_no_use_in_anothers_flow(
    shop: Site, get_browser: GetBrowser, simulator: Simulator, rows: Rows
) -> None:
    browser = get_browser("account")
    state = (await browser.press()).partition("state=")[2][:32]
    for app_id in (COMPUTER, MOBILE_APP["app_id"], MINI):
        code = simulator.make_code(CodeRequest(person="mallory", app_id=app_id))
        state = (await browser.press()).partition("state=")[2][:32]
        where = await browser.come_back(f"{OVER}?code={code}&state={state}&appid={app_id}")
        assert where.endswith("/wechat/again")
        assert simulator.calls_of("access_token")[-1].query["appid"] == PAGE
    assert await people(rows) == 0


@DOORS
async def test_the_same_callback_again_goes_the_same_way(
    shop: Site, get_browser: GetBrowser, simulator: Simulator, door: str, clock: Clock
) -> None:
    browser = get_browser(door)
    url = await browser.allow(await browser.press())
    first, second = await browser.come_back(url), await browser.come_back(url)
    assert first == second
    tokens = await tokens_for(shop, first)
    assert (await browser.come_back(url)).endswith("/wechat/done")
    clock.advance(seconds=14)
    again = await exchanged(shop, redirect_parameters(first)["code"])
    assert (again.status_code, again.json()["error"]) == (400, "invalid_grant")
    assert "access_token" in (tokens := (await shop.refresh(tokens)).json()), "the session has not ended"
    clock.advance(seconds=1)
    assert (await exchanged(shop, redirect_parameters(first)["code"])).json()["error"] == "invalid_grant"
    assert (await shop.refresh(tokens)).json()["error"] == "invalid_grant", "this late, somebody else has the code"
    assert asked(simulator) == 1


@pytest.mark.slow
@pytest.mark.parametrize("later", [0.0, 0.3])
async def test_the_same_callback_at_two_replicas_asks_wechat_once(
    shop: Site,
    get_browser: GetBrowser,
    make_services: MakeServices,
    make_client: MakeClient,
    simulator: Simulator,
    later: float,
) -> None:
    browser = get_browser()
    other = make_client(await make_services())
    url = await browser.allow(await browser.press())
    other.cookies = browser.client.cookies
    simulator.fail("access_token", slow=0.6)
    first = create_task(browser.come_back(url))
    await sleep(later)
    second = await browser.come_back(url, other)
    assert second == await first
    assert "code" in redirect_parameters(second)
    assert asked(simulator) == 1
    answers = await gather(*(exchanged(shop, redirect_parameters(second)["code"]) for _ in range(2)))
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    [tokens] = [answer.json() for answer in answers if answer.status_code == 200]
    assert "access_token" in (await shop.refresh(tokens)).json()


async def test_a_callback_whose_connection_was_closed_is_carried_out(
    shop: Site, get_browser: GetBrowser, simulator: Simulator
) -> None:
    browser = get_browser()
    url = await browser.allow(await browser.press())
    simulator.fail("access_token", slow=0.3)
    first = create_task(browser.get(url))
    await until(lambda: asked(simulator) == 1)
    first.cancel()
    assert "code" in redirect_parameters(await browser.come_back(url))
    assert asked(simulator) == 1


@pytest.mark.slow
async def test_a_callback_that_waits_in_vain_for_the_first_one_is_answered_with_try_later(
    shop: Site, get_browser: GetBrowser, make_services: MakeServices, rows: Rows, simulator: Simulator
) -> None:
    browser = get_browser(at=await make_services(wechat_timeout=0.1))
    url = await browser.allow(await browser.press())
    code = dict(parse_qsl(urlsplit(url).query))["code"]
    await rows.execute(  # as a replica does that then loses its power
        "UPDATE site_logins SET wechat_code_hash = sha256(convert_to($1, 'UTF8'))", code
    )
    assert redirect_parameters(await browser.come_back(url))["error"] == "temporarily_unavailable"
    assert asked(simulator) == 0


# Who may not come in.


@DOORS
async def test_made_up_people_of_a_snapshot_are_not_logged_in_and_may_try_again(
    shop: Site, get_browser: GetBrowser, simulator: Simulator, rows: Rows, door: str
) -> None:
    app_id = PAGE if door == "account" else COMPUTER
    browser = get_browser(door)
    for kind in ("on", "false_alarm"):
        simulator.visitors["alice", app_id] = Visitor(person="alice", app_id=app_id, snapshot=kind)
        where = await browser.log_in()
        assert where.endswith("/wechat/snapshot")
        page = await browser.get(where)
        assert "使用完整服务" in page.text
    assert await people(rows) == 0
    simulator.visitors.clear()
    found = re.search(r'class="button" href="([^"]+)"', page.text)
    assert found
    assert "code" in redirect_parameters(await browser.come_back(await browser.allow(await browser.press(found[1]))))
    assert f'door="{door}",outcome="snapshot"}} 2.0' in (await shop.client.get("/metrics")).text


async def test_a_snapshot_without_its_mark_is_known_by_its_unionid(
    shop: Site, get_browser: GetBrowser, simulator: Simulator, rows: Rows
) -> None:
    for person in ("alice", "bob"):
        simulator.visitors[person, PAGE] = Visitor(person=person, app_id=PAGE, snapshot="hidden_once")
    # Nothing tells this one from a real person.
    assert "code" in redirect_parameters(await get_browser(person="alice").log_in())
    stored = await people(rows)
    for person in ("bob", "alice"):
        assert (await get_browser(person=person).log_in()).endswith("/wechat/snapshot")
    assert await people(rows) == stored


@DOORS
async def test_a_door_without_unionids_makes_no_second_user(
    shop: Site, get_browser: GetBrowser, simulator: Simulator, rows: Rows, log_lines: LogLines, door: str
) -> None:
    app_id = PAGE if door == "account" else COMPUTER
    alice = await log_in(shop.client)
    simulator.account(app_id).has_unionids = False
    stored = await people(rows)
    assert redirect_parameters(await get_browser(door).log_in())["error"] == "access_denied"
    assert await people(rows) == stored
    [line] = [line for line in log_lines() if line["event"] == "wechat_misconfigured"]
    assert "bind the app" in line["what_to_change"]
    simulator.account(app_id).has_unionids = True
    await tokens_for(shop, await get_browser(door).log_in())
    simulator.account(app_id).has_unionids = False
    tokens = await tokens_for(shop, await get_browser(door).log_in())
    assert (await id_claims(shop.client, tokens["id_token"]))["sub"] == alice["user"]["id"]


@pytest.mark.slow
async def test_the_site_gets_an_error_when_nobody_logs_in(
    shop: Site,
    get_browser: GetBrowser,
    make_services: MakeServices,
    simulator: Simulator,
    rows: Rows,
    log_lines: LogLines,
    secrets: Secrets,
) -> None:
    browser = get_browser(at=await make_services(sign_up="closed"))
    assert redirect_parameters(await browser.log_in())["error"] == "access_denied"
    browser = get_browser()
    callback = await browser.allow(await browser.press())
    assert redirect_parameters(await browser.come_back(re.sub("code=[^&]+&", "", callback)))["error"] == "access_denied"
    with Sweep() as cases:
        for fault, error in (
            ({"errcode": 40226}, "access_denied"),
            ({"errcode": 45009}, "temporarily_unavailable"),
            ({"errcode": 45011}, "temporarily_unavailable"),
            ({"errcode": -1, "times": 3}, "temporarily_unavailable"),
            ({"drop": True}, "temporarily_unavailable"),
            ({"status": 503}, "temporarily_unavailable"),
            ({"errcode": 40013}, "server_error"),
            ({"errcode": 40125}, "server_error"),
            ({"errcode": 48001}, "server_error"),
            ({"errcode": 99999}, "server_error"),
            ({"garbage": True}, "server_error"),
        ):
            with cases.case(str(fault)):
                simulator.fail("access_token", **fault)
                callback = await browser.allow(await browser.press())
                sent = redirect_parameters(await browser.come_back(callback))
                assert (sent["error"], sent["state"], "code" in sent) == (error, "s-1", False)
                before = asked(simulator)
                assert redirect_parameters(await browser.come_back(callback)) == sent
                assert asked(simulator) == before
        for errcode in (40029, 40163, 42003):
            with cases.case(str(errcode)):
                simulator.fail("access_token", errcode=errcode)
                where = await browser.log_in()
                assert where.endswith("/wechat/again")
                assert (await browser.get(where)).status_code == 200
    assert await people(rows) == 0
    told_to_change = [line["what_to_change"] for line in log_lines() if line["event"] == "wechat_misconfigured"]
    assert len(told_to_change) == 3


@pytest.mark.slow
@DOORS
async def test_a_ban_holds_at_the_door_and_between_code_and_token(
    shop: Site, get_browser: GetBrowser, rows: Rows, door: str
) -> None:
    root = await make_admin(shop.client, rows, await log_in(shop.client, "root"))
    alice = await log_in(shop.client)
    location = await get_browser(door).log_in()
    await root.change(alice["user"]["id"], status="disabled")
    assert (await exchanged(shop, redirect_parameters(location)["code"])).json()["error"] == "invalid_grant"
    assert redirect_parameters(await get_browser(door).log_in())["error"] == "access_denied"
    await root.change(alice["user"]["id"], status="active")
    await tokens_for(shop, await get_browser(door).log_in())


@DOORS
async def test_who_is_leaving_is_refused_at_the_door_and_between_code_and_token(
    shop: Site, get_browser: GetBrowser, rows: Rows, clock: Clock, door: str
) -> None:
    await log_in(shop.client)
    location = await get_browser(door).log_in()
    await rows.execute("UPDATE users SET erase_at = $1", clock() + timedelta(days=7))
    assert (await exchanged(shop, redirect_parameters(location)["code"])).json()["error"] == "invalid_grant"
    assert redirect_parameters(await get_browser(door).log_in())["error"] == "access_denied"
    assert await rows.fetchval("SELECT count(*) FROM users WHERE erase_at IS NOT NULL") == 1


async def test_an_erasure_between_code_and_token_leaves_nothing_to_log_in_to(
    shop: Site, get_browser: GetBrowser, rows: Rows
) -> None:
    alice = await log_in(shop.client)
    location = await get_browser().log_in()
    assert (await leave(shop.client, alice)).status_code == 204
    assert (await exchanged(shop, redirect_parameters(location)["code"])).json()["error"] == "invalid_grant"
    assert await rows.fetchval("SELECT count(*) FROM users") == 0
    assert await rows.fetchval("SELECT count(*) FROM site_logins WHERE openid IS NOT NULL") == 0
    visited = "SELECT count(*) FROM site_logins WHERE state_hash IS NOT NULL AND browser_ip IS NOT NULL"
    assert await rows.fetchval(visited) == 0, "nor their address"


async def test_a_merge_between_code_and_token_is_followed(
    shop: Site, get_browser: GetBrowser, make_services: MakeServices, simulator: Simulator, clock: Clock
) -> None:
    alice = await log_in(shop.client)
    simulator.account(PAGE).has_unionids = False
    optional = await make_services(apps=[*APPS, {**ACCOUNT, "unionid": "optional"}])
    location = await get_browser(at=optional).log_in()
    openid, unionid = openid_of("alice", PAGE), unionid_of("alice")
    await link_unionid(optional.database, app_id=PAGE, openid=openid, unionid=unionid, now=clock())
    tokens = await tokens_for(shop, location)
    assert (await id_claims(shop.client, tokens["id_token"]))["sub"] == alice["user"]["id"]


async def test_a_website_app_is_closed_to_near_sites_because_its_qr_code_can_be_relayed(
    add_site: AddSite, get_browser: GetBrowser, simulator: Simulator, rows: Rows
) -> None:
    site = await add_site("near", website_app_id=COMPUTER, account_app_id=PAGE, near=True)
    browser = get_browser("website")
    page = await browser.get(f"/v1/authorize?{urlencode({**ASKED, 'client_id': 'near'})}")
    found = re.search(r"/v1/authorize/([\w-]{22})/next", page.text)
    assert found
    answer = await browser.get(f"/v1/authorize/{found[1]}/wechat")
    assert redirect_parameters(answer.headers["location"])["error"] == "access_denied"
    assert (asked(simulator), await people(rows)) == (0, 0)
    await tokens_for(site, await get_browser("account").log_in(client_id="near"))


@pytest.mark.oldest_postgres
async def test_a_relayed_qr_code_of_a_website_app_is_closed_to_administrators(
    shop: Site, get_browser: GetBrowser, rows: Rows, make_services: MakeServices
) -> None:
    await make_admin(shop.client, rows, await log_in(shop.client, "root"))
    before = await rows.fetch("SELECT * FROM users"), await rows.fetch("SELECT * FROM identities")
    assert redirect_parameters(await get_browser("website", "root").log_in())["error"] == "access_denied"
    assert (await rows.fetch("SELECT * FROM users"), await rows.fetch("SELECT * FROM identities")) == before
    await tokens_for(shop, await get_browser("account", "root").log_in())
    anywhere = await make_services(scan_admin_anywhere=True)
    await tokens_for(shop, await get_browser("website", "root", at=anywhere).log_in())


async def test_no_log_line_has_a_state_or_a_code(
    shop: Site, get_browser: GetBrowser, simulator: Simulator, secrets: Secrets
) -> None:
    browser = get_browser()
    for fault in (None, 40029, 40125, 45009):
        callback = await browser.allow(await browser.press())
        told_by_wechat = dict(parse_qsl(urlsplit(callback).query))
        if fault is not None:
            simulator.fail("access_token", errcode=fault)
        await browser.come_back(callback)
        await get_browser().come_back(callback)
        for text in told_by_wechat.values():
            secrets.add_unlogged(text)  # which the end of each test looks for in the log


# The simulator's pages.


async def test_the_simulators_pages_refuse_as_wechats_do(shop: Site, get_browser: GetBrowser) -> None:
    browser, computer = get_browser(), get_browser("website")
    url = (await browser.press()).partition("#")[0]
    query = dict(parse_qsl(urlsplit(url).query))
    shuffled = {"state": query["state"], **query}

    async def page(asked: dict[str, str], path: str = "oauth2/authorize", holder: Browser = browser) -> str:
        return (await holder.get(f"/connect/{path}?{urlencode(asked)}", holder.wechat)).text

    with Sweep() as cases:
        for number, changed in (
            ("10003", {**query, "redirect_uri": "https://elsewhere.example/"}),
            ("10005", {**query, "scope": "snsapi_login"}),
            ("10010", {**query, "scope": "snsapi"}),
            ("10010", shuffled),
            ("10011", {**query, "redirect_uri": "auth.test"}),
            ("10012", {**query, "appid": "wx0"}),
            ("10013", {**query, "state": "a-b"}),
            ("10013", {**query, "state": "a" * 129}),
            ("10016", {**query, "appid": COMPUTER}),
        ):
            with cases.case(number):
                assert number in await page(changed)
    assert "允许" in await page(query)
    assert "请在微信客户端打开链接" in await page(query, holder=computer)
    refused = await browser.get(f"/connect/oauth2/authorize/answer?{urlencode(query)}&answer=refuse", browser.wechat)
    assert refused.status_code == 200  # WeChat leads nowhere


async def test_a_person_who_refuses_on_wechats_page_refuses_at_the_site(
    shop: Site, get_browser: GetBrowser, simulator: Simulator
) -> None:
    simulator.visitors["alice", PAGE] = Visitor(person="alice", app_id=PAGE, refusal="returns")
    browser = get_browser(person="alice")
    url = (await browser.press()).partition("#")[0]
    answer = url.replace("/authorize?", "/authorize/answer?") + "&person=alice&answer=refuse"
    refused = await browser.get(answer, browser.wechat)
    assert dict(parse_qsl(urlsplit(refused.headers["location"]).query)).keys() == {"state"}
    assert redirect_parameters(await browser.come_back(refused.headers["location"]))["error"] == "access_denied"
