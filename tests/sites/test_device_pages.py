"""A user brings the link or the login code of a device's login to a browser, which shows the QR code (RFC 8628)."""

import re
from typing import Any

import httpx
import pytest
from jose.jwt import get_unverified_claims

from tests.fakes import OTHER_SECRET_KEY, SECRET_KEY
from tests.problems import problem_of
from tests.sites.browsers import House, found_in, hidden_fields
from tests.sites.links import SAFARI
from tests.sites.street import IN_WECHAT
from tests.world import CAMERA, EDGE, OFFICE, Body, Client, Site, scene_of

CHROME = "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/537.36 Chrome/141.0 Safari/537.36"
PICTURE = r"/v1/scans/([\w-]{22})/code"


async def kube(house: House, **options: Any) -> Site:
    """Add the client of a tool that runs on a user's computer, and that shows no QR code itself."""
    return await house.add_site(
        "kube", title="Cluster", device=True, redirect_uris=["http://localhost:8000"], **options
    )


async def opened(client: Client, url: str, user_agent: str = CHROME) -> httpx.Response:
    return await client.get(url, headers={"User-Agent": user_agent, "Accept-Language": "en"})


async def pressed(client: Client, url: str, page: httpx.Response, user_agent: str = CHROME) -> httpx.Response:
    return await client.post(url, data=hidden_fields(page), headers={"User-Agent": user_agent, "Accept-Language": "en"})


async def typed(client: Client, code: str, **headers: str) -> httpx.Response:
    headers = {"User-Agent": CHROME, "Accept-Language": "en", **headers}
    return await client.post("/d", data={"user_code": code}, headers=headers)


async def test_a_tool_that_opens_the_complete_link_gets_tokens_after_a_press_and_a_scan(house: House) -> None:
    site, browser = await kube(house), house.browser.client
    started = await site.start(scope="openid")
    url, scene = started["verification_uri_complete"], scene_of(started)
    page = await opened(browser, url)
    assert not re.search(PICTURE, page.text)
    for shown in ("Log in to Cluster", "http://localhost:8000", "Program: kube", "Started from the address 127.0.0.1"):
        assert shown in page.text
    assert "Address of this computer" not in page.text  # it is the same
    code_page = await pressed(browser, url, page)
    assert found_in(code_page, PICTURE) == scene
    drawing = await house.stage.make(scan_code="link")
    assert (await drawing.get(f"/v1/scans/{scene}/code")).status_code == 200

    async def state() -> str:
        return (await browser.get(f"/v1/scans/{scene}/state")).json()["state"]

    assert await state() == "waiting"
    claimed = (await house.phone.claim(scene=scene, entry_scene=CAMERA)).json()
    assert (claimed["typed"], claimed["requested_ip"], claimed["browser"]["ip"]) == (False, "127.0.0.1", "127.0.0.1")
    assert await state() == "claimed"
    assert (await house.phone.decide(claimed["id"])).status_code == 204
    assert await state() == "approved"
    tokens = (await site.poll(started)).json()
    assert get_unverified_claims(tokens["id_token"])["amr"] == ["wechat_scan"]
    assert await state() == "approved"
    assert "no longer valid" in (await opened(browser, url)).text


async def test_the_page_and_the_phone_show_what_the_program_says_beside_what_is_true(house: House) -> None:
    started = await house.shop.start(browser_ip=OFFICE, browser_user_agent=EDGE)
    elsewhere = await house.stage.make(trusted_proxies=["127.0.0.1"])
    page = await elsewhere.get(
        started["verification_uri_complete"],
        headers={"User-Agent": CHROME, "Accept-Language": "en", "X-Forwarded-For": "203.0.113.99"},
    )
    for shown in (
        "Started from the address 127.0.0.1",
        "Address of this computer: 203.0.113.99",
        f"According to the program, started on: Windows, Edge 141 · {OFFICE}",
    ):
        assert shown in page.text
    claimed = (await house.phone.scan(started)).json()
    assert (claimed["browser"]["ip"], claimed["requested_ip"]) == (OFFICE, "127.0.0.1")


async def test_nothing_but_a_press_in_this_browser_shows_the_code(house: House) -> None:
    started = await (await kube(house)).start()
    url, browser, other = started["verification_uri_complete"], house.browser.client, house.another_browser().client
    field = hidden_fields(await opened(browser, url))
    strangers = hidden_fields(await opened(other, url))
    another_url = (await house.shop.start())["verification_uri_complete"]
    of_another = hidden_fields(await opened(browser, another_url))
    for form in ({}, strangers, of_another, {"confirmed": ""}, {"confirmed": "\N{PILE OF POO}"}, {"x": "\0"}):
        answer = await browser.post(url, data=form, headers={"User-Agent": CHROME})
        assert (answer.status_code, re.search(PICTURE, answer.text)) == (200, None)
    browser.cookies.clear()  # as of a form that another site posts
    assert not re.search(PICTURE, (await browser.post(url, data=field, headers={"User-Agent": CHROME})).text)
    assert not re.search(PICTURE, (await browser.get(f"{url}?confirmed={field['confirmed']}")).text)


