"""What holds by whatever door a person enters a site: who is named, and that a grant ends with the sessions."""

from collections.abc import Awaitable, Callable, Coroutine
from functools import partial
from typing import Any

import httpx
import pytest

from tests.sweeps import Sweep
from tests.websites.browsers import hidden_fields, refused, said, sent
from tests.websites.towns import (
    PAGE,
    Town,
    by_a_scan,
    by_a_typed_code,
    by_the_account,
    by_the_browsers_login,
    by_the_mini_program,
    by_the_website_app,
)
from tests.world import Admin, Phone, bearer, body_of
from wxauth.server.dev.wechat.controls import openid_of

Act = Callable[[Town, Admin], Awaitable[None]]
Door = Callable[..., Awaitable[httpx.Response]]
Redeem = Callable[[], Coroutine[Any, Any, httpx.Response]]
"""Has the site, or the browser on its way there, redeem what was granted."""
WITH_PROOF: tuple[Door, ...] = (
    by_a_scan,
    by_a_typed_code,
    by_the_mini_program,
    by_the_account,
    by_the_website_app,
)


@pytest.mark.parametrize("door", [by_a_scan, by_the_account, by_the_website_app, by_the_browsers_login])
async def test_with_form_post_a_page_posts_the_code(town: Town, door: Door) -> None:
    await town.change(sso=True)
    page = await door(town, town.phone, response_mode="form_post")
    assert page.headers["cache-control"] == "no-store"
    fields = hidden_fields(page)
    assert fields.keys() == {"code", "state", "iss"}
    assert (await town.redeem(fields["code"])).status_code == 200


# A site names a person by `id_token_hint`: nobody else is logged in (Core, section 3.1.2.2).


@pytest.mark.slow
@pytest.mark.parametrize("door", [*WITH_PROOF, by_the_browsers_login])
async def test_the_person_of_the_hint_is_logged_in_and_nobody_else(town: Town, door: Door) -> None:
    await town.change(sso=True)
    hint = (await town.tokens())["id_token"]
    town.clock.advance(hours=2)  # an expired hint is good, too
    answer = await door(town, await town.get_phone("alice"), id_token_hint=hint)
    assert (await town.redeem(said(answer)["code"])).status_code == 200
    bob = await town.get_phone("bob")
    reported = said(await door(town, bob, id_token_hint=hint))
    assert (reported["error"], "code" in reported) == ("login_required", False)
    assert await town.number("sessions WHERE client_id = 'shop' AND user_id = $1::text::uuid", bob.user_id) == 0


async def test_a_hint_of_a_former_id_names_who_remains(town: Town, root: Admin) -> None:
    alice, bob = town.phone, await town.get_phone("bob")
    hint = (await town.tokens(bob))["id_token"]
    before = await town.browser.show(id_token_hint=hint)
    assert (await root.merge(bob.user_id, into=alice.user_id)).status_code == 200
    for tab in (before, await town.browser.show(id_token_hint=hint)):
        assert "code" in await tab.approved_by(alice)


async def test_an_erasure_leaves_neither_the_hint_nor_the_address_of_a_login_that_was_not_approved(town: Town) -> None:
    alice, bob = town.phone, await town.get_phone("bob")
    hint = (await town.tokens())["id_token"]
    for person, verdict in ((alice, "deny"), (alice, None), (bob, "deny")):
        claimed = await (await town.browser.show()).claimed_by(person)
        if verdict is not None:
            assert (await person.decide(claimed["id"], verdict)).status_code == 204
    await town.browser.show(id_token_hint=hint)
    await town.erase()
    of_bob = "claimed_session_id IN (SELECT id FROM sessions WHERE user_id = $1::text::uuid)"
    left = f"SELECT array_agg({of_bob}) FROM site_logins WHERE num_nonnulls(hinted_user_id, browser_ip) > 0"
    assert await town.rows.fetchval(left, bob.user_id) == [True]


async def test_what_is_no_id_token_for_this_client_is_refused_at_once(town: Town) -> None:
    others = await town.tokens(site=await town.add_site("other"), client_id="other")
    for hint in ("a.b.c", town.phone.tokens["access_token"], others["id_token"]):
        assert sent(await town.browser.open(id_token_hint=hint))["error"] == "login_required"
        assert "error" in said(await town.answer(id_token_hint=hint))


