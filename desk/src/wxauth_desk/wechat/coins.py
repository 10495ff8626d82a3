"""The coins of mini-games in the simulated WeChat, which players receive, pay, and get back."""

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from wxauth_desk.wechat.api_calls import Answer, Call, ok
from wxauth_desk.wechat.calls import CallRefused, require
from wxauth_desk.wechat.controls import API_PATHS, APP_KINDS, Account, Api, openid_prefix
from wxauth_desk.wechat.issued import IssuedSessionKeys, is_hmac
from wxauth_desk.wechat.payments import APP_KEYS

PURSES: Final = 1000
"""The largest number of purses (balances) that are stored.

If there are more, the least recently used one is forgotten.
"""
BILLS: Final = 200
"""The largest number of orders that are stored for each purse."""
BILL_LASTS: Final = 48 * 3600
"""The time, in seconds, for which WeChat recognizes a repeated order, and for which an order can be refunded."""
_SIGNATURE, _PAY_SIG, _UNKNOWN, _REPEATED, _TOO_POOR, _WRONG = 90010, 90011, 90000, 90012, 90013, 90018

BillNumber = Annotated[str, Field(pattern=r"^[0-9A-Za-z\-][0-9A-Za-z_\-]{0,62}$")]
Text = Annotated[str, Field(min_length=1, max_length=1024)]


class _Question(BaseModel):
    """The body of `getbalance`, and the common fields of the other bodies."""

    model_config = ConfigDict(strict=True)

    openid: Text
    offer_id: Text
    ts: Annotated[int, Field(ge=0)]
    zone_id: Text
    env: Literal[0, 1]
    user_ip: str = ""
    coin_type: Literal[0, 1] = 0


class _Order(_Question):
    """The body of `pay` and `present`."""

    amount: Annotated[int, Field(gt=0, le=10**9)]
    bill_no: BillNumber
    payitem: str = ""
    remark: str = ""


class _Return(_Order):
    """The body of `cancelpay`."""

    pay_bill_no: BillNumber


_BODIES: Final[Mapping[Api, type[_Question]]] = {
    "getbalance": _Question,
    "pay": _Order,
    "cancelpay": _Return,
    "present": _Order,
}


@dataclass
class _Bill:
    """An order, with the amount that can still be refunded, and the time at which it was made."""

    left: int
    at: int


@dataclass
class _Purse:
    """The coins of one player in one `env`, in all zones together."""

    balance: int = 0
    given: int = 0
    cost: int = 0
    bills: OrderedDict[tuple[Api, str, str], _Bill] = field(default_factory=OrderedDict)
    """The orders by API, zone and number, the oldest first."""

    def sweep(self, now: int) -> None:
        """Forget the orders that are too old."""
        while self.bills and next(iter(self.bills.values())).at + BILL_LASTS <= now:
            self.bills.popitem(last=False)

    def note(self, bill: tuple[Api, str, str], left: int, *, now: int) -> None:
        """Store an order."""
        self.bills[bill] = _Bill(left, now)
        if len(self.bills) > BILLS:
            self.bills.popitem(last=False)


@dataclass
class Coins:
    """The purses of all players, by openid and `env`. `session_keys` checks the signatures of calls."""

    session_keys: IssuedSessionKeys
    clock: Callable[[], int]
    _purses: OrderedDict[tuple[str, int], _Purse] = field(init=False, default_factory=OrderedDict)

    def answer(self, call: Call, account: Account) -> Answer:
        """Answer getbalance, pay, cancelpay or present. Raises: CallRefused."""
        require(APP_KINDS[account.app_id] == "mini_program", 48001)
        asked = self._check(call, account)
        purse = self._purses.setdefault((asked.openid, asked.env), _Purse())
        self._purses.move_to_end((asked.openid, asked.env))
        if len(self._purses) > PURSES:
            self._purses.popitem(last=False)
        if isinstance(asked, _Order):
            return ok(**self._order(call.api, asked, purse))
        return ok(
            balance=purse.balance,
            present_balance=purse.balance,
            sum_save=0,
            sum_present=purse.given,
            sum_balance=purse.given,
            sum_cost=purse.cost,
            first_save=True,
        )

    def _check(self, call: Call, account: Account) -> _Question:
        api, app_id, query, values, body = call.api, account.app_id, call.query, call.json, call.body.decode()
        openid, env = values.get("openid"), values.get("env")
        require(query.get("sig_method") == "hmac_sha256" and isinstance(openid, str) and openid, _WRONG)
        assert isinstance(openid, str)
        is_of_this_app = openid.startswith(openid_prefix(app_id))
        is_signed = is_of_this_app and self.session_keys.is_signed(openid, query.get("signature", ""), body)
        require(is_signed, _SIGNATURE)
        require(type(env) is int and env in (0, 1), _WRONG)
        assert isinstance(env, int)
        require(is_hmac(query.get("pay_sig", ""), APP_KEYS[env], f"{API_PATHS[api][1]}&{body}"), _PAY_SIG)
        try:
            return _BODIES[api].model_validate(values)
        except ValidationError as exc:
            raise CallRefused(_WRONG) from exc

    def _order(self, api: Api, order: _Order, purse: _Purse) -> dict[str, Any]:
        now, bill, amount = self.clock(), (api, order.zone_id, order.bill_no), order.amount
        purse.sweep(now)
        require(bill not in purse.bills, _REPEATED)
        if api == "present":
            purse.note(bill, 0, now=now)
            purse.balance += amount
            purse.given += amount
            return {"bill_no": order.bill_no, "balance": purse.balance}
        if isinstance(order, _Return):
            paid = purse.bills.get(("pay", order.zone_id, order.pay_bill_no))
            if paid is None:
                raise CallRefused(_UNKNOWN)
            require(amount <= paid.left, _WRONG)
            paid.left -= amount
            purse.note(bill, 0, now=now)
            purse.balance += amount
            purse.cost -= amount
        else:
            require(amount <= purse.balance, _TOO_POOR)
            purse.note(bill, amount, now=now)
            purse.balance -= amount
            purse.cost += amount
        return {"bill_no": order.bill_no, "balance": purse.balance, "used_present_amount": amount}
