"""A phone's browser outside WeChat opens the mini-program by a URL Link that WeChat makes."""

import re

import pytest

from tests.websites.test_links import SAFARI, press
from tests.websites.towns import Town
from tests.websites.towns import get_phone as get_phone  # fixtures
from tests.websites.towns import login as login
from tests.websites.towns import town as town
from tests.world import AddSite, Body, MakeServices, Site
from wxauth.server.core.sealing import Sealer
from wxauth.server.core.services import Services
from wxauth.server.dev.wechat.controls import FaultRequest
from wxauth.server.service.resealing import forget, reseal

DAY = 86400


@pytest.fixture
async def services(make_simulated_services: MakeServices) -> Services:
    return await make_simulated_services(scan_link="url")


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    return await add_site(link=True)


async def has_button(town: Town) -> bool:
    """Whether the page has a button that leads to the link, which WeChat is asked for."""
    return "/link" in (await town.browser.open(headers={"User-Agent": SAFARI})).text


def made(town: Town) -> list[Body]:
    return [call.json for call in town.simulator.calls if call.api == "generate_urllink"]


async def test_one_link_serves_all_logins_of_an_app(town: Town) -> None:
    urls, town.browser.client.headers["User-Agent"] = [], SAFARI
    for _ in range(2):
        answer = await press(await town.browser.show())
        assert answer.status_code == 303, answer.text
        url = re.fullmatch(r"(https://wxaurl\.cn/[\w-]+)\?cq=([\w-]{22})", answer.headers["location"])
        assert url
        urls.append((url[1], url[2]))
    assert (urls[0][0], urls[0][1] == urls[1][1]) == (urls[1][0], False)
    asked = {"path": "pages/scan/scan", "expire_type": 1, "expire_interval": 30, "env_version": "release"}
    assert made(town) == [asked]
    assert urls[0][0].encode() not in await town.rows.fetchval("SELECT sealed FROM url_links")
    policy = (await town.browser.open()).headers["content-security-policy"]
    assert "form-action 'self' https://wxaurl.cn https://shop.example.com" in policy


async def test_housekeeping_renews_a_link_after_25_days(town: Town) -> None:
    await has_button(town)
    for after, number in ((25 * DAY - 1, 1), (1, 2), (0, 2)):
        await town.sweep(after=after)
        assert len(made(town)) == number


async def test_a_link_is_not_given_after_30_days(town: Town) -> None:
    for after, number in ((0, 1), (30 * DAY - 1, 1), (1, 2)):
        town.clock.advance(seconds=after)
        assert await has_button(town)
        assert len(made(town)) == number


@pytest.mark.parametrize(("errcode", "advice"), [(40002, "SCAN_LINK"), (40165, "SCAN_PAGE"), (85079, "release")])
async def test_without_a_link_there_is_no_button_and_the_log_says_what_to_change(
    town: Town, errcode: int, advice: str
) -> None:
    town.simulator.faults.append(FaultRequest(api="generate_urllink", errcode=errcode))
    assert [await has_button(town) for _ in range(2)] == [False, False]
    (line,) = [line for line in town.log_lines() if line["event"] == "url_link_not_made"]
    assert (line["errcode"], line["level"], advice in line["what_to_change"]) == (errcode, "error", True)
    assert len(made(town)) == 1
    town.clock.advance(seconds=60)
    assert await has_button(town)


async def test_a_link_is_resealed_with_a_new_secret_key_and_made_anew_if_only_a_lost_one_opens_it(town: Town) -> None:
    await has_button(town)
    database, now = town.services.database, town.clock()
    done = await reseal(database, Sealer([b"n" * 32, town.services.settings.secret_keys[0]]), now=now)
    assert (done.url_links, done.not_opened) == (1, 0)
    await town.rows.execute("UPDATE url_links SET sealed = 'sealed by the lost one'")
    assert (await forget(database, town.services.sealer, now=now)).url_links == 1
    assert await has_button(town)
    assert len(made(town)) == 2
