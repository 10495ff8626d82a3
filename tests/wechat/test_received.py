"""`encryptedData` is decrypted as in WeChat's own sample, and phone numbers are read as WeChat sends them."""

from base64 import b64decode, b64encode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES128
from cryptography.hazmat.primitives.ciphers.modes import CBC

from tests.sweeps import swept
from wxauth.errors import WeChatBadResponse
from wxauth.wechat.received import base64_bytes, check_watermark, e164_of, open_encrypted_data
from wxauth_guard.errors import InvalidRequest

# These values are from the sample that can be downloaded from
# https://developers.weixin.qq.com/miniprogram/dev/framework/open-ability/signature.html.
APP_ID = "wx4f4bc4dec97d474b"
SESSION_KEY = b"tiihtNczf5v6AKRyjwEUhQ=="
IV = "r7BXXKkLb8qrSNn05n0qiA=="
ENCRYPTED_DATA = (
    "CiyLU1Aw2KjvrjMdj8YKliAjtP4gsMZMQmRzooG2xrDcvSnxIMXFufNstNGTyaGS9uT5geRa0W4oTOb1WT7fJlAC+oNPdbB+3hVbJSRgv+4lGOET"
    "KUQz6OYStslQ142dNCuabNPGBzlooOmB231qMM85d2/fV6ChevvXvQP8Hkue1poOFtnEtpyxVLW1zAo6/1Xx1COxFvrc2d7UL/lmHInNlxuacJXw"
    "u0fjpXfz/YqYzBIBzD6WUfTIF9GRHpOn/Hz7saL8xz+W//FRAUid1OksQaQx4CMs8LOddcQhULW4ucetDf96JcR3g0gfRK4PC7E/r7Z6xNrXd2UI"
    "eorGj5Ef7b1pJAYB6Y5anaHqZ9J6nKEBvB4DnNLIVWSgARns/8wR2SiRS7MNACwTyrGvt9ts8p12PKFdlqYTopNHR1Vf7XjfhQlVsAJdNiKdYmYV"
    "oKlaRv85IfVunYzO0IKXsyl7JCUjCpoG20f0a04COwfneQAGGwd5oa+T8yO5hzuyDb/XcxxmK01EpqOyuxINew=="
)
MADE_AT = datetime(2016, 10, 24, 13, 3, 7, tzinfo=UTC)
OPENED = {
    "openId": "oGZUI0egBJY1zhBYw2KhdUfwVJJE",
    "nickName": "Band",
    "gender": 1,
    "language": "zh_CN",
    "city": "Guangzhou",
    "province": "Guangdong",
    "country": "CN",
    "avatarUrl": "http://wx.qlogo.cn/mmopen/vi_32/aSKcBBPpibyKNicHNTMM0qJVh8Kjgiak2AHWr8MHM4WgMEm7GFhsf8OYrySdbvAMvTsw3"
    "mo8ibKicsnfN5pRjl1p8HQ/0",
    "unionId": "ocMvos6NjeKLIBqg5Mr9QjxrP1FA",
    "watermark": {"timestamp": 1477314187, "appid": APP_ID},
}


def opened(encrypted_data: str = ENCRYPTED_DATA, iv: str = IV, session_key: bytes = SESSION_KEY) -> Any:
    return open_encrypted_data(base64_bytes(encrypted_data), iv=base64_bytes(iv), session_key=session_key)


def encrypted(padded: bytes) -> str:
    encryptor = Cipher(AES128(b64decode(SESSION_KEY)), CBC(b64decode(IV))).encryptor()
    return b64encode(encryptor.update(padded) + encryptor.finalize()).decode()


def test_wechats_own_sample_opens() -> None:
    assert opened() == OPENED
    check_watermark(OPENED, app_id=APP_ID, now=MADE_AT)


