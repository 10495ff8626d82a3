"""`/v1/me/id-token`: a mini-program or mobile app logs its person in to another back end, such as Supabase."""

import json
from asyncio import create_task, gather
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from jose import jwt

from tests.fakes import START, Clock, WeChatByRespx
from tests.problems import problem_of
from tests.processes import Command, make_command
from tests.sweeps import Sweep
from tests.websites.browsers import Browser, exchanged, id_claims, wechat_thinking
from tests.websites.test_web_view import Meanwhile, ban, code_of, count, erase, sign_out
from tests.world import (
    CALLBACK,
    AddSite,
    Body,
    Client,
    GetPhone,
    LogIn,
    MakeClient,
    MakeServices,
    Phone,
    Rows,
    Site,
    leave,
    log_in,
    make_admin,
)
from wxauth.server.clients.clients import add_client, build_client, change_client, remove_client
from wxauth.server.console.sessions import ConsoleSessions
from wxauth.server.core.services import Services
from wxauth.server.dev.wechat import APPS, MOBILE_APP

PATH = "/v1/me/id-token"


@pytest.fixture
async def supabase(add_site: AddSite) -> Site:
    """A back end that knows wxauth by its issuer, and has no redirect URI here."""
    return await add_site("supabase", redirect_uris=[], phone_id_token=True)


async def ask(phone: Phone, **fields: Any) -> httpx.Response:
    body = {"client_id": "supabase", "login_code": phone.wx_login(), **fields}
    return await phone.ask("POST", "/id-token", json=body)


async def token_of(phone: Phone, **fields: Any) -> str:
    answer = await ask(phone, **fields)
    assert answer.status_code == 200, answer.text
    assert answer.json().keys() == {"id_token", "expires_in"}
    assert (answer.json()["expires_in"], answer.headers["cache-control"]) == (300, "no-store")
    return answer.json()["id_token"]


# What it says.


async def test_a_mini_program_gets_an_id_token_that_lives_five_minutes_and_names_no_session(
    supabase: Site, phone: Phone, clock: Clock, rows: Rows
) -> None:
    await rows.execute("UPDATE users SET nickname = '小明'")
    clock.advance(minutes=7)
    token = await token_of(phone, nonce="n" * 512)
    assert jwt.get_unverified_header(token)["typ"] == "JWT"
    now = int(clock().timestamp())
    assert await id_claims(phone.client, token, "supabase") == {
        **{"iss": "https://auth.test", "sub": phone.user_id, "aud": "supabase", "exp": now + 300, "iat": now},
        **{"auth_time": now, "amr": ["wechat_mini_program"], "nonce": "n" * 512},
        **{"name": "小明", "updated_at": int(START.timestamp())},
    }
    assert "nonce" not in await id_claims(phone.client, await token_of(phone), "supabase")
    assert await count(rows, "sessions") == 1
    assert await count(rows, "site_logins") == 0


async def test_it_has_the_clients_scopes_claims_and_algorithm(add_site: AddSite, phone: Phone, rows: Rows) -> None:
    await rows.execute("""UPDATE users SET roles = '{editor}', attributes = '{"tier": "gold"}'""")
    added = {"role": "authenticated", "tier": "$attributes.tier", "openid_here": "$openid"}
    options = {"scopes": ["openid", "roles"], "claims": added, "id_token_alg": "ES256"}
    await add_site("cloudbase", phone_id_token=True, **options)
    claims = await id_claims(phone.client, await token_of(phone, client_id="cloudbase"), "cloudbase", "ES256")
    assert claims["roles"] == ["editor"]
    assert {name: claims.get(name) for name in (*added, "name")} == {
        **{"role": "authenticated", "tier": "gold", "openid_here": phone.tokens["user"]["openid"], "name": None}
    }


async def test_a_mobile_app_proves_its_person_by_its_own_code(
    make_simulated_services: MakeServices, make_client: MakeClient, clock: Clock
) -> None:
    services = await make_simulated_services(apps=(*APPS, MOBILE_APP))
    client = make_client(services)
    site = build_client("supabase", {"phone_id_token": True, "id_token_alg": "ES256"})
    await add_client(services.database, site, now=clock())
    in_app = await log_in(client, "alice", app=MOBILE_APP)
    phone = Phone(client, in_app, lambda: "alice")
    claims = await id_claims(client, await token_of(phone), "supabase", "ES256")
    assert (claims["amr"], claims["sub"]) == (["wechat_mobile_app"], in_app["user"]["id"])
    problem_of(await ask(phone, login_code="mallory"), "wrong_person", 403)


