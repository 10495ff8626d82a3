"""With `POST /v1/apps/{app_id}/signatures`, a sibling gets data signed with a user's session_key."""

import asyncio
import json
from base64 import b64encode
from collections.abc import Awaitable, Callable
from hashlib import sha256
from hmac import digest
from typing import Any

import httpx
import pytest

from tests.database_proxy import Proxy
from tests.fakes import APP, OTHER_APP, Secrets, WeChatByRespx
from tests.metrics import scrape
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import NOBODY, AddSibling, Admin, Client, LogIn, Stage, bearer, leave, recorded
from wxauth.clients.clients import Credentials
from wxauth.clients.models import Scope
from wxauth_desk.wechat import APPS

APP_ID, OTHER_APP_ID = APP["app_id"], OTHER_APP["app_id"]
GOODS = ' {"offerId": "1450000000", "env":0, "productId":"会员\\u0000"}\n'
VECTOR = (
    "o0q0otL8aEzpcZL/FT9WsQ==",
    '{"foo":"bar"}',
    "654571f79995b2ce1e149e53c0a33dc39c0a74090db514261454e8dbe432aa0b",
)
"""The key, the message and the signature of the example in WeChat's documentation."""

Sign = Callable[..., Awaitable[httpx.Response]]


@pytest.fixture
async def shop(add_sibling: AddSibling) -> Credentials:
    return await add_sibling("shop", Scope.SIGN)


@pytest.fixture
def sign(client: Client, shop: Credentials) -> Sign:
    """A function that lets wxauth sign `GOODS` for the shop. Arguments change the request."""

    async def ask(*, app_id: str = APP_ID, auth: Any = shop, at: Client = client, **body: object) -> httpx.Response:
        return await at.post(f"/v1/apps/{app_id}/signatures", auth=auth, json={"data": GOODS, **body})

    return ask


def signature(key: str, data: str = GOODS) -> str:
    return digest(key.encode(), data.encode(), sha256).hex()


def key_of_last_login(wechat: WeChatByRespx) -> str:
    code = wechat.calls[-1]["js_code"]
    return b64encode(code.encode()[-16:]).decode()


async def test_data_is_signed_with_the_key_as_wechat_wrote_it(stage: Stage, sign: Sign) -> None:
    key, data, expected = VECTOR
    code = stage.wechat.code_for("alice")
    stage.wechat.sessions[code]["session_key"] = key
    user = (await stage.client.post("/v1/login", json={"code": code})).json()["user"]
    answer = await sign(openid=user["openid"], data=data)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json() == {"signature": expected, "openid": user["openid"]}


@swept("data", ["", GOODS, '{"b":1,"a":2}', "\ufeff\r\n", "é" * 8192, "\x01" * 16384, "💰" * 4096])
async def test_what_is_signed_is_the_data_as_it_stands(stage: Stage, sign: Sign, data: str) -> None:
    user = (await stage.login())["user"]
    answer = await sign(openid=user["openid"], data=data)
    assert answer.json()["signature"] == signature(key_of_last_login(stage.wechat), data)


async def test_a_body_may_be_as_long_as_json_makes_it(stage: Stage, sign: Sign, shop: Credentials) -> None:
    openid = (await stage.login())["user"]["openid"]
    written = json.dumps({"openid": openid, "data": "\x7f" * 16384}).replace("\x7f", "\\u007f")
    path = f"/v1/apps/{APP_ID}/signatures"
    for content, status in ((written.ljust(128 * 1024), 200), (written.ljust(128 * 1024 + 1), 413)):
        assert (await stage.client.post(path, auth=shop, content=content)).status_code == status
    problem_of(await sign(openid=openid, data="é" * 8193), "invalid_request", 422)


async def test_the_newest_login_counts_and_each_app_has_its_own_key(stage: Stage, sign: Sign) -> None:
    first = await stage.login(unionid="u-alice")
    await stage.login(unionid="u-alice", app=OTHER_APP)
    other_key = key_of_last_login(stage.wechat)
    second = await stage.login(unionid="u-alice")
    key = key_of_last_login(stage.wechat)
    for named in ({"openid": first["user"]["openid"]}, {"user_id": second["user"]["id"]}):
        assert (await sign(**named)).json() == {"signature": signature(key), "openid": first["user"]["openid"]}
    there = (await sign(app_id=OTHER_APP_ID, user_id=first["user"]["id"])).json()
    assert there["signature"] == signature(other_key)


async def test_a_session_of_a_website_does_not_count(stage: Stage, sign: Sign) -> None:
    user = (await stage.login())["user"]
    key = key_of_last_login(stage.wechat)
    later = await stage.login()
    await stage.rows.execute(
        "UPDATE sessions SET client_id = 'shop', session_key = NULL WHERE id = $1", later["session_id"]
    )
    assert (await sign(openid=user["openid"])).json()["signature"] == signature(key)


