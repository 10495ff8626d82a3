"""The ways to log in to a site (called doors), their outcomes and metric, and the limits of the steps."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from wxauth.core.metrics import Counter
from wxauth.login.count_queries import LoginCounts
from wxauth_guard.errors import WxAuthError


class Door(StrEnum):
    """A way to log in to a site. Each is in a module of `doors`."""

    SCAN = "scan"  # of the QR code that a browser or device shows
    TYPED = "typed"  # the user code, which the user typed on the phone
    MINI_PROGRAM = "mini_program"  # The site is open in a mini-program, which answers the request itself.
    ACCOUNT = "account"  # WeChat's page, in WeChat's browser, identifies the user to the service account.
    WEBSITE = "website"  # WeChat's page, on a computer, identifies the user to the website app.
    LINK = "link"  # A link in a phone's browser opens the mini-program, which shows a number to type in the browser.
    SSO = "sso"  # The browser has a login, because the user logged in to this or another site before.
    # A mini-program or mobile app gets an id_token for another back end. wxauth stores no login, and opens no session.
    PHONE = "phone"


WECHAT_PAGE_DOORS: Final = frozenset({Door.ACCOUNT, Door.WEBSITE})
# These doors prove who uses the browser. A typed code might have been read out to a person elsewhere, and WeChat's page
# on a computer does not show which browser it logs in. With `MINI_PROGRAM` and `PHONE`, the phone sends the request in
# place of a browser. `SSO` relies on an earlier proof.
PROVING_DOORS: Final = frozenset({Door.SCAN, Door.LINK, Door.ACCOUNT})

# These are the values of `amr` (RFC 8176). A login through `SSO` has the value of the browser's login, and
# `phone_id_tokens` has those of `PHONE`.
AMR: Final[Mapping[Door, str]] = {
    Door.SCAN: "wechat_scan",
    Door.TYPED: "wechat_code",
    Door.MINI_PROGRAM: "wechat_mini_program",
    Door.ACCOUNT: "wechat_account",
    Door.WEBSITE: "wechat_website",
    Door.LINK: "wechat_link",
}


class DoorOutcome(StrEnum):
    LOGGED_IN = "logged_in"  # The site has its session or, for `Door.PHONE`, the phone has its id_token.
    REFUSED = "refused"  # by the user or by wxauth, for example because of a limit
    SNAPSHOT = "snapshot"  # WeChat has shown only a snapshot of the page, and has returned a made-up user.
    FAILED = "failed"  # for another reason, for example because WeChat did not respond

    @classmethod
    def of_error(cls, error: WxAuthError) -> "DoorOutcome":
        """Return the outcome of a phone's request that ends with this error."""
        return cls.FAILED if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR else cls.REFUSED


DOOR_LOGINS: Final = Counter(
    "wxauth_doors",
    "Logins to websites, by method and outcome.",
    "door",
    "outcome",
    first=[(door, outcome) for door in Door for outcome in DoorOutcome],
)

POLL_INTERVAL_SECONDS: Final = 2  # at first; each poll that is too early makes a device's interval longer
SCAN_LASTS: Final = timedelta(seconds=180)  # from the request to the approval
# After this time, another user can take over the claim (a phone's reservation of a login).
CLAIM_LASTS: Final = timedelta(seconds=60)
VISIT_LASTS: Final = timedelta(seconds=600)  # of a visit to WeChat's page, and of a page that has only buttons
LINKED_PAGE_LASTS: Final = timedelta(seconds=600)  # of a page that shows a link beside its QR code
MAX_PRESSES: Final = 10  # a press is a use of a page's button; this is the limit for one page
MAX_WRONG_NUMBERS: Final = 3  # typed on one page; the last one ends the page and its link
NUMBER_LASTS: Final = timedelta(seconds=120)  # from the approval on the phone until the number is typed
AUTHORIZATION_CODE_LASTS: Final = timedelta(seconds=60)
# WeChat's browsers repeat some callbacks, so the site gets the same code twice. Its session stays open.
REPEATED_WITHIN: Final = timedelta(seconds=15)
# After a login has expired, wxauth stores it for this time, to answer a late poll, and to detect a reused code. It does
# not keep pages, links and visits that nobody has claimed, because anyone can open any number of them.
OUTCOME_KEPT: Final = timedelta(hours=1)


def count_logged_in(login_counts: LoginCounts, door: Door, *, now: datetime) -> None:
    """Count a login after which the site has its session or, for `Door.PHONE`, the phone has its id_token."""
    DOOR_LOGINS.count(door, DoorOutcome.LOGGED_IN)
    if door not in WECHAT_PAGE_DOORS:  # `Visits` has counted those logins already, and knows which users are new
        login_counts.count_login(is_new=False, at=now)
