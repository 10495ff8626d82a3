"""A phone's browser outside WeChat logs in with a link to the mini-program and a number."""

import asyncio
import re
from functools import partial
from typing import Any

import httpx
import pytest

from tests.problems import problem_of
from tests.sites.browsers import Browser, House, Tab, sent
from tests.sites.links import BY_SCHEME, IN_WECHAT, SAFARI, approved, browser_of, claimed, press, pressed, type_in
from tests.sweeps import swept
from tests.world import EDGE, MakeClient, make_admin, set_roles
from wxauth.core.services import Services
from wxauth.limits.concurrency import AT_ONCE_OF_USER

pytestmark = [pytest.mark.settings(scan_link="scheme"), pytest.mark.shop(link=True)]


@pytest.fixture
def browser(make_client: MakeClient, services: Services) -> Browser:
    return browser_of(make_client(services))


@pytest.fixture
async def tab(house: House) -> Tab:
    """The shop's page in the phone's browser."""
    return await house.browser.show()


@pytest.fixture
async def number(tab: Tab, house: House) -> str:
    """The number that the phone shows after the link of that page has been approved."""
    return await approved(tab, house.phone)


def other(number: str, by: int = 1) -> str:
    return f"{(int(number) + by) % 1_000_000:06}"


def shown_again(answer: httpx.Response) -> None:
    assert answer.status_code == 200, answer.text
    assert 'name="number"' in answer.text


# Tests of the flow.


async def test_a_person_logs_in_on_one_phone(house: House, tab: Tab) -> None:
    phone = house.phone
    shown = await claimed(tab, phone)
    assert (shown["link"], shown["typed"]) == (True, False)
    answer = await phone.decide(shown["id"])
    number = answer.json()["number"]
    assert re.fullmatch(r"[0-9]{6}", number)
    assert (answer.status_code, answer.json()) == (200, {"number": number, "expires_in": 120})
    house.stage.clock.advance(seconds=30)
    reported = sent(await type_in(tab, f" {number[:3]}\u3000{number[3:]}\t"))
    claims = await house.claims((await house.redeem(reported["code"])).json())
    assert (claims["sub"], claims["amr"]) == (phone.user_id, ["wechat_link"])
    assert claims["auth_time"] == int(house.stage.clock().timestamp()) - 30
    door = "SELECT data ->> 'door' FROM events WHERE type = 'site.authorized'"
    assert await house.stage.rows.fetchval(door) == "link"


async def test_the_button_comes_first_but_for_a_wrong_number_and_needs_no_script(house: House) -> None:
    answer = await house.browser.open()
    html, tab = answer.text, Tab(house.browser, answer.text)
    assert html.index('/link"><button') < html.index("/number") < html.index("<details>") < html.index('class="typed"')
    missing = (await type_in(tab, "12")).text
    assert missing.index('/link"><button') < missing.index("/number")
    wrong = (await type_in(tab, other(await approved(tab, house.phone)))).text
    assert wrong.index("/number") < wrong.index('/link"><button')


async def test_other_browsers_and_sites_have_no_button_nor_any_while_the_setting_is_off(house: House) -> None:
    for user_agent in (IN_WECHAT, f"{SAFARI} wxwork/4.1.30", EDGE):
        assert "/link" not in (await house.browser.open(headers={"User-Agent": user_agent})).text
    await house.add_site("plain")
    off = browser_of(await house.stage.make(scan_link="off"))
    for tab in (await house.browser.show(client_id="plain"), await off.show()):
        assert "/link" not in tab.html
        assert (await press(tab)).status_code == 404
    trial = browser_of(await house.stage.make(scan_env="trial"))
    assert (await press(await trial.show())).headers["location"].endswith("&env_version=trial")


async def test_a_press_ends_the_link_before_and_two_people_cannot_hold_one(house: House, tab: Tab) -> None:
    bob = await house.get_phone("bob")
    first, second = await pressed(tab), await pressed(tab)
    problem_of(await house.phone.claim(scene=first, entry_scene=BY_SCHEME), "scan_over", 404)
    assert (await house.phone.claim(scene=second, entry_scene=BY_SCHEME)).status_code == 200
    problem_of(await bob.claim(scene=second, entry_scene=BY_SCHEME), "scan_taken", 409)