async def test_without_the_key_of_the_newest_session_the_person_logs_in_again(stage: Stage, sign: Sign) -> None:
    openid = (await stage.login())["user"]["openid"]
    await stage.client.post("/v1/logout", headers=bearer(await stage.login()))
    problem_of(await sign(openid=openid), "session_key_expired", 409)  # WeChat would reject the key of the first login
    await stage.login()
    assert (await sign(openid=openid)).json()["signature"] == signature(key_of_last_login(stage.wechat))
    # a value that can't be unsealed
    await stage.rows.execute("UPDATE sessions SET session_key = '\\x00' WHERE revoked_at IS NULL")
    problem_of(await sign(openid=openid), "session_key_expired", 409)


async def test_a_former_id_means_who_remains_and_of_several_identities_the_openid_is_wanted(
    stage: Stage, sign: Sign, root: Admin
) -> None:
    bob, carol = (await stage.login("bob", app=OTHER_APP))["user"], (await stage.login("carol"))["user"]
    alice = (await stage.login("alice"))["user"]
    await root.merge(bob["id"], into=alice["id"])
    assert (await sign(user_id=bob["id"])).json()["openid"] == alice["openid"]
    await root.merge(carol["id"], into=alice["id"])
    problem = problem_of(await sign(user_id=alice["id"]), "invalid_request", 422)
    assert [error["field"] for error in problem["errors"]] == ["openid"]
    assert (await sign(openid=carol["openid"])).status_code == 200


NOBODYS = b'{"openid": "o", "user_id": "%b", "data": ""}' % str(NOBODY).encode()
NOT_UTF8 = (b'{"openid": "o", "data": "\xff"}', b'{"openid": "o", "data": "\\ud800"}')


@swept("content", [b'{"data": ""}', NOBODYS, *NOT_UTF8, b'{"openid": "o"}', b'{"openid": "o", "data": null}'])
async def test_a_wrong_request_is_refused(client: Client, shop: Credentials, content: bytes) -> None:
    answer = await client.post(f"/v1/apps/{APP_ID}/signatures", auth=shop, content=content)
    problem_of(answer, "invalid_request", 422)


async def test_of_nobody_nothing_is_signed(sign: Sign, login: LogIn) -> None:
    user = (await login(app=OTHER_APP))["user"]
    for named in ({"openid": user["openid"]}, {"user_id": user["id"]}, {"user_id": str(NOBODY)}):
        problem_of(await sign(**named), "not_found", 404)


async def test_only_a_mini_program_that_is_known_has_keys(sign: Sign, root: Admin) -> None:
    account = {"app_id": "wxaccount0000000a1", "kind": "official_account", "app_secret": "x" * 32, "check": False}
    assert (await root.ask("POST", "/apps", json=account)).status_code == 200
    problem_of(await sign(openid="o", app_id=account["app_id"]), "wrong_app_kind", 422)
    problem_of(await sign(openid="o", app_id="wx0000000000000000"), "unknown_app", 400)


async def test_a_disabled_app_goes_on_signing(sign: Sign, login: LogIn, root: Admin) -> None:
    app = {"app_id": "wxlater0000000000a1", "app_secret": "x" * 32}
    await root.ask("POST", "/apps", json={**app, "check": False})
    openid = (await login(app=app))["user"]["openid"]
    await root.ask("PATCH", f"/apps/{app['app_id']}", json={"is_enabled": False})
    assert (await sign(openid=openid, app_id=app["app_id"])).status_code == 200


async def test_of_who_is_banned_or_leaving_nothing_is_signed(stage: Stage, sign: Sign, root: Admin) -> None:
    patient = await stage.make(erasure_grace_days=7)
    alice, bob = await stage.login("alice"), await stage.login("bob")
    await root.change(alice["user"]["id"], status="disabled", until="2027-01-01T00:00:00Z")
    for named in ({"openid": alice["user"]["openid"]}, {"user_id": alice["user"]["id"]}):
        assert problem_of(await sign(**named), "account_disabled", 403)["until"] == "2027-01-01T00:00:00Z"
    assert (await leave(patient, bob)).status_code == 202
    problem_of(await sign(openid=bob["user"]["openid"]), "account_leaving", 403)


# Rate limits and costs.


