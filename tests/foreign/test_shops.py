"""`examples/sibling/shop.py` and `examples/express/shop.js` sell a membership. A service signs for them."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from hashlib import sha1
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.databases import TEMPLATE
from tests.fakes import service_env
from tests.foreign.conftest import issuer_at
from tests.guard.hostile import Forger
from tests.processes import WXAUTH, Running, free_port, run, serving
from tests.programs import EXPRESS, needs, needs_node
from tests.world import bearer
from wxauth.core.clock import utc_now
from wxauth_desk.postgres import EmbeddedPostgres
from wxauth_desk.wechat import APP_KEYS, APPS, Surroundings, create_simulator
from wxauth_desk.wechat.people import openid_of
from wxauth_desk.wechat.push import DELIVER, Mode, make_event_message, sign_push

pytestmark = [pytest.mark.process, pytest.mark.node]

PLAIN = APPS[0]
each_app = pytest.mark.parametrize("app", APPS, ids=["plain", "encrypted"])


@dataclass(frozen=True, slots=True)
class World:
    """A service, WeChat, and a shop for each app, which gets messages through `push_forward`."""

    service: httpx.Client
    wechat: httpx.Client
    shops: dict[str, httpx.Client]
    formats: tuple[str, ...]
    """The data formats in WeChat's console that the shop can read."""

    def log_in(self, app: dict[str, str], person: str = "alice") -> dict[str, Any]:
        code = self.wechat.post("/codes", json={"person": person, "app_id": app["app_id"]}).json()["code"]
        answer = self.service.post("/v1/login", json={"code": code, "app_id": app["app_id"]})
        return bearer(answer.json())

    def pay(self, app: dict[str, str], order: dict[str, str], person: str = "alice") -> dict[str, Any]:
        given = {name: order[name] for name in ("signData", "paySig", "signature")}
        return self.wechat.post("/pay", json={"person": person, "app_id": app["app_id"], **given}).json()

    def notify(self, app: dict[str, str], order: dict[str, str], event: str) -> dict[str, Any]:
        asked = {"person": "alice", "app_id": app["app_id"], "outTradeNo": order["number"], "event": event}
        return self.wechat.post("/notices", json=asked).json()


@pytest.fixture(scope="module")
async def database(postgres: EmbeddedPostgres, admin: asyncpg.Connection) -> AsyncIterator[str]:
    await admin.execute(f"CREATE DATABASE shops TEMPLATE {TEMPLATE}")
    yield postgres.url("shops")
    await admin.execute("DROP DATABASE shops WITH (FORCE)")