@pytest.mark.parametrize("former", ["ended", "refused", "coded"])
async def test_the_last_link_counts_where_its_replicas_clock_is_behind(house: House, tab: Tab, former: str) -> None:
    phone = house.phone
    house.stage.clock.advance(seconds=2)
    if former == "ended":
        await pressed(tab)
    elif former == "refused":
        assert (await phone.decide((await claimed(tab, phone))["id"], "deny")).status_code == 204
    else:
        assert sent(await type_in(tab, await approved(tab, phone)))["code"]
    house.stage.clock.advance(seconds=-1)
    assert "code" in sent(await type_in(tab, await approved(tab, phone)))


async def test_a_link_and_the_code_beside_it_are_claimed_and_decided_apart(house: House, tab: Tab) -> None:
    bob = await house.get_phone("bob")
    by_link, by_code = await claimed(tab, house.phone), await tab.claimed_by(bob)
    assert (await house.phone.decide(by_link["id"], "deny")).status_code == 204
    assert await tab.state() == "claimed"
    assert (await bob.decide(by_code["id"])).status_code == 204
    assert sent(await tab.go_on())["code"]
    assert await approved(tab, house.phone)


async def test_a_link_lasts_three_minutes_and_its_request_ten(house: House, tab: Tab) -> None:
    scene = await pressed(tab)
    house.stage.clock.advance(seconds=180)
    problem_of(await house.phone.claim(scene=scene, entry_scene=BY_SCHEME), "scan_over", 404)
    house.stage.clock.advance(seconds=419)
    await pressed(tab)
    house.stage.clock.advance(seconds=1)
    assert (await press(tab)).status_code == 404


async def test_a_refusal_takes_the_browser_back(house: House, tab: Tab) -> None:
    scan_id = (await claimed(tab, house.phone))["id"]
    for _ in range(2):
        assert (await house.phone.decide(scan_id, "deny")).status_code == 204
    problem_of(await house.phone.decide(scan_id), "scan_over", 404)
    assert sent(await type_in(tab, "123456"))["error"] == "access_denied"


# Tests of how the phone opened the link.


async def test_a_link_is_opened_outside_wechat_alone_and_a_picture_by_no_link(house: House, tab: Tab) -> None:
    scene = await pressed(tab)
    problem_of(await house.phone.claim(scene=scene, entry_scene=1167), "scan_forwarded", 403)
    problem_of(await house.phone.claim(scene=tab.scene, entry_scene=BY_SCHEME), "scan_forwarded", 403)
    assert (await house.phone.claim(scene=scene, entry_scene=1194)).status_code == 200


@swept("role", ["admin", "support"])
async def test_links_are_closed_to_staff(house: House, role: str) -> None:
    await set_roles(house.stage.rows, role)
    scene = await pressed(await house.browser.show())
    problem_of(await house.phone.claim(scene=scene, entry_scene=BY_SCHEME), "scan_too_far", 403)
    await set_roles(house.stage.rows)
    link = await claimed(await house.browser.show(), house.phone)
    await set_roles(house.stage.rows, role)
    problem_of(await house.phone.decide(link["id"]), "scan_too_far", 403)


async def test_what_was_approved_before_a_merge_into_staff_opens_nothing(house: House) -> None:
    root = await make_admin(house.stage.client, house.stage.rows, (await house.get_phone("root")).tokens)
    link, scan = await house.browser.show(), await house.another_browser().show()
    number = await approved(link, house.phone)
    await scan.decided_by(house.phone)
    assert (await root.merge(house.phone.user_id, into=root.id)).status_code == 200
    assert sent(await type_in(link, number))["error"] == "access_denied"
    assert sent(await scan.go_on())["error"] == "access_denied"


# Tests of the number.


async def test_the_same_code_reads_the_number_again_and_no_other_does(house: House) -> None:
    phone, code = house.phone, house.phone.wx_login()
    scan_id = (await claimed(await house.browser.show(), phone))["id"]
    first = (await phone.decide(scan_id, code=code)).json()
    house.stage.clock.advance(seconds=50)
    assert (await phone.decide(scan_id, code=code)).json() == {"number": first["number"], "expires_in": 70}
    # A thief with a stolen access token has only another code.
    problem_of(await phone.decide(scan_id), "scan_over", 404)
    house.stage.clock.advance(seconds=70)
    problem_of(await phone.decide(scan_id, code=code), "scan_over", 404)


