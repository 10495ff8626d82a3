"""The simulated WeChat stores the coins of mini-games, as WeChat's pages about `/wxa/game/…` describe it."""

import hmac
import json
from typing import Any

import httpx
import pytest

from tests.fakes import Clock
from tests.world import Body
from wxauth_desk.wechat import ACCOUNT, APP_KEYS, APPS, MOBILE_APP, WEBSITE, Simulator, create_simulator
from wxauth_desk.wechat.coins import MAX_ORDERS, MAX_PURSES

FIRST, SECOND = APPS
QUESTION = {"offer_id": "1450000000", "ts": 1_800_000_000, "zone_id": "1", "env": 0, "user_ip": "203.0.113.7"}
PATHS = {"getbalance", "pay", "cancelpay", "present"}
SIGNED = ("signature", "sig_method", "pay_sig")


def signed(key: str, text: str) -> str:
    return hmac.digest(key.encode(), text.encode(), "sha256").hex()


class Game:
    """A game's back end, which sends requests as WeChat's pages describe them. By default they are about Alice."""

    def __init__(self, simulator: Simulator) -> None:
        transport = httpx.ASGITransport(create_simulator(simulator))
        self.client = httpx.AsyncClient(transport=transport, base_url="http://wechat.test")
        self.tokens: dict[str, str] = {}
        self.players: dict[str, dict[str, str]] = {}

    async def log_in(self, person: str = "alice", app: dict[str, str] = FIRST) -> dict[str, str]:
        query = {"appid": app["app_id"], "secret": app["app_secret"], "js_code": person}
        query["grant_type"] = "authorization_code"
        self.players[person] = (await self.client.get("/sns/jscode2session", params=query)).json()
        return self.players[person]

    async def token(self, app: dict[str, str] = FIRST) -> Body:
        wanted = {"grant_type": "client_credential", "appid": app["app_id"], "secret": app["app_secret"]}
        return (await self.client.post("/cgi-bin/stable_token", json=wanted)).json()

    async def call(self, name: str, text: str, *, app: Any = FIRST, **query: Any) -> Body:
        if app["app_id"] not in self.tokens:
            self.tokens[app["app_id"]] = (await self.token(app))["access_token"]
        asked = {"access_token": self.tokens[app["app_id"]], **query}
        params = {name: value for name, value in asked.items() if value is not None}
        return (await self.client.post(f"/wxa/game/{name}", params=params, content=text.encode())).json()

    async def ask(self, name: str, *, person: str = "alice", given: Any = None, **fields: Any) -> Body:
        """Call this API without the fields that are None. `given` replaces parameters of the query."""
        player = self.players.get(person) or await self.log_in(person)
        body = {"openid": player["openid"], **QUESTION, **fields}
        text = json.dumps({name: value for name, value in body.items() if value is not None}, ensure_ascii=False)
        key = APP_KEYS[1 if body["env"] == 1 else 0]
        query: dict[str, str | None] = {
            "signature": signed(player["session_key"], text),
            "sig_method": "hmac_sha256",
            "pay_sig": signed(key, f"/wxa/game/{name}&{text}"),
        }
        return await self.call(name, text, **(query | (given or {})))

    async def balance(self, **fields: Any) -> int:
        return (await self.ask("getbalance", **fields))["balance"]


@pytest.fixture
def game(simulator: Simulator) -> Game:
    return Game(simulator)


def without_message(answer: Body) -> Body:
    return {name: value for name, value in answer.items() if name != "errmsg"}


async def test_coins_are_given_paid_and_given_back(game: Game) -> None:
    nothing = await game.ask("getbalance")
    assert nothing["errmsg"] == "ok"
    assert without_message(nothing) == {
        "errcode": 0,
        "balance": 0,
        "present_balance": 0,
        "sum_save": 0,
        "sum_present": 0,
        "sum_balance": 0,
        "sum_cost": 0,
        "first_save": True,
    }
    given = await game.ask("present", amount=100, bill_no="gift-1")
    assert without_message(given) == {"errcode": 0, "bill_no": "gift-1", "balance": 100}
    paid = await game.ask("pay", amount=70, bill_no="order-1", payitem="宝剑", remark="x")
    assert without_message(paid) == {"errcode": 0, "bill_no": "order-1", "balance": 30, "used_present_amount": 70}
    back = await game.ask("cancelpay", amount=20, bill_no="back-1", pay_bill_no="order-1")
    assert without_message(back) == {"errcode": 0, "bill_no": "back-1", "balance": 50, "used_present_amount": 20}
    now = await game.ask("getbalance")
    assert [now[name] for name in ("balance", "present_balance", "sum_present", "sum_cost")] == [50, 50, 100, 50]


