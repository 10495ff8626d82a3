"""A site shows a code on its own page, a phone scans it, and the site gets a session (RFC 8628)."""

from asyncio import create_task, gather
from dataclasses import replace
from typing import Any
from urllib.parse import quote
from uuid import UUID

import httpx
import pytest
from jose.jwt import get_unverified_claims

from tests.fakes import APP, OTHER_APP, Clock, WeChatByRespx
from tests.problems import problem_of
from tests.sweeps import swept
from tests.websites.browsers import refused
from tests.world import (
    DEVICE_CODE,
    EDGE,
    FAR,
    HOME,
    OFFICE,
    AddSite,
    Client,
    GetPhone,
    LogIn,
    LogLines,
    MakeClient,
    MakeServices,
    Phone,
    Rows,
    Site,
    bearer,
    leave,
    scene_of,
    set_roles,
    until_locked,
)
from wxauth.server.clients.clients import change_client
from wxauth.server.clients.models import Scope
from wxauth.server.core.services import Services
from wxauth.server.housekeeping.housekeeping import sweep
from wxauth.server.service.app import create_app
from wxauth.server.users.merging import link_unionid


async def tokens_of(site: Site, phone: Phone, **form: str) -> dict[str, Any]:
    started = await site.start(**form)
    await phone.approve(started)
    answer = await site.poll(started)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def test_a_site_gets_tokens_when_the_person_has_said_yes(site: Site, phone: Phone, client: Client) -> None:
    started = await site.start()
    assert started.keys() == {
        *("device_code", "user_code", "verification_uri", "verification_uri_complete"),
        *("expires_in", "interval", "code_image"),
    }
    assert (started["expires_in"], started["interval"]) == (180, 2)
    assert started["verification_uri"] == "https://auth.test/d"
    scene = scene_of(started)
    assert started["verification_uri_complete"] == f"https://auth.test/d/{scene}"
    assert started["code_image"] == f"https://auth.test/v1/scans/{scene}/code"
    assert (len(scene), len(started["device_code"]), len(started["user_code"])) == (22, 43, 9)

    refused(await site.poll(started), "authorization_pending")
    await phone.approve(started)
    answer = await site.poll(started)
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    tokens = answer.json()
    assert tokens["token_type"] == "Bearer"
    assert (tokens["expires_in"], tokens["scope"]) == (900, "openid profile")
    claims = get_unverified_claims(tokens["access_token"])
    user = phone.tokens["user"]
    assert (claims["sub"], claims["client_id"], claims["app_id"]) == (user["id"], "shop", APP["app_id"])
    assert (claims["scope"], claims["openid"], claims.get("roles")) == ("openid profile", user["openid"], None)
    refused(await site.poll(started), "invalid_grant")


async def test_the_phone_shows_the_site_the_browser_and_the_time(site: Site, phone: Phone, clock: Clock) -> None:
    started = await site.start(browser_ip=OFFICE, browser_user_agent=EDGE)
    answer = await phone.scan(started)
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert UUID(body.pop("id")).version == 7
    assert body == {
        "client": {"id": "shop", "title": "Example Shop", "origin": "https://shop.example.com"},
        "browser": {"device": "Windows, Edge 141", "ip": OFFICE},
        "same_network": False,
        "typed": False,
        "sso_ttl": None,
        "link": False,
        "created_at": "2026-11-20T08:00:00Z",
        "expires_at": "2026-11-20T08:03:00Z",
    }


async def test_a_browser_may_call_itself_anything(site: Site, phone: Phone) -> None:
    name = f"{EDGE} {'荣耀'.encode().decode('latin-1')}\0" + "x" * 5000  # as servers read a header that is UTF-8
    body = (await phone.scan(await site.start(browser_ip=OFFICE, browser_user_agent=name))).json()
    assert body["browser"] == {"device": "Windows, Edge 141", "ip": OFFICE}


async def test_unknown_values_are_null(add_site: AddSite, phone: Phone) -> None:
    site = await add_site(device=True, redirect_uris=[])
    body = (await phone.scan(await site.start(browser_user_agent=EDGE))).json()
    assert (body["client"]["origin"], body["browser"], body["same_network"]) == (None, None, None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("browser", "phone_at", "same"),
    [
        (OFFICE, HOME, True),
        (OFFICE, "203.0.112.7", False),
        ("2001:db8:1:200::1", "2001:db8:1:2ff::9", True),
        ("2001:db8:1:200::1", "2001:db8:1:300::9", False),
        ("::ffff:203.0.113.7", HOME, True),
        ("fe80::1%eth0", "fe80::2", True),
        (OFFICE, "2001:db8::1", False),
    ],
)
async def test_addresses_in_one_24_or_one_56_are_one_network(
    site: Site, phone: Phone, services: Services, make_client: MakeClient, browser: str, phone_at: str, same: bool
) -> None:
    started = await site.start(browser_ip=browser)
    there = httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(services), client=(phone_at, 1)),
        base_url="https://auth.test",
    )
    async with there:
        assert (await replace(phone, client=there).scan(started)).json()["same_network"] is same


