"""A site shows a QR code on its own page, a phone scans it, and the site gets a session (RFC 8628)."""

from asyncio import gather
from dataclasses import replace
from functools import partial
from typing import Any
from urllib.parse import quote
from uuid import UUID

import pytest
from jose.jwt import get_unverified_claims

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.sites.browsers import SHOP, House, refused
from tests.sweeps import swept
from tests.world import DEVICE_CODE, EDGE, FAR, OFFICE, Phone, add_client, bearer, recorded, scene_of, set_roles
from wxauth.clients.clients import ensure_own_client, find_site
from wxauth.clients.models import Scope
from wxauth.merging.merging import link_unionid
from wxauth.sessions.refresh_queries import rotate_refresh_token_of_website
from wxauth.sites import tokens as site_tokens
from wxauth.sites.redeeming import redeem
from wxauth.users.last_seen_queries import LastSeen

START, TOKEN = "/v1/device_authorization", "/v1/token"


async def test_a_redemption_and_a_refresh_of_a_site_count_as_seen(house: House) -> None:
    await house.stage.rows.execute("UPDATE users SET last_login_at = last_login_at - interval '1 day'")
    started = await house.shop.start()
    await house.phone.approve(started)
    tokens = (await house.shop.poll(started)).json()
    last_seen, seen = house.stage.services[LastSeen], "SELECT last_refresh_at FROM users WHERE id::text = $1"
    await last_seen.store()
    user_id = house.phone.tokens["user"]["id"]
    assert await house.stage.rows.fetchval(seen, user_id) == house.stage.clock()
    await house.stage.rows.execute("UPDATE users SET last_refresh_at = last_refresh_at - interval '1 day'")
    house.stage.clock.advance(minutes=10)
    assert (await house.shop.refresh(tokens)).status_code == 200
    await last_seen.store()
    assert await house.stage.rows.fetchval(seen, user_id) == house.stage.clock()


async def test_a_site_gets_tokens_when_the_person_has_said_yes(house: House) -> None:
    started = await house.shop.start()
    scene, user = scene_of(started), house.phone.tokens["user"]
    assert [len(scene), len(started["user_code"]), len(started["device_code"])] == [22, 9, 43]
    assert started == {
        "device_code": started["device_code"],
        "user_code": started["user_code"],
        "verification_uri": "https://auth.test/d",
        "verification_uri_complete": f"https://auth.test/d/{scene}",
        "code_image": f"https://auth.test/v1/scans/{scene}/code",
        "expires_in": 180,
        "interval": 2,
    }
    refused(await house.shop.poll(started), "authorization_pending")
    assert [line for line in house.stage.log_lines() if "refused" in str(line["event"])] == []
    await house.phone.approve(started)
    answer = await house.shop.poll(started)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    tokens = answer.json()
    assert [tokens[name] for name in ("token_type", "expires_in", "scope")] == ["Bearer", 900, "openid profile"]
    claims = get_unverified_claims(tokens["access_token"])
    assert (claims["sub"], claims["client_id"], claims["app_id"]) == (user["id"], "shop", APP["app_id"])
    assert (claims["scope"], claims["openid"], claims.get("roles")) == ("openid profile", user["openid"], None)
    refused(await house.shop.poll(started), "invalid_grant")


@pytest.mark.requirement("asvs-10.7.1")
async def test_the_phone_shows_the_site_the_browser_and_the_time(house: House) -> None:
    # A browser can have any name. Servers decode a UTF-8 header in this way.
    name = f"{EDGE} {'荣耀'.encode().decode('latin-1')}\0" + "x" * 5000
    for user_agent in (EDGE, name):
        answer = await house.phone.scan(await house.shop.start(browser_ip=OFFICE, browser_user_agent=user_agent))
        assert answer.headers["cache-control"] == "no-store"
        body = answer.json()
        assert UUID(body.pop("id")).version == 7
        assert body == {
            "client": SHOP,
            "resource": None,
            "browser": {"device": "Windows, Edge 141", "ip": OFFICE},
            "requested_ip": "127.0.0.1",
            "same_network": False,
            "typed": False,
            "sso_ttl": None,
            "link": False,
            "created_at": "2026-11-20T08:00:00Z",
            "expires_at": "2026-11-20T08:03:00Z",
        }
    terminal = await house.add_site("terminal", device=True, redirect_uris=[])
    body = (await house.phone.scan(await terminal.start(browser_user_agent=EDGE))).json()
    here = {"device": None, "ip": "127.0.0.1"}  # the address of the request
    assert (body["client"]["origin"], body["browser"], body["same_network"]) == (None, here, None)