async def test_each_player_has_a_balance_in_each_env_and_none_in_a_zone(game: Game) -> None:
    await game.ask("present", amount=5, bill_no="1")
    await game.ask("present", amount=7, bill_no="1", env=1)
    await game.ask("present", amount=9, bill_no="1", person="bob")
    assert [await game.balance(), await game.balance(env=1), await game.balance(person="bob")] == [5, 7, 9]
    assert await game.balance(zone_id="2") == 5
    assert await game.balance(env=1, person="bob") == 0


@pytest.mark.parametrize("name", sorted(PATHS))
async def test_both_signatures_are_checked(game: Game, name: str) -> None:
    order: Body = {"amount": 1, "bill_no": "1", "pay_bill_no": "1"}
    former = (await game.log_in())["session_key"]
    await game.log_in()
    text = json.dumps({"openid": game.players["alice"]["openid"], **QUESTION, **order})
    pay_sig = {"pay_sig": signed(APP_KEYS[0], f"/wxa/game/{name}&{text}")}
    key = game.players["alice"]["session_key"]
    wrong: list[tuple[int, dict[str, str | None]]] = [
        (90010, {"signature": signed(former, text)}),
        (90010, {"signature": signed(key, text).upper()}),
        (90010, {"signature": signed(key, text + " ")}),
        (90010, {"signature": signed(key, "")}),
        (90010, {"signature": None}),
        (90010, {"signature": "é"}),
        (90010, {"signature": None, "pay_sig": None}),
        (90011, {"pay_sig": signed(APP_KEYS[1], f"/wxa/game/{name}&{text}")}),
        (90011, {"pay_sig": signed(APP_KEYS[0], text)}),
        (90011, {"pay_sig": signed(APP_KEYS[0], f"requestVirtualPayment&{text}")}),
        (90011, {"pay_sig": signed(APP_KEYS[0], f"/wxa/game/other&{text}")}),
        (90011, {"pay_sig": None}),
        (90018, {"sig_method": None}),
        (90018, {"sig_method": "sha256"}),
    ]
    right = {"signature": signed(key, text), "sig_method": "hmac_sha256", **pay_sig}
    assert [(await game.call(name, text, **(right | changed)))["errcode"] for _, changed in wrong] == [
        errcode for errcode, _ in wrong
    ]
    answer = await game.ask(name, **order, env=1, given={"pay_sig": pay_sig["pay_sig"]})
    assert answer["errmsg"].startswith("[pay_sig] pay_sig is invalid rid: ")
    assert await game.balance() == 0


async def test_a_signature_is_of_the_player_in_this_app(game: Game) -> None:
    alice, elsewhere = await game.log_in(), await game.log_in("alice", SECOND)
    for openid in (alice["openid"], "o" * 28):
        assert (await game.ask("getbalance", openid=openid))["errcode"] == 90010
    text = json.dumps({"openid": elsewhere["openid"], **QUESTION})
    right = {"signature": signed(elsewhere["session_key"], text), "sig_method": "hmac_sha256"}
    right["pay_sig"] = signed(APP_KEYS[0], f"/wxa/game/getbalance&{text}")
    assert (await game.call("getbalance", text, **right))["errcode"] == 90010
    assert (await game.call("getbalance", text, app=SECOND, **right))["errcode"] == 0


@pytest.mark.parametrize(
    "changed",
    [
        *({name: None} for name in ("openid", "offer_id", "ts", "zone_id", "env", "amount", "bill_no", "pay_bill_no")),
        *({"amount": amount} for amount in (0, -1, "1", 1.5, True, 10**10, 10**30, None)),
        *({"bill_no": number} for number in ("", "_a", "a" * 64, "a b", "单", "a\n", 1)),
        *({"pay_bill_no": number} for number in ("", "_a", 1)),
        *({"env": env} for env in (2, "0", True, 0.0)),
        {"openid": ""},
        {"openid": 1},
        {"ts": "1800000000"},
        {"zone_id": 1},
        {"zone_id": ""},
        {"user_ip": 1},
        {"offer_id": 1450000000},
    ],
    ids=str,
)
async def test_a_wrong_parameter_is_refused(game: Game, changed: dict[str, Any]) -> None:
    await game.ask("present", amount=5, bill_no="1")
    await game.ask("pay", amount=5, bill_no="1")
    order: Body = {"amount": 1, "bill_no": "back", "pay_bill_no": "1"}
    assert (await game.ask("cancelpay", **(order | changed)))["errcode"] == 90018
    assert await game.balance() == 0
    assert (await game.ask("cancelpay", **order))["errcode"] == 0


