"""Requests of one user to log in to sites wait for each other, but don't delay other users' requests."""

from asyncio import create_task, gather
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from itertools import cycle

import pytest

from tests.sites.browsers import BYE, Ask, House, hidden_fields
from tests.sites.links import approved, browser_of, type_in
from tests.sites.persons import TO_ADMIN, person_page
from tests.world import AddSite, Site, locked, until_locked
from wxauth.limits.concurrency import AT_ONCE, AT_ONCE_OF_USER, MAX_PRESENT

Prepare = Callable[[House], Awaitable[Ask]]


pytestmark = pytest.mark.settings(scan_link="scheme")


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    await add_site("admin", redirect_uris=[TO_ADMIN["redirect_uri"]], sso=True)
    return await add_site(sso=True, link=True, device=True, logout_uris=[BYE])


async def the_page_after_an_approval(house: House) -> Ask:
    tab = await house.browser.show()
    await tab.decided_by(house.phone)
    return tab.go_on


async def the_number_of_a_link(house: House) -> Ask:
    tab = await browser_of(house.browser.client).show()
    number = await approved(tab, house.phone)
    return lambda: type_in(tab, number)


async def the_button_of_a_page_with_a_person(house: House) -> Ask:
    await house.tokens()
    return (await person_page(house.browser)).press


async def a_silent_request(house: House) -> Ask:
    await (await the_button_of_a_page_with_a_person(house))()
    return lambda: house.browser.open(**TO_ADMIN, prompt="none")


async def a_sites_sign_out(house: House) -> Ask:
    hint = (await house.tokens())["id_token"]
    return lambda: house.log_out(id_token_hint=hint)


async def a_confirmed_sign_out(house: House) -> Ask:
    await house.tokens()
    fields = hidden_fields(await house.log_out())
    return lambda: house.browser.client.post("/v1/end_session", data=fields)


async def a_code_again_and_again(house: House) -> Ask:
    code = await house.code(prompt="login")
    return lambda: house.redeem(code)


async def a_device_that_polls(house: House) -> Ask:
    started = await house.approved()
    return lambda: house.shop.poll(started)


def by_turns(asks: Sequence[Ask]) -> Ask:
    following = cycle(asks)
    return lambda: next(following)()


async def three_pages(house: House) -> Ask:
    return by_turns([await the_page_after_an_approval(house) for _ in range(3)])


async def three_codes(house: House) -> Ask:
    return by_turns([await a_code_again_and_again(house) for _ in range(3)])


ANSWERS: dict[Prepare, tuple[int, dict[int, int]]] = {
    the_page_after_an_approval: (AT_ONCE, {303: 40}),
    the_number_of_a_link: (AT_ONCE, {303: 40}),
    the_button_of_a_page_with_a_person: (AT_ONCE, {303: 40}),
    a_silent_request: (AT_ONCE, {303: 40}),
    a_sites_sign_out: (1, {200: 40}),  # requests that end sessions run one after the other
    a_confirmed_sign_out: (1, {200: 40}),
    a_code_again_and_again: (AT_ONCE, {200: 1, 400: 39}),
    a_device_that_polls: (AT_ONCE, {200: 1, 400: 39}),
    three_pages: (AT_ONCE_OF_USER, {303: 40}),  # the limit for a user is higher than the limit for one page or code
    three_codes: (AT_ONCE_OF_USER, {200: 3, 400: 37}),
}
"""The number of the 40 requests that run at once, and the statuses of all 40 responses."""


@pytest.mark.slow
@pytest.mark.parametrize("prepare", ANSWERS)
async def test_forty_requests_of_one_person_leave_transactions_for_others(house: House, prepare: Prepare) -> None:
    bob, ask, (at_once, statuses) = await house.get_phone("bob"), await prepare(house), ANSWERS[prepare]
    async with locked(house.stage.rows, house.phone.user_id):
        waiting = [create_task(ask()) for _ in range(40)]
        await until_locked(house.stage.rows, at_once)
        assert (await bob.ask("PATCH", json={"nickname": "Bob"})).status_code == 200
        assert await house.stage.number("pg_locks WHERE NOT granted") == at_once
    answers = await gather(*waiting)
    assert Counter(answer.status_code for answer in answers) == statuses
    assert not any("error=" in answer.headers.get("location", "") for answer in answers)


@pytest.mark.slow
@pytest.mark.parametrize("prepare", [the_page_after_an_approval, a_sites_sign_out])
async def test_a_request_beyond_those_that_wait_gets_a_page(house: House, prepare: Prepare) -> None:
    ask = await prepare(house)
    async with locked(house.stage.rows, house.phone.user_id):
        waiting = [create_task(ask()) for _ in range(MAX_PRESENT)]
        await until_locked(house.stage.rows, ANSWERS[prepare][0])
        refused = await ask()
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "3")
        assert refused.headers["content-type"].startswith("text/html")
    assert {answer.status_code for answer in await gather(*waiting)} <= {200, 303}
