"""The simulated WeChat accepts payments and pushes their notices as WeChat does."""

import asyncio
import hmac
import json
from typing import Any

import httpx
import pytest

from tests.fakes import Clock
from tests.sweeps import swept
from tests.world import Body, body_of
from wxauth.settings.apps import App
from wxauth.wechat.messages import read_message
from wxauth_desk.wechat import APP_KEYS, APPS, CodeRequest, Simulator, create_simulator
from wxauth_desk.wechat.payments import MAX_ORDERS
from wxauth_desk.wechat.push import PAYMENT_PAUSES

FIRST, SECOND = (app["app_id"] for app in APPS)
ORDER = {
    "offerId": "1450000000",
    "buyQuantity": 2,
    "env": 0,
    "currencyType": "CNY",
    "productId": "vip_month",
    "goodsPrice": 1800,
    "outTradeNo": "o-20261124|1@*_",
    "attach": "u1",
}
TAKEN = httpx.Response(200, json={"ErrCode": 0, "ErrMsg": "success"})


class Shop:
    """A shop that receives the notices. It first sends the responses in `answers`, and then accepts every notice."""

    def __init__(self) -> None:
        self.answers: list[httpx.Response | Exception] = []
        self.notices: list[httpx.Request] = []
        self._arrived: asyncio.Queue[None] = asyncio.Queue()

    def receive(self, request: httpx.Request) -> httpx.Response:
        self.notices.append(request)
        self._arrived.put_nowait(None)
        answer = self.answers.pop(0) if self.answers else TAKEN
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def wait_for(self, count: int) -> None:
        for _ in range(count):
            await self._arrived.get()


class Pauses:
    """The pauses before repetitions. Each lasts until the test ends it, and advances the clock by its length."""

    def __init__(self, clock: Clock) -> None:
        self.seconds: list[float] = []
        self._clock = clock
        self._begun: asyncio.Queue[asyncio.Event] = asyncio.Queue()

    async def __call__(self, seconds: float) -> None:
        end = asyncio.Event()
        self.seconds.append(seconds)
        self._begun.put_nowait(end)
        await end.wait()
        self._clock.advance(seconds=seconds)

    async def end_next(self) -> None:
        (await self._begun.get()).set()


class Phone:
    """Alice's phone, on which she pays in the simulated WeChat, and the shop that is notified."""

    def __init__(self, simulator: Simulator, clock: Clock) -> None:
        self.simulator, self.clock = simulator, clock
        self.shop, self.pauses = Shop(), Pauses(clock)
        app = create_simulator(simulator, push_transport=httpx.MockTransport(self.shop.receive), pause=self.pauses)
        self._client = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://wechat.test")
        self.key = self.log_in()

    def log_in(self, app_id: str = FIRST) -> str:
        """Log in Alice and return her new session_key."""
        secret = next(app["app_secret"] for app in APPS if app["app_id"] == app_id)
        code = self.simulator.make_code(CodeRequest(person="alice", app_id=app_id))
        query = {"appid": app_id, "secret": secret, "js_code": code, "grant_type": "authorization_code"}
        answer = self.simulator.answer(self.simulator.receive("code2session", query, b"")[0])
        assert isinstance(answer, dict)
        return answer["session_key"]

    async def pay(self, order: Any = ORDER, *, key: str = "", paid_with: str = APP_KEYS[0], **given: Any) -> Body:
        """Pay for an order. By default, it is signed correctly and with Alice's first session_key."""
        data = order if isinstance(order, str) else json.dumps(order)
        pay_sig = signed(paid_with, f"requestVirtualPayment&{data}")
        right = {"signData": data, "signature": signed(key or self.key, data), "paySig": pay_sig}
        return body_of(await self._client.post("/pay", json={"person": "alice", **right, **given}))

    async def notify(self, event: str, number: object = ORDER["outTradeNo"]) -> httpx.Response:
        order = {"person": "alice", "outTradeNo": number, "event": event}
        return await self._client.post("/notices", json=order)

    async def set_app(self, **fields: object) -> httpx.Response:
        return await self._client.post("/accounts", json=fields)


@pytest.fixture
def phone(simulator: Simulator, clock: Clock) -> Phone:
    return Phone(simulator, clock)


def signed(key: str, data: str) -> str:
    return hmac.digest(key.encode(), data.encode(), "sha256").hex()


