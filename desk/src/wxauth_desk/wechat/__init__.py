"""A simulated WeChat for laptops and tests.

It behaves as WeChat's documentation describes. The file `about.txt` is the manual of the simulation.
"""

from wxauth_desk.wechat.controls import (
    ACCOUNT,
    APPS,
    LATER_APP,
    MOBILE_APP,
    OTHER_APPS,
    WEBSITE,
    Api,
    CodeRequest,
    PhoneCodeRequest,
)
from wxauth_desk.wechat.desk import AGENT_CLIENT_ID, AGENT_PATH, DESK_PATH, SHOP_PATH
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
    "DESK_PATH",
    "HINTS",
    "LATER_APP",
    "MOBILE_APP",
    "OTHER_APPS",
    "SHOP_PATH",
    "UNKNOWN_APP_HINT",
    "WEBSITE",
    "Api",
    "CodeRequest",
    "PhoneCodeRequest",
    "Simulator",
    "create_simulator",
    "phone_number_of",
]
