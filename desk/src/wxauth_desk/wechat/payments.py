"""Virtual payment in the simulated WeChat, which checks payments, and sends notices about them to the service."""

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from wxauth_desk.bounded import BoundedDict
from wxauth_desk.wechat.controls import AppState, ControlOfPerson
from wxauth_desk.wechat.issued import IssuedSessionKeys, is_hmac
from wxauth_desk.wechat.people import openid_of
from wxauth_desk.wechat.push import DELIVER, REFUNDED, Push, PushRequest, make_event_message

# All back ends make `paySig` with the first key for `env` 0, and with the second key for `env` 1, which is the sandbox.
APP_KEYS: Final = ("devAppKey0000000000000000000wxauth", "devAppKeyOfTheSandbox0000000wxauth")


class _ErrCode(IntEnum):
    """The errCodes of `wx.requestVirtualPayment`."""

    PAID = 0
    REPEATED_ORDER = -15002
    WRONG_SIGNATURE = -15005
    WRONG_PAY_SIG = -15006
    WRONG_SIGN_DATA = -15016


_ERR_MSG_ENDS: Final[Mapping[int, str]] = {
    _ErrCode.PAID: "ok",
    _ErrCode.REPEATED_ORDER: "fail",  # WeChat does not document the text
    _ErrCode.WRONG_SIGNATURE: "fail SIGNATURE_INVALID",
    _ErrCode.WRONG_PAY_SIG: "fail PAY_SIG_INVALID",
    _ErrCode.WRONG_SIGN_DATA: "fail SIGN_DATA_INVALID",
}
MAX_ORDERS: Final = 1000
# WeChat's rule is 8 to 32 characters, of which the first is not an underscore.
_ORDER_NUMBER: Final = r"^[0-9A-Za-z\-|*@][0-9A-Za-z_\-|*@]{7,31}$"
_MAX_REFUND_ID_LENGTH: Final = 32


class PayRequest(ControlOfPerson):
    """The body of `POST /pay`: the arguments of `wx.requestVirtualPayment`, and the person who pays."""

    sign_data: Annotated[str, Field(alias="signData")]
    pay_sig: Annotated[str, Field(alias="paySig")]
    signature: str


class NoticeRequest(ControlOfPerson):
    """The body of `POST /notices`, which makes WeChat report a paid order again, or report the order's refund."""

    out_trade_no: Annotated[str, Field(alias="outTradeNo")]
    event: Literal["xpay_goods_deliver_notify", "xpay_refund_notify"]


class Order(BaseModel):
    """The fields of `signData`, which describe the order."""

    model_config = ConfigDict(extra="forbid", strict=True, alias_generator=to_camel)

    offer_id: Annotated[str, Field(min_length=1)]
    buy_quantity: Annotated[int, Field(ge=1)]
    env: Literal[0, 1] = 0
    currency_type: Literal["CNY"]
    product_id: Annotated[str, Field(min_length=1)]
    goods_price: Annotated[int, Field(ge=1)]  # of one item, in fen
    out_trade_no: Annotated[str, Field(pattern=_ORDER_NUMBER)]
    attach: str = ""


@dataclass
class _PaidOrder:
    """The messages about a paid order. Each is created once, so that its repetitions differ only in `RetryTimes`."""

    delivery: dict[str, Any]
    refund: dict[str, Any] | None = None


@dataclass
class Payments:
    """The orders that people have paid, and WeChat's notices about these orders."""

    session_keys: IssuedSessionKeys
    accounts: Mapping[str, AppState]
    clock: Callable[[], int]
    _orders: BoundedDict[tuple[str, str], _PaidOrder] = field(  # by app id and order number
        init=False, default_factory=lambda: BoundedDict(MAX_ORDERS)
    )

    def pay(self, request: PayRequest) -> tuple[int, Push | None]:
        """Pay an order. Return the errCode for the phone, and the notice to push; None if the payment fails."""
        openid = openid_of(request.person, request.app_id)
        try:
            order = Order.model_validate_json(request.sign_data)
        except ValidationError:
            return _ErrCode.WRONG_SIGN_DATA, None
        if not self.session_keys.is_signed(openid, request.signature, request.sign_data):
            return _ErrCode.WRONG_SIGNATURE, None
        if not is_hmac(request.pay_sig, APP_KEYS[order.env], f"requestVirtualPayment&{request.sign_data}"):
            return _ErrCode.WRONG_PAY_SIG, None
        # WeChat accepts an order number once. A new delivery would also contradict the refund of the first payment.
        key = (request.app_id, order.out_trade_no)
        if key in self._orders:
            return _ErrCode.REPEATED_ORDER, None
        now = self.clock()
        fields = _delivery_of(order, openid, now=now)
        delivery = make_event_message(DELIVER, fields, app_id=request.app_id, now=now)
        self._orders[key] = _PaidOrder(delivery)
        return _ErrCode.PAID, self._notice_of(request, DELIVER, delivery)

    def make_notice(self, request: NoticeRequest) -> Push:
        """Return the notice about the payment or the refund of an order. Repeated calls return the same notice.

        Raises: ValueError, if this person has not paid the order, or if the order has been forgotten.
        """
        paid = self._orders.get((request.app_id, request.out_trade_no))
        if paid is None or paid.delivery["OpenId"] != openid_of(request.person, request.app_id):
            raise ValueError("outTradeNo: this person has paid no such order")
        if request.event == DELIVER:
            return self._notice_of(request, DELIVER, paid.delivery)
        if paid.refund is None:
            now = self.clock()
            fields = _refund_of(paid.delivery, now=now)
            paid.refund = make_event_message(REFUNDED, fields, app_id=request.app_id, now=now)
        return self._notice_of(request, REFUNDED, paid.refund)

    def _notice_of(self, request: ControlOfPerson, event: str, message: dict[str, Any]) -> Push:
        push_format = self.accounts[request.app_id].push_format
        push_request = PushRequest(person=request.person, app_id=request.app_id, event=event, format=push_format)
        return Push(push_request, message)


def payment_result(errcode: int, *, is_taken: bool) -> dict[str, Any]:
    """Return what `wx.requestVirtualPayment` returns to the page.

    `is_taken`, which WeChat does not send, says whether the service accepted the first attempt to send the notice.
    """
    return {"errCode": errcode, "errMsg": f"requestVirtualPayment:{_ERR_MSG_ENDS[errcode]}", "is_taken": is_taken}


def _delivery_of(order: Order, openid: str, *, now: int) -> dict[str, Any]:
    # WeChat Pay's ids of payments begin with these digits. The simulated WeChat uses the rest as its own id.
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


def _refund_of(delivery: Mapping[str, Any], *, now: int) -> dict[str, Any]:
    # WeChat Pay's ids of refunds begin with these digits. The simulated WeChat uses the rest as its own id.
    transaction = f"5030{secrets.randbelow(10**24):024}"
    return {
        "OpenId": delivery["OpenId"],
        "WxRefundId": transaction[4:],
        "MchRefundId": f"refund-{delivery['OutTradeNo']}"[:_MAX_REFUND_ID_LENGTH],
        "WxOrderId": delivery["WeChatPayInfo"]["MchOrderNo"],
        "MchOrderId": delivery["OutTradeNo"],
        "RefundFee": delivery["GoodsInfo"]["ActualPrice"],
        "RetCode": 0,
        "RetMsg": "success",
        "RefundStartTimestamp": now,
        "RefundSuccTimestamp": now,
        "WxpayRefundTransactionId": transaction,
        "RetryTimes": 0,
    }