@pytest.mark.requirement("rfc8628-3.5")
async def test_a_poll_is_answered_with_pending_slow_down_or_expired(house: House) -> None:
    started = await house.shop.start()
    for seconds, error in (
        (0, "authorization_pending"),
        (1, "slow_down"),
        (6, "slow_down"),  # the interval is now 7 seconds
        (12, "authorization_pending"),
        (161, "expired_token"),
    ):
        house.stage.clock.advance(seconds=seconds)
        refused(await house.shop.poll(started), error)
    problem_of(await house.phone.scan(started), "scan_over", 404)


@pytest.mark.oldest_postgres
async def test_of_polls_at_once_all_but_one_are_too_early(house: House) -> None:
    started = await house.shop.start()
    answers = await gather(*(house.shop.poll(started) for _ in range(4)))
    assert sorted(answer.json()["error"] for answer in answers) == ["authorization_pending", *["slow_down"] * 3]
    house.stage.clock.advance(seconds=2 + 3 * 5)
    refused(await house.shop.poll(started), "authorization_pending")


async def test_repeating_a_verdict_changes_nothing(house: House) -> None:
    started, scan_id = await house.claimed(browser_ip=OFFICE)
    for _ in range(2):
        assert (await house.phone.decide(scan_id)).status_code == 204
    [(*who, data)] = await recorded(house.stage.rows, "user_id, actor, app_id, ip, data", "type = 'scan.approved'")
    assert who == [house.phone.user_id, house.phone.user_id, APP["app_id"], "127.0.0.1"]
    assert {OFFICE, "shop"} <= {*data.values()}
    assert (await house.shop.poll(started)).status_code == 200
    assert (await house.phone.decide(scan_id)).status_code == 204


async def test_of_two_people_the_first_has_it_and_loses_it_after_a_minute(house: House) -> None:
    (started, scan_id), bob = await house.claimed(), await house.get_phone("bob")
    problem_of(await bob.scan(started), "scan_taken", 409)
    problem_of(await bob.decide(scan_id), "scan_over", 404)
    house.stage.clock.advance(seconds=60)
    assert (await bob.scan(started)).status_code == 200
    problem_of(await house.phone.decide(scan_id), "scan_over", 404)
    assert (await bob.decide(scan_id)).status_code == 204
    assert get_unverified_claims((await house.shop.poll(started)).json()["access_token"])["sub"] == bob.user_id


@pytest.mark.own_database
async def test_of_two_people_who_scan_in_the_same_moment_one_has_it(house: House) -> None:
    bob, started = await house.get_phone("bob"), await house.shop.start()
    alice_scans, bob_scans = partial(house.phone.scan, started), partial(bob.scan, started)
    done = await house.at_once("site_logins", alice=alice_scans, bob=bob_scans)
    assert [done[name].status_code for name in ("alice", "bob")] == [200, 409]


async def test_a_claim_moves_to_another_session_of_the_same_person(house: House) -> None:
    (started, scan_id), again = await house.claimed(), await house.get_phone("alice")
    assert (await again.scan(started)).json()["id"] == scan_id
    problem_of(await house.phone.decide(scan_id), "scan_over", 404)
    assert (await again.decide(scan_id)).status_code == 204