async def test_a_poll_is_answered_with_pending_slow_down_or_expired(site: Site, phone: Phone, clock: Clock) -> None:
    started = await site.start()
    refused(await site.poll(started), "authorization_pending")
    clock.advance(seconds=1)
    refused(await site.poll(started), "slow_down")
    clock.advance(seconds=6)
    refused(await site.poll(started), "slow_down")  # the interval is 7 seconds now
    clock.advance(seconds=12)
    refused(await site.poll(started), "authorization_pending")
    clock.advance(seconds=161)
    refused(await site.poll(started), "expired_token")
    problem_of(await phone.scan(started), "scan_over", 404)


@pytest.mark.oldest_postgres
@pytest.mark.oldest_postgres
async def test_of_polls_at_once_all_but_one_are_too_early(site: Site, clock: Clock) -> None:
    started = await site.start()
    answers = await gather(*(site.poll(started) for _ in range(4)))
    assert sorted(answer.json()["error"] for answer in answers) == ["authorization_pending", *["slow_down"] * 3]
    clock.advance(seconds=2 + 3 * 5)
    refused(await site.poll(started), "authorization_pending")


async def test_a_pending_poll_is_not_logged_as_a_failure(site: Site, log_lines: LogLines) -> None:
    started = await site.start()
    await site.poll(started)
    assert [line["event"] for line in log_lines() if "refused" in str(line["event"])] == []


async def test_a_refusal_is_access_denied(site: Site, phone: Phone) -> None:
    started = await site.start()
    scan_id = (await phone.scan(started)).json()["id"]
    assert (await phone.decide(scan_id, "deny")).status_code == 204
    assert (await phone.decide(scan_id, "deny")).status_code == 204
    problem_of(await phone.decide(scan_id, "approve"), "scan_over", 404)
    refused(await site.poll(started), "access_denied")
    problem_of(await phone.scan(started), "scan_over", 404)


async def test_repeating_a_verdict_changes_nothing(site: Site, phone: Phone, clock: Clock, rows: Rows) -> None:
    started = await site.start(browser_ip=OFFICE)
    scan_id = (await phone.scan(started)).json()["id"]
    for _ in range(2):
        assert (await phone.decide(scan_id)).status_code == 204
    (event,) = await rows.fetch("SELECT * FROM events WHERE type = 'scan.approved'")
    assert (str(event["user_id"]), event["actor"], event["app_id"]) == (phone.user_id, phone.user_id, APP["app_id"])
    assert str(event["ip"]) == "127.0.0.1"
    assert OFFICE in event["data"]
    assert '"shop"' in event["data"]
    assert (await site.poll(started)).status_code == 200
    assert (await phone.decide(scan_id)).status_code == 204
    clock.advance(seconds=180)
    problem_of(await phone.decide(scan_id), "scan_over", 404)


async def test_of_two_people_the_first_has_it_and_loses_it_after_a_minute(
    site: Site, phone: Phone, get_phone: GetPhone, clock: Clock
) -> None:
    started = await site.start()
    scan_id = (await phone.scan(started)).json()["id"]
    bob = await get_phone("bob")
    problem_of(await bob.scan(started), "scan_taken", 409)
    problem_of(await bob.decide(scan_id), "scan_over", 404)
    clock.advance(seconds=60)
    assert (await bob.scan(started)).status_code == 200
    problem_of(await phone.decide(scan_id), "scan_over", 404)
    assert (await bob.decide(scan_id)).status_code == 204
    claims = get_unverified_claims((await site.poll(started)).json()["access_token"])
    assert claims["sub"] == bob.user_id


async def test_a_claim_moves_to_another_session_of_the_same_person(
    site: Site, phone: Phone, get_phone: GetPhone
) -> None:
    started = await site.start()
    scan_id = (await phone.scan(started)).json()["id"]
    again = await get_phone("alice")
    assert (await again.scan(started)).json()["id"] == scan_id
    problem_of(await phone.decide(scan_id), "scan_over", 404)
    assert (await again.decide(scan_id)).status_code == 204


