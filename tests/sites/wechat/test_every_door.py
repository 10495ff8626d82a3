"""Rules that apply to every way of logging in to a site.

For example, they define which user is named, and that a grant ends with the sessions.
"""

from collections.abc import Awaitable, Callable
from functools import partial

import httpx
import pytest

from tests.sites.browsers import Ask, hidden_fields, refused, sent
from tests.sites.street import (
    PAGE,
    Street,
    by_a_scan,
    by_a_typed_code,
    by_the_account,
    by_the_browsers_login,
    by_the_mini_program,
    by_the_website_app,
)
from tests.sweeps import Sweep
from tests.world import Admin, Phone, bearer, body_of
from wxauth_desk.wechat.people import openid_of

Act = Callable[[Street, Admin], Awaitable[None]]
Door = Callable[..., Awaitable[httpx.Response]]
WITH_PROOF: tuple[Door, ...] = (by_a_scan, by_a_typed_code, by_the_mini_program, by_the_account, by_the_website_app)


@pytest.mark.parametrize("door", [by_a_scan, by_the_account, by_the_website_app, by_the_browsers_login])
async def test_with_form_post_a_page_posts_the_code(street: Street, door: Door) -> None:
    await street.change(sso=True)
    page = await door(street, street.phone, response_mode="form_post")
    assert page.headers["cache-control"] == "no-store"
    fields = hidden_fields(page)
    assert fields.keys() == {"code", "state", "iss"}
    assert (await street.redeem(fields["code"])).status_code == 200


# A site names a user with `id_token_hint`, and no other user is logged in (OpenID Connect Core, section 3.1.2.2).


@pytest.mark.slow
@pytest.mark.parametrize("door", [*WITH_PROOF, by_the_browsers_login])
async def test_the_person_of_the_hint_is_logged_in_and_nobody_else(street: Street, door: Door) -> None:
    await street.change(sso=True)
    hint = (await street.tokens())["id_token"]
    street.stage.clock.advance(hours=2)  # an expired hint is still valid
    answer = await door(street, await street.get_phone("alice"), id_token_hint=hint)
    assert (await street.redeem(sent(answer)["code"])).status_code == 200
    bob = await street.get_phone("bob")
    reported = sent(await door(street, bob, id_token_hint=hint))
    assert (reported["error"], "code" in reported) == ("login_required", False)
    assert await street.stage.number("sessions WHERE client_id = 'shop' AND user_id = $1::text::uuid", bob.user_id) == 0


async def test_a_hint_of_a_former_id_names_who_remains(street: Street, root: Admin) -> None:
    alice, bob = street.phone, await street.get_phone("bob")
    hint = (await street.tokens(bob))["id_token"]
    before = await street.browser.show(id_token_hint=hint)
    assert (await root.merge(bob.user_id, into=alice.user_id)).status_code == 200
    for tab in (before, await street.browser.show(id_token_hint=hint)):
        assert "code" in await tab.approved_by(alice)


async def test_an_erasure_leaves_neither_hint_nor_address_of_a_login_that_was_not_approved(street: Street) -> None:
    alice, bob = street.phone, await street.get_phone("bob")
    hint = (await street.tokens())["id_token"]
    for person, verdict in ((alice, "deny"), (alice, None), (bob, "deny")):
        claimed = await (await street.browser.show()).claimed_by(person)
        if verdict is not None:
            assert (await person.decide(claimed["id"], verdict)).status_code == 204
    await street.browser.show(id_token_hint=hint)
    await street.erase()
    of_bob = "claimed_session_id IN (SELECT id FROM sessions WHERE user_id = $1::text::uuid)"
    left = f"SELECT array_agg({of_bob}) FROM site_logins WHERE num_nonnulls(hinted_user_id, browser_ip) > 0"
    assert await street.stage.rows.fetchval(left, bob.user_id) == [True]


@pytest.mark.own_database
@pytest.mark.settings(scan_link="scheme")
async def test_an_erasure_that_meets_a_press_locks_the_page_before_the_link(street: Street) -> None:
    await street.change(link=True)
    visitor, hint = street.visitor("website"), (await street.tokens())["id_token"]
    button = await visitor.open(id_token_hint=hint)
    press = partial(visitor.client.post, button.replace("/wechat", "/link"))
    await press()
    await visitor.press(button)  # this request stores the page's row again, after the link's row
    done = await street.at_once("site_logins WHERE door = 'link'", erase=street.erase, press=press)
    assert done["press"].status_code == 404
    assert await street.stage.number("site_logins") == 0


