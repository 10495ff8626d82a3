"""WeChat's virtual payment: what a phone is answered, and the notice that goods are to be delivered."""

import secrets
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from wxauth.server.dev.wechat.controls import PersonName, SimulatedAppId
from wxauth.server.dev.wechat.issued import IssuedSessionKeys, is_hmac
from wxauth.server.dev.wechat.people import APPS

APP_KEYS: Final = ("devAppKey0000000000000000000wxauth", "devAppKeyOfTheSandbox0000000wxauth")
"""The AppKeys with which back ends make `paySig`: for `env` 0, and for `env` 1, the sandbox. Every app has these."""

_FAILURES: Final = {
    0: "ok",
    -15005: "fail SIGNATURE_INVALID",
    -15006: "fail PAY_SIG_INVALID",
    -15016: "fail SIGN_DATA_INVALID",
}
_ORDER_NUMBER: Final = r"^[0-9A-Za-z\-|*@][0-9A-Za-z_\-|*@]{7,31}$"


class PayRequest(BaseModel):
    """Body of `POST /pay`: what a mini-program gives to `wx.requestVirtualPayment`, and the person who pays."""

    model_config = ConfigDict(extra="forbid")

    person: PersonName
    app_id: SimulatedAppId = APPS[0]["app_id"]
    sign_data: Annotated[str, Field(alias="signData")]
    pay_sig: Annotated[str, Field(alias="paySig")]
    signature: str


class Order(BaseModel):
    """What `signData` must contain."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)

    offer_id: Annotated[str, Field(min_length=1)]
    buy_quantity: Annotated[int, Field(ge=1)]
    env: Literal[0, 1] = 0
    currency_type: Literal["CNY"]
    product_id: Annotated[str, Field(min_length=1)]
    goods_price: Annotated[int, Field(ge=1)]
    """In fen, of one."""
    out_trade_no: Annotated[str, Field(pattern=_ORDER_NUMBER)]
    attach: str = ""


def judge(request: PayRequest, openid: str, session_keys: IssuedSessionKeys) -> tuple[int, Order | None]:
    """WeChat's errCode for a payment, and the order if the errCode is 0."""
    try:
        order = Order.model_validate_json(request.sign_data)
    except ValidationError:
        return -15016, None
    if not session_keys.is_signed(openid, request.signature, request.sign_data):
        return -15005, None
    if not is_hmac(request.pay_sig, APP_KEYS[order.env], f"requestVirtualPayment&{request.sign_data}"):
        return -15006, None
    return 0, order


def answer_of(errcode: int, *, is_taken: bool = False) -> dict[str, Any]:
    """The answer to the phone, and whether the notice has been taken already, which a real phone is not told."""
    return {"errCode": errcode, "errMsg": f"requestVirtualPayment:{_FAILURES[errcode]}", "is_taken": is_taken}


def delivery_of(order: Order, openid: str, *, now: int) -> dict[str, Any]:
    """The fields of the notice beside those of every event. `now` is in seconds since the epoch."""
    transaction = f"4200{secrets.randbelow(10**24):024}"
    return {
        "OpenId": openid,
        "OutTradeNo": order.out_trade_no,
        "Env": order.env,
        "WeChatPayInfo": {"MchOrderNo": transaction[4:], "TransactionId": transaction, "PaidTime": now},
        "GoodsInfo": {
            "ProductId": order.product_id,
            "Quantity": order.buy_quantity,
            "OrigPrice": order.goods_price * order.buy_quantity,
            "ActualPrice": order.goods_price * order.buy_quantity,
            "Attach": order.attach,
        },
    }