async def test_any_number_of_phones_make_one_claim_and_any_number_of_polls_one_session(
    site: Site, get_phone: GetPhone, rows: Rows
) -> None:
    phones = [await get_phone(f"person-{number}") for number in range(8)]
    started = await site.start()
    answers = await gather(*(phone.scan(started) for phone in phones))
    assert sorted(answer.status_code for answer in answers) == [200] + [409] * 7
    (winner,) = [(phone, answer) for phone, answer in zip(phones, answers, strict=True) if answer.status_code == 200]
    scan_id = winner[1].json()["id"]
    verdicts = await gather(*(winner[0].decide(scan_id, verdict) for verdict in ["approve", "deny"] * 4))
    assert sorted(answer.status_code for answer in verdicts) == [204] * 4 + [404] * 4
    is_approved = verdicts[0].status_code == 204
    polls = await gather(*(site.poll(started) for _ in range(8)))
    assert [answer.status_code for answer in polls].count(200) == (1 if is_approved else 0)
    assert await rows.fetchval("SELECT count(*) FROM sessions WHERE client_id = 'shop'") == (1 if is_approved else 0)
    assert await rows.fetchval("SELECT count(*) FROM events WHERE type = 'scan.approved'") == (1 if is_approved else 0)


@pytest.mark.slow
@pytest.mark.parametrize("entry_scene", [1007, 1008, 1012, 1013, 1048, 1049, 1001, 0, None])
async def test_a_picture_that_somebody_was_sent_is_refused_and_the_scan_stays_open(
    site: Site, phone: Phone, entry_scene: int | None
) -> None:
    started = await site.start()
    problem_of(await phone.scan(started, entry_scene=entry_scene), "scan_forwarded", 403)
    assert (await phone.scan(started, entry_scene=1011)).status_code == 200


async def test_a_code_that_the_page_itself_has_read_by_camera_is_accepted(site: Site, phone: Phone) -> None:
    started = await site.start()
    problem_of(await phone.scan(started, entry_scene=None, scanned="album"), "scan_forwarded", 403)
    assert (await phone.scan(started, entry_scene=None, scanned="camera")).status_code == 200


async def test_a_link_is_claimed_like_the_scene_in_it(site: Site, phone: Phone, clock: Clock) -> None:
    started = await site.start()
    url = started["verification_uri_complete"]
    now = clock().timestamp()
    problem_of(await phone.claim(url=url, scancode_time=now - 181, entry_scene=1011), "scan_forwarded", 403)
    problem_of(await phone.claim(url=url, scancode_time=f"{now - 181:.0f}", entry_scene=1011), "scan_forwarded", 403)
    problem_of(await phone.claim(url=url, scancode_time=now), "scan_forwarded", 403)
    for other in (
        quote(url, safe=""),
        url.replace("auth.test", "auth.evil"),
        url + "x",
        url[:-1],
        "",
        "https://auth.test/d/",
    ):
        problem_of(await phone.claim(url=other, entry_scene=1011), "scan_over", 404)
    for no_number in ({"scancode_time": True, "entry_scene": 1011}, {"scancode_time": now, "entry_scene": True}):
        problem_of(await phone.claim(url=url, **no_number), "invalid_request", 422)
    assert (await phone.claim(url=url, scancode_time=f"{now:.0f}", entry_scene=1011)).status_code == 200


async def test_scan_entry_any_accepts_a_forwarded_code(
    make_services: MakeServices, make_client: MakeClient, site: Site, phone: Phone, clock: Clock
) -> None:
    started = await site.start()
    lenient = replace(phone, client=make_client(await make_services(scan_entry="any")))
    answer = await lenient.claim(url=started["verification_uri_complete"], scancode_time=1, entry_scene=1049)
    assert answer.status_code == 200
    problem_of(await lenient.claim(user_code=(await site.start())["user_code"]), "scan_forwarded", 403)


async def test_a_typed_code_is_for_sites_that_were_added_for_it(add_site: AddSite, site: Site, phone: Phone) -> None:
    problem_of(await phone.claim(user_code=(await site.start())["user_code"]), "scan_forwarded", 403)
    typing = await add_site("terminal", device=True, user_code=True)
    started = await typing.start()
    body = (await phone.claim(user_code=started["user_code"].lower().replace("-", " "))).json()
    assert body["typed"] is True
    assert (await phone.decide(body["id"])).status_code == 204
    assert (await typing.poll(started)).status_code == 200


async def test_five_wrong_codes_in_a_minute_are_enough_over_sessions_and_replicas(
    add_site: AddSite,
    phone: Phone,
    get_phone: GetPhone,
    make_services: MakeServices,
    make_client: MakeClient,
    clock: Clock,
) -> None:
    typing = await add_site("terminal", device=True, user_code=True)
    right = (await typing.start())["user_code"]
    assert (await phone.claim(user_code=right)).status_code == 200  # a right one is none of the five
    elsewhere = replace(await get_phone("alice"), client=make_client(await make_services()))
    wrong = await gather(*(who.claim(user_code="BCDF-GHJK") for who in (phone, elsewhere) * 4))
    assert sorted(answer.status_code for answer in wrong) == [404] * 5 + [429] * 3
    limited = await elsewhere.claim(user_code=right)
    problem_of(limited, "rate_limited", 429)
    assert limited.headers["retry-after"] == "60"
    bob = await get_phone("bob")
    problem_of(await bob.claim(user_code="nonsense"), "scan_over", 404)
    clock.advance(seconds=60)
    assert (await elsewhere.claim(user_code=right)).status_code == 200