async def test_any_number_of_phones_make_one_claim_and_any_number_of_polls_one_session(house: House) -> None:
    phones = [await house.get_phone(f"person-{number}") for number in range(8)]
    started = await house.shop.start()
    answers = await gather(*(phone.scan(started) for phone in phones))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    [(winner, claimed)] = [pair for pair in zip(phones, answers, strict=True) if pair[1].status_code == 200]
    verdicts = await gather(*(winner.decide(claimed.json()["id"], verdict) for verdict in ["approve", "deny"] * 4))
    assert sorted(answer.status_code for answer in verdicts) == [204] * 4 + [404] * 4
    sessions = 1 if verdicts[0].status_code == 204 else 0
    polls = await gather(*(house.shop.poll(started) for _ in range(8)))
    assert [answer.status_code for answer in polls].count(200) == sessions
    assert await house.stage.number("sessions WHERE client_id = 'shop'") == sessions
    assert await house.stage.number("events WHERE type = 'scan.approved'") == sessions


async def test_a_link_is_claimed_like_the_scene_in_it_and_a_picture_sent_on_is_refused(house: House) -> None:
    url, now = (await house.shop.start())["verification_uri_complete"], house.stage.clock().timestamp()
    for old in ({"scancode_time": f"{now - 181:.0f}", "entry_scene": 1011}, {"scanned": "album"}):
        problem_of(await house.phone.claim(url=url, **old), "scan_forwarded", 403)
    foreign = url.replace("auth.test", "auth.evil")
    for other in (quote(url, safe=""), foreign, url + "x", url[:-1], "", "https://auth.test/d/"):
        problem_of(await house.phone.claim(url=other, entry_scene=1011), "scan_over", 404)
    for no_number in ({"scancode_time": True, "entry_scene": 1011}, {"scancode_time": now, "entry_scene": True}):
        problem_of(await house.phone.claim(url=url, **no_number), "invalid_request", 422)
    assert (await house.phone.claim(url=url, scancode_time=f"{now:.0f}", entry_scene=1011)).status_code == 200
    lenient = replace(house.phone, client=await house.stage.make(scan_entry="any"))
    assert (await lenient.claim(url=url, scancode_time=1, entry_scene=1049)).status_code == 200


async def test_a_typed_code_is_for_sites_that_were_added_for_it(house: House) -> None:
    problem_of(await house.phone.claim(user_code=(await house.shop.start())["user_code"]), "scan_forwarded", 403)
    await house.change(user_code=True)
    started = await house.shop.start()
    body = (await house.phone.claim(user_code=started["user_code"].lower().replace("-", " "))).json()
    assert body["typed"] is True
    assert (await house.phone.decide(body["id"])).status_code == 204
    assert (await house.shop.poll(started)).status_code == 200


@pytest.mark.requirement("asvs-6.3.1", "rfc8628-5.1")
async def test_five_wrong_codes_in_a_minute_are_enough_over_sessions_and_replicas(house: House) -> None:
    await house.change(user_code=True)
    right = (await house.shop.start())["user_code"]
    # A correct code doesn't count as one of the five.
    assert (await house.phone.claim(user_code=right)).status_code == 200
    elsewhere = replace(await house.get_phone("alice"), client=await house.stage.make())
    wrong = await gather(*(who.claim(user_code="BCDF-GHJK") for who in (house.phone, elsewhere) * 4))
    assert sorted(answer.status_code for answer in wrong) == [404] * 5 + [429] * 3
    limited = await elsewhere.claim(user_code=right)
    problem_of(limited, "rate_limited", 429)
    assert limited.headers["retry-after"] == "60"
    bob = await house.get_phone("bob")
    problem_of(await bob.claim(user_code="nonsense"), "scan_over", 404)
    house.stage.clock.advance(seconds=60)
    assert (await elsewhere.claim(user_code=right)).status_code == 200


@swept("body", [{}, {"scene": "a", "url": "b"}, {"scene": None}, {"scene": "a", "entry_scene": "x"}])
async def test_a_claim_names_one_thing(phone: Phone, body: Any) -> None:
    problem_of(await phone.claim(**body), "invalid_request", 422)
    for scene in ("", "x", "a" * 22, "a" * 5000, "\0", "../../etc"):
        problem_of(await phone.claim(scene=scene, entry_scene=1047), "scan_over", 404)