async def test_a_payment_is_taken_and_its_notice_has_what_the_shop_needs(phone: Phone) -> None:
    assert await phone.pay() == {"errCode": 0, "errMsg": "requestVirtualPayment:ok", "is_taken": True}
    [notice] = phone.shop.notices
    assert notice.url.path == f"/v1/wechat/push/{FIRST}"
    body = json.loads(notice.content)
    assert (body["MsgType"], body["Event"]) == ("event", "xpay_goods_deliver_notify")
    assert (body["OutTradeNo"], body["Env"], body["OpenId"][:1]) == (ORDER["outTradeNo"], 0, "o")
    prices = {"OrigPrice": 3600, "ActualPrice": 3600}
    assert body["GoodsInfo"] == {"ProductId": "vip_month", "Quantity": 2, **prices, "Attach": "u1"}
    assert body["WeChatPayInfo"]["TransactionId"]


async def test_an_app_with_a_url_of_its_own_is_pushed_there_until_it_has_none(phone: Phone) -> None:
    body_of(await phone.set_app(push_url="https://shop.test/wechat?a=b"))
    await phone.pay()
    body_of(await phone.set_app(push_url=None))
    await phone.pay({**ORDER, "outTradeNo": "o-20261125"})
    there, here = (notice.url for notice in phone.shop.notices)
    assert (there.host, there.path, there.params["a"], "signature" in there.params) == (
        "shop.test",
        "/wechat",
        "b",
        True,
    )
    assert here.path == f"/v1/wechat/push/{FIRST}"
    for wrong in ("ftp://shop.test", "https://", "/wechat", ""):
        assert (await phone.set_app(push_url=wrong)).status_code == 422


async def test_a_notice_comes_again_and_a_refund_has_one_too(phone: Phone) -> None:
    for event in ("xpay_goods_deliver_notify", "xpay_refund_notify"):
        assert (await phone.notify(event)).status_code == 422, "of an order that nobody has paid"
    await phone.pay()
    assert (await phone.notify("xpay_goods_deliver_notify")).json() == {"is_taken": True}
    paid, again = phone.shop.notices
    assert again.content == paid.content
    phone.shop.answers += [httpx.Response(200, text="success")]
    assert (await phone.notify("xpay_refund_notify")).json() == {"is_taken": False}
    await phone.pauses.end_next()
    await phone.shop.wait_for(4)
    first, second = (json.loads(notice.content) for notice in phone.shop.notices[2:])
    paid_as = json.loads(paid.content)
    assert (first["OpenId"], first["MchOrderId"], first["RefundFee"]) == (paid_as["OpenId"], ORDER["outTradeNo"], 3600)
    assert (first["Event"], first["RetCode"], first["RetryTimes"]) == ("xpay_refund_notify", 0, 0)
    assert second == {**first, "RetryTimes": 1}
    assert (await phone.notify("subscribe_msg_popup_event")).status_code == 422


async def test_an_order_number_is_paid_only_once(phone: Phone) -> None:
    assert (await phone.pay(signature="0" * 64))["errCode"] == -15005, "which uses up no number"
    assert (await phone.pay())["errCode"] == 0
    await phone.notify("xpay_refund_notify")
    paid, refunded = (json.loads(notice.content) for notice in phone.shop.notices)
    for repeated in (ORDER, {**ORDER, "goodsPrice": 1}):
        answer = await phone.pay(repeated)
        assert answer == {"errCode": -15002, "errMsg": "requestVirtualPayment:fail", "is_taken": False}
    for event in ("xpay_goods_deliver_notify", "xpay_refund_notify"):
        await phone.notify(event)
    assert [json.loads(notice.content) for notice in phone.shop.notices[2:]] == [paid, refunded]
    assert refunded["WxOrderId"] == paid["WeChatPayInfo"]["MchOrderNo"]
    assert (await phone.pay({**ORDER, "outTradeNo": "o-20261125"}))["errCode"] == 0
    assert (await phone.pay(app_id=SECOND, key=phone.log_in(SECOND)))["errCode"] == 0, "another app's order"


async def test_a_wrong_signature_is_refused_and_nothing_is_delivered(phone: Phone) -> None:
    data, (own, of_sandbox) = json.dumps(ORDER), APP_KEYS
    good = f"requestVirtualPayment&{data}"
    wrong = {
        -15005: [signed(phone.key, data).upper(), signed(phone.key, f"{data} "), signed(phone.key[:-2], data)],
        -15006: [
            *(signed(own, data), signed(own, f"/xpay/query_order&{data}")),
            *(signed(of_sandbox, good), signed(own, good).upper()),
        ],
    }
    for errcode, name in ((-15005, "signature"), (-15006, "paySig")):
        for signature in wrong[errcode]:
            answer = await phone.pay(**{name: signature})
            assert (answer["errCode"], answer["is_taken"], phone.shop.notices) == (errcode, False, [])
    in_sandbox = {**ORDER, "env": 1}
    assert (await phone.pay(in_sandbox))["errCode"] == -15006, "which has an app key of its own"
    assert (await phone.pay(in_sandbox, paid_with=of_sandbox))["errCode"] == 0