@swept("body", [{}, {"scene": "a", "url": "b"}, {"scene": None}, {"scene": 1}, {"scene": "a", "entry_scene": "x"}, []])
async def test_a_claim_names_one_thing(phone: Phone, body: Any) -> None:
    answer = await phone.client.post("/v1/me/scans", json=body, headers=bearer(phone.tokens))
    problem_of(answer, "invalid_request", 422)


@swept("scene", ["", "x", "a" * 22, "a" * 5000, "\0", "../../etc"])
async def test_an_unknown_scene_is_over(phone: Phone, scene: str) -> None:
    problem_of(await phone.claim(scene=scene, entry_scene=1047), "scan_over", 404)


async def test_a_near_site_and_an_administrator_require_phone_and_browser_in_one_network(
    add_site: AddSite,
    phone: Phone,
    get_phone: GetPhone,
    rows: Rows,
    make_services: MakeServices,
    make_client: MakeClient,
) -> None:
    near = await add_site("near", device=True, near=True)
    refused(await near.post("/v1/device_authorization"), "invalid_request")
    started = await near.start(browser_ip=OFFICE)
    problem_of(await phone.scan(started), "scan_too_far", 403)
    problem_of(await phone.scan(started, entry_scene=1007), "scan_forwarded", 403)  # checked first
    assert (await phone.scan(await near.start(browser_ip="127.0.0.9"))).status_code == 200

    office = await add_site("office", device=True)
    admin = await get_phone("admin")
    await set_roles(rows, "admin", user_id=admin.user_id)
    for form in ({"browser_ip": OFFICE}, {}):
        started = await office.start(**form)
        problem_of(await admin.scan(started), "scan_too_far", 403)
        assert (await phone.scan(started)).status_code == 200
        problem_of(await admin.scan(started), "scan_too_far", 403)  # said before that it is taken
    started = await office.start(browser_ip=OFFICE)
    anywhere = replace(admin, client=make_client(await make_services(scan_admin_anywhere=True)))
    assert (await anywhere.scan(started)).status_code == 200
    problem_of(await anywhere.scan(await near.start(browser_ip=OFFICE)), "scan_too_far", 403)


async def test_a_user_shut_out_between_approval_and_tokens_gets_none(
    site: Site, get_phone: GetPhone, rows: Rows, client: Client, clock: Clock
) -> None:
    async def ban(phone: Phone) -> None:
        await rows.execute("UPDATE users SET status = 'disabled' WHERE id = $1", UUID(phone.user_id))

    async def erase(phone: Phone) -> None:
        assert (await leave(client, phone.tokens)).status_code == 204

    async def sign_out(phone: Phone) -> None:
        assert (await client.post("/v1/logout", headers=bearer(phone.tokens))).status_code == 204

    async def wait(phone: Phone) -> None:
        clock.advance(seconds=180)

    for number, happens in enumerate((ban, erase, sign_out, wait)):
        phone = await get_phone(f"person-{number}")
        started = await site.start()
        await phone.approve(started)
        await happens(phone)
        refused(await site.poll(started), "access_denied")
    assert await rows.fetchval("SELECT count(*) FROM sessions WHERE client_id = 'shop'") == 0


async def test_a_person_who_is_merged_before_the_tokens_is_followed_and_after_them_logged_out(
    site: Site, client: Client, services: Services, wechat: WeChatByRespx, clock: Clock
) -> None:
    async def log_in(person: str, app: dict[str, str], **fields: Any) -> dict[str, Any]:
        code = wechat.code_for(person, app_id=app["app_id"], **fields)
        return (await client.post("/v1/login", json={"code": code, "app_id": app["app_id"]})).json()

    other = await log_in("one", OTHER_APP, unionid="union-1")
    phone = Phone(client, await log_in("one", APP), lambda: wechat.code_for("one"))
    before = await tokens_of(site, phone)
    started = await site.start()
    await phone.approve(started)
    openid = phone.tokens["user"]["openid"]
    await link_unionid(services.database, app_id=APP["app_id"], openid=openid, unionid="union-1", now=clock())

    claims = get_unverified_claims((await site.poll(started)).json()["access_token"])
    assert claims["sub"] == other["user"]["id"] != phone.user_id
    refused(await site.refresh(before), "invalid_grant")
    assert (await client.get("/v1/verify", headers=bearer(before))).status_code == 401