@pytest.fixture(scope="module", params=["FastAPI", "Express"])
def world(request: pytest.FixtureRequest, database: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    folder, port = tmp_path_factory.mktemp(request.param), free_port()
    url, ports = f"http://127.0.0.1:{port}", {app["app_id"]: free_port() for app in APPS}
    apps = [{**app, "push_forward": f"http://127.0.0.1:{ports[app['app_id']]}/wechat"} for app in APPS]
    with ExitStack() as stack:
        wechat_url = stack.enter_context(serving(create_simulator(around=Surroundings(service_url=url))))
        env = service_env(database, apps=apps, wechat_base_url=wechat_url, issuer=url, port=port)
        name = f"shop-{request.param.lower()}"
        added = run("clients", "add", name, "--scope", "sign", "--json", cwd=folder, env=env)
        secret = json.loads(added.stdout)["client_secret"]
        stack.enter_context(Running(WXAUTH, "serve", cwd=folder, env=env)).wait_for('"started"')
        for app in APPS:
            own = {
                "WXAUTH_ISSUER": url,
                "CLIENT_ID": name,
                "CLIENT_SECRET": secret,
                "APP_KEY": APP_KEYS[0],
                "PUSH_TOKEN": app["push_token"],
                "PUSH_AES_KEY": app.get("push_aes_key", ""),
                "PORT": str(ports[app["app_id"]]),
            }
            command, started = command_of(request.param, own["PORT"])
            stack.enter_context(Running(*command, cwd=folder, env=own)).wait_for(started)
        clients = {
            each: stack.enter_context(httpx.Client(base_url=each, trust_env=False, verify=False))
            for each in (url, wechat_url, *(f"http://127.0.0.1:{port}" for port in ports.values()))
        }
        shops = {app_id: clients[f"http://127.0.0.1:{port}"] for app_id, port in ports.items()}
        yield World(clients[url], clients[wechat_url], shops, ("json", "xml")[: 2 if request.param == "FastAPI" else 1])


def command_of(language: str, port: str) -> tuple[tuple[str, ...], str]:
    """Return the command in the READMEs, and the text that the program prints when it listens."""
    if language == "Express":
        needs_node(EXPRESS)
        return (needs("npm"), "run", "shop", "--prefix", str(EXPRESS)), "Shop: "
    uvicorn, root = str(Path(WXAUTH).with_name("uvicorn")), str(EXPRESS.parents[1])
    factory = "examples.sibling.shop:create_shop"
    return (uvicorn, "--factory", factory, "--app-dir", root, "--port", port), "Uvicorn running"


@each_app
def test_a_membership_is_paid_when_wechats_notice_has_come(world: World, app: dict[str, str]) -> None:
    shop, alice = world.shops[app["app_id"]], world.log_in(app)
    for data_format in world.formats:
        chosen = {"app_id": app["app_id"], "push_format": data_format}
        world.wechat.post("/accounts", json=chosen).raise_for_status()
        order = shop.post("/orders", headers=alice).raise_for_status().json()
        where = f"/orders/{order['number']}"
        assert order["mode"] == "short_series_goods"
        assert shop.get(where, headers=alice).json() == {"is_paid": False, "is_refunded": False}
        assert world.pay(app, order) == {"errCode": 0, "errMsg": "requestVirtualPayment:ok", "is_taken": True}
        assert shop.get(where, headers=alice).json() == {"is_paid": True, "is_refunded": False}
        for event in ("xpay_refund_notify", DELIVER):  # WeChat repeats the notice after the refund
            assert world.notify(app, order, event) == {"is_taken": True}
            assert shop.get(where, headers=alice).json() == {"is_paid": False, "is_refunded": True}
    assert shop.get(where, headers=world.log_in(app, "bob")).status_code == 404
    assert shop.get("/orders/unknown", headers=alice).status_code == 404
    assert shop.post("/orders").status_code == 401


async def test_the_token_of_a_website_or_an_agent_neither_orders_nor_reads(world: World, database: str) -> None:
    shop, alice = world.shops[PLAIN["app_id"]], world.log_in(PLAIN)
    order = f"/orders/{shop.post('/orders', headers=alice).json()['number']}"
    async with issuer_at(str(world.service.base_url), database) as issuer:
        forger = Forger(alice["Authorization"].decode().removeprefix("Bearer "), issuer.keys.signing_key(utc_now()))
    for scope in ("openid", ""):
        theirs = bearer(forger.with_claims(scope=scope))
        assert shop.post("/orders", headers=theirs).status_code == 403
        assert shop.get(order, headers=theirs).status_code == 403
    assert shop.get(order, headers=bearer(forger.with_claims())).status_code == 200


def test_nobody_pays_with_what_was_signed_for_somebody_else_or_before_the_last_login(world: World) -> None:
    order = world.shops[PLAIN["app_id"]].post("/orders", headers=world.log_in(PLAIN)).json()
    world.log_in(PLAIN, "bob")
    assert world.pay(PLAIN, order, "bob")["errCode"] == -15005
    world.log_in(PLAIN)
    assert world.pay(PLAIN, order)["errCode"] == -15005


@each_app
@pytest.mark.parametrize(
    "changed", [{"GoodsInfo": {"ActualPrice": 1}}, {"OpenId": "o-bob"}, {"OutTradeNo": "unknown"}], ids=str
)
def test_a_notice_that_fits_no_order_is_not_taken(world: World, app: dict[str, str], changed: dict[str, Any]) -> None:
    shop, alice = world.shops[app["app_id"]], world.log_in(app)
    number = shop.post("/orders", headers=alice).json()["number"]
    notice = {"OutTradeNo": number, "OpenId": openid_of("alice", app["app_id"]), "GoodsInfo": {"ActualPrice": 1800}}
    message = make_event_message(DELIVER, {**notice, **changed}, app_id=app["app_id"], now=1)
    mode: Mode = "aes" if "push_aes_key" in app else "plain"
    push = sign_push(app, message, mode=mode, format="json", timestamp="1", nonce="2")
    answer = shop.post("/wechat", params=dict(push.query), content=push.body)
    assert (answer.status_code, answer.json()["ErrCode"]) == (200, 1)
    assert shop.get(f"/orders/{number}", headers=alice).json() == {"is_paid": False, "is_refunded": False}


@each_app
def test_what_wechat_has_not_signed_is_refused(world: World, app: dict[str, str]) -> None:
    shop = world.shops[app["app_id"]]
    for query in ({}, {"signature": "0" * 40, "msg_signature": "0" * 40, "timestamp": "1", "nonce": "2"}):
        forged = {"Event": "xpay_goods_deliver_notify", "OutTradeNo": "x", "Encrypt": "x"}
        assert shop.post("/wechat", params=query, json=forged).status_code == 403


def test_the_check_of_the_url_and_other_messages_are_answered_too(world: World) -> None:
    signed = sha1("".join(sorted([PLAIN["push_token"], "1", "2"])).encode()).hexdigest()
    query = {"signature": signed, "timestamp": "1", "nonce": "2", "echostr": "1234"}
    shop = world.shops[PLAIN["app_id"]]
    assert shop.get("/wechat", params=query).text == "1234"
    assert shop.get("/wechat", params={**query, "nonce": "3"}).status_code == 403
    pushed = {"person": "alice", "app_id": PLAIN["app_id"], "event": "subscribe_msg_popup_event"}
    for data_format in world.formats:
        assert world.wechat.post("/push", json={**pushed, "format": data_format}).json()["is_taken"]