async def test_two_approvals_at_once_show_one_number(house: House, tab: Tab) -> None:
    code = house.phone.wx_login()
    scan_id = (await claimed(tab, house.phone))["id"]
    answers = await asyncio.gather(*(house.phone.decide(scan_id, code=code) for _ in range(4)))
    [number] = {answer.json()["number"] for answer in answers if answer.status_code == 200}
    assert sent(await type_in(tab, number))["code"]


async def test_before_an_approval_and_without_six_digits_nothing_is_counted_nor_told(house: House, tab: Tab) -> None:
    for _ in range(4):
        shown_again(await type_in(tab, "123456"))
    number = await approved(tab, house.phone)
    assert (await tab.state(), (await tab.go_on()).status_code) == ("waiting", 404)
    for wrong in ("", "12345", "1234567", "12345a", "１２３４５６"):
        shown_again(await type_in(tab, wrong))
    assert number not in (await type_in(tab, other(number))).text
    assert sent(await type_in(tab, number))["code"]


@pytest.mark.own_database
async def test_before_an_approval_nobody_waits_for_the_numbers_of_others(house: House) -> None:
    tabs = [await browser_of(house.another_browser().client).show() for _ in range(AT_ONCE_OF_USER + 1)]
    for tab in tabs:
        await pressed(tab)
    typing: dict[str, Any] = {tab.request_id: partial(type_in, tab, "123456") for tab in tabs}
    for answer in (await house.at_once("site_logins", **typing)).values():
        shown_again(answer)


async def test_the_third_wrong_number_ends_the_request(house: House, tab: Tab, number: str) -> None:
    for by in (1, 2):
        shown_again(await type_in(tab, other(number, by)))
    reported = sent(await type_in(tab, other(number, 3)))
    assert (reported["error"], reported["state"], "code" in reported) == ("access_denied", "s-1", False)
    assert (await type_in(tab, number)).status_code == (await press(tab)).status_code == 404
    assert await tab.state() == "over"


async def test_a_new_link_does_not_give_new_guesses(house: House, tab: Tab) -> None:
    for _ in range(2):
        shown_again(await type_in(tab, other(await approved(tab, house.phone))))
    assert sent(await type_in(tab, other(await approved(tab, house.phone))))["error"] == "access_denied"


async def test_many_guesses_at_once_over_replicas_are_three(house: House, tab: Tab, number: str) -> None:
    browsers = [house.browser, await house.replicas_browser(scan_link="scheme")]
    answers = await asyncio.gather(*(type_in(tab, other(number, by), browsers[by % 2]) for by in range(1, 13)))
    assert sorted(answer.status_code for answer in answers) == [200, 200, 303] + [404] * 9
    assert (await type_in(tab, number)).status_code == 404


async def test_another_browser_gets_nothing(house: House, tab: Tab, number: str) -> None:
    stranger, with_cookie = house.another_browser(), house.another_browser()
    await with_cookie.show()
    for browser in (stranger, with_cookie):
        assert (await type_in(tab, number, browser)).status_code == 404
        assert (await press(tab, browser)).status_code == 404
    assert sent(await type_in(tab, number))["code"]


@pytest.mark.parametrize("end", [House.ban, House.erase, House.sign_out_phone])
async def test_what_ends_the_phones_session_ends_the_login(house: House, tab: Tab, number: str, end: Any) -> None:
    await end(house)
    assert sent(await type_in(tab, number))["error"] == "access_denied"


@pytest.mark.requirement("asvs-6.5.2", "asvs-6.5.5")
async def test_a_number_is_stored_sealed_logged_nowhere_and_good_for_two_minutes(
    house: House, tab: Tab, number: str
) -> None:
    shown_again(await type_in(tab, other(number)))
    sealed = await house.stage.rows.fetchval("SELECT number FROM site_logins WHERE door = 'link'")
    assert number.encode() not in sealed
    assert number not in f"{house.stage.log_lines()} {await house.stage.rows.fetch('SELECT data FROM events')}"
    house.stage.clock.advance(seconds=120)
    for _ in range(4):
        shown_again(await type_in(tab, number))


@pytest.mark.requirement("asvs-6.5.1")
async def test_a_right_number_twice_gives_one_session(house: House, tab: Tab, number: str) -> None:
    first, second = sent(await type_in(tab, number))["code"], sent(await type_in(tab, number))["code"]
    assert [(await house.redeem(code)).status_code for code in (first, second)] == [400, 200]
    assert sent(await type_in(tab, number))["error"] == "access_denied"
