"""The coins of mini-games in the simulated WeChat. Players receive coins, spend them, and get refunds."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wxauth_desk.bounded import BoundedDict
from wxauth_desk.wechat.api_calls import Answer, Call, CallRefused, ok, require
from wxauth_desk.wechat.controls import APP_KINDS, ENDPOINTS, Api, AppState
from wxauth_desk.wechat.errcodes import Errcode
from wxauth_desk.wechat.issued import IssuedSessionKeys, is_hmac
from wxauth_desk.wechat.payments import APP_KEYS
from wxauth_desk.wechat.people import openid_prefix

MAX_PURSES: Final = 1000  # beyond which the least recently used purse is forgotten
MAX_ORDERS: Final = 200  # of a purse
# For this long, WeChat refuses a second order with the same number, and allows a refund.
_ORDER_LIFETIME_SECONDS: Final = 48 * 3600

OrderNumber = Annotated[str, Field(pattern=r"^[0-9A-Za-z\-][0-9A-Za-z_\-]{0,62}$")]
# The length is limited because some of these texts are stored.
RequiredText = Annotated[str, Field(min_length=1, max_length=1024)]


class _Body(BaseModel):
    """The body of a call to `getbalance`. The bodies of calls to the other APIs also have its fields."""

    model_config = ConfigDict(strict=True)

    openid: RequiredText
    offer_id: RequiredText
    ts: Annotated[int, Field(ge=0)]
    zone_id: RequiredText
    env: Literal[0, 1]
    user_ip: str = ""
    coin_type: Literal[0, 1] = 0


class _OrderBody(_Body):
    amount: Annotated[int, Field(gt=0, le=10**9)]
    bill_no: OrderNumber
    payitem: str = ""
    remark: str = ""


class _RefundBody(_OrderBody):
    pay_bill_no: OrderNumber


_BODIES: Final[Mapping[Api, type[_Body]]] = {
    "getbalance": _Body,
    "pay": _OrderBody,
    "cancelpay": _RefundBody,
    "present": _OrderBody,
}


class _OrderKey(NamedTuple):
    api: Api
    zone_id: str
    number: str


@dataclass
class _StoredOrder:
    refundable: int  # 0 for a refund or a present
    made_at: int


@dataclass
class _Purse:
    """The coins of one player in all zones together: the real coins (`env` 0), or coins of the sandbox (`env` 1)."""

    balance: int = 0
    presented: int = 0  # ever received
    spent: int = 0  # minus the refunded coins
    orders: BoundedDict[_OrderKey, _StoredOrder] = field(default_factory=lambda: BoundedDict(MAX_ORDERS))

    def receive(self, amount: int) -> None:
        """Add coins that the player receives as a present."""
        self.balance += amount
        self.presented += amount

    def pay(self, amount: int) -> None:
        require(amount <= self.balance, Errcode.TOO_FEW_COINS)
        self.balance -= amount
        self.spent += amount

    def refund(self, key: _OrderKey, amount: int) -> None:
        """Give back coins of an order that the player has paid."""
        order = self.orders.get(key)
        if order is None:
            raise CallRefused(Errcode.UNKNOWN_ORDER)
        require(amount <= order.refundable, Errcode.WRONG_PARAMETER)
        order.refundable -= amount
        self.balance += amount
        self.spent -= amount

    def forget_expired(self, now: int) -> None:
        """Forget the orders that WeChat no longer recognizes."""
        for key, order in list(self.orders.items()):
            if order.made_at + _ORDER_LIFETIME_SECONDS <= now:
                del self.orders[key]


@dataclass
class Coins:
    session_keys: IssuedSessionKeys
    clock: Callable[[], int]
    # The keys are openid and `env`. The least recently used purse is the first.
    _purses: BoundedDict[tuple[str, int], _Purse] = field(init=False, default_factory=lambda: BoundedDict(MAX_PURSES))

    def answer(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `getbalance`, `pay`, `cancelpay` or `present`."""
        require(APP_KINDS[account.app_id] == "mini_program", Errcode.NOT_ALLOWED)
        body = self._checked_body(call, account)
        purse = self._purse_of(body)
        if isinstance(body, _OrderBody):
            return ok(**self._carry_out(call.api, body, purse))
        # The simulated players get coins only as presents, and never buy any.
        return ok(
            balance=purse.balance,
            present_balance=purse.balance,
            sum_save=0,
            sum_present=purse.presented,
            sum_balance=purse.presented,
            sum_cost=purse.spent,
            first_save=True,
        )

    def _checked_body(self, call: Call, account: AppState) -> _Body:
        query, values, text = call.query, call.json, call.body.decode()
        openid, env = values.get("openid"), values.get("env")
        if query.get("sig_method") != "hmac_sha256" or not isinstance(openid, str) or not openid:
            raise CallRefused(Errcode.WRONG_PARAMETER)
        is_of_this_app = openid.startswith(openid_prefix(account.app_id))
        is_signed = is_of_this_app and self.session_keys.is_signed(openid, query.get("signature", ""), text)
        require(is_signed, Errcode.WRONG_SIGNATURE)
        if type(env) is not int or env not in (0, 1):  # a bool is an int, but not a valid `env`
            raise CallRefused(Errcode.WRONG_PARAMETER)
        path = ENDPOINTS[call.api].path
        require(is_hmac(query.get("pay_sig", ""), APP_KEYS[env], f"{path}&{text}"), Errcode.WRONG_PAY_SIG)
        try:
            return _BODIES[call.api].model_validate(values)
        except ValidationError as exc:
            raise CallRefused(Errcode.WRONG_PARAMETER) from exc

    def _purse_of(self, body: _Body) -> _Purse:
        key = (body.openid, body.env)
        purse = self._purses.get(key) or _Purse()
        self._purses[key] = purse  # sets even an existing purse, so that it becomes the most recently used one
        return purse

    def _carry_out(self, api: Api, body: _OrderBody, purse: _Purse) -> dict[str, Any]:
        now, key = self.clock(), _OrderKey(api, body.zone_id, body.bill_no)
        purse.forget_expired(now)
        require(key not in purse.orders, Errcode.REPEATED_ORDER)
        if api == "present":
            purse.receive(body.amount)
        elif isinstance(body, _RefundBody):
            purse.refund(_OrderKey("pay", body.zone_id, body.pay_bill_no), body.amount)
        else:
            purse.pay(body.amount)
        purse.orders[key] = _StoredOrder(refundable=body.amount if api == "pay" else 0, made_at=now)
        answer = {"bill_no": body.bill_no, "balance": purse.balance}
        return answer if api == "present" else {**answer, "used_present_amount": body.amount}