async def test_it_is_in_the_trail_and_counted_by_its_door(
    supabase: Site, phone: Phone, wechat: WeChatByRespx, rows: Rows
) -> None:
    await token_of(phone)
    event = await rows.fetchrow("SELECT * FROM events WHERE type = 'site.authorized'")
    assert json.loads(event["data"]) == {"client_id": "supabase", "door": "phone"}
    assert (event["actor"], str(event["user_id"]), str(event["ip"])) == (phone.user_id, phone.user_id, "127.0.0.1")
    await ask(phone, login_code=wechat.code_for("mallory"))
    wechat.answers(*[httpx.ConnectError("no")] * 3)
    problem_of(await ask(phone), "wechat_unavailable", 503)
    metrics = (await phone.client.get("/metrics")).text
    for outcome in ("logged_in", "refused", "failed"):
        assert f'wxauth_doors_total{{door="phone",outcome="{outcome}"}} 1.0' in metrics


# What it is not.


async def test_it_is_neither_a_bearer_nor_an_id_token_hint(
    add_site: AddSite, supabase: Site, phone: Phone, browser: Browser
) -> None:
    await add_site(phone_id_token=True, logout_uris=["https://shop.example.com/"])
    token = await token_of(phone, client_id="shop")
    as_bearer = await phone.client.get("/v1/me", headers={"Authorization": f"Bearer {token}"})
    problem_of(as_bearer, "invalid_token", 401)
    refused = await browser.open(id_token_hint=token)
    assert "id_token_hint" in refused.headers["location"], refused.headers
    asked = {"id_token_hint": token, "post_logout_redirect_uri": "https://shop.example.com/"}
    assert (await phone.client.get("/v1/end_session", params=asked)).status_code == 400
    assert (await phone.ask("GET")).status_code == 200


# Refusals.


async def test_only_a_client_that_was_added_for_it_is_served_and_wechat_is_not_asked_else(
    add_site: AddSite, supabase: Site, phone: Phone, services: Services, clock: Clock, wechat: WeChatByRespx
) -> None:
    await add_site()
    await add_client(services.database, build_client("billing", {}), now=clock())
    asked = len(wechat.calls)
    with Sweep() as sweep:
        for client_id in ("shop", "billing", "nobody", "wxauth-admin", "", "a\0b", "x" * 5000):
            with sweep.case(client_id[:20]):
                errors = problem_of(await ask(phone, client_id=client_id), "invalid_request", 422)["errors"]
                assert errors[0]["field"] == "client_id"
        for wrong in ({"nonce": "n" * 513}, {"nonce": 1}, {"client_id": None}, {"login_code": ""}):
            with sweep.case(str(wrong)[:20]):
                problem_of(await ask(phone, **wrong), "invalid_request", 422)
    assert len(wechat.calls) == asked
    assert (await ask(phone)).status_code == 200


async def test_the_console_gives_no_phone_an_id_token(
    phone: Phone, make_services: MakeServices, make_client: MakeClient, rows: Rows, login: LogIn
) -> None:
    services = await make_services(admin_page=True)
    await services[ConsoleSessions].add_as_site()
    in_service = replace(phone, client=make_client(services))
    problem_of(await ask(in_service, client_id="wxauth-admin"), "invalid_request", 422)
    root = await make_admin(in_service.client, rows, await login("root"))
    change = await root.ask("PATCH", "/clients/wxauth-admin", json={"phone_id_token": True})
    assert change.status_code in (404, 422), change.text
    assert await count(rows, "clients WHERE phone_id_token") == 0


async def test_a_bearer_alone_gets_no_id_token(supabase: Site, phone: Phone, wechat: WeChatByRespx, rows: Rows) -> None:
    without = await phone.ask("POST", "/id-token", json={"client_id": "supabase"})
    problem_of(without, "invalid_request", 422)
    problem_of(await ask(phone, login_code=wechat.code_for("mallory")), "wrong_person", 403)
    spent = phone.wx_login()
    await token_of(phone, login_code=spent)
    problem_of(await ask(phone, login_code=spent), "invalid_code", 400)
    assert await count(rows, "events WHERE type = 'site.authorized'") == 1


async def test_the_session_of_a_site_gets_none(supabase: Site, add_site: AddSite, phone: Phone) -> None:
    tokens = (await exchanged(await add_site(), await code_of(phone))).json()
    problem_of(await ask(replace(phone, tokens=tokens)), "insufficient_scope", 403)


