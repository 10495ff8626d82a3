"""The ways to log in to a site, called doors, their outcomes, and how long each part of a login lasts."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from wxauth.core.metrics import Counter
from wxauth.login.records import Numbers


class Door(StrEnum):
    """A way to log in to a site: `scans`, `links` and `visits` have what is particular to each."""

    SCAN = "scan"
    """A phone scanned the code that a browser or device shows."""
    TYPED = "typed"
    """The person typed that code on the phone."""
    MINI_PROGRAM = "mini_program"
    """The mini-program, which shows the site, answers the request itself."""
    ACCOUNT = "account"
    """The site is open in WeChat's browser, and WeChat's page identifies the person to the service account."""
    WEBSITE = "website"
    """WeChat's page on a computer identifies the person to the website app."""
    LINK = "link"
    """A link in a phone's browser opened the mini-program, which showed a number to type in the browser."""
    SSO = "sso"
    """The browser has a login, which it has proved for this site or another one."""
    PHONE = "phone"
    """A mini-program or a mobile app got an id_token for another back end. There is neither grant nor session."""


BY_WECHATS_PAGE: Final = frozenset({Door.ACCOUNT, Door.WEBSITE})
"""The doors that use WeChat's own pages."""
MAKES_BROWSER_LOGIN: Final = frozenset({Door.SCAN, Door.LINK, Door.ACCOUNT})
"""The doors that prove who uses this browser. A typed code may have been read out to somebody elsewhere, and WeChat's
page on a computer shows nobody which browser it logs in."""

AMR: Final[Mapping[Door, str]] = {
    Door.SCAN: "wechat_scan",
    Door.TYPED: "wechat_code",
    Door.MINI_PROGRAM: "wechat_mini_program",
    Door.ACCOUNT: "wechat_account",
    Door.WEBSITE: "wechat_website",
    Door.LINK: "wechat_link",
}
"""The `amr` value (RFC 8176) for how the person logged in. That of a browser's login is its proof's."""


class DoorOutcome(StrEnum):
    """The outcome of a login to a site."""

    LOGGED_IN = "logged_in"
    """The site has opened its session."""
    REFUSED = "refused"
    """The person has declined, or may not log in."""
    SNAPSHOT = "snapshot"
    """WeChat has shown a snapshot, for which it returns a made-up person."""
    FAILED = "failed"
    """WeChat or the database failed to answer, or gave an unexpected answer."""


DOORS: Final = Counter(
    "wxauth_doors",
    "Logins to websites, by method and outcome.",
    "door",
    "outcome",
    first=[(door, outcome) for door in Door for outcome in DoorOutcome],
)


SCAN_LASTS: Final = timedelta(seconds=180)
"""How long a code can be scanned, or a link to WeChat be followed, and approved."""
CLAIM_LASTS: Final = timedelta(seconds=60)
"""After this time without a decision, another user may take over the claim."""
VISIT_LASTS: Final = timedelta(seconds=600)
"""How long a visit to WeChat's page may take, and how long its request can be used for another one."""
LINK_REQUEST_LASTS: Final = timedelta(seconds=600)
"""How long a request whose page has such a link can be used."""
URL_LINK_LASTS: Final = timedelta(days=30)
"""How long WeChat's URL Link of an app opens the mini-program. WeChat makes none that lasts longer."""
URL_LINK_RENEWED_AFTER: Final = timedelta(days=25)
MAX_PRESSES: Final = 10
"""How often the browser of one page may open WeChat's page, and how many links to WeChat it gets."""
MAX_WRONG_NUMBERS: Final = 3
NUMBER_LASTS: Final = timedelta(seconds=120)
"""How long after the approval the number can be typed."""
AUTHORIZATION_CODE_LASTS: Final = timedelta(seconds=60)
"""How long an authorization code is valid."""
REPEATED_WITHIN: Final = timedelta(seconds=15)
"""How long after its use a code from WeChat's browser may be repeated without ending the session."""
OUTCOME_KEPT: Final = timedelta(hours=1)
"""How long requests and grants are kept after their end. Until then a late poll gets `expired_token`, and reuse of a
code is detected. A request on our own page that nobody answers is deleted when it expires, because anybody can open any
number."""


def count_redeemed(numbers: Numbers, door: Door, *, now: datetime) -> None:
    """Count a login to a site."""
    DOORS.count(door, DoorOutcome.LOGGED_IN)
    if door not in BY_WECHATS_PAGE:  # else counted when the browser returned, with new users
        numbers.count_login(is_new=False, at=now)