async def test_a_near_site_and_an_administrator_require_phone_and_browser_in_one_network(house: House) -> None:
    phone, near = house.phone, await house.add_site("near", device=True, near=True)
    refused(await near.post(START), "invalid_request")
    started = await near.start(browser_ip=OFFICE)
    problem_of(await phone.scan(started), "scan_too_far", 403)
    problem_of(await phone.scan(started, entry_scene=1007), "scan_forwarded", 403)  # this rule is checked first
    assert (await phone.scan(await near.start(browser_ip="127.0.0.9"))).status_code == 200

    admin = await house.get_phone("admin")
    await set_roles(house.stage.rows, "admin", user_id=admin.user_id)
    for form in ({"browser_ip": OFFICE}, {}):
        started = await house.shop.start(**form)
        problem_of(await admin.scan(started), "scan_too_far", 403)
        assert (await phone.scan(started)).status_code == 200
        # wxauth checks the distance before it reports that another phone has claimed the scan.
        problem_of(await admin.scan(started), "scan_too_far", 403)
    anywhere = replace(admin, client=await house.stage.make(scan_admin_anywhere=True))
    assert (await anywhere.scan(await house.shop.start(browser_ip=OFFICE))).status_code == 200
    problem_of(await anywhere.scan(await near.start(browser_ip=OFFICE)), "scan_too_far", 403)


async def test_a_user_shut_out_between_approval_and_tokens_gets_none(house: House) -> None:
    async def wait(phone: Phone) -> None:
        house.stage.clock.advance(seconds=180)

    for number, happens in enumerate((house.ban, house.erase, house.sign_out_phone, wait)):
        phone = await house.get_phone(f"person-{number}")
        started = await house.approved(phone)
        await happens(phone)
        refused(await house.shop.poll(started), "access_denied")
    assert await house.stage.number("sessions WHERE client_id = 'shop'") == 0


@pytest.mark.settings(refresh_token_ttl=600)
async def test_what_a_phone_has_approved_is_worth_nothing_once_its_session_has_expired(house: House) -> None:
    house.stage.clock.advance(seconds=500)
    in_time, too_late = await house.approved(), await house.approved()
    house.stage.clock.advance(seconds=99)
    assert (await house.shop.poll(in_time)).status_code == 200
    house.stage.clock.advance(seconds=1)
    refused(await house.shop.poll(too_late), "access_denied")


@pytest.mark.slow
async def test_what_a_person_who_is_leaving_has_approved_or_claimed_is_worth_nothing(house: House) -> None:
    tokens, approved, (_, scan_id) = await house.device_tokens(), await house.approved(), await house.claimed()
    house.phone.client = await house.stage.make(erasure_grace_days=7)
    await house.erase(status=202)
    refused(await house.shop.refresh(tokens), "invalid_grant")
    problem_of(await house.phone.decide(scan_id), "invalid_token", 401)
    problem_of(await house.phone.scan(await house.shop.start()), "invalid_token", 401)
    await house.stage.login("alice", at=house.phone.client, stay=True)
    refused(await house.shop.poll(approved), "access_denied")
    await house.device_tokens(await house.get_phone("alice"))


async def test_a_person_who_is_merged_before_the_tokens_is_followed_and_after_them_logged_out(house: House) -> None:
    other = await house.stage.login("one", app=OTHER_APP, unionid="union-1")
    before, started = await house.device_tokens(), await house.approved()
    alice = {name: house.phone.tokens["user"][name] for name in ("app_id", "openid")}
    await link_unionid(house.stage.services.database, **alice, unionid="union-1", now=house.stage.clock())
    claims = get_unverified_claims((await house.shop.poll(started)).json()["access_token"])
    assert claims["sub"] == other["user"]["id"] != house.phone.user_id
    refused(await house.shop.refresh(before), "invalid_grant")
    assert not await house.is_in(before)


