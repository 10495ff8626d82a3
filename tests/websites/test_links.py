"""A phone's browser outside WeChat logs in by a link to the mini-program, and a number."""

import asyncio
import re
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from tests.fakes import APP, Clock
from tests.problems import problem_of
from tests.sweeps import swept
from tests.websites.browsers import Browser, Tab, exchanged, hidden_fields, id_claims, sent
from tests.world import (
    CAMERA,
    AddSite,
    Admin,
    Body,
    Client,
    GetPhone,
    LogIn,
    LogLines,
    MakeClient,
    MakeServices,
    Phone,
    Rows,
    Site,
    make_admin,
    set_roles,
)
from wxauth.server.core.services import Services

SAFARI = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_5 like Mac OS X) AppleWebKit/605.1.15 Version/18.5 Mobile Safari/604.1"
IN_WECHAT = f"{SAFARI} MicroMessenger/8.0.60"
IN_WECOM = f"{SAFARI} wxwork/4.1.30"
DESKTOP = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/141.0.0.0 Safari/537.36"
BY_SCHEME = 1286


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    return await make_services(scan_link="scheme")


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    return await add_site(link=True)


@pytest.fixture
def safari(make_client: MakeClient, services: Services) -> Browser:
    return browser_of(make_client(services))


def browser_of(client: Client, user_agent: str = SAFARI) -> Browser:
    client.headers["user-agent"] = user_agent
    return Browser(client)


async def press(tab: Tab, browser: Browser | None = None) -> httpx.Response:
    return await (browser or tab.browser).client.post(f"/v1/authorize/{tab.request_id}/link")


async def pressed(tab: Tab) -> str:
    """Press the button. Returns the scene in the link."""
    answer = await press(tab)
    assert answer.status_code == 303, answer.text
    url = urlsplit(answer.headers["location"])
    assert f"{url.scheme}://{url.netloc}{url.path}" == "weixin://dl/business/"
    query = parse_qs(url.query, strict_parsing=True)
    (inner,) = query.pop("query")
    assert query == {"appid": [APP["app_id"]], "path": ["pages/scan/scan"]}
    scene = re.fullmatch(r"s=([\w-]{22})", inner)
    assert scene
    return scene[1]


async def approved(tab: Tab, phone: Phone) -> str:
    """Press the button, approve, and return the number that the phone shows."""
    claimed = await phone.claim(scene=await pressed(tab), entry_scene=BY_SCHEME)
    assert claimed.status_code == 200, claimed.text
    answer = await phone.decide(claimed.json()["id"])
    assert answer.status_code == 200, answer.text
    return answer.json()["number"]


async def type_in(tab: Tab, number: str, browser: Browser | None = None) -> httpx.Response:
    client = (browser or tab.browser).client
    return await client.post(f"/v1/authorize/{tab.request_id}/number", data={"number": number})


def other(number: str, by: int = 1) -> str:
    return f"{(int(number) + by) % 1_000_000:06}"


def shown_again(answer: httpx.Response) -> None:
    assert answer.status_code == 200, answer.text
    assert 'name="number"' in answer.text


# The way in.


async def test_a_person_logs_in_on_one_phone(
    shop: Site, safari: Browser, phone: Phone, rows: Rows, clock: Clock
) -> None:
    tab = await safari.show()
    claimed = await phone.claim(scene=await pressed(tab), entry_scene=BY_SCHEME)
    assert claimed.json()["link"] is True
    assert claimed.json()["typed"] is False
    answer = await phone.decide(claimed.json()["id"])
    assert answer.status_code == 200
    assert answer.json().keys() == {"number", "expires_in"}
    assert re.fullmatch(r"[0-9]{6}", answer.json()["number"])
    assert answer.json()["expires_in"] == 120
    clock.advance(seconds=30)
    number = answer.json()["number"]
    reported = sent(await type_in(tab, f" {number[:3]} {number[3:]} "))
    tokens = (await exchanged(shop, reported["code"])).json()
    claims = await id_claims(shop.client, tokens["id_token"])
    assert (claims["sub"], claims["amr"]) == (phone.user_id, ["wechat_link"])
    assert claims["auth_time"] == int(clock().timestamp()) - 30
    door = "SELECT data ->> 'door' FROM events WHERE type = 'site.authorized'"
    assert await rows.fetchval(door) == "link"


async def test_the_button_comes_first_and_needs_no_script(shop: Site, safari: Browser) -> None:
    answer = await safari.open()
    html, policy = answer.text, answer.headers["content-security-policy"]
    assert html.index('/link"><button') < html.index("/number") < html.index("<details>") < html.index('class="typed"')
    assert "form-action 'self' weixin:" in policy
    assert "https://shop.example.com" in policy