@pytest.mark.oldest_postgres
async def test_a_websites_session_is_one_like_any_other(site: Site, phone: Phone, client: Client, rows: Rows) -> None:
    tokens = await tokens_of(site, phone, browser_ip=OFFICE, browser_user_agent=EDGE)
    session_id = get_unverified_claims(tokens["access_token"])["sid"]
    listed = (await client.get("/v1/me/sessions", headers=bearer(phone.tokens))).json()["items"]
    own, web = sorted(listed, key=lambda session: session["client_id"] or "")
    assert (own["client_id"], web["client_id"], web["id"]) == (None, "shop", session_id)
    assert (web["device"], web["ip"], web["current"]) == ("Windows, Edge 141", OFFICE, False)
    assert web["expires_at"] == "2026-11-20T20:00:00Z"
    taken_along = (await client.get("/v1/me/export", headers=bearer(phone.tokens))).json()["sessions"]
    [web] = [session for session in taken_along if session["client_id"] is not None]
    assert (web["client_id"], web["scope"], web["authenticated_by"]) == ("shop", "openid profile", "wechat_scan")

    assert (await client.get("/v1/verify", headers=bearer(tokens))).status_code == 200
    answer = await client.delete(f"/v1/me/sessions/{session_id}", headers=bearer(phone.tokens))
    assert answer.status_code == 204
    assert (await client.get("/v1/verify", headers=bearer(tokens))).status_code == 401
    refused(await site.refresh(tokens), "invalid_grant")


OPEN_TO_WEBSITES = {("get", "/v1/verify"), ("post", "/v1/logout")}


@pytest.mark.slow
async def test_a_websites_token_is_not_the_phone(site: Site, phone: Phone, client: Client, rows: Rows) -> None:
    await set_roles(rows, "admin", user_id=phone.user_id)
    started = await site.start(browser_ip="127.0.0.1")
    await phone.approve(started)
    tokens = (await site.poll(started)).json()
    document = (await client.get("/openapi.json")).json()
    guarded = {
        (method, path)
        for path, operations in document["paths"].items()
        for method, operation in operations.items()
        if {"wxauth": []} in operation.get("security", [])
    }
    assert guarded > OPEN_TO_WEBSITES
    for method, path in guarded - OPEN_TO_WEBSITES - {("get", "/v1/userinfo"), ("post", "/v1/userinfo")}:
        url = path.replace("{user_id}", phone.user_id).replace("{session_id}", phone.user_id)
        url = url.replace("{scan_id}", phone.user_id)
        answer = await client.request(method, url, headers=bearer(tokens))
        problem_of(answer, "insufficient_scope", 403)
        assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
    assert (await client.post("/v1/logout", headers=bearer(tokens))).status_code == 204
    assert (await client.get("/v1/me", headers=bearer(phone.tokens))).status_code == 200


@pytest.mark.parametrize("may_see", [True, False])
async def test_a_website_sees_roles_only_with_the_scope_roles(
    add_site: AddSite, phone: Phone, client: Client, rows: Rows, may_see: bool
) -> None:
    await set_roles(rows, "editor", user_id=phone.user_id)
    scopes = ["openid", "roles"] if may_see else ["openid"]
    site = await add_site(device=True, scopes=[*scopes, Scope.INTROSPECT])
    tokens = await tokens_of(site, phone)
    seen = ["editor"] if may_see else None
    assert get_unverified_claims(tokens["access_token"]).get("roles") == seen
    verified = await client.get("/v1/verify", headers=bearer(tokens))
    assert verified.headers["x-auth-roles"] == ("editor" if may_see else "")
    assert verified.headers["x-auth-app-id"] == APP["app_id"]
    asked = await client.get("/v1/verify?role=editor", headers=bearer(tokens))
    assert asked.status_code == (200 if may_see else 403)
    introspected = (await site.post("/v1/introspect", token=tokens["access_token"])).json()
    assert introspected.get("roles") == seen
    assert (introspected["client_id"], introspected["app_id"]) == ("shop", APP["app_id"])
    assert introspected["scope"] == tokens["scope"]


async def test_a_websites_token_has_the_id_that_the_person_had_before_wxauth(
    site: Site, phone: Phone, rows: Rows
) -> None:
    await rows.execute("UPDATE users SET external_id = '10023'")
    tokens = await tokens_of(site, phone)
    for token in (tokens["access_token"], (await site.refresh(tokens)).json()["access_token"]):
        assert get_unverified_claims(token)["external_id"] == "10023"


