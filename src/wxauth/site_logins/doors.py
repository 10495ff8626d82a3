"""The ways to log in to a site (called doors), their outcomes, and the durations of a login's steps."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from wxauth.core.metrics import Counter
from wxauth.login.records import Numbers


class Door(StrEnum):
    """A way to log in to a site. `scans`, `links` and `visits` implement the differences between them."""

    SCAN = "scan"
    """A phone scanned the code that a browser or device shows."""
    TYPED = "typed"
    """The user typed that code on the phone."""
    MINI_PROGRAM = "mini_program"
    """The mini-program, which shows the site, answers the sign-in request itself."""
    ACCOUNT = "account"
    """The site is open in WeChat's browser, and WeChat's page identifies the user to the service account."""
    WEBSITE = "website"
    """WeChat's page on a computer identifies the user to the website app."""
    LINK = "link"
    """A link in a phone's browser opened the mini-program, which showed a number to type in the browser."""
    SSO = "sso"
    """The browser has a login, which the user has proved for this site or another one."""
    PHONE = "phone"
    """A mini-program or a mobile app got an id_token for another back end. There is no grant and no session."""


BY_WECHATS_PAGE: Final = frozenset({Door.ACCOUNT, Door.WEBSITE})
"""The doors that use WeChat's own pages."""
MAKES_BROWSER_LOGIN: Final = frozenset({Door.SCAN, Door.LINK, Door.ACCOUNT})
"""The doors that prove who uses this browser.

A typed code might have been read out to a person elsewhere, and WeChat's page on a computer does not show which browser
it logs in.
"""

AMR: Final[Mapping[Door, str]] = {
    Door.SCAN: "wechat_scan",
    Door.TYPED: "wechat_code",
    Door.MINI_PROGRAM: "wechat_mini_program",
    Door.ACCOUNT: "wechat_account",
    Door.WEBSITE: "wechat_website",
    Door.LINK: "wechat_link",
}
"""The `amr` value (RFC 8176) for the way in which the user logged in. A browser's login has the value of its proof."""


class DoorOutcome(StrEnum):
    """The outcome of a login to a site."""

    LOGGED_IN = "logged_in"
    """The site has opened its session."""
    REFUSED = "refused"
    """The user has declined, or may not log in."""
    SNAPSHOT = "snapshot"
    """WeChat has shown a snapshot of the page, for which it returns a made-up user."""
    FAILED = "failed"
    """WeChat or the database did not respond, or gave an unexpected response."""


DOORS: Final = Counter(
    "wxauth_doors",
    "Logins to websites, by method and outcome.",
    "door",
    "outcome",
    first=[(door, outcome) for door in Door for outcome in DoorOutcome],
)


SCAN_LASTS: Final = timedelta(seconds=180)
"""The time in which a code can be scanned, or a link to WeChat be followed, and approved."""
CLAIM_LASTS: Final = timedelta(seconds=60)
"""The time after which another user can take over a claim (a phone's reservation of a login) without a decision."""
VISIT_LASTS: Final = timedelta(seconds=600)
"""The time that a visit to WeChat's page can take, and for which its request can be used for another visit."""
LINK_REQUEST_LASTS: Final = timedelta(seconds=600)
"""The time for which a sign-in request can be used if its page has a link to WeChat."""
URL_LINK_LASTS: Final = timedelta(days=30)
"""The time for which WeChat's URL Link of an app opens the mini-program. It is the longest that WeChat allows."""
URL_LINK_RENEWED_AFTER: Final = timedelta(days=25)
MAX_PRESSES: Final = 10
"""The maximum number of times that the browser of one page can open WeChat's page, or get a link to WeChat."""
MAX_WRONG_NUMBERS: Final = 3
NUMBER_LASTS: Final = timedelta(seconds=120)
"""The time after the approval in which the number can be typed."""
AUTHORIZATION_CODE_LASTS: Final = timedelta(seconds=60)
"""The time for which an authorization code is valid."""
REPEATED_WITHIN: Final = timedelta(seconds=15)
"""The time after its use in which a code from WeChat's browser can be repeated without ending the session."""
OUTCOME_KEPT: Final = timedelta(hours=1)
"""The time for which requests and grants are stored after their end.

Until then, a late poll gets `expired_token`, and reuse of a code is detected. A request on wxauth's own page that no
user completes is deleted when it expires, because anyone can open any number of pages.
"""


def count_redeemed(numbers: Numbers, door: Door, *, now: datetime) -> None:
    """Count a login to a site."""
    DOORS.count(door, DoorOutcome.LOGGED_IN)
    if door not in BY_WECHATS_PAGE:  # other logins were counted when the browser returned, with new users
        numbers.count_login(is_new=False, at=now)
