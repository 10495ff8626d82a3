"""Virtual payment in the simulated WeChat, which checks payments, and sends notices about them to the service."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from wxauth_desk.wechat.controls import Account, ControlOfPerson, openid_of
from wxauth_desk.wechat.issued import IssuedSessionKeys, is_hmac
from wxauth_desk.wechat.push import DELIVER, REFUNDED, PushRequest, make_event

APP_KEYS: Final = ("devAppKey0000000000000000000wxauth", "devAppKeyOfTheSandbox0000000wxauth")
"""The AppKeys with which back ends make `paySig`, for `env` 0 and for `env` 1, the sandbox. All apps have them."""
_FAILURES: Final = {
    0: "ok",
    -15002: "fail",  # for a repeated outTradeNo, whose text WeChat does not document
    -15005: "fail SIGNATURE_INVALID",
    -15006: "fail PAY_SIG_INVALID",
    -15016: "fail SIGN_DATA_INVALID",
}
Notice = tuple[PushRequest, dict[str, Any]]
"""A message about a payment, after the request that says where and in which form to push it."""
_ORDER_NUMBER: Final = r"^[0-9A-Za-z\-|*@][0-9A-Za-z_\-|*@]{7,31}$"


class PayRequest(ControlOfPerson):
    """The body of `POST /pay`, with the arguments of `wx.requestVirtualPayment`, and the person who pays."""

    sign_data: Annotated[str, Field(alias="signData")]
    pay_sig: Annotated[str, Field(alias="paySig")]
    signature: str


class NoticeRequest(ControlOfPerson):
    """The body of `POST /notices`, which makes WeChat report a paid order once more, or report its refund."""

    out_trade_no: Annotated[str, Field(alias="outTradeNo")]
    event: Literal["xpay_goods_deliver_notify", "xpay_refund_notify"]


class Order(BaseModel):
    """The required contents of `signData`."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)

    offer_id: Annotated[str, Field(min_length=1)]
    buy_quantity: Annotated[int, Field(ge=1)]
    env: Literal[0, 1] = 0
    currency_type: Literal["CNY"]
    product_id: Annotated[str, Field(min_length=1)]
    goods_price: Annotated[int, Field(ge=1)]
    """The price of one item, in fen."""
    out_trade_no: Annotated[str, Field(pattern=_ORDER_NUMBER)]
    attach: str = ""


@dataclass
class Payments:
    """The orders that people have paid, and WeChat's notices about them.

    Phones sign payments with the session_keys. The accounts determine the format of the notices.
    """

    session_keys: IssuedSessionKeys
    accounts: Mapping[str, Account]
    clock: Callable[[], int]
    _notices: dict[tuple[str, str, str], dict[str, Any]] = field(init=False, default_factory=dict)
    """The notices by app, order number and event."""

    def pay(self, request: PayRequest) -> tuple[int, Notice | None]:
        """Return the errCode of a payment on the phone and, if it succeeds, the notice to push."""
        openid = openid_of(request.person, request.app_id)
        try:
            order = Order.model_validate_json(request.sign_data)
        except ValidationError:
            return -15016, None
        if not self.session_keys.is_signed(openid, request.signature, request.sign_data):
            return -15005, None
        if not is_hmac(request.pay_sig, APP_KEYS[order.env], f"requestVirtualPayment&{request.sign_data}"):
            return -15006, None
        # WeChat accepts an order number once. A new delivery would also contradict the refund of the first payment.
        key = (request.app_id, order.out_trade_no, DELIVER)
        if key in self._notices:
            return -15002, None
        fields = _delivery_of(order, openid, now=self.clock())
        self._notices[key] = make_event(DELIVER, fields, app_id=request.app_id, now=self.clock())
        return 0, self._to_push(key, request.person)

    def notice(self, request: NoticeRequest) -> Notice:
        """Return the notice about a paid order. Repeated calls return the same notice. Raises: ValueError."""
        order = (request.app_id, request.out_trade_no)
        paid = self._notices.get((*order, DELIVER))
        if paid is None or paid["OpenId"] != openid_of(request.person, request.app_id):
            raise ValueError("outTradeNo: this person has paid no such order")
        key = (*order, request.event)
        if key not in self._notices:
            fields = _refund_of(paid, now=self.clock())
            self._notices[key] = make_event(REFUNDED, fields, app_id=request.app_id, now=self.clock())
        return self._to_push(key, request.person)

    def _to_push(self, key: tuple[str, str, str], person: str) -> Notice:
        app_id, _, event = key
        format = self.accounts[app_id].push_format
        return PushRequest(person=person, app_id=app_id, event=event, format=format), self._notices[key]


def answer_of(errcode: int, *, is_taken: bool) -> dict[str, Any]:
    """Return the response to the phone.

    `is_taken`, which WeChat does not send, says whether the notice was already accepted.
    """
    return {"errCode": errcode, "errMsg": f"requestVirtualPayment:{_FAILURES[errcode]}", "is_taken": is_taken}


def _refund_of(paid: Mapping[str, Any], *, now: int) -> dict[str, Any]:
    """Return the fields of a refund's notice, besides the fields of every event.

    `paid` is the notice about the payment, and `now` is in seconds since the epoch.
    """
    transaction = f"5030{secrets.randbelow(10**24):024}"
    return {
        "OpenId": paid["OpenId"],
        "WxRefundId": transaction[4:],
        "MchRefundId": f"refund-{paid['OutTradeNo']}"[:32],
        "WxOrderId": paid["WeChatPayInfo"]["MchOrderNo"],
        "MchOrderId": paid["OutTradeNo"],
        "RefundFee": paid["GoodsInfo"]["ActualPrice"],
        "RetCode": 0,
        "RetMsg": "success",
        "RefundStartTimestamp": now,
        "RefundSuccTimestamp": now,
        "WxpayRefundTransactionId": transaction,
        "RetryTimes": 0,
    }


def _delivery_of(order: Order, openid: str, *, now: int) -> dict[str, Any]:
    """Return the fields of a payment's notice, besides the fields of every event.

    `now` is in seconds since the epoch.
    """
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
