"""A site names a person by `id_token_hint`: nobody else is logged in, by whatever door (Core, section 3.1.2.2)."""

from collections.abc import Awaitable, Callable

import pytest

from tests.clock import Clock
from tests.websites import browsers, test_web_view, test_wechats_pages
from tests.websites.browsers import exchanged, sent, tokens_of
from tests.websites.test_wechats_pages import PAGE, GetBrowser
from tests.websites.test_wechats_pages import get_browser as get_browser  # fixtures
from tests.websites.test_wechats_pages import make_services as make_services
from tests.websites.test_wechats_pages import services as services
from tests.websites.test_wechats_pages import simulator as simulator
from tests.world import CALLBACK, CAMERA, AddSite, Phone, Rows, Site, leave, log_in, make_admin

Reported = dict[str, str]
"""The parameters that the site is sent."""
LogInWithHint = Callable[[Phone, GetBrowser, str], Awaitable[Reported]]


@pytest.fixture
async def shop(add_site: AddSite) -> Site:
    apps = {"account_app_id": PAGE, "website_app_id": test_wechats_pages.COMPUTER}
    return await add_site(redirect_uris=[CALLBACK], sso=True, **apps)


async def phone_of(shop: Site, person: str = "alice") -> Phone:
    return Phone(shop.client, await log_in(shop.client, person), lambda: person)


def browser(get_browser: GetBrowser) -> browsers.Browser:
    return browsers.Browser(get_browser("website").client)


async def by_a_scan(phone: Phone, get_browser: GetBrowser, hint: str) -> Reported:
    return await (await browser(get_browser).show(id_token_hint=hint)).approved_by(phone)


async def by_a_typed_code(phone: Phone, get_browser: GetBrowser, hint: str) -> Reported:
    tab = await browser(get_browser).show(id_token_hint=hint)
    claimed = await phone.claim(user_code=tab.found(r"([B-Z]{4}-[B-Z]{4})"))
    assert (await phone.decide(claimed.json()["id"])).status_code == 204
    return sent(await tab.go_on())


async def by_the_mini_program(phone: Phone, _: GetBrowser, hint: str) -> Reported:
    return test_web_view.redirect_parameters(await test_web_view.answer(phone, id_token_hint=hint))


async def by_the_account(phone: Phone, get_browser: GetBrowser, hint: str) -> Reported:
    location = await get_browser("account", phone.wx_login()).log_in(id_token_hint=hint)
    return test_wechats_pages.redirect_parameters(location)


async def by_the_website_app(phone: Phone, get_browser: GetBrowser, hint: str) -> Reported:
    location = await get_browser("website", phone.wx_login()).log_in(id_token_hint=hint)
    return test_wechats_pages.redirect_parameters(location)


async def by_the_browsers_login(phone: Phone, get_browser: GetBrowser, hint: str) -> Reported:
    held = browser(get_browser)
    await (await held.show()).approved_by(phone)
    return sent(await held.open(prompt="none", id_token_hint=hint))


DOORS = [
    by_a_scan,
    by_a_typed_code,
    by_the_mini_program,
    by_the_account,
    by_the_website_app,
    by_the_browsers_login,
]
each_door = pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)


@pytest.mark.slow
@each_door
async def test_the_person_of_the_hint_is_logged_in_and_nobody_else(
    shop: Site, get_browser: GetBrowser, rows: Rows, clock: Clock, door: LogInWithHint
) -> None:
    alice, bob = await phone_of(shop), await phone_of(shop, "bob")
    hint = (await tokens_of(shop, browser(get_browser), alice))["id_token"]
    clock.advance(hours=2)  # an expired hint is good, too
    alice = await phone_of(shop)
    reported = await door(alice, get_browser, hint)
    assert (await exchanged(shop, reported["code"])).status_code == 200
    bob = await phone_of(shop, "bob")
    reported = await door(bob, get_browser, hint)
    assert (reported["error"], "code" in reported) == ("login_required", False)
    of_bob = "SELECT count(*) FROM sessions WHERE client_id = 'shop' AND user_id = $1::text::uuid"
    assert await rows.fetchval(of_bob, bob.user_id) == 0


async def test_a_hint_of_a_former_id_names_who_remains(shop: Site, get_browser: GetBrowser, rows: Rows) -> None:
    root = await make_admin(shop.client, rows, await log_in(shop.client, "root"))
    alice, bob = await phone_of(shop), await phone_of(shop, "bob")
    hint = (await tokens_of(shop, browser(get_browser), bob))["id_token"]
    assert (await root.merge(bob.user_id, into=alice.user_id)).status_code == 200
    reported = await by_a_scan(await phone_of(shop), get_browser, hint)
    assert "code" in reported


async def test_an_erasure_leaves_neither_the_hint_nor_the_address_of_a_login_that_was_not_approved(
    shop: Site, get_browser: GetBrowser, rows: Rows
) -> None:
    alice, bob = await phone_of(shop), await phone_of(shop, "bob")
    hint = (await tokens_of(shop, browser(get_browser), alice))["id_token"]
    for person, verdict in ((alice, "deny"), (alice, None), (bob, "deny")):
        tab = await browser(get_browser).show()
        claimed = await person.claim(scene=tab.scene, entry_scene=CAMERA)
        if verdict is not None:
            assert (await person.decide(claimed.json()["id"], verdict)).status_code == 204
    await browser(get_browser).show(id_token_hint=hint)
    assert (await leave(shop.client, alice.tokens)).status_code == 204
    of_bob = "claimed_session_id IN (SELECT id FROM sessions WHERE user_id = $1::text::uuid)"
    left = f"SELECT array_agg({of_bob}) FROM site_logins WHERE num_nonnulls(hinted_user_id, browser_ip) > 0"
    assert await rows.fetchval(left, bob.user_id) == [True]


@pytest.mark.parametrize("wrong", ["nonsense", "access", "another client"])
async def test_what_is_no_id_token_for_this_client_is_refused_at_once(
    shop: Site, add_site: AddSite, get_browser: GetBrowser, wrong: str
) -> None:
    alice = await phone_of(shop)
    hint = "a.b.c"
    if wrong == "access":
        hint = alice.tokens["access_token"]
    elif wrong == "another client":
        other = await add_site("other")
        named = {"client_id": "other"}
        reported = await (await browser(get_browser).show(**named)).approved_by(alice)
        hint = (await exchanged(other, reported["code"])).json()["id_token"]
    reported = sent(await browser(get_browser).open(id_token_hint=hint))
    assert reported["error"] == "login_required"
    assert "error" in await by_the_mini_program(alice, get_browser, hint)
