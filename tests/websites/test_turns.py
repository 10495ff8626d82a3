"""One person's requests at the login on sites wait for one another, and nobody else's for them."""

from asyncio import create_task, gather
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import httpx
import pytest

from tests.websites import test_links
from tests.websites.browsers import Browser, exchanged, hidden_fields, tokens_of
from tests.world import AddSite, LogIn, MakeClient, MakeServices, Phone, Rows, Site, bearer, until_locked
from wxauth.server.core.services import Services
from wxauth.server.limits.turns import AT_ONCE, AT_ONCE_OF_PERSON, MAX_PRESENT

Ask = Callable[[], Coroutine[Any, Any, httpx.Response]]
BYE = "https://shop.example.com/bye"


@dataclass(frozen=True, slots=True)
class House:
    """A site, a person, and the browser in which they log in."""

    shop: Site
    browser: Browser
    phone: Phone


Prepare = Callable[[House], Awaitable[Ask]]


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    return await make_services(scan_link="scheme")


@pytest.fixture
async def house(add_site: AddSite, make_client: MakeClient, services: Services, phone: Phone) -> House:
    shop = await add_site(sso=True, link=True, device=True, logout_uris=[BYE])
    return House(shop, Browser(make_client(services)), phone)


async def the_page_after_an_approval(house: House) -> Ask:
    tab = await house.browser.show()
    await tab.decided_by(house.phone)
    return tab.go_on


async def the_number_of_a_link(house: House) -> Ask:
    browser = test_links.browser_of(house.browser.client)
    tab = await browser.show()
    number = await test_links.approved(tab, house.phone)
    return lambda: test_links.type_in(tab, number)


async def a_sites_sign_out(house: House) -> Ask:
    asked = {"id_token_hint": (await tokens_of(house.shop, house.browser, house.phone))["id_token"]}
    return lambda: house.browser.client.get("/v1/end_session", params=asked)


async def a_confirmed_sign_out(house: House) -> Ask:
    await tokens_of(house.shop, house.browser, house.phone)
    fields = hidden_fields(await house.browser.client.get("/v1/end_session"))
    return lambda: house.browser.client.post("/v1/end_session", data=fields)


async def a_code_again_and_again(house: House) -> Ask:
    reported = await (await house.browser.show(prompt="login")).approved_by(house.phone)
    return lambda: exchanged(house.shop, reported["code"])


async def a_device_that_polls(house: House) -> Ask:
    started = await house.shop.start()
    await house.phone.approve(started)
    return lambda: house.shop.poll(started)


def by_turns(asks: Sequence[Ask]) -> Ask:
    following = cycle(asks)
    return lambda: next(following)()


async def three_pages(house: House) -> Ask:
    return by_turns([await the_page_after_an_approval(house) for _ in range(3)])


async def three_codes(house: House) -> Ask:
    return by_turns([await a_code_again_and_again(house) for _ in range(3)])


ANSWERS: dict[Prepare, dict[int, int]] = {
    the_page_after_an_approval: {303: 40},
    the_number_of_a_link: {303: 40},
    a_sites_sign_out: {200: 40},
    a_confirmed_sign_out: {200: 40},
    a_code_again_and_again: {200: 1, 400: 39},
    a_device_that_polls: {200: 1, 400: 39},
    three_pages: {303: 40},
    three_codes: {200: 3, 400: 37},
}
ENDINGS = (a_sites_sign_out, a_confirmed_sign_out)
"""What ends sessions, one after the other."""
OF_SEVERAL = (three_pages, three_codes)
"""What fills a person's line, which is longer than that of one page or code."""


def turns_of(prepare: Prepare) -> int:
    return 1 if prepare in ENDINGS else AT_ONCE_OF_PERSON if prepare in OF_SEVERAL else AT_ONCE


@pytest.mark.slow
@pytest.mark.parametrize("prepare", ANSWERS)
async def test_forty_requests_of_one_person_leave_transactions_for_others(
    house: House, login: LogIn, rows: Rows, prepare: Prepare
) -> None:
    bob, ask, at_once = await login("bob"), await prepare(house), turns_of(prepare)
    async with rows.transaction():
        await rows.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", house.phone.user_id)
        waiting = [create_task(ask()) for _ in range(40)]
        await until_locked(rows, at_once)
        answer = await house.shop.client.patch("/v1/me", json={"nickname": "Bob"}, headers=bearer(bob))
        assert answer.status_code == 200
        assert await rows.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") == at_once
    assert Counter(answer.status_code for answer in await gather(*waiting)) == ANSWERS[prepare]


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [the_page_after_an_approval, a_sites_sign_out])
async def test_a_request_beyond_those_that_wait_gets_a_page(house: House, rows: Rows, prepare: Prepare) -> None:
    ask = await prepare(house)
    async with rows.transaction():
        await rows.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", house.phone.user_id)
        waiting = [create_task(ask()) for _ in range(MAX_PRESENT)]
        await until_locked(rows, turns_of(prepare))
        refused = await ask()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
        assert refused.headers["content-type"].startswith("text/html")
    assert {answer.status_code for answer in await gather(*waiting)} <= {200, 303}
