"""A phone must open a scan in an allowed way, because someone could have forwarded a picture of the QR code."""

from datetime import UTC, datetime
from typing import Any

import pytest

from wxauth.settings.addresses import NEARBY
from wxauth.sites.door import Door
from wxauth.sites.doors.scan_schemas import ClaimRequest
from wxauth.sites.doors.scans import refusal_of_opening
from wxauth.sites.queries import SiteLogin

pytestmark = pytest.mark.no_database

NOW = datetime(2026, 11, 20, 8, tzinfo=UTC)
LINK, TYPED = {"door": Door.LINK}, {"user_code": "BCDF-GHJK"}
OF_SITE, OF_PAGE = {"user_code": True}, {"browser_hash": b"h"}
CODE = 1047


def is_refused(login: dict[str, Any], opening: dict[str, Any], entry: str) -> bool:
    stored = SiteLogin.model_construct(**{"door": None, "user_code": False, "browser_hash": None, **login})
    opened = ClaimRequest(**({} if "user_code" in opening else {"scene": "s"}), **opening)
    return refusal_of_opening(stored, opened, entry=entry, now=NOW) is not None


@pytest.mark.parametrize(
    ("opening", "login", "where"),
    [
        ({"entry_scene": CODE}, {}, {"any", "camera"}),
        ({"entry_scene": 1011}, {}, {"any", "camera"}),
        ({"scanned": "camera"}, {}, {"any", "camera"}),
        *(({"entry_scene": scene}, {}, {"any"}) for scene in (1007, 1008, 1012, 1013, 1048, 1049, 1001, 0, None)),
        ({"scanned": "album"}, {}, {"any"}),
        ({"entry_scene": CODE, "scancode_time": NOW.timestamp() - 180}, {}, {"any", "camera"}),
        ({"entry_scene": CODE, "scancode_time": f"{NOW.timestamp() - 181:.0f}"}, {}, {"any"}),
        ({"scanned": "camera", "scancode_time": NOW.timestamp() - 181}, {}, {"any"}),
        ({"scancode_time": NOW.timestamp()}, {}, {"any"}),
        *(({"entry_scene": scene}, LINK, {"any", "camera"}) for scene in (1286, 1065, 1194)),
        *(({"entry_scene": scene}, {}, set()) for scene in (1286, 1065, 1194)),
        *(({"entry_scene": scene}, LINK, set()) for scene in (1167, CODE, 1007, None)),
        ({"scanned": "camera"}, LINK, set()),
        ({"scanned": "camera", "entry_scene": 1286}, LINK, set()),
        (TYPED, {}, set()),
        (TYPED, OF_SITE, {"any", "camera"}),
        (TYPED, OF_PAGE, {"any", "camera"}),
        (TYPED | {"entry_scene": 1286}, OF_PAGE, {"any", "camera"}),
    ],
)
def test_where_a_claim_is_taken(opening: dict[str, Any], login: dict[str, Any], where: set[str]) -> None:
    assert {entry for entry in ("any", "camera") if not is_refused(login, opening, entry)} == where


@pytest.mark.parametrize(
    ("browser", "phone", "same"),
    [
        ("203.0.113.200", "203.0.113.7", True),
        ("203.0.113.200", "203.0.112.7", False),
        ("2001:db8:1:200::1", "2001:db8:1:2ff::9", True),
        ("2001:db8:1:200::1", "2001:db8:1:300::9", False),
        ("::ffff:203.0.113.7", "203.0.113.200", True),
        ("fe80::1%eth0", "fe80::2", True),
        ("203.0.113.200", "2001:db8::1", False),
    ],
)
def test_addresses_in_one_24_or_one_56_are_one_network(browser: str, phone: str, same: bool) -> None:
    assert (NEARBY.network_of(browser) == NEARBY.network_of(phone)) is same