# What a person has granted a site ends with the person's sessions.


async def by_a_device(town: Town, phone: Phone) -> Redeem:
    started = await town.approved(phone)
    return lambda: town.shop.poll(started)


async def by_a_page_that_has_not_gone_on(town: Town, phone: Phone) -> Redeem:
    tab = await town.browser.show()
    await tab.decided_by(phone)
    return tab.go_on


def with_code(door: Door) -> Callable[[Town, Phone], Awaitable[Redeem]]:
    async def enter(town: Town, phone: Phone) -> Redeem:
        code = said(await door(town, phone))["code"]
        return lambda: town.redeem(code)

    enter.__name__ = getattr(door, "__name__", "a door")
    return enter


GRANTS = (by_a_device, by_a_page_that_has_not_gone_on, *map(with_code, WITH_PROOF))


async def sign_out_elsewhere(town: Town, root: Admin) -> None:
    assert (await town.phone.ask("DELETE", "/sessions")).status_code == 204
    assert (await town.phone.ask("GET")).status_code == 200, "this session stays"


async def be_signed_out(town: Town, root: Admin) -> None:
    assert (await root.ask("DELETE", f"/users/{town.phone.user_id}/sessions")).status_code == 204


async def be_banned_and_unbanned(town: Town, root: Admin) -> None:
    for status in ("disabled", "active"):
        await root.change(town.phone.user_id, status=status)


@pytest.mark.slow
@pytest.mark.parametrize("act", [sign_out_elsewhere, be_signed_out, be_banned_and_unbanned])
async def test_no_door_is_left_open_when_all_sessions_of_a_user_end(town: Town, root: Admin, act: Act) -> None:
    with Sweep() as doors:
        for grant in GRANTS:
            with doors.case(grant.__name__):
                town.phone = await town.get_phone("alice")
                redeem = await grant(town, town.phone)
                await act(town, root)
                answer = await redeem()
                if grant is by_a_page_that_has_not_gone_on:
                    assert sent(answer)["error"] == "access_denied"
                else:
                    refused(answer, "access_denied" if grant is by_a_device else "invalid_grant")
                assert await town.number("sessions WHERE client_id IS NOT NULL") == 0
        again = await town.get_phone("alice")
        for grant in GRANTS:
            with doors.case(f"{grant.__name__}, again"):
                answer = await (await grant(town, again))()
                assert answer.status_code == 200 or "code" in sent(answer), answer.text


@pytest.mark.oldest_postgres
async def test_what_a_split_off_identity_has_granted_ends_and_the_rest_stays(town: Town, root: Admin) -> None:
    alice, bob = town.phone, await town.get_phone("bob")
    assert (await root.merge(bob.user_id, into=alice.user_id)).status_code == 200
    of_alice, of_bob = await by_the_website_app(town, alice), await by_the_account(town, bob)
    split = {"app_id": PAGE, "openid": openid_of("bob", PAGE)}
    body_of(await root.ask("POST", f"/users/{alice.user_id}/split", json=split))
    await town.tokens_for(of_alice)
    refused(await town.redeem(said(of_bob)["code"]), "invalid_grant")


@pytest.mark.slow
@pytest.mark.own_database
@pytest.mark.parametrize("first", ["sign_out", "exchange"])
@pytest.mark.parametrize("path", ["/v1/me/sessions", "/v1/me"])
async def test_of_a_sign_out_and_an_exchange_at_once_no_session_is_left(town: Town, path: str, first: str) -> None:
    code, phone = said(await by_the_account(town, town.phone))["code"], town.phone
    proof = {"login_code": phone.wx_login()} if path == "/v1/me" else None
    sign_out = partial(town.client.request, "DELETE", path, json=proof, headers=bearer(phone.tokens))
    done = await town.at_once("users", first, sign_out=sign_out, exchange=partial(town.redeem, code))
    assert done["sign_out"].status_code == 204
    # The proof of an erasure is read before the user is locked, so the exchange may overtake it.
    statuses = {200, 400} if path == "/v1/me" else {400 if first == "sign_out" else 200}
    assert done["exchange"].status_code in statuses
    assert await town.number("sessions WHERE client_id IS NOT NULL AND revoked_at IS NULL") == 0