@pytest.mark.parametrize("user_agent", [SAFARI, IN_WECHAT, f"{IN_WECHAT} miniProgram/wx1234567890abcdef"])
async def test_a_phone_never_gets_a_picture_that_it_could_read_from_its_album(house: House, user_agent: str) -> None:
    started = await (await kube(house)).start()
    url, browser = started["verification_uri_complete"], house.browser.client
    page = await opened(browser, url, user_agent)
    assert "Scan this QR code with WeChat" in page.text
    confirmed = hidden_fields(await opened(browser, url))
    shown = await browser.post(url, data=confirmed, headers={"User-Agent": user_agent})
    for each in (page, shown):
        assert not re.search(PICTURE, each.text)
    problem_of(await house.phone.claim(url=url, entry_scene=1012), "scan_forwarded", 403)
    problem_of(await house.phone.claim(url=url, entry_scene=1167), "scan_forwarded", 403)


async def test_the_code_of_a_login_page_is_shown_by_that_page_alone(house: House) -> None:
    tab, victim = await house.browser.show(), house.another_browser().client
    page = await opened(victim, f"/d/{tab.scene}")
    assert "Scan this QR code with WeChat" in page.text
    assert not hidden_fields(page)
    assert (await victim.get(f"/v1/scans/{tab.scene}/state")).json() == {"state": "over"}
    await kube(house, user_code=True)
    user_code = tab.found(r"([B-Z]{4}-[B-Z]{4})")
    assert "Enter this login code in the mini-program" in (await typed(victim, user_code)).text
    assert (await tab.claimed_by(house.phone))["typed"] is False


async def test_a_typed_code_leads_to_the_qr_code_and_the_phone_warns(house: House) -> None:
    site, browser = await kube(house, user_code=True), house.browser.client
    started = await site.start()
    assert 'name="user_code"' in (await opened(browser, started["verification_uri"])).text
    answer = await typed(browser, started["user_code"].lower().replace("-", " "))
    assert (answer.status_code, answer.headers["location"]) == (303, f"/d/{scene_of(started)}?ui_locales=en")
    page = await opened(browser, answer.headers["location"])
    code_page = await pressed(browser, answer.headers["location"], page)
    claimed = (await house.phone.claim(scene=found_in(code_page, PICTURE), entry_scene=CAMERA)).json()
    assert claimed["typed"] is True
    assert (await house.phone.decide(claimed["id"])).status_code == 204
    tokens = (await site.poll(started)).json()
    assert get_unverified_claims(tokens["id_token"])["amr"] == ["wechat_code"]


async def test_the_code_of_a_client_without_the_option_is_explained_and_stays_good(house: House) -> None:
    browser = house.browser.client
    for page in (await opened(browser, "/d"), await opened(browser, "/d", SAFARI)):
        assert "login code there" not in page.text
        assert 'name="user_code"' not in page.text
        assert "--user-code" in page.text  # for the operator
    await kube(house, user_code=True)
    assert "enter the login code there" in (await opened(browser, "/d", SAFARI)).text
    started = await house.shop.start()
    page = await typed(browser, started["user_code"])
    for shown in ("accepts only its QR code", "Site: shop", "--user-code"):
        assert shown in page.text
    detail = problem_of(await house.phone.claim(user_code=started["user_code"]), "scan_forwarded", 403)["detail"]
    assert "--user-code" in detail
    claimed = (await house.phone.scan(started)).json()
    assert claimed["typed"] is False
    assert (await house.phone.decide(claimed["id"])).status_code == 204
    assert (await house.shop.poll(started)).status_code == 200


async def test_a_wrong_or_expired_code_is_asked_for_again_and_guessing_is_limited(house: House) -> None:
    site = await kube(house, user_code=True)
    code = (await site.start())["user_code"]
    house.stage.clock.advance(seconds=180)
    browser = house.browser.client
    for wrong in (code, "BCDF-GHJK", "", "x" * 5000, "\0"):
        page = await typed(browser, wrong)
        assert (page.status_code, "is incorrect or has expired" in page.text) == (200, True)
        assert 'name="user_code"' in page.text
    limited = await house.stage.make(scan_rate_limit="2/minute")
    answers = [await typed(limited, "BCDF-GHJK") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert "Too many attempts" in answers[2].text


async def test_a_typed_code_still_leads_to_its_scene_after_a_rotation_of_the_secret_key(house: House) -> None:
    site = await kube(house, user_code=True)
    started: Body = await site.start()
    rotated = await house.stage.make(secret_key=OTHER_SECRET_KEY, secret_key_previous=[SECRET_KEY])
    assert f"/d/{scene_of(started)}?" in (await typed(rotated, started["user_code"])).headers["location"]


async def test_after_an_erasure_no_address_of_a_device_is_stored(house: House) -> None:
    await house.claimed()
    await house.approved()
    assert await house.stage.number("site_logins WHERE requested_ip IS NOT NULL") == 2
    await house.erase(house.phone)
    assert await house.stage.number("site_logins WHERE requested_ip IS NOT NULL OR browser_ip IS NOT NULL") == 0