@pytest.mark.parametrize("meanwhile", [ban, erase, sign_out])
async def test_a_user_who_is_shut_out_while_wechat_is_asked_gets_none(
    supabase: Site, phone: Phone, rows: Rows, wechat: WeChatByRespx, meanwhile: Meanwhile
) -> None:
    async with wechat_thinking(wechat) as is_asked:
        asking = create_task(ask(phone))
        await is_asked()
        await meanwhile(phone, rows)
    problem_of(await asking, "invalid_token", 401)
    assert await count(rows, "events WHERE type = 'site.authorized'") == 0


async def test_who_is_leaving_gets_none(
    supabase: Site, login: LogIn, make_services: MakeServices, make_client: MakeClient, wechat: WeChatByRespx
) -> None:
    client = make_client(await make_services(erasure_grace_days=7))
    phone = Phone(client, await login("alice"), partial(wechat.code_for, "alice"))
    assert (await leave(client, phone.tokens)).status_code == 202
    problem_of(await ask(phone), "invalid_token", 401)


@pytest.mark.parametrize("is_removed", [True, False], ids=["removed", "changed"])
async def test_a_client_that_is_withdrawn_while_wechat_is_asked_gives_none(
    supabase: Site, phone: Phone, services: Services, clock: Clock, wechat: WeChatByRespx, is_removed: bool
) -> None:
    async with wechat_thinking(wechat) as is_asked:
        asking = create_task(ask(phone))
        await is_asked()
        if is_removed:
            await remove_client(services.database, "supabase", now=clock())
        else:
            changes = {"phone_id_token": False, "redirect_uris": [CALLBACK]}
            await change_client(services.database, "supabase", changes, now=clock())
    problem_of(await asking, "invalid_request", 422)


@pytest.mark.slow
async def test_a_user_gets_sixty_a_minute_over_all_replicas(
    supabase: Site,
    phone: Phone,
    get_phone: GetPhone,
    make_services: MakeServices,
    make_client: MakeClient,
    clock: Clock,
) -> None:
    replicas = [replace(phone, client=make_client(await make_services(login_rate_limit=""))) for _ in range(2)]
    answers = await gather(*(ask(replicas[number % 2]) for number in range(61)))
    assert sum(answer.status_code == 200 for answer in answers) == 60
    limited = problem_of(next(answer for answer in answers if answer.status_code != 200), "rate_limited", 429)
    assert limited
    assert (await ask(await get_phone("bob"))).status_code == 200
    clock.advance(seconds=60)
    assert (await ask(phone)).status_code == 200


# How a client is added.


@pytest.fixture
def clients(database_url: str, tmp_path: Path) -> Command:
    env = {"WXAUTH_DATABASE_URL": database_url, "WXAUTH_AUDIENCE": "wxauth"}
    return make_command("clients", cwd=tmp_path, env=env)


@pytest.mark.process
async def test_the_command_adds_a_client_for_phones_alone(clients: Command) -> None:
    added = await clients("add", "supabase", "--public", "--phone-id-token", "--claim", "role=authenticated")
    assert added.returncode == 0, added.stderr

    async def listed() -> Body:
        (client,) = json.loads((await clients("list", "--json")).stdout)
        return client

    client = await listed()
    assert (client["phone_id_token"], client["scopes"], client["claims"]) == (
        True,
        ["openid", "profile"],
        {"role": "authenticated"},
    )
    for refused in (
        ("add", "x", "--phone-id-token", "--near"),
        ("add", "x", "--phone-id-token", "--scope", "profile"),
        ("set", "supabase", "--near"),
        ("set", "supabase", "--scope", "profile"),
    ):
        answer = await clients(*refused)
        assert (answer.returncode, "--phone-id-token" in answer.stderr) == (2, True), answer.stderr
    assert (await clients("set", "supabase", "--no-phone-id-token")).returncode == 2  # nothing would be left of it
    assert (await clients("set", "wxauth-admin", "--phone-id-token")).returncode == 2
    changed = await clients("set", "supabase", "--no-phone-id-token", "--redirect-uri", CALLBACK, "--claim", "")
    assert changed.returncode == 0, changed.stderr
    client = await listed()
    assert (client["phone_id_token"], client["claims"]) == (False, None)


async def test_the_api_refuses_what_the_command_refuses(client: Client, login: LogIn, rows: Rows) -> None:
    root = await make_admin(client, rows, await login("root"))
    for wrong in ({"near": True}, {"scopes": ["profile"]}):
        answer = await root.ask("POST", "/clients", json={"name": "supabase", "phone_id_token": True, **wrong})
        assert problem_of(answer, "invalid_request", 422)["errors"][0]["field"] == "phone_id_token"
    added = await root.ask("POST", "/clients", json={"name": "supabase", "phone_id_token": True})
    assert (added.status_code, added.json()["phone_id_token"]) == (200, True)
