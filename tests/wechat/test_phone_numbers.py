"""Phone numbers as WeChat sends them, and as they are stored."""

from typing import Any

import pytest

from wxauth.errors import WeChatBadResponse
from wxauth.server.wechat.received import e164_of

APP_ID = "wxa"
WATERMARK = {"watermark": {"timestamp": 1795161600, "appid": APP_ID}}
NUMBER = "+8613800138000"


@pytest.mark.parametrize(
    ("info", "phone"),
    [
        ({"purePhoneNumber": "13800138000", "countryCode": "86", "phoneNumber": "13800138000"}, NUMBER),
        ({"purePhoneNumber": "13800138000", "countryCode": 86}, NUMBER),
        ({"purePhoneNumber": "13800138000", "countryCode": "+86"}, NUMBER),
        ({"purePhoneNumber": 13800138000, "countryCode": 86}, NUMBER),
        ({"purePhoneNumber": "91234567", "countryCode": "852", "phoneNumber": "85291234567"}, "+85291234567"),
        ({"purePhoneNumber": "07911123456", "countryCode": "44"}, "+447911123456"),
        ({"purePhoneNumber": "0612345678", "countryCode": "39"}, "+390612345678"),
        ({"phoneNumber": "13800138000"}, NUMBER),
        ({"phoneNumber": "+8613800138000", "countryCode": "86"}, NUMBER),
        ({"phoneNumber": "+85291234567", "purePhoneNumber": ""}, "+85291234567"),
    ],
)
def test_a_phone_number_is_converted_to_e164(info: dict[str, Any], phone: str) -> None:
    assert e164_of({**info, **WATERMARK}, app_id=APP_ID) == phone


@pytest.mark.parametrize(
    "info",
    [
        {},
        {"purePhoneNumber": "", "countryCode": "86", "phoneNumber": ""},
        {"purePhoneNumber": "13800138000999000", "countryCode": "86"},
        {"purePhoneNumber": "138", "countryCode": "86"},
        {"purePhoneNumber": "13800138000", "countryCode": "999"},
        {"purePhoneNumber": "301234567890123", "countryCode": "49"},  # there are such, and they do not fit E.164
        {"purePhoneNumber": ["13800138000"], "countryCode": {"86": 86}},
        {"phoneNumber": "85291234567"},  # without its country it could be anybody's
        {"phoneNumber": None},
    ],
)
def test_an_invalid_number_is_refused_and_not_repeated(info: dict[str, Any]) -> None:
    with pytest.raises(WeChatBadResponse) as refused:
        e164_of({**info, **WATERMARK}, app_id=APP_ID)
    assert not any(character.isdigit() for character in refused.value.detail)


@pytest.mark.parametrize("watermark", [{}, {"watermark": None}, {"watermark": {}}, {"watermark": {"appid": "wxb"}}])
def test_a_number_that_is_not_marked_as_the_apps_is_refused(watermark: dict[str, Any]) -> None:
    info = {"purePhoneNumber": "13800138000", "countryCode": "86", **watermark}
    with pytest.raises(WeChatBadResponse):
        e164_of(info, app_id=APP_ID)