@pytest.mark.oldest_postgres
@pytest.mark.requirement("asvs-10.4.9")
async def test_a_websites_session_is_one_like_any_other(house: House) -> None:
    tokens = await house.device_tokens(browser_ip=OFFICE, browser_user_agent=EDGE)
    session_id = get_unverified_claims(tokens["access_token"])["sid"]
    listed = (await house.phone.ask("GET", "/sessions")).json()["items"]
    own, web = sorted(listed, key=lambda session: session["client_id"] or "")
    assert (own["client_id"], web["client_id"], web["id"]) == (None, "shop", session_id)
    assert (web["device"], web["ip"], web["current"]) == ("Windows, Edge 141", OFFICE, False)
    assert web["expires_at"] == "2026-11-20T20:00:00Z"
    taken_along = (await house.phone.ask("GET", "/export")).json()["sessions"]
    [web] = [session for session in taken_along if session["client_id"] is not None]
    assert (web["client_id"], web["scope"], web["authenticated_by"]) == ("shop", "openid profile", "wechat_scan")

    assert (await house.stage.client.get("/v1/verify?websites=true", headers=bearer(tokens))).status_code == 200
    assert (await house.phone.ask("DELETE", f"/sessions/{session_id}")).status_code == 204
    assert (await house.stage.client.get("/v1/verify?websites=true", headers=bearer(tokens))).status_code == 401
    refused(await house.shop.refresh(tokens), "invalid_grant")


OPEN_TO_WEBSITES = {("post", "/v1/logout")}


