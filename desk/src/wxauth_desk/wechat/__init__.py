"""A simulated WeChat for laptops and tests, which behaves as WeChat documents. Its manual is `about.txt`."""

from wxauth_desk.wechat.call_record import MASK, CallRecord, masked
from wxauth_desk.wechat.controls import (
    ACCOUNT,
    APP_TITLES,
    APPS,
    LATER_APP,
    MOBILE_APP,
    OTHER_APPS,
    WEBSITE,
    Api,
    CodeRequest,
    PhoneCodeRequest,
)
from wxauth_desk.wechat.desk import AGENT_CLIENT_ID, AGENT_PATH, DESK_PATH, PAGE_HEADER, SHOP_PATH, Surroundings
from wxauth_desk.wechat.payments import APP_KEYS
from wxauth_desk.wechat.people import phone_number_of
from wxauth_desk.wechat.simulator import Simulator
from wxauth_desk.wechat.simulator_app import HINTS, UNKNOWN_APP_HINT, create_simulator

__all__ = [
    "ACCOUNT",
    "AGENT_CLIENT_ID",
    "AGENT_PATH",
    "APPS",
    "APP_KEYS",
    "APP_TITLES",
    "DESK_PATH",
    "HINTS",
    "LATER_APP",
    "MASK",
    "MOBILE_APP",
    "OTHER_APPS",
    "PAGE_HEADER",
    "SHOP_PATH",
    "UNKNOWN_APP_HINT",
    "WEBSITE",
    "Api",
    "CallRecord",
    "CodeRequest",
    "PhoneCodeRequest",
    "Simulator",
    "Surroundings",
    "create_simulator",
    "masked",
    "phone_number_of",
]
