"""The people in the simulated WeChat. A person's name determines their ids, phone number and risk rank."""

import re
from base64 import urlsafe_b64encode
from hashlib import sha256
from typing import Final

_PERSON_NAME: Final = re.compile(r"[^\W\d_][\w.-]{0,31}")
_RISKY_NAME: Final = re.compile(r"risky-([0-4])")


def is_person_name(text: str) -> bool:
    """Return whether a text can name a simulated person: it begins with a letter, is short, and has no spaces."""
    return _PERSON_NAME.fullmatch(text) is not None


def openid_of(person: str, app_id: str) -> str:
    """Return the person's openid in an app. It is the same each time, and has 28 characters, as in the real WeChat."""
    return openid_prefix(app_id) + _digest(app_id, person)[:22]


def openid_prefix(app_id: str) -> str:
    """Return the prefix that all openids of an app share. The real WeChat has such prefixes, too."""
    return "o" + _digest(app_id)[:5]


def unionid_of(person: str) -> str:
    """Return the person's unionid. It is the same in every app, and has 28 characters, as in the real WeChat."""
    return "o6_bm" + _digest(person)[:23]


def phone_number_of(person: str) -> str:
    """Return the person's own phone number, which is a Chinese number."""
    return f"138{int.from_bytes(sha256(person.encode()).digest()[:4]) % 10**8:08}"


def risk_of(person: str) -> int:
    """Return the person's risk rank, from 0 to 4. It is 4 for `risky-4`, and 0 for a name of any other form."""
    match = _RISKY_NAME.fullmatch(person)
    return int(match[1]) if match else 0


def _digest(*parts: str) -> str:
    return urlsafe_b64encode(sha256("\0".join(parts).encode()).digest()).decode()