@pytest.mark.parametrize("text", ["A", "AAAAA", "AA=A", "AA AA%3D", "钥匙", "AAAA\x00", "A===A==="])
def test_invalid_base64_is_not_guessed(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 - any, that is the promise
        base64_bytes(text)


@pytest.mark.parametrize(
    "padded",
    [
        b'{"watermark":1}\x00',
        b'{"watermark":1}\x02',
        b'{"watermark":1}\x11',
        b'{"water":"\x80"}' + b"\x03" * 3,
        b'{"water' + b"\x09" * 9,
        b'{"a":NaN}' + b"\x07" * 7,
        b'["watermark"]' + b"\x03" * 3,
        b"\x10" * 16,
    ],
    ids=["no padding", "padding of another kind", "too long", "no UTF-8", "cut JSON", "NaN", "no object", "empty"],
)
def test_data_without_a_padded_object_does_not_decrypt(padded: bytes) -> None:
    assert opened(encrypted(padded)) is None


@swept(
    ("raw", "name"),
    [
        (b"a", "a"),  # this text fills its block, so the padding is a block of its own
        *((b"a\x14\n", "a\x14\n"), (rb"a\ud83d", "a\ufffd"), (b"a\xed\xa0\xbd", "a\ufffd")),
        (b"a\xf0\x9f\x98", "a\ufffd"),
    ],
)
def test_a_name_with_controls_or_half_an_emoji_is_read(raw: bytes, name: str) -> None:
    text = b'{"nickName":"' + raw + b'"}'
    filled = -len(text) % 16 or 16
    assert opened(encrypted(text + bytes([filled]) * filled)) == {"nickName": name}


def test_neither_what_is_no_key_nor_a_wrong_key_whose_padding_fits_by_chance_opens_anything() -> None:
    for no_key in (b"", b"AAAA", b"\xff" * 24, b64encode(bytes(32)), b64encode(bytes(15))):
        assert opened(session_key=no_key) is None
    data, iv = b64decode(ENCRYPTED_DATA), b64decode(IV)
    keys = [number.to_bytes(16, "big") for number in range(2000)]
    assert any(_leaves_a_padding(key, data, iv) for key in keys), "it has to happen to be told from the right key"
    assert not any(opened(session_key=b64encode(key)) for key in keys)


def _leaves_a_padding(key: bytes, data: bytes, iv: bytes) -> bool:
    decryptor = Cipher(AES128(key), CBC(iv)).decryptor()
    padded = decryptor.update(data) + decryptor.finalize()
    return padded[-1] in range(1, 17) and padded.endswith(bytes([padded[-1]]) * padded[-1])


@pytest.mark.parametrize(
    ("watermark", "problem"),
    [
        ({"appid": APP_ID, "timestamp": 1477314187}, None),
        ({"appid": APP_ID, "timestamp": 1477314187 - 86400}, None),
        ({"appid": APP_ID, "timestamp": 1477314187 - 86401}, "a day old"),
        ({"appid": APP_ID, "timestamp": -(10**400)}, "a day old"),
        ({"appid": APP_ID, "timestamp": 1477314187 + 300}, None),
        ({"appid": APP_ID, "timestamp": 1477314187 + 301}, "future"),
        ({"appid": APP_ID.upper(), "timestamp": 1477314187}, "another app"),
        ({"appid": APP_ID}, "no watermark"),
        ({"timestamp": 1477314187}, "no watermark"),
        ({"appid": APP_ID, "timestamp": "1477314187"}, "no watermark"),
        ([], "no watermark"),
        (None, "no watermark"),
    ],
)
def test_the_watermark_is_of_this_app_and_of_today(watermark: Any, problem: str | None) -> None:
    now = MADE_AT + timedelta(milliseconds=300)
    if problem is None:
        check_watermark({"watermark": watermark}, app_id=APP_ID, now=now)
        return
    with pytest.raises(InvalidRequest, match=problem):
        check_watermark({"watermark": watermark}, app_id=APP_ID, now=now)


# Phone numbers.

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
        {"purePhoneNumber": "301234567890123", "countryCode": "49"},  # such numbers exist, but E.164 doesn't allow them
        {"purePhoneNumber": ["13800138000"], "countryCode": {"86": 86}},
        {"phoneNumber": "85291234567"},  # the country code is missing
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
