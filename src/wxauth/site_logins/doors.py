"""The ways to log in to a site (called doors), the outcomes of logins and their metric, and the limits of the steps."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from http import HTTPStatus
from typing import Final

from wxauth.core.metrics import Counter
from wxauth.login.login_counts import LoginCounts
from wxauth_guard.errors import WxAuthError


class Door(StrEnum):
    """A way to log in to a site.

    The docstring of `Stage` lists the modules that implement the doors, except `PHONE`, for which wxauth stores no
    login. The module `phone_id_tokens` implements it.
    """

    SCAN = "scan"
    """A phone scanned the QR code that a browser or device shows."""
    TYPED = "typed"
    """The user typed, on the phone, the user code that a browser or device shows."""
    MINI_PROGRAM = "mini_program"
    """The site is open in a mini-program, which answers the sign-in request itself."""
    ACCOUNT = "account"
    """The site is open in WeChat's browser, and WeChat's page identifies the user to the service account."""
    WEBSITE = "website"
    """WeChat's page on a computer identifies the user to the website app."""
    LINK = "link"
    """A link in a phone's browser opened the mini-program, which showed a number to type in the browser."""
    SSO = "sso"
    """The browser has a login, because the user logged in to this site or to another site before."""
    PHONE = "phone"
    """A mini-program or a mobile app got an id_token for another back end. wxauth opens no session for the site."""


WECHAT_PAGE_DOORS: Final = frozenset({Door.ACCOUNT, Door.WEBSITE})
"""The doors that use WeChat's own pages."""
PROVING_DOORS: Final = frozenset({Door.SCAN, Door.LINK, Door.ACCOUNT})
"""The doors that prove who uses the browser, so that they create or renew the browser's login.

`TYPED` and `WEBSITE` do not prove that: a typed user code might have been read out to a person elsewhere, and WeChat's
page on a computer does not show which browser it logs in. With `MINI_PROGRAM` and `PHONE`, the phone sends the request
in place of a browser. `SSO` uses a login that the browser already has.
"""

AMR: Final[Mapping[Door, str]] = {
    Door.SCAN: "wechat_scan",
    Door.TYPED: "wechat_code",
    Door.MINI_PROGRAM: "wechat_mini_program",
    Door.ACCOUNT: "wechat_account",
    Door.WEBSITE: "wechat_website",
    Door.LINK: "wechat_link",
}
"""The `amr` value (RFC 8176) of each door except `SSO` and `PHONE`.

A login through `SSO` has the value that the browser's login stores. `phone_id_tokens` contains the values for `PHONE`.
"""


class DoorOutcome(StrEnum):
    """The outcome of a login to a site."""

    LOGGED_IN = "logged_in"
    """The site has opened its session or, for `Door.PHONE`, the phone has got its id_token."""
    REFUSED = "refused"
    """The user or wxauth has refused, for example because the user may not log in, or has exceeded a limit."""
    SNAPSHOT = "snapshot"
    """WeChat has shown the user only a snapshot of the page, and has returned a made-up user."""
    FAILED = "failed"
    """The login has failed for another reason, for example because WeChat or the database did not respond."""

    @classmethod
    def of_error(cls, error: WxAuthError) -> "DoorOutcome":
        """Return the outcome of a phone's request that ends with this error.

        The outcome is `FAILED` if the error's status is 500 or more, and `REFUSED` otherwise.
        """
        return cls.FAILED if error.status >= HTTPStatus.INTERNAL_SERVER_ERROR else cls.REFUSED


SITE_LOGINS: Final = Counter(
    "wxauth_doors",
    "Logins to websites, by method and outcome.",
    "door",
    "outcome",
    first=[(door, outcome) for door in Door for outcome in DoorOutcome],
)
"""The metric of logins to sites. `first` lists all pairs, so that each pair is reported as 0 before its first login."""

POLL_INTERVAL_SECONDS: Final = 2
"""The initial number of seconds between two polls of a device. If a device polls too fast, its interval grows."""
SCAN_LASTS: Final = timedelta(seconds=180)
"""The time within which the user must scan a QR code, type a code or follow a link to WeChat, and approve the login."""
CLAIM_LASTS: Final = timedelta(seconds=60)
"""The time after which another user can take over a claim (a phone's reservation of a login) that has no decision."""
VISIT_LASTS: Final = timedelta(seconds=600)
"""The time that a visit to WeChat's page can take. During this time, the page's button can start another visit.

It is also the lifetime of a page that has only buttons.
"""
LINK_REQUEST_LASTS: Final = timedelta(seconds=600)
"""The lifetime of a sign-in request whose page has a link to WeChat."""
MAX_PRESSES: Final = 10
"""The maximum number of times that the button of one page can open WeChat's page, or request a link to WeChat."""
MAX_WRONG_NUMBERS: Final = 3
"""The maximum number of wrong numbers that a user can type on one page. The last one ends the page and its link."""
NUMBER_LASTS: Final = timedelta(seconds=120)
"""The time that the user has, after the approval on the phone, to type the number of a link."""
AUTHORIZATION_CODE_LASTS: Final = timedelta(seconds=60)
"""The maximum lifetime of an authorization code."""
REPEATED_WITHIN: Final = timedelta(seconds=15)
"""The time after the opening of a session during which a reuse of its authorization code does not end the session.

This time applies to logins with WeChat's page, because WeChat's browsers repeat some callbacks, so that the site
receives the same authorization code twice.
"""
OUTCOME_KEPT: Final = timedelta(hours=1)
"""The time for which wxauth still stores a login after it has expired.

During this time, a late poll gets `expired_token`, and wxauth detects the reuse of an authorization code. The row of a
page that no phone claims, and the row of a link or visit without a claim or login, are not kept for this time, because
anyone can open any number of pages.
"""


def count_logged_in(login_counts: LoginCounts, door: Door, *, now: datetime) -> None:
    """Count a login after which the site has its session or, for `Door.PHONE`, the phone has its id_token."""
    SITE_LOGINS.count(door, DoorOutcome.LOGGED_IN)
    if door not in WECHAT_PAGE_DOORS:  # `Visits` has counted those logins already, and knows which users are new
        login_counts.count_login(is_new=False, at=now)