@pytest.mark.slow
async def test_a_client_may_sign_a_hundred_times_a_second(stage: Stage, sign: Sign, add_sibling: AddSibling) -> None:
    openid = (await stage.login())["user"]["openid"]
    answers = await asyncio.gather(*(sign(openid=openid) for _ in range(101)))
    assert sorted(answer.status_code for answer in answers) == [200] * 100 + [429]
    assert next(answer for answer in answers if answer.status_code == 429).headers["retry-after"] == "1"
    other = await add_sibling("forum", Scope.SIGN)
    assert (await sign(openid=openid, auth=other)).status_code == 200
    stage.clock.advance(seconds=1)
    assert (await sign(openid=openid)).status_code == 200


async def test_a_signature_costs_one_query(stage: Stage, sign: Sign, proxy: Proxy) -> None:
    openid, client = (await stage.login())["user"]["openid"], await stage.make(database_url=proxy.url)
    for _ in ("prepares the statement", "counts"):
        round_trips = proxy.round_trips
        assert (await sign(openid=openid, at=client)).status_code == 200
    assert proxy.round_trips - round_trips == 1


# Events and log lines.


async def test_the_trail_records_once_a_day_and_app_that_a_client_signed(stage: Stage, sign: Sign) -> None:
    openid, there = (await stage.login())["user"]["openid"], (await stage.login(app=OTHER_APP))["user"]["openid"]
    replica = await stage.make()
    await sign(openid="nobody")
    await asyncio.gather(*(sign(openid=openid) for _ in range(5)), *(sign(openid=openid, at=replica) for _ in range(5)))
    await sign(app_id=OTHER_APP_ID, openid=there)
    stage.clock.advance(days=1)
    for _ in range(2):
        await sign(openid=openid)
    events = await recorded(stage.rows, "actor, app_id, user_id, ip, data", "type = 'client.signed'")
    of_apps: list[tuple[Any, ...]] = [
        ("shop", app_id, None, "127.0.0.1", {}) for app_id in (APP_ID, OTHER_APP_ID, APP_ID)
    ]
    assert (sorted(events[:2]), events[2:]) == (sorted(of_apps[:2]), of_apps[2:])


@pytest.mark.own_database
async def test_nothing_is_signed_that_the_trail_does_not_record(stage: Stage, sign: Sign) -> None:
    openid = (await stage.login())["user"]["openid"]
    await stage.rows.execute("ALTER TABLE events RENAME TO away")
    problem_of(await sign(openid=openid), "storage_unavailable", 503)
    await stage.rows.execute("ALTER TABLE away RENAME TO events")
    assert (await sign(openid=openid)).status_code == 200


async def test_signatures_are_counted_by_outcome(stage: Stage, sign: Sign) -> None:
    openid = (await stage.login())["user"]["openid"]
    await sign(openid=openid)
    await sign(openid="nobody")
    await sign()
    await sign(openid=openid, app_id="wx0000000000000000")
    await sign(openid=openid, auth=None)
    outcomes = [(APP_ID, outcome) for outcome in ("ok", "not_found", "invalid_request", "invalid_client")]
    counted = (await scrape(stage.client)).counted("wxauth_signatures_total", "app_id", "outcome")
    assert counted == dict.fromkeys([*outcomes, ("unknown", "unknown_app")], 1)


async def test_no_log_line_has_the_data_or_the_signature(stage: Stage, sign: Sign, secrets: Secrets) -> None:
    openid = (await stage.login())["user"]["openid"]
    data = secrets.add_unlogged("Goods-of-the-log-test")
    secrets.add_unlogged((await sign(openid=openid, data=data)).json()["signature"])
    await sign(openid=openid, user_id=str(NOBODY), data=data)
    assert data not in json.dumps(stage.log_lines())


# Signatures with a check in WeChat first.


@pytest.mark.usefixtures("simulated")
async def test_wechat_is_asked_first_if_the_shop_wants_it_and_may_refuse_the_key(sign: Sign, stage: Stage) -> None:
    what = {"app_id": APPS[0]["app_id"], "openid": (await stage.login())["user"]["openid"], "data": ""}
    unasked = await sign(**what)
    assert not stage.simulator.calls_of("checksession")
    assert (await sign(**what, check=True)).json() == unasked.json()
    [call] = stage.simulator.calls_of("checksession")
    assert call.query["signature"] == unasked.json()["signature"], "WeChat takes the signature of the empty text"
    stage.simulator.fail("checksession", errcode=87009)
    problem_of(await sign(**what, check=True), "session_key_expired", 409)
    assert (await sign(**what, check=True)).status_code == 200


@pytest.mark.usefixtures("simulated")
async def test_a_client_has_ten_checks_a_second(sign: Sign, stage: Stage) -> None:
    what = {"app_id": APPS[0]["app_id"], "openid": (await stage.login())["user"]["openid"]}
    assert [(await sign(**what, check=True)).status_code for _ in range(11)] == [200] * 10 + [429]
    assert (await sign(**what)).status_code == 200
    assert len(stage.simulator.calls_of("checksession")) == 10