async def test_only_the_newest_session_key_of_this_app_counts(phone: Phone) -> None:
    assert (await phone.pay(app_id=SECOND))["errCode"] == -15005
    newer = phone.log_in()
    assert (await phone.pay())["errCode"] == -15005
    assert (await phone.pay(key=newer))["errCode"] == 0
    phone.clock.advance(days=4)
    assert (await phone.pay(key=newer))["errCode"] == -15005


WRONG: dict[str, list[Any]] = {
    "platform": ["android"],
    "buyQuantity": [0, "1"],
    "env": [2],
    "currencyType": ["USD"],
    "goodsPrice": [0.01],
    "outTradeNo": ["1234567", "_12345678", "1" * 33, "12345678#"],
}


@swept(
    "order",
    [
        *("not JSON", "[]"),
        *({**ORDER, name: value} for name, values in WRONG.items() for value in values),
        *({name: value for name, value in ORDER.items() if name != left_out} for left_out in ("offerId", "productId")),
    ],
    ids=str,
)
async def test_sign_data_of_another_form_is_refused(phone: Phone, order: Any) -> None:
    assert (await phone.pay(order))["errCode"] == -15016


async def test_a_notice_is_encrypted_for_an_app_with_a_key(phone: Phone) -> None:
    assert (await phone.pay(key=phone.log_in(SECOND), app_id=SECOND))["is_taken"]
    [notice] = phone.shop.notices
    assert b"xpay_goods" not in notice.content
    message = read_message(App.model_validate(APPS[1]), notice.url.params, notice.content, now=phone.clock())
    assert message.event == "xpay_goods_deliver_notify"


@pytest.mark.parametrize(
    "refusal",
    [
        httpx.Response(503),
        httpx.Response(200, text="success"),
        httpx.Response(200, json={"ErrCode": 1, "ErrMsg": "no"}),
        httpx.ConnectError("down"),
    ],
    ids=["503", "success", "ErrCode 1", "down"],
)
async def test_a_notice_that_is_refused_is_signed_anew(phone: Phone, refusal: httpx.Response | Exception) -> None:
    phone.shop.answers += [refusal, refusal, httpx.Response(200, text="<xml><ErrCode>0</ErrCode></xml>")]
    assert await phone.pay() == {"errCode": 0, "errMsg": "requestVirtualPayment:ok", "is_taken": False}
    for _ in range(2):
        await phone.pauses.end_next()
    await phone.shop.wait_for(3)
    await asyncio.sleep(0)
    assert phone.pauses.seconds == [15, 15]
    assert len({notice.content for notice in phone.shop.notices}) == 1
    times = [int(notice.url.params["timestamp"]) for notice in phone.shop.notices]
    assert [time - times[0] for time in times] == [0, 15, 30]


async def test_a_long_response_can_accept_a_notice(phone: Phone) -> None:
    phone.shop.answers.append(httpx.Response(200, json={"ErrMsg": "x" * 1000, "ErrCode": 0}))
    assert (await phone.pay())["is_taken"]
    assert phone.pauses.seconds == []


async def test_a_notice_is_given_up_after_a_day_of_fifteen_repetitions(phone: Phone) -> None:
    phone.shop.answers += [httpx.Response(503)] * 99
    await phone.pay()
    for _ in PAYMENT_PAUSES:
        await phone.pauses.end_next()
    await phone.shop.wait_for(16)
    assert phone.pauses.seconds[:5] == [15, 15, 30, 180, 600]
    assert (len(phone.pauses.seconds), sum(phone.pauses.seconds)) == (15, 86640)


@pytest.mark.slow
async def test_the_oldest_orders_are_forgotten_and_the_latest_are_known(phone: Phone) -> None:
    for number in range(MAX_ORDERS + 1):
        assert (await phone.pay({**ORDER, "outTradeNo": f"order-no-{number}"}))["errCode"] == 0
    for event in ("xpay_goods_deliver_notify", "xpay_refund_notify"):
        assert (await phone.notify(event, "order-no-0")).status_code == 422
        for number in (1, MAX_ORDERS):
            assert (await phone.notify(event, f"order-no-{number}")).status_code == 200