async def test_what_is_no_id_token_for_this_client_is_refused_at_once(street: Street) -> None:
    others = await street.tokens(site=await street.add_site("other"), client_id="other")
    for hint in ("a.b.c", street.phone.tokens["access_token"], others["id_token"]):
        assert sent(await street.browser.open(id_token_hint=hint))["error"] == "login_required"
        assert "error" in sent(await street.answer(id_token_hint=hint))


# What a user has granted a site ends with the user's sessions. Each function below makes a grant, and returns a
# function that redeems it.


async def by_a_device(street: Street, phone: Phone) -> Ask:
    started = await street.approved(phone)
    return lambda: street.shop.poll(started)


async def by_a_page_that_has_not_gone_on(street: Street, phone: Phone) -> Ask:
    tab = await street.browser.show()
    await tab.decided_by(phone)
    return tab.go_on


def with_code(door: Door) -> Callable[[Street, Phone], Awaitable[Ask]]:
    async def enter(street: Street, phone: Phone) -> Ask:
        code = sent(await door(street, phone))["code"]
        return lambda: street.redeem(code)

    enter.__name__ = getattr(door, "__name__", "a door")
    return enter


GRANTS = (by_a_device, by_a_page_that_has_not_gone_on, *map(with_code, WITH_PROOF))


async def sign_out_elsewhere(street: Street, root: Admin) -> None:
    assert (await street.phone.ask("DELETE", "/sessions")).status_code == 204
    assert (await street.phone.ask("GET")).status_code == 200, "this session stays"


async def be_signed_out(street: Street, root: Admin) -> None:
    assert (await root.ask("DELETE", f"/users/{street.phone.user_id}/sessions")).status_code == 204


async def be_banned_and_unbanned(street: Street, root: Admin) -> None:
    for status in ("disabled", "active"):
        await root.change(street.phone.user_id, status=status)


@pytest.mark.slow
@pytest.mark.parametrize("act", [sign_out_elsewhere, be_signed_out, be_banned_and_unbanned])
async def test_no_door_is_left_open_when_all_sessions_of_a_user_end(street: Street, root: Admin, act: Act) -> None:
    with Sweep() as doors:
        for grant in GRANTS:
            with doors.case(grant.__name__):
                street.phone = await street.get_phone("alice")
                redeem = await grant(street, street.phone)
                await act(street, root)
                answer = await redeem()
                if grant is by_a_page_that_has_not_gone_on:
                    assert sent(answer)["error"] == "access_denied"
                else:
                    refused(answer, "access_denied" if grant is by_a_device else "invalid_grant")
                assert await street.stage.number("sessions WHERE client_id IS NOT NULL") == 0
        again = await street.get_phone("alice")
        for grant in GRANTS:
            with doors.case(f"{grant.__name__}, again"):
                answer = await (await grant(street, again))()
                assert answer.status_code == 200 or "code" in sent(answer), answer.text


@pytest.mark.oldest_postgres
async def test_what_a_split_off_identity_has_granted_ends_and_the_rest_stays(street: Street, root: Admin) -> None:
    alice, bob = street.phone, await street.get_phone("bob")
    assert (await root.merge(bob.user_id, into=alice.user_id)).status_code == 200
    of_alice, of_bob = await by_the_website_app(street, alice), await by_the_account(street, bob)
    split = {"app_id": PAGE, "openid": openid_of("bob", PAGE)}
    body_of(await root.ask("POST", f"/users/{alice.user_id}/split", json=split))
    await street.tokens_for(of_alice)
    refused(await street.redeem(sent(of_bob)["code"]), "invalid_grant")


@pytest.mark.slow
@pytest.mark.own_database
@pytest.mark.parametrize("first", ["sign_out", "exchange"])
@pytest.mark.parametrize("path", ["/v1/me/sessions", "/v1/me"])
async def test_of_a_sign_out_and_an_exchange_at_once_no_session_is_left(street: Street, path: str, first: str) -> None:
    code, phone = sent(await by_the_account(street, street.phone))["code"], street.phone
    proof = {"login_code": phone.wx_login()} if path == "/v1/me" else None
    sign_out = partial(street.stage.client.request, "DELETE", path, json=proof, headers=bearer(phone.tokens))
    done = await street.at_once("users", first, sign_out=sign_out, exchange=partial(street.redeem, code))
    assert done["sign_out"].status_code == 204
    # The proof of an erasure is read before the user is locked, so the exchange can come first.
    statuses = {200, 400} if path == "/v1/me" else {400 if first == "sign_out" else 200}
    assert done["exchange"].status_code in statuses
    assert await street.stage.number("sessions WHERE client_id IS NOT NULL AND revoked_at IS NULL") == 0