async def test_what_is_no_object_is_refused(game: Game) -> None:
    for text, errcode in (("", 44002), ("[]", 47001), ("{", 47001), ("1", 47001)):
        assert (await game.call("pay", text, sig_method="hmac_sha256"))["errcode"] == errcode
    token = {"access_token": game.tokens[FIRST["app_id"]]}
    answer = await game.client.post("/wxa/game/pay", params=token, content=b'{"openid": "\xff"}')
    assert answer.json()["errcode"] == 47001
    assert (await game.client.get("/wxa/game/pay", params=token)).json()["errcode"] == 43002
    assert (await game.client.post("/wxa/game/pay", params={"access_token": "x"})).json()["errcode"] == 40014


async def test_an_order_counts_once(game: Game) -> None:
    async def errcodes(*calls: tuple[str, str, int]) -> list[int]:
        return [
            (await game.ask(name, amount=amount, bill_no=number, pay_bill_no="a"))["errcode"]
            for name, number, amount in calls
        ]

    assert await errcodes(("pay", "a", 1), ("present", "a", 10), ("pay", "a", 11), ("pay", "a", 10)) == [
        90013,
        0,
        90013,
        0,
    ]
    assert await errcodes(("present", "a", 10), ("pay", "a", 10), ("pay", "a", 1)) == [90012] * 3
    assert await errcodes(("cancelpay", "b", 11), ("cancelpay", "b", 6), ("cancelpay", "b", 4)) == [90018, 0, 90012]
    assert await errcodes(("cancelpay", "c", 5), ("cancelpay", "c", 4), ("cancelpay", "d", 1)) == [90018, 0, 90018]
    assert await game.balance() == 10


async def test_only_an_order_of_this_player_env_and_zone_is_given_back(game: Game, clock: Clock) -> None:
    for person, env in (("alice", 0), ("alice", 1), ("bob", 0)):
        await game.ask("present", amount=9, bill_no="gift", person=person, env=env)
    await game.ask("pay", amount=9, bill_no="a")
    back: Body = {"amount": 1, "bill_no": "b", "pay_bill_no": "a"}
    others: list[Body] = [
        {"person": "bob"},
        {"env": 1},
        {"zone_id": "2"},
        {"pay_bill_no": "gift"},
        {"pay_bill_no": "A"},
    ]
    assert [(await game.ask("cancelpay", **(back | other)))["errcode"] for other in others] == [90000] * len(others)
    clock.advance(seconds=48 * 3600 - 1)
    game.tokens.clear()
    assert (await game.ask("cancelpay", **back))["errcode"] == 0
    clock.advance(seconds=1)
    assert (await game.ask("cancelpay", **(back | {"bill_no": "c"})))["errcode"] == 90000


@pytest.mark.slow
async def test_what_is_kept_has_a_bound(game: Game) -> None:
    for number in range(MAX_ORDERS + 1):
        await game.ask("present", amount=1, bill_no=f"{number}")
    assert (await game.ask("present", amount=1, bill_no=f"{MAX_ORDERS}"))["errcode"] == 90012
    assert (await game.ask("present", amount=1, bill_no="0"))["errcode"] == 0
    for number in range(MAX_PURSES):
        await game.ask("getbalance", person=f"p{number}")
        if number == MAX_PURSES // 2:
            await game.ask("present", amount=1, bill_no="x", person="p0")
    assert [await game.balance(), await game.balance(person="p0")] == [0, 1]


async def test_the_apps_of_other_kinds_have_no_coins_and_those_of_the_open_platform_no_token(game: Game) -> None:
    assert (await game.call("pay", "{}", app=ACCOUNT))["errcode"] == 48001
    for app, errcode in ((ACCOUNT, 0), (WEBSITE, 40013), (MOBILE_APP, 40013)):
        assert (await game.token(app)).get("errcode", 0) == errcode
        query = {"grant_type": "client_credential", "appid": app["app_id"], "secret": app["app_secret"]}
        older = (await game.client.get("/cgi-bin/token", params=query)).json()
        assert older.get("errcode", 0) == errcode
        assert ("access_token" in older) == (errcode == 0)
