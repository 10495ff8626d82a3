"""What a person has granted a site ends with the person's sessions, by whatever door the site was to be entered."""

from asyncio import Task, create_task
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import httpx
import pytest

from tests.sweeps import Sweep
from tests.websites import browsers, test_web_view, test_wechats_pages
from tests.websites.browsers import exchanged, refused
from tests.websites.test_wechats_pages import PAGE, GetBrowser, redirect_parameters
from tests.websites.test_wechats_pages import get_browser as get_browser  # fixtures
from tests.websites.test_wechats_pages import make_services as make_services
from tests.websites.test_wechats_pages import services as services
from tests.websites.test_wechats_pages import simulator as simulator
from tests.world import CALLBACK, AddSite, Admin, Phone, Rows, Site, bearer, log_in, make_admin, until_locked
from wxauth.server.dev.wechat.controls import openid_of

Redeem = Callable[[], Coroutine[Any, Any, httpx.Response]]
"""Has the site, or the browser on its way there, redeem what was granted."""


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    apps = {"account_app_id": PAGE, "website_app_id": test_wechats_pages.COMPUTER}
    return await add_site(device=True, redirect_uris=[CALLBACK], **apps)


async def phone_of(shop: Site, person: str = "alice") -> Phone:
    return Phone(shop.client, await log_in(shop.client, person), lambda: person)


async def by_a_device(shop: Site, phone: Phone, _: GetBrowser) -> Redeem:
    started = await shop.start()
    await phone.approve(started)
    return lambda: shop.poll(started)


async def tab_of(get_browser: GetBrowser) -> browsers.Tab:
    return await browsers.Browser(get_browser("website").client).show()


async def by_a_page_that_has_not_gone_on(_: Site, phone: Phone, get_browser: GetBrowser) -> Redeem:
    tab = await tab_of(get_browser)
    await tab.decided_by(phone)
    return tab.go_on


async def by_a_page(shop: Site, phone: Phone, get_browser: GetBrowser) -> Redeem:
    code = (await (await tab_of(get_browser)).approved_by(phone))["code"]
    return lambda: exchanged(shop, code)


async def by_a_typed_code(shop: Site, phone: Phone, get_browser: GetBrowser) -> Redeem:
    tab = await tab_of(get_browser)
    claimed = await phone.claim(user_code=tab.found(r"([B-Z]{4}-[B-Z]{4})"))
    assert (await phone.decide(claimed.json()["id"])).status_code == 204
    code = browsers.sent(await tab.go_on())["code"]
    return lambda: exchanged(shop, code)


async def by_the_mini_program(shop: Site, phone: Phone, _: GetBrowser) -> Redeem:
    code = await test_web_view.code_of(phone)
    return lambda: exchanged(shop, code)


async def by_the_account(shop: Site, _: Phone, get_browser: GetBrowser) -> Redeem:
    code = redirect_parameters(await get_browser("account").log_in())["code"]
    return lambda: exchanged(shop, code)


async def by_the_website_app(shop: Site, _: Phone, get_browser: GetBrowser) -> Redeem:
    code = redirect_parameters(await get_browser("website").log_in())["code"]
    return lambda: exchanged(shop, code)


DOORS = (
    by_a_device,
    by_a_page_that_has_not_gone_on,
    by_a_page,
    by_a_typed_code,
    by_the_mini_program,
    by_the_account,
    by_the_website_app,
)


async def sign_out_elsewhere(phone: Phone, _: Admin) -> None:
    assert (await phone.ask("DELETE", "/sessions")).status_code == 204
    assert (await phone.ask("GET")).status_code == 200, "this session stays"


async def be_signed_out(phone: Phone, root: Admin) -> None:
    assert (await root.ask("DELETE", f"/users/{phone.user_id}/sessions")).status_code == 204


async def be_banned_and_unbanned(phone: Phone, root: Admin) -> None:
    for status in ("disabled", "active"):
        await root.change(phone.user_id, status=status)


