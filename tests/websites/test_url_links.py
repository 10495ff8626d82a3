"""A phone's browser outside WeChat opens the mini-program by a URL Link that WeChat makes."""

import re
from typing import Any

import pytest

from tests.fakes import Clock
from tests.websites.browsers import Browser
from tests.websites.test_links import browser_of, press
from tests.world import AddSite, LogLines, MakeClient, MakeServices, Rows, Site
from wxauth.server.core.sealing import Sealer
from wxauth.server.core.services import Services
from wxauth.server.dev.wechat import Simulator
from wxauth.server.dev.wechat.controls import FaultRequest
from wxauth.server.housekeeping.housekeeping import sweep
from wxauth.server.service.resealing import forget, reseal

NEW_KEY = b"n" * 32


@pytest.fixture
async def services(make_simulated_services: MakeServices) -> Services:
    return await make_simulated_services(scan_link="url")


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    return await add_site(link=True)


@pytest.fixture
def safari(make_client: MakeClient, services: Services) -> Browser:
    return browser_of(make_client(services))


def made(simulator: Simulator) -> list[dict[str, Any]]:
    return [call.json for call in simulator.calls if call.api == "generate_urllink"]


async def test_one_link_serves_all_logins_of_an_app(
    shop: Site, safari: Browser, simulator: Simulator, rows: Rows
) -> None:
    urls = []
    for _ in range(2):
        tab = await safari.show()
        answer = await press(tab)
        assert answer.status_code == 303, answer.text
        url = re.fullmatch(r"(https://wxaurl\.cn/[\w-]+)\?cq=([\w-]{22})", answer.headers["location"])
        assert url
        urls.append((url[1], url[2]))
    assert (urls[0][0], len({scene for _, scene in urls})) == (urls[1][0], 2)
    assert made(simulator) == [
        {"path": "pages/scan/scan", "expire_type": 1, "expire_interval": 30, "env_version": "release"}
    ]
    assert urls[0][0].encode() not in await rows.fetchval("SELECT sealed FROM url_links")


async def test_the_page_may_lead_to_the_link(shop: Site, safari: Browser) -> None:
    answer = await safari.open()
    assert "form-action 'self' https://wxaurl.cn https://shop.example.com" in answer.headers["content-security-policy"]


async def test_housekeeping_renews_a_link_after_25_days(
    shop: Site, safari: Browser, services: Services, simulator: Simulator, clock: Clock
) -> None:
    await safari.open()
    clock.advance(seconds=25 * 86400 - 1)
    await sweep(services)
    assert len(made(simulator)) == 1
    clock.advance(seconds=1)
    await sweep(services)
    await sweep(services)
    assert len(made(simulator)) == 2


async def test_a_link_is_not_given_after_30_days(
    shop: Site, safari: Browser, simulator: Simulator, clock: Clock
) -> None:
    await safari.open()
    clock.advance(seconds=30 * 86400 - 1)
    await safari.open()
    assert len(made(simulator)) == 1
    clock.advance(seconds=1)
    await safari.open()
    assert len(made(simulator)) == 2


@pytest.mark.parametrize(("errcode", "advice"), [(40002, "SCAN_LINK"), (40165, "SCAN_PAGE"), (85079, "release")])
async def test_without_a_link_there_is_no_button_and_the_log_says_what_to_change(
    errcode: int,
    advice: str,
    shop: Site,
    safari: Browser,
    simulator: Simulator,
    clock: Clock,
    log_lines: LogLines,
) -> None:
    simulator.faults.add(FaultRequest(api="generate_urllink", errcode=errcode))
    assert "/link" not in (await safari.open()).text
    assert "/link" not in (await safari.open()).text
    (line,) = [line for line in log_lines() if line["event"] == "url_link_not_made"]
    assert (line["errcode"], line["level"]) == (errcode, "error")
    assert advice in line["what_to_change"]
    assert len(made(simulator)) == 1
    clock.advance(seconds=60)
    assert "/link" in (await safari.open()).text


async def test_a_link_is_resealed_with_a_new_secret_key(
    shop: Site, safari: Browser, services: Services, simulator: Simulator
) -> None:
    await safari.open()
    former = services.settings.secret_keys[0]
    done = await reseal(services.database, Sealer([NEW_KEY, former]), now=services.clock())
    assert (done.url_links, done.not_opened) == (1, 0)


async def test_a_link_that_only_a_lost_key_opens_is_made_anew(
    shop: Site, safari: Browser, services: Services, simulator: Simulator, rows: Rows
) -> None:
    await safari.open()
    await rows.execute("UPDATE url_links SET sealed = 'sealed by the lost one'")
    done = await forget(services.database, services.sealer, now=services.clock())
    assert done.url_links == 1
    assert "/link" in (await safari.open()).text
    assert len(made(simulator)) == 2