async def test_after_a_wrong_number_the_field_is_first_and_without_one_the_button(
    shop: Site, safari: Browser, phone: Phone
) -> None:
    tab = await safari.show()
    missing = (await type_in(tab, "12")).text
    assert missing.index('/link"><button') < missing.index("/number")
    wrong = (await type_in(tab, other(await approved(tab, phone)))).text
    assert wrong.index("/number") < wrong.index('/link"><button')


@pytest.mark.parametrize("user_agent", [IN_WECHAT, IN_WECOM, DESKTOP])
async def test_other_browsers_have_no_button(
    user_agent: str, shop: Site, make_client: MakeClient, services: Services
) -> None:
    answer = await browser_of(make_client(services), user_agent).open()
    assert "/link" not in answer.text


async def test_other_sites_have_no_button(add_site: AddSite, safari: Browser) -> None:
    await add_site()
    tab = await safari.show()
    assert "/link" not in tab.html
    assert (await press(tab)).status_code == 404


async def test_nothing_is_offered_while_the_setting_is_off(
    shop: Site, make_services: MakeServices, make_client: MakeClient
) -> None:
    tab = await browser_of(make_client(await make_services())).show()
    assert "/link" not in tab.html
    assert (await press(tab)).status_code == 404


async def test_a_trial_version_is_named_in_the_link(
    shop: Site, make_services: MakeServices, make_client: MakeClient
) -> None:
    trial = await make_services(scan_link="scheme", scan_env="trial")
    tab = await browser_of(make_client(trial)).show()
    assert (await press(tab)).headers["location"].endswith("&env_version=trial")


async def test_a_press_ends_the_link_before(shop: Site, safari: Browser, phone: Phone) -> None:
    tab = await safari.show()
    first, second = await pressed(tab), await pressed(tab)
    problem_of(await phone.claim(scene=first, entry_scene=BY_SCHEME), "scan_over", 404)
    assert (await phone.claim(scene=second, entry_scene=BY_SCHEME)).status_code == 200


async def test_the_last_link_counts_where_the_clock_of_its_replica_is_behind(
    shop: Site, safari: Browser, phone: Phone, clock: Clock
) -> None:
    """Of a link before that has been ended, refused, or led to a code."""
    for former in ("ended", "refused", "coded"):
        tab = await safari.show()
        clock.advance(seconds=2)
        if former == "ended":
            await pressed(tab)
        elif former == "refused":
            claimed = await phone.claim(scene=await pressed(tab), entry_scene=BY_SCHEME)
            assert (await phone.decide(claimed.json()["id"], "deny")).status_code == 204
        else:
            assert sent(await type_in(tab, await approved(tab, phone)))["code"]
        clock.advance(seconds=-1)
        assert "code" in sent(await type_in(tab, await approved(tab, phone))), former


async def test_a_link_and_the_code_beside_it_are_claimed_and_decided_apart(
    shop: Site, safari: Browser, phone: Phone, get_phone: GetPhone
) -> None:
    tab, bob = await safari.show(), await get_phone("bob")
    by_link = await phone.claim(scene=await pressed(tab), entry_scene=BY_SCHEME)
    by_code = await bob.claim(scene=tab.scene, entry_scene=CAMERA)
    assert (by_link.status_code, by_code.status_code) == (200, 200)
    assert (await phone.decide(by_link.json()["id"], "deny")).status_code == 204
    assert await tab.state() == "claimed"
    assert (await bob.decide(by_code.json()["id"])).status_code == 204
    assert sent(await tab.go_on())["code"]
    again = await phone.claim(scene=await pressed(tab), entry_scene=BY_SCHEME)
    assert "number" in (await phone.decide(again.json()["id"])).json()


async def test_ten_presses_are_enough(shop: Site, safari: Browser) -> None:
    tab = await safari.show()
    answers = await asyncio.gather(*(press(tab) for _ in range(14)))
    assert sorted(answer.status_code for answer in answers) == [303] * 10 + [429] * 4


async def test_a_link_lasts_three_minutes_and_its_request_ten(
    shop: Site, safari: Browser, phone: Phone, clock: Clock
) -> None:
    tab = await safari.show()
    scene = await pressed(tab)
    clock.advance(seconds=180)
    problem_of(await phone.claim(scene=scene, entry_scene=BY_SCHEME), "scan_over", 404)
    clock.advance(seconds=419)
    await pressed(tab)
    clock.advance(seconds=1)
    assert (await press(tab)).status_code == 404


async def test_a_refusal_takes_the_browser_back(shop: Site, safari: Browser, phone: Phone) -> None:
    tab = await safari.show()
    claimed = await phone.claim(scene=await pressed(tab), entry_scene=BY_SCHEME)
    for _ in range(2):
        assert (await phone.decide(claimed.json()["id"], "deny")).status_code == 204
    problem_of(await phone.decide(claimed.json()["id"]), "scan_over", 404)
    assert sent(await type_in(tab, "123456"))["error"] == "access_denied"