@pytest.mark.slow
@pytest.mark.requirement("asvs-10.3.1")
async def test_a_websites_token_is_not_the_phone(house: House) -> None:
    client, me = house.stage.client, house.phone.user_id
    await set_roles(house.stage.rows, "admin", user_id=me)
    tokens = await house.device_tokens(browser_ip="127.0.0.1")
    document = (await client.get("/openapi.json")).json()
    guarded = {
        (method, path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if {"wxauth": []} in operation.get("security", [])
    }
    assert guarded > OPEN_TO_WEBSITES
    for method, path in guarded - OPEN_TO_WEBSITES - {("get", "/v1/userinfo"), ("post", "/v1/userinfo")}:
        url = path.replace("{user_id}", me).replace("{session_id}", me).replace("{scan_id}", me)
        answer = await client.request(method, url, headers=bearer(tokens))
        problem_of(answer, "insufficient_scope", 403)
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
    assert (await client.post("/v1/logout", headers=bearer(tokens))).status_code == 204
    assert (await house.phone.ask("GET")).status_code == 200


async def test_a_website_sees_the_external_id_and_with_the_scope_roles_the_roles(house: House) -> None:
    await set_roles(house.stage.rows, "editor", user_id=house.phone.user_id)
    await house.stage.rows.execute("UPDATE users SET external_id = '10023'")
    for scopes, seen in (["openid", "roles"], ["editor"]), (["openid"], None):
        await house.change(scopes=[*scopes, Scope.INTROSPECT])
        tokens = await house.device_tokens()
        for each in (tokens, (await house.shop.refresh(tokens)).json()):
            claims = get_unverified_claims(each["access_token"])
            assert (claims.get("roles"), claims["external_id"]) == (seen, "10023")
        verified = await house.stage.client.get("/v1/verify?websites=true", headers=bearer(tokens))
        assert verified.headers["x-auth-roles"] == ("editor" if seen else "")
        assert verified.headers["x-auth-app-id"] == APP["app_id"]
        asked = await house.stage.client.get("/v1/verify?websites=true&role=editor", headers=bearer(tokens))
        assert asked.status_code == (200 if seen else 403)
        introspected = (await house.shop.post("/v1/introspect", token=tokens["access_token"])).json()
        assert introspected.get("roles") == seen
        assert (introspected["client_id"], introspected["app_id"]) == ("shop", APP["app_id"])
        assert introspected["scope"] == tokens["scope"]


@pytest.mark.requirement("asvs-10.4.5", "rfc9700-2.2.2")
async def test_a_refresh_token_rotates_with_grace_and_ends_the_session_when_it_is_stolen(house: House) -> None:
    first, refresh = await house.device_tokens(), house.shop.refresh
    second = (await refresh(first)).json()
    assert (await refresh(first)).json()["refresh_token"] == second["refresh_token"] != first["refresh_token"]
    third = (await refresh(second)).json()
    house.stage.clock.advance(seconds=11)
    refused(await refresh(first), "invalid_grant")
    refused(await refresh(third), "invalid_grant")
    assert not await house.is_in(third)


@pytest.mark.requirement("rfc6749-6")
async def test_a_refresh_that_names_the_scope_it_was_given_has_what_the_client_may_still_have(house: House) -> None:
    tokens = await house.device_tokens()
    given = tokens["scope"]
    assert given == "openid profile"
    await house.change(scopes=["openid"])
    tokens = (await house.shop.refresh(tokens, scope=given)).json()
    assert tokens["scope"] == "openid"
    await house.change(scopes=["phone"])
    refused(await house.shop.refresh(tokens, scope=given), "invalid_grant")
    refused(await house.shop.refresh(tokens, scope=f"{given} phone"), "invalid_scope")


async def test_a_refresh_for_more_than_was_granted_is_refused_and_costs_the_site_no_session(house: House) -> None:
    tokens = await house.device_tokens(scope="openid")
    for scope in ("profile", "openid profile"):
        refused(await house.shop.refresh(tokens, scope=scope), "invalid_scope")
    await house.change(scopes=["profile"])
    refused(await house.shop.refresh(tokens), "invalid_grant")
    await house.change(scopes=["openid", "profile"])
    whole = await house.device_tokens()
    less = (await house.shop.refresh(whole, scope="profile")).json()
    assert (less["scope"], "id_token" in less) == ("profile", False)
    refused(await house.shop.refresh(less, scope="openid email"), "invalid_scope")
    assert (await house.shop.refresh(less)).json()["scope"] == "openid profile"
    await house.change(scopes=["openid"])
    house.stage.clock.advance(seconds=60)  # after this time, the response to the previous refresh isn't repeated
    assert (await house.shop.refresh(tokens)).json()["scope"] == "openid"


@pytest.mark.requirement("rfc6749-6")
async def test_a_refresh_token_works_with_its_own_client_alone_and_at_one_place(house: House) -> None:
    started, phones, other = await house.approved(), house.phone.tokens, await house.add_site("other", device=True)
    refused(await other.poll(started), "invalid_grant")
    tokens = (await house.shop.poll(started)).json()
    refused(await other.refresh(tokens), "invalid_grant")
    for token, is_good in ((tokens, False), (phones, True)):
        at_login = await house.stage.client.post("/v1/refresh", json={"refresh_token": token["refresh_token"]})
        assert is_good or problem_of(at_login, "invalid_refresh_token", 400)
    assert at_login.status_code == 200
    refused(await house.shop.refresh(phones), "invalid_grant")
    assert (await house.shop.refresh(tokens)).status_code == 200


async def test_the_tokens_of_a_refresh_begin_after_the_wait_for_the_database(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def wait_and_rotate(*args: Any, **values: Any) -> object:
        house.stage.clock.advance(seconds=5)
        return await rotate_refresh_token_of_website(*args, **values)

    tokens = await house.device_tokens()
    monkeypatch.setattr(site_tokens, "rotate_refresh_token_of_website", wait_and_rotate)
    refreshed = (await house.shop.refresh(tokens)).json()
    claims = get_unverified_claims(refreshed["access_token"])
    assert claims["iat"] == int(house.stage.clock().timestamp())
    assert claims["exp"] - claims["iat"] == refreshed["expires_in"]


async def test_the_tokens_of_a_code_begin_after_the_wait_for_the_database(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def redeem_and_wait(*args: Any, **values: Any) -> object:
        redeemed = await redeem(*args, **values)
        house.stage.clock.advance(seconds=5)
        return redeemed

    monkeypatch.setattr(site_tokens, "redeem", redeem_and_wait)
    tokens = await house.device_tokens()
    claims = get_unverified_claims(tokens["access_token"])
    assert claims["iat"] == int(house.stage.clock().timestamp())
    assert claims["exp"] - claims["iat"] == tokens["expires_in"]


@pytest.mark.slow
async def test_a_websites_session_ends_unused_and_in_any_case(house: House) -> None:
    tokens, unused = await house.device_tokens(), await house.device_tokens()
    for _ in range(60):  # 60 rounds of twelve hours are thirty days
        tokens = (await house.shop.refresh(tokens)).json()
        house.stage.clock.advance(seconds=43199)
    refused(await house.shop.refresh(unused), "invalid_grant")
    left = (await house.shop.refresh(tokens)).json()
    assert left["expires_in"] == 60  # 60 seconds are left of the thirty days
    house.stage.clock.advance(seconds=60)
    refused(await house.shop.refresh(left), "invalid_grant")
    assert await house.stage.number("website_sessions") == 2
    await house.sweep(after=400 * 86400)
    assert await house.stage.number("website_sessions") == 0


async def test_no_secret_is_stored_in_clear(house: House) -> None:
    started, code = await house.shop.start(), await house.code()
    stored = repr(await house.stage.rows.fetch("SELECT * FROM site_logins"))
    for secret in (started["device_code"], started["user_code"], scene_of(started), code):
        assert [text for text in (secret, secret.encode().hex()) if text in stored] == []


async def test_logins_by_scan_are_counted_by_their_outcome(house: House) -> None:
    await house.device_tokens()
    _, refused_scan = await house.claimed()
    for _ in range(2):
        await house.phone.decide(refused_scan, "deny")
    await house.shop.start()
    metrics = await house.metrics()
    for outcome, number in (("logged_in", 1), ("refused", 1), ("failed", 0)):
        assert f'wxauth_doors_total{{door="scan",outcome="{outcome}"}} {number}.0' in metrics
        assert f'wxauth_doors_total{{door="typed",outcome="{outcome}"}} 0.0' in metrics


@pytest.mark.requirement("asvs-10.4.10", "rfc6749-3.2.1")
async def test_a_client_must_authenticate(house: House) -> None:
    ask, shop = house.stage.client.post, house.shop
    for wrong in (
        await ask(START),
        await ask(START, data={"client_id": "shop"}),
        await ask(START, data={"client_id": "shop", "client_secret": "x"}),
        await ask(START, auth=("shop", "x")),
        await ask(START, auth=("nobody", "x")),
        await ask(START, data={"client_secret": shop.secret}),
        await ask(START, headers={"Authorization": "Bearer x"}),
    ):
        assert refused(wrong, "invalid_client", 401).headers["www-authenticate"] == "Basic"
    assert (await ask(START, data={"client_id": "shop", "client_secret": shop.secret})).status_code == 200
    both = await ask(START, data={"client_secret": shop.secret}, auth=("shop", shop.secret or ""))
    refused(both, "invalid_request")
    sibling = await add_client(house.stage.services.database, "billing", now=house.stage.clock())
    refused(await ask(START, auth=(sibling.client_id, sibling.client_secret)), "unauthorized_client")
    page = await house.add_site("page", is_public=True)
    refused(await page.post(START), "unauthorized_client")
    refused(await page.post("/v1/token", grant_type=DEVICE_CODE, device_code="x"), "unauthorized_client")
    refused(await ask(START, data={"client_id": "page", "client_secret": "x"}), "invalid_client", 401)


@swept(
    ("path", "form", "error"),
    [
        (START, {"browser_ip": "localhost"}, "invalid_request"),
        (START, {"browser_ip": "203.0.113.7, 10.0.0.1"}, "invalid_request"),
        (START, {"scope": "phone"}, "invalid_scope"),
        (START, {"scope": "wxauth:admin"}, "invalid_scope"),
        (START, {"scope": "a" * 5000}, "invalid_request"),
        (START, {"scope": "open\nid"}, "invalid_request"),
        (START, {"scope": ["openid", "profile"]}, "invalid_request"),
        (TOKEN, {}, "invalid_request"),
        (TOKEN, {"grant_type": "password"}, "unsupported_grant_type"),
        (TOKEN, {"grant_type": DEVICE_CODE}, "invalid_request"),
        (TOKEN, {"grant_type": DEVICE_CODE, "device_code": "x"}, "invalid_grant"),
        (TOKEN, {"grant_type": DEVICE_CODE, "device_code": ["x", "y"]}, "invalid_request"),
        (TOKEN, {"grant_type": "refresh_token"}, "invalid_request"),
        (TOKEN, {"grant_type": "refresh_token", "refresh_token": "wxr_x"}, "invalid_grant"),
    ],
)
@pytest.mark.requirement("rfc6749-5.2")
async def test_a_wrong_request_is_refused(house: House, path: str, form: dict[str, Any], error: str) -> None:
    refused(await house.shop.post(path, **form), error)


async def test_a_body_that_is_not_a_form_is_refused_and_not_read_as_an_empty_form(house: House) -> None:
    shop = house.shop
    assert shop.auth is not None
    refused(await shop.client.post(START, json={"scope": "openid"}, auth=shop.auth), "invalid_request")
    form = {"Content-Type": "Application/X-WWW-Form-Urlencoded; charset=UTF-8"}
    for headers, body in ((form, b"scope=openid"), ({}, b"scope=openid"), ({"Content-Type": "application/json"}, b"")):
        answer = await shop.client.post(START, headers=headers, content=body, auth=shop.auth)
        assert answer.status_code == 200, answer.text


@pytest.mark.requirement("asvs-10.4.11", "rfc6749-3.3")
async def test_a_site_gets_of_its_scopes_those_that_it_asks_for_and_none_that_it_has_lost(house: House) -> None:
    await house.change(scopes=["openid", "profile", "offline_access"])
    assert (await house.device_tokens(scope="profile phone unheard-of"))["scope"] == "profile"
    assert (await house.device_tokens())["scope"] == "openid profile offline_access"
    await house.change(scopes=["openid", "phone", "roles", "email"])
    started = await house.approved()
    await house.change(scopes=["openid", "phone", "roles"])
    tokens = (await house.shop.poll(started)).json()
    assert tokens["scope"] == "openid phone roles"
    await house.change(scopes=["openid", "profile"])
    answer = (await house.shop.refresh(tokens)).json()
    assert (answer["scope"], get_unverified_claims(answer["access_token"])["scope"]) == ("openid", "openid")


async def test_new_scans_are_limited_by_browser_and_by_client(house: House) -> None:
    there = replace(house.shop, client=await house.stage.make(scan_rate_limit="2/minute", scan_client_limit="3/minute"))
    answers = [await there.post(START, browser_ip=OFFICE) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429, 429]
    assert refused(answers[2], "temporarily_unavailable", 429).headers["retry-after"]
    # Requests of one browser that wxauth refuses don't count against other browsers.
    assert (await there.post(START, browser_ip=FAR)).status_code == 200
    refused(await there.post(START), "temporarily_unavailable", 429)
    house.stage.clock.advance(seconds=61)
    assert (await there.post(START, browser_ip=OFFICE)).status_code == 200


async def test_our_own_client_is_renewed_without_waiting_for_scans_and_takes_nobodys_name(house: House) -> None:
    database, now = house.stage.services.database, house.stage.clock()
    fields: dict[str, Any] = {"redirect_uris": ["https://auth.test/admin/"], "scopes": ["openid", "wxauth:admin"]}
    for title in ("Console", "Console 2"):
        async with house.stage.rows.transaction():
            # A new scan's foreign key takes this lock.
            await house.stage.rows.execute("SELECT FROM clients FOR KEY SHARE")
            await ensure_own_client(database, "wxauth-admin", title=title, **fields, now=now)
    own = await find_site(database, "wxauth-admin")
    assert own is not None
    assert (own.title, own.is_public, own.scopes[-1]) == ("Console 2", True, "wxauth:admin")
    with pytest.raises(ValueError, match="own client"):
        await ensure_own_client(database, "shop", title="", **fields, now=now)


@pytest.mark.own_database
async def test_a_yes_in_the_moment_of_an_erasure_leaves_no_address(house: House) -> None:
    _, scan_id = await house.claimed()
    saying_yes = partial(house.phone.decide, scan_id)
    done = await house.at_once("events", erasure=house.erase, yes=saying_yes)  # the erasure changes the events last
    problem_of(done["yes"], "scan_over", 404)
    assert await house.stage.number("events WHERE ip IS NOT NULL") == 0