async def test_a_refresh_token_rotates_with_grace_and_ends_the_session_when_it_is_stolen(
    site: Site, phone: Phone, clock: Clock, client: Client
) -> None:
    first = await tokens_of(site, phone)
    second = (await site.refresh(first)).json()
    assert (await site.refresh(first)).json()["refresh_token"] == second["refresh_token"] != first["refresh_token"]
    third = (await site.refresh(second)).json()
    clock.advance(seconds=11)
    refused(await site.refresh(first), "invalid_grant")
    refused(await site.refresh(third), "invalid_grant")
    assert (await client.get("/v1/verify", headers=bearer(third))).status_code == 401


async def test_a_refresh_for_more_than_was_granted_is_refused_and_costs_the_site_no_session(
    site: Site, phone: Phone, services: Services, clock: Clock
) -> None:
    tokens = await tokens_of(site, phone, scope="openid")
    for scope in ("profile", "openid profile"):
        refused(await site.refresh(tokens, scope=scope), "invalid_scope")
    await change_client(services.database, site.name, {"scopes": ["profile"]}, now=clock())
    refused(await site.refresh(tokens), "invalid_grant")
    await change_client(services.database, site.name, {"scopes": ["openid"]}, now=clock())
    clock.advance(seconds=60)  # longer than a lost answer has to come again
    assert (await site.refresh(tokens)).json()["scope"] == "openid"


async def test_a_refresh_token_works_with_its_own_client_alone_and_at_one_place(
    site: Site, add_site: AddSite, phone: Phone, client: Client, login: LogIn
) -> None:
    other = await add_site("other", device=True)
    tokens = await tokens_of(site, phone)
    refused(await other.refresh(tokens), "invalid_grant")
    at_login = await client.post("/v1/refresh", json={"refresh_token": tokens["refresh_token"]})
    problem_of(at_login, "invalid_refresh_token", 400)
    refused(await site.refresh(phone.tokens), "invalid_grant")
    assert (await site.refresh(tokens)).status_code == 200
    assert (await client.post("/v1/refresh", json={"refresh_token": phone.tokens["refresh_token"]})).status_code == 200


@pytest.mark.slow
async def test_a_websites_session_ends_unused_and_in_any_case(site: Site, phone: Phone, clock: Clock) -> None:
    tokens, unused = await tokens_of(site, phone), await tokens_of(site, phone)
    for _ in range(60):  # twelve hours each: thirty days
        answer = await site.refresh(tokens)
        assert answer.status_code == 200
        tokens = answer.json()
        clock.advance(seconds=43199)
    refused(await site.refresh(unused), "invalid_grant")
    left = (await site.refresh(tokens)).json()
    assert left["expires_in"] == 60  # of the thirty days
    clock.advance(seconds=60)
    refused(await site.refresh(left), "invalid_grant")


async def test_no_secret_is_stored_in_clear(site: Site, rows: Rows) -> None:
    started = await site.start()
    stored = repr(await rows.fetch("SELECT * FROM site_logins"))
    for secret in (started["device_code"], started["user_code"], scene_of(started)):
        assert secret not in stored
        assert secret.encode().hex() not in stored


@pytest.mark.slow
async def test_scans_are_counted_by_how_far_they_come(
    site: Site, phone: Phone, services: Services, client: Client, clock: Clock
) -> None:
    async def counted() -> list[float]:
        text = (await client.get("/metrics")).text
        outcomes = ("started", "claimed", "approved", "denied", "redeemed", "expired")
        return [float(text.partition(f'\nwxauth_scans_total{{outcome="{name}"}} ')[2].split()[0]) for name in outcomes]

    assert await counted() == [0, 0, 0, 0, 0, 0]
    await tokens_of(site, phone)
    refused_scan = (await phone.scan(await site.start())).json()["id"]
    for _ in range(2):
        await phone.decide(refused_scan, "deny")
    await phone.scan(await site.start())
    await site.start()
    assert await counted() == [4, 3, 1, 1, 1, 0]
    metrics = (await client.get("/metrics")).text
    for outcome, number in (("logged_in", 1), ("refused", 1), ("failed", 0)):
        assert f'wxauth_doors_total{{door="scan",outcome="{outcome}"}} {number}.0' in metrics
        assert f'wxauth_doors_total{{door="typed",outcome="{outcome}"}} 0.0' in metrics
    clock.advance(seconds=180 + 3601)
    for _ in range(2):
        await sweep(services, pause=0)
    assert await counted() == [4, 3, 1, 1, 1, 2]