@pytest.mark.slow
@pytest.mark.parametrize("act", [sign_out_elsewhere, be_signed_out, be_banned_and_unbanned])
async def test_no_door_is_left_open_when_all_sessions_of_a_user_end(
    shop: Site, get_browser: GetBrowser, rows: Rows, act: Callable[[Phone, Admin], Awaitable[None]]
) -> None:
    root = await make_admin(shop.client, rows, await log_in(shop.client, "root"))
    with Sweep() as doors:
        for door in DOORS:
            with doors.case(door.__name__):
                phone = await phone_of(shop)
                redeem = await door(shop, phone, get_browser)
                await act(phone, root)
                answer = await redeem()
                if door is by_a_page_that_has_not_gone_on:
                    assert browsers.sent(answer)["error"] == "access_denied"
                else:
                    refused(answer, "access_denied" if door is by_a_device else "invalid_grant")
                assert await rows.fetchval("SELECT count(*) FROM sessions WHERE client_id IS NOT NULL") == 0


@pytest.mark.slow
async def test_a_person_who_is_signed_out_everywhere_may_log_in_to_the_site_again_by_each_door(
    shop: Site, get_browser: GetBrowser
) -> None:
    phone = await phone_of(shop)
    for door in DOORS:
        if door is not by_a_page_that_has_not_gone_on:
            await phone.ask("DELETE", "/sessions")
            answer = await (await door(shop, phone, get_browser))()
            assert answer.status_code == 200, (door.__name__, answer.text)


@pytest.mark.oldest_postgres
async def test_what_a_split_off_identity_has_granted_ends_and_the_rest_stays(
    shop: Site, get_browser: GetBrowser, rows: Rows
) -> None:
    root = await make_admin(shop.client, rows, await log_in(shop.client, "root"))
    alice, bob = await phone_of(shop), await phone_of(shop, "bob")
    assert (await root.merge(bob.user_id, into=alice.user_id)).status_code == 200
    of_alice = await by_the_website_app(shop, alice, get_browser)
    of_bob = redirect_parameters(await get_browser(person="bob").log_in())["code"]
    split = {"app_id": PAGE, "openid": openid_of("bob", PAGE)}
    answer = await root.ask("POST", f"/users/{alice.user_id}/split", json=split)
    assert answer.status_code == 200, answer.text
    assert (await of_alice()).status_code == 200
    refused(await exchanged(shop, of_bob), "invalid_grant")


@pytest.mark.slow
@pytest.mark.own_database
@pytest.mark.parametrize("first", ["sign-out", "exchange"])
@pytest.mark.parametrize("path", ["/v1/me/sessions", "/v1/me"])
async def test_of_a_sign_out_and_an_exchange_at_once_no_session_is_left(
    shop: Site, get_browser: GetBrowser, rows: Rows, path: str, first: str
) -> None:
    phone = await phone_of(shop)
    redeem = await by_the_account(shop, phone, get_browser)
    proof = {"login_code": phone.wx_login()} if path == "/v1/me" else None
    steps: dict[str, Redeem] = {
        "sign-out": lambda: shop.client.request("DELETE", path, json=proof, headers=bearer(phone.tokens)),
        "exchange": redeem,
    }
    async with rows.transaction():
        await rows.execute("SELECT FROM users FOR UPDATE")
        tasks: dict[str, Task[httpx.Response]] = {}
        for number, name in enumerate(sorted(steps, key=lambda name: name != first)):
            tasks[name] = create_task(steps[name]())
            await until_locked(rows, number + 1)
    assert (await tasks["sign-out"]).status_code == 204
    if path == "/v1/me":  # the proof is read before the user is locked, so the exchange may overtake the erasure
        assert (await tasks["exchange"]).status_code in (200, 400)
    else:
        assert (await tasks["exchange"]).status_code == (400 if first == "sign-out" else 200)
    open_ones = "SELECT count(*) FROM sessions WHERE client_id IS NOT NULL AND revoked_at IS NULL"
    assert await rows.fetchval(open_ones) == 0
