"""The apps and the people of the simulated WeChat. A name is a person; openids, unionid and number derive from it."""

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

APPS: Final = (
    {
        "app_id": "wxdev00000000000a1",
        "app_secret": "dev-secret-of-the-first-app",
        "push_token": "devPushTokenOfTheFirstApp",
    },
    {
        "app_id": "wxdev00000000000b2",
        "app_secret": "dev-secret-of-the-second-app",
        "push_token": "devPushTokenOfTheSecondApp",
        "push_aes_key": "devPushAesKeyOfTheSecondApp0000000000000000",
    },
)
LATER_APP: Final = {
    "app_id": "wxdev00000000000c3",
    "app_secret": "dev-secret-of-the-third-app",
    "push_token": "devPushTokenOfTheThirdApp",
}
"""An app that WeChat knows, but the service does not until somebody adds it."""
ACCOUNT: Final = {
    "app_id": "wxdevaccount0000d4",
    "app_secret": "dev-secret-of-the-service-account",
    "kind": "official_account",
    "push_token": "devPushTokenOfTheAccount",
}
WEBSITE: Final = {"app_id": "wxdevwebsite0000e5", "app_secret": "dev-secret-of-the-website", "kind": "website"}
MOBILE_APP: Final = {"app_id": "wxdevmobile00000f6", "app_secret": "dev-secret-of-the-mobile-app", "kind": "mobile_app"}
OTHER_KINDS: Final = (ACCOUNT, WEBSITE, MOBILE_APP)
"""Apps that are not mini-programs. WeChat knows them, but the service does not until somebody adds them."""
SECRETS: Final = {app["app_id"]: app["app_secret"] for app in (*APPS, LATER_APP, *OTHER_KINDS)}
APP_KINDS: Final = dict.fromkeys(SECRETS, "mini_program") | {app["app_id"]: app["kind"] for app in OTHER_KINDS}
"""The kind of each app."""

_NAME: Final = re.compile(r"[^\W\d_][\w.-]{0,31}")
_RISKY: Final = re.compile(r"risky-([0-4])")


def is_person_name(text: str) -> bool:
    """Whether this can be a person's name."""
    return _NAME.fullmatch(text) is not None


def openid_of(person: str, app_id: str) -> str:
    """The person's openid in an app. All openids of an app begin alike."""
    return openid_prefix(app_id) + _digest(app_id, person)[:22]


def openid_prefix(app_id: str) -> str:
    """The beginning of all openids of an app."""
    return "o" + _digest(app_id)[:5]


def unionid_of(person: str) -> str:
    """The person's unionid, which is the same in every app."""
    return "o6_bm" + _digest(person)[:23]


def phone_number_of(person: str) -> str:
    """The person's own number, a Chinese one."""
    return f"138{int.from_bytes(sha256(person.encode()).digest()[:4]) % 10**8:08}"


def risk_of(person: str) -> int:
    """The person's risk rank, 0 to 4: 4 for `risky-4`, 0 for a name of any other form."""
    found = _RISKY.fullmatch(person)
    return int(found[1]) if found else 0


def _digest(*parts: str) -> str:
    return urlsafe_b64encode(sha256("\0".join(parts).encode()).digest()).decode()