async def test_a_finished_scan_is_swept_an_hour_later(
    site: Site, phone: Phone, services: Services, clock: Clock, rows: Rows
) -> None:
    started = await site.start()
    await phone.claim(user_code="BCDF-GHJK")
    clock.advance(seconds=180 + 3599)
    await sweep(services, pause=0)
    refused(await site.poll(started), "expired_token")
    clock.advance(seconds=2)
    await sweep(services, pause=0)
    assert await rows.fetchval("SELECT count(*) FROM site_logins") == 0
    refused(await site.poll(started), "invalid_grant")


async def test_a_swept_session_of_a_site_leaves_nothing(
    site: Site, phone: Phone, services: Services, clock: Clock, rows: Rows
) -> None:
    await tokens_of(site, phone)
    assert await rows.fetchval("SELECT count(*) FROM website_sessions") == 1
    clock.advance(days=400)
    await sweep(services, pause=0)
    assert await rows.fetchval("SELECT count(*) FROM website_sessions") == 0


async def test_a_client_must_authenticate(site: Site, add_site: AddSite, services: Services, clock: Clock) -> None:
    from tests.world import add_client

    ask = site.client.post
    path = "/v1/device_authorization"
    wrong = {
        "nothing": await ask(path),
        "a name": await ask(path, data={"client_id": "shop"}),
        "a wrong secret": await ask(path, data={"client_id": "shop", "client_secret": "x"}),
        "a wrong secret by Basic": await ask(path, auth=("shop", "x")),
        "nobody": await ask(path, auth=("nobody", "x")),
        "no name": await ask(path, data={"client_secret": site.secret}),
        "a bearer": await ask(path, headers={"Authorization": "Bearer x"}),
    }
    for answer in wrong.values():
        assert refused(answer, "invalid_client", 401).headers["www-authenticate"] == "Basic"
    in_form = await ask(path, data={"client_id": "shop", "client_secret": site.secret})
    assert in_form.status_code == 200
    both = await ask(path, data={"client_secret": site.secret}, auth=("shop", site.secret or ""))
    refused(both, "invalid_request")
    sibling = await add_client(services.database, "billing", now=clock())
    refused(await ask(path, auth=(sibling.client_id, sibling.client_secret)), "unauthorized_client")
    page = await add_site("page", is_public=True)
    refused(await page.post(path), "unauthorized_client")
    refused(await page.post("/v1/token", grant_type=DEVICE_CODE, device_code="x"), "unauthorized_client")
    refused(await ask(path, data={"client_id": "page", "client_secret": "x"}), "invalid_client", 401)


@swept(
    ("form", "error"),
    [
        ({"browser_ip": "localhost"}, "invalid_request"),
        ({"browser_ip": "203.0.113.7, 10.0.0.1"}, "invalid_request"),
        ({"scope": "phone"}, "invalid_scope"),
        ({"scope": "wxauth:admin"}, "invalid_scope"),
        ({"scope": "a" * 5000}, "invalid_request"),
        ({"scope": "open\nid"}, "invalid_request"),
        ({"scope": ["openid", "profile"]}, "invalid_request"),
    ],
)
async def test_a_wrong_request_for_a_scan_is_refused(site: Site, form: dict[str, Any], error: str) -> None:
    refused(await site.post("/v1/device_authorization", **form), error)


@swept(
    ("form", "error"),
    [
        ({}, "invalid_request"),
        ({"grant_type": "password"}, "unsupported_grant_type"),
        ({"grant_type": "implicit"}, "unsupported_grant_type"),
        ({"grant_type": DEVICE_CODE}, "invalid_request"),
        ({"grant_type": DEVICE_CODE, "device_code": "x"}, "invalid_grant"),
        ({"grant_type": DEVICE_CODE, "device_code": ["x", "y"]}, "invalid_request"),
        ({"grant_type": "refresh_token"}, "invalid_request"),
        ({"grant_type": "refresh_token", "refresh_token": "wxr_x"}, "invalid_grant"),
    ],
)
async def test_a_wrong_request_for_tokens_is_refused(site: Site, form: dict[str, Any], error: str) -> None:
    refused(await site.post("/v1/token", **form), error)


async def test_a_body_that_is_not_a_form_is_refused_and_not_read_as_an_empty_form(site: Site) -> None:
    path, asked, auth = "/v1/device_authorization", {"scope": "openid"}, site.auth
    assert auth is not None
    refused(await site.client.post(path, json=asked, auth=auth), "invalid_request")
    form = {"Content-Type": "Application/X-WWW-Form-Urlencoded; charset=UTF-8"}
    for headers, body in ((form, b"scope=openid"), ({}, b"scope=openid"), ({"Content-Type": "application/json"}, b"")):
        answer = await site.client.post(path, headers=headers, content=body, auth=auth)
        assert answer.status_code == 200, answer.text


