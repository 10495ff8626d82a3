"""If the database's clock is wrong for a time, no request fails with 500, and nobody stays locked out."""

import re
from collections.abc import AsyncGenerator
from datetime import timedelta
from typing import Any

import pytest

from tests.console.asking import ASKED_BY_THE_PAGE, SESSION, extend_session
from tests.sites.browsers import BYE, sent
from tests.sites.links import BY_SCHEME, press, type_in
from tests.sites.persons import ADMIN_CALLBACK, code_in, person_page
from tests.sites.street import COMPUTER, PAGE, Street
from tests.world import AddSite, Phone, Site, bearer, body_of, leave, set_roles
from wxauth.console.links import make_link
from wxauth.housekeeping.housekeeping import sweep
from wxauth.keys.keyring import KeyRing

pytestmark = [pytest.mark.slow, pytest.mark.settings(scan_link="scheme", admin_page=True)]

Way = AsyncGenerator[None]
"""A generator that sends a user's requests in order. A test can set the clock between any two requests."""
NO_TIME = timedelta(0)
MONTH = timedelta(days=31)


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    apps = {"account_app_id": PAGE, "website_app_id": COMPUTER}
    await add_site("admin", redirect_uris=[ADMIN_CALLBACK], sso=True)
    return await add_site(device=True, logout_uris=[BYE], link=True, sso=True, **apps)


async def in_the_mini_program(street: Street) -> Way:
    stage = street.stage
    tokens = await stage.login("bob", nickname="Bob")
    yield
    for _ in range(2):
        tokens = body_of(await stage.refresh(tokens))
        yield
    for method, path, body in [
        ("PATCH", "", {"nickname": "Robert"}),
        ("POST", "/phone", {"code": stage.phone_code("bob")}),
        ("GET", "/sessions", None),
    ]:
        assert (await Phone(stage.client, tokens).ask(method, path, json=body)).is_success
        yield
    assert (await leave(stage.client, tokens)).status_code == 204


async def at_a_site(street: Street) -> Way:
    tab = await street.browser.show()
    yield
    shown = await tab.claimed_by(street.phone)
    yield
    assert (await street.phone.decide(shown["id"])).status_code == 204
    yield
    code = sent(await tab.go_on())["code"]
    async for _ in redeemed(street, code):
        yield
    page = await person_page(street.browser)
    yield
    assert code_in(await page.press())


async def redeemed(street: Street, code: str) -> Way:
    yield
    tokens = body_of(await street.redeem(code))
    yield
    for _ in range(2):
        tokens = body_of(await street.shop.refresh(tokens))
        yield
    assert (await street.redeem(code)).status_code == 400
    yield


async def at_a_device(street: Street) -> Way:
    started = await street.shop.start()
    yield
    assert (await street.shop.poll(started)).json()["error"] == "authorization_pending"
    yield
    shown = body_of(await street.phone.scan(started))
    yield
    assert (await street.phone.decide(shown["id"])).status_code == 204
    yield
    tokens = body_of(await street.shop.poll(started))
    yield
    assert body_of(await street.shop.refresh(tokens))


async def by_a_link(street: Street) -> Way:
    tab = await street.browser.show()
    yield
    await press(tab)
    yield
    (scene,) = re.findall(r"s%3D([\w-]{22})", (await press(tab)).headers["location"])
    yield
    shown = body_of(await street.phone.claim(scene=scene, entry_scene=BY_SCHEME))
    yield
    number = body_of(await street.phone.decide(shown["id"]))["number"]
    yield
    async for _ in redeemed(street, sent(await type_in(tab, number))["code"]):
        yield


async def at_wechats_page(street: Street, door: str) -> Way:
    visitor = street.visitor(door)
    button = await visitor.open()
    yield
    await visitor.press(button)
    yield
    callback = await visitor.callback(button)
    yield
    onward = await visitor.come_back(callback)
    yield
    await visitor.come_back(callback)
    async for _ in redeemed(street, sent(onward)["code"]):
        yield


async def in_the_console(street: Street) -> Way:
    await set_roles(street.stage.rows, "admin", user_id=street.phone.user_id)
    browser, change = street.another_browser().client, f"/v1/admin/users/{street.phone.user_id}"
    link = await make_link(street.stage.services.database, None, now=street.stage.clock())
    yield
    opened = await browser.post(SESSION, json={"secret": link.secret}, headers=ASKED_BY_THE_PAGE)
    yield
    for role in ("editor", "author"):
        roles = {"roles": ["admin", role]}
        assert (await browser.patch(change, json=roles, headers=bearer(body_of(opened)))).is_success
        yield
        opened = await extend_session(browser)
        yield


WAYS: dict[str, Any] = {
    "in the mini-program": in_the_mini_program,
    "at a site": at_a_site,
    "at a device": at_a_device,
    "by a link": by_a_link,
    "account": lambda street: at_wechats_page(street, "account"),
    "website": lambda street: at_wechats_page(street, "website"),
    "in the console": in_the_console,
}


def faults(street: Street) -> list[Any]:
    """Return the log lines about wxauth's own failures."""
    lines = street.stage.log_lines()
    return [line for line in lines if "exception" in line or line["event"] in ("request_failed", "visit_failed")]


async def go(street: Street, way: str, *, begin: int = -1, end: int = -1, step: timedelta = NO_TIME) -> int:
    """Go through all steps, or until a request is refused, and return the number of steps.

    The clock is set before step `begin`, and is right again before step `end`.
    """
    street.browser, number, clock = street.another_browser(), 0, street.stage.clock
    right = clock.now
    street.phone.tokens = await street.stage.login("alice")

    async def reach(number: int) -> None:
        if number in (begin, end):
            clock.now = right + step if number == begin else right
            await sweep(street.stage.services, pause=0)
            await street.stage.services[KeyRing].refresh()

    try:
        await reach(0)
        async for _ in WAYS[way](street):
            number += 1
            await reach(number)
    except (AssertionError, LookupError, ValueError):  # a wrong clock may make wxauth refuse a request
        if not step:
            raise
    clock.now = right
    await street.stage.services[KeyRing].refresh()
    return number


@pytest.mark.parametrize("way", WAYS)
async def test_no_request_fails_wherever_the_clock_is_set(street: Street, way: str) -> None:
    """The clock is ahead during one request, or goes back at one request, as if it had been ahead until then."""
    steps = await go(street, way)
    for at in range(steps):
        await go(street, way, begin=at, end=at + 1, step=MONTH)
        await go(street, way, begin=at, step=-MONTH)
        assert [f"{line.get('error')}: {line}" for line in faults(street)] == [], at
