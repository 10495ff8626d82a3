"""The phone numbers that back ends get from the simulated WeChat in exchange for codes of the phone button."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import phonenumbers

from wxauth_desk.wechat.api_calls import Answer, Call, CallRefused, ok, require, text_in
from wxauth_desk.wechat.controls import AppState, PhoneCodeRequest
from wxauth_desk.wechat.errcodes import Errcode
from wxauth_desk.wechat.issued import Codes
from wxauth_desk.wechat.people import openid_of, openid_prefix, phone_number_of

# A plain code contains the phone number to return. The real WeChat has no such codes.
PLAIN_PHONE: Final = re.compile(r"phone-(\+?\d[\d -]*)")
# WeChat leaves out this country code in `phoneNumber`.
_CHINA: Final = 86


class _SpentCode(NamedTuple):
    """The phone number that a call gets for a code, with the openid to compare and the app id to return."""

    phone: str
    owner: str | None  # None for a plain code, which belongs to every user
    watermark_app_id: str


@dataclass
class PhoneNumbers:
    codes: Codes[PhoneCodeRequest]
    takes_plain_codes: bool  # in the form of `PLAIN_PHONE`
    clock: Callable[[], int]

    def read(self, call: Call, account: AppState) -> Answer:
        """Answer a call to `getuserphonenumber`."""
        values = call.json
        code, openid = text_in(values, "code"), values.get("openid")
        require(code, Errcode.MISSING_CODE)
        require(openid is None or account.openid_check != "refused", Errcode.WRONG_BODY)
        spent = self._spend(code, account)
        if openid is not None and account.openid_check == "on":  # "ignored" skips the comparison
            require(isinstance(openid, str) and openid.startswith(openid_prefix(account.app_id)), Errcode.WRONG_OPENID)
            require(spent.owner in (None, openid), Errcode.OPENID_OF_ANOTHER)
        watermark = {"timestamp": self.clock(), "appid": spent.watermark_app_id}
        return ok(phone_info={**_parts_of(spent.phone, account), "watermark": watermark})

    def _spend(self, code: str, account: AppState) -> _SpentCode:
        if code in self.codes:
            request = self.codes.spend(code, account.app_id, errcode_of_expired=Errcode.WRONG_CODE)
            return _SpentCode(
                phone=request.phone or phone_number_of(request.person),
                owner=openid_of(request.person, account.app_id),
                watermark_app_id=request.watermark_app_id or account.app_id,
            )
        plain = PLAIN_PHONE.fullmatch(code) if self.takes_plain_codes else None
        if plain is None:
            raise CallRefused(Errcode.WRONG_CODE)
        return _SpentCode(phone=plain[1], owner=None, watermark_app_id=account.app_id)


def _parts_of(phone: str, account: AppState) -> dict[str, Any]:
    try:
        number = phonenumbers.parse(phone, "CN")
        country, national = number.country_code, phonenumbers.national_significant_number(number)
    except phonenumbers.NumberParseException:
        country, national = _CHINA, phone  # the text is not a number
    return {
        "phoneNumber": national if country == _CHINA else f"+{country}{national}",
        "purePhoneNumber": national,
        "countryCode": str(country) if account.country_code == "text" else country,
    }