async def test_another_sites_device_code_is_invalid(site: Site, add_site: AddSite, phone: Phone) -> None:
    other = await add_site("other", device=True)
    started = await site.start()
    await phone.approve(started)
    refused(await other.poll(started), "invalid_grant")
    assert (await site.poll(started)).status_code == 200


async def test_a_site_gets_of_its_scopes_those_that_it_asks_for(add_site: AddSite, phone: Phone) -> None:
    site = await add_site(device=True, scopes=["openid", "profile", "offline_access"])
    assert (await tokens_of(site, phone, scope="profile phone unheard-of"))["scope"] == "profile"
    assert (await tokens_of(site, phone))["scope"] == "openid profile offline_access"


async def test_a_scope_that_a_site_has_lost_is_in_no_later_token(
    services: Services, add_site: AddSite, phone: Phone, clock: Clock
) -> None:
    site = await add_site(device=True, scopes=["openid", "phone", "roles", "email"])
    started = await site.start()
    await phone.approve(started)
    await change_client(services.database, site.name, {"scopes": ["openid", "phone", "roles"]}, now=clock())
    tokens = (await site.poll(started)).json()
    assert tokens["scope"] == "openid phone roles"
    await change_client(services.database, site.name, {"scopes": ["openid", "profile"]}, now=clock())
    answer = (await site.refresh(tokens)).json()
    assert (answer["scope"], get_unverified_claims(answer["access_token"])["scope"]) == ("openid", "openid")
    await change_client(services.database, site.name, {"scopes": ["profile"]}, now=clock())
    refused(await site.refresh(answer), "invalid_grant")


async def test_new_scans_are_limited_by_browser_and_by_client(
    make_services: MakeServices, make_client: MakeClient, site: Site, clock: Clock
) -> None:
    strict = await make_services(scan_rate_limit="2/minute", scan_client_limit="3/minute")
    there = Site(make_client(strict), site.name, site.secret)
    answers = [await there.post("/v1/device_authorization", browser_ip=OFFICE) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429, 429]
    assert refused(answers[2], "temporarily_unavailable", 429).headers["retry-after"]
    # One browser that is refused takes nothing from the others.
    assert (await there.post("/v1/device_authorization", browser_ip=FAR)).status_code == 200
    refused(await there.post("/v1/device_authorization"), "temporarily_unavailable", 429)
    clock.advance(seconds=61)
    assert (await there.post("/v1/device_authorization", browser_ip=OFFICE)).status_code == 200


async def test_our_own_client_is_renewed_and_takes_nobodys_name(services: Services, site: Site, clock: Clock) -> None:
    from wxauth.server.clients.clients import ensure_own_client
    from wxauth.server.clients.rows import find_site

    for title in ("Console", "Console 2"):
        await ensure_own_client(
            services.database,
            "wxauth-admin",
            title=title,
            redirect_uris=["https://auth.test/admin/"],
            scopes=["openid", "wxauth:admin"],
            now=clock(),
        )
    own = await find_site(services.database, "wxauth-admin")
    assert own is not None
    assert (own.title, own.is_public, own.scopes[-1]) == ("Console 2", True, "wxauth:admin")
    with pytest.raises(ValueError, match="our own"):
        await ensure_own_client(services.database, "shop", title="", redirect_uris=[], scopes=[], now=clock())


async def test_a_replica_that_starts_does_not_wait_for_scans_of_the_console_that_are_just_starting(
    services: Services, rows: Rows, clock: Clock
) -> None:
    from wxauth.server.clients.clients import ensure_own_client

    uris, scopes = ["https://auth.test/admin/"], ["wxauth:admin"]
    for title in ("Console", "Console 2"):
        async with rows.transaction():
            await rows.execute("SELECT FROM clients FOR KEY SHARE")  # as a new scan's foreign key does
            await ensure_own_client(
                services.database, "wxauth-admin", title=title, redirect_uris=uris, scopes=scopes, now=clock()
            )
    assert await rows.fetchval("SELECT title FROM clients") == "Console 2"


@pytest.mark.own_database
async def test_a_yes_in_the_moment_of_an_erasure_leaves_no_address(
    site: Site, phone: Phone, client: Client, rows: Rows
) -> None:
    claimed = await phone.scan(await site.start())
    async with rows.transaction():
        await rows.execute("SELECT FROM events FOR UPDATE")  # the erasure comes to them at its end
        erasing = create_task(leave(client, phone.tokens))
        await until_locked(rows)
        saying_yes = create_task(phone.decide(claimed.json()["id"]))
        await until_locked(rows, 2)
    assert (await erasing).status_code == 204
    problem_of(await saying_yes, "scan_over", 404)
    assert await rows.fetchval("SELECT count(*) FROM events WHERE ip IS NOT NULL") == 0