# How the phone came to it.


@pytest.mark.slow
@pytest.mark.parametrize("entry", ["any", "camera"])
@pytest.mark.parametrize(
    "body",
    [
        {"entry_scene": 1167},
        {"entry_scene": CAMERA},
        {"entry_scene": 1007},
        {},
        {"scanned": "camera"},
        {"scanned": "camera", "entry_scene": BY_SCHEME},
    ],
)
async def test_a_forwarded_link_is_refused(
    body: Body, entry: str, shop: Site, phone: Phone, make_services: MakeServices, make_client: MakeClient
) -> None:
    client = make_client(await make_services(scan_link="scheme", scan_entry=entry))
    tab = await browser_of(client).show()
    phone.client = make_client(await make_services(scan_link="scheme", scan_entry=entry))
    problem_of(await phone.claim(scene=await pressed(tab), **body), "scan_forwarded", 403)


@pytest.mark.parametrize("entry_scene", [1286, 1065, 1194])
async def test_each_link_outside_wechat_is_accepted(
    entry_scene: int, shop: Site, safari: Browser, phone: Phone
) -> None:
    tab = await safari.show()
    assert (await phone.claim(scene=await pressed(tab), entry_scene=entry_scene)).status_code == 200


@pytest.mark.slow
@swept("entry", ["any", "camera"])
@swept("entry_scene", [1286, 1065, 1194])
async def test_the_scene_of_a_picture_is_refused_in_a_link(
    entry_scene: int, entry: str, shop: Site, phone: Phone, make_services: MakeServices, make_client: MakeClient
) -> None:
    services = await make_services(scan_link="scheme", scan_entry=entry)
    tab, phone.client = await browser_of(make_client(services)).show(), make_client(services)
    problem_of(await phone.claim(scene=tab.scene, entry_scene=entry_scene), "scan_forwarded", 403)
    assert (await phone.claim(scene=tab.scene, entry_scene=CAMERA)).status_code == 200


@pytest.mark.parametrize("role", ["admin", "support"])
async def test_links_are_closed_to_staff(role: str, shop: Site, safari: Browser, phone: Phone, rows: Rows) -> None:
    await set_roles(rows, role)
    tab = await safari.show()
    problem_of(await phone.claim(scene=await pressed(tab), entry_scene=BY_SCHEME), "scan_too_far", 403)


# The number.


async def test_with_form_post_the_number_leads_to_a_page_that_posts_the_code(
    shop: Site, safari: Browser, phone: Phone
) -> None:
    tab = await safari.show(response_mode="form_post")
    page = await type_in(tab, await approved(tab, phone))
    fields = hidden_fields(page)
    assert fields.keys() == {"code", "state", "iss"}
    assert (await exchanged(shop, fields["code"])).status_code == 200


async def test_the_same_code_reads_the_number_again_and_no_other_does(
    shop: Site, safari: Browser, phone: Phone, clock: Clock
) -> None:
    tab = await safari.show()
    claimed = await phone.claim(scene=await pressed(tab), entry_scene=BY_SCHEME)
    code = phone.wx_login()
    first = (await phone.decide(claimed.json()["id"], code=code)).json()
    clock.advance(seconds=50)
    again = (await phone.decide(claimed.json()["id"], code=code)).json()
    assert again == {"number": first["number"], "expires_in": 70}
    problem_of(await phone.decide(claimed.json()["id"]), "scan_over", 404)  # a stolen bearer with another code
    clock.advance(seconds=70)
    problem_of(await phone.decide(claimed.json()["id"], code=code), "scan_over", 404)


async def test_two_approvals_at_once_show_one_number(shop: Site, safari: Browser, phone: Phone) -> None:
    tab = await safari.show()
    claimed = await phone.claim(scene=await pressed(tab), entry_scene=BY_SCHEME)
    code = phone.wx_login()
    answers = await asyncio.gather(*(phone.decide(claimed.json()["id"], code=code) for _ in range(4)))
    good = [answer.json()["number"] for answer in answers if answer.status_code == 200]
    assert good
    assert len(set(good)) == 1
    assert sent(await type_in(tab, good[0]))["code"]


async def test_a_number_is_good_for_two_minutes(shop: Site, safari: Browser, phone: Phone, clock: Clock) -> None:
    tab = await safari.show()
    number = await approved(tab, phone)
    clock.advance(seconds=120)
    for _ in range(4):
        shown_again(await type_in(tab, number))


async def test_before_an_approval_and_without_six_digits_nothing_is_counted(
    shop: Site, safari: Browser, phone: Phone
) -> None:
    tab = await safari.show()
    for _ in range(4):
        shown_again(await type_in(tab, "123456"))
    number = await approved(tab, phone)
    for wrong in ("", "12345", "1234567", "12345a", "１２３４５６"):
        shown_again(await type_in(tab, wrong))
    assert sent(await type_in(tab, number))["code"]


async def test_the_third_wrong_number_ends_the_request(shop: Site, safari: Browser, phone: Phone, clock: Clock) -> None:
    tab = await safari.show()
    number = await approved(tab, phone)
    for by in (1, 2):
        shown_again(await type_in(tab, other(number, by)))
    reported = sent(await type_in(tab, other(number, 3)))
    assert (reported["error"], reported["state"]) == ("access_denied", "s-1")
    assert "code" not in reported
    assert (await type_in(tab, number)).status_code == 404
    assert (await press(tab)).status_code == 404
    assert await tab.state() == "over"


async def test_a_new_link_does_not_give_new_guesses(shop: Site, safari: Browser, phone: Phone) -> None:
    tab = await safari.show()
    for _ in range(2):
        shown_again(await type_in(tab, other(await approved(tab, phone))))
    assert sent(await type_in(tab, other(await approved(tab, phone))))["error"] == "access_denied"


async def test_many_guesses_at_once_over_replicas_are_three(
    shop: Site, safari: Browser, phone: Phone, make_services: MakeServices, make_client: MakeClient
) -> None:
    tab = await safari.show()
    number = await approved(tab, phone)
    replica = make_client(await make_services(scan_link="scheme"))
    replica.cookies.update(safari.client.cookies)
    replica.headers["user-agent"] = SAFARI
    browsers = [safari, Browser(replica)]
    answers = await asyncio.gather(*(type_in(tab, other(number, by), browsers[by % 2]) for by in range(1, 13)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 303] + [404] * 9
    assert (await type_in(tab, number)).status_code == 404


async def test_another_browser_gets_nothing(
    shop: Site, safari: Browser, phone: Phone, make_client: MakeClient, services: Services
) -> None:
    tab = await safari.show()
    number = await approved(tab, phone)
    foreign = browser_of(make_client(services))
    assert (await type_in(tab, number, foreign)).status_code == 404
    await foreign.show()
    assert (await type_in(tab, number, foreign)).status_code == 404
    assert (await press(tab, foreign)).status_code == 404
    assert sent(await type_in(tab, number))["code"]


async def test_the_browser_is_not_told_of_the_approval(shop: Site, safari: Browser, phone: Phone) -> None:
    tab = await safari.show()
    number = await approved(tab, phone)
    assert await tab.state() == "waiting"
    assert (await tab.go_on()).status_code == 404
    page = await type_in(tab, other(number))
    assert number not in page.text


@pytest.mark.parametrize("end", ["ban", "erasure", "sign_out"])
async def test_what_ends_the_phones_session_ends_the_login(
    end: str, shop: Site, safari: Browser, phone: Phone, client: Client, login: LogIn, rows: Rows
) -> None:
    tab = await safari.show()
    number = await approved(tab, phone)
    if end == "ban":
        root: Admin = await make_admin(client, rows, await login("root"))
        await root.change(phone.user_id, status="disabled")
    elif end == "erasure":
        assert (await phone.ask("DELETE", json={"login_code": phone.wx_login()})).status_code == 204
    else:
        assert (await phone.client.post("/v1/logout", json={"refresh_token": phone.tokens["refresh_token"]})).is_success
    assert sent(await type_in(tab, number))["error"] == "access_denied"


async def test_a_number_is_stored_sealed_and_logged_nowhere(
    shop: Site, safari: Browser, phone: Phone, rows: Rows, log_lines: LogLines
) -> None:
    tab = await safari.show()
    number = await approved(tab, phone)
    shown_again(await type_in(tab, other(number)))
    stored: Any = await rows.fetchrow("SELECT * FROM site_logins WHERE door = 'link'")
    assert number.encode() not in stored["number"]
    assert number not in str(log_lines())
    assert number not in str(await rows.fetch("SELECT data FROM events"))


async def test_a_right_number_twice_gives_one_session(shop: Site, safari: Browser, phone: Phone) -> None:
    tab = await safari.show()
    number = await approved(tab, phone)
    first, second = sent(await type_in(tab, number))["code"], sent(await type_in(tab, number))["code"]
    assert (await exchanged(shop, first)).status_code == 400
    assert (await exchanged(shop, second)).status_code == 200
    assert sent(await type_in(tab, number))["error"] == "access_denied"


async def test_two_people_cannot_hold_one_link(shop: Site, safari: Browser, phone: Phone, get_phone: GetPhone) -> None:
    tab = await safari.show()
    scene = await pressed(tab)
    assert (await phone.claim(scene=scene, entry_scene=BY_SCHEME)).status_code == 200
    bob = await get_phone("bob")
    problem_of(await bob.claim(scene=scene, entry_scene=BY_SCHEME), "scan_taken", 409)
