"""The ways in which a person logs in to a site, and how each ends."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class Door(StrEnum):
    """A way in which a person logs in to a site."""

    SCAN = "scan"
    """A phone scanned the code that a browser or device shows."""
    TYPED = "typed"
    """The person typed that code on the phone."""
    MINI_PROGRAM = "mini_program"
    """The site is shown inside the mini-program, which answers the request by itself."""
    ACCOUNT = "account"
    """The site is open in WeChat's browser, and WeChat's page tells the service account who it is."""
    WEBSITE = "website"
    """WeChat's page on a computer tells the website app who it is."""


BY_WECHATS_PAGE: Final = frozenset({Door.ACCOUNT, Door.WEBSITE})
"""The doors that lead over WeChat's own pages."""


AMR: Final[Mapping[Door, str]] = {
    Door.SCAN: "wechat_scan",
    Door.TYPED: "wechat_code",
    Door.MINI_PROGRAM: "wechat_mini_program",
    Door.ACCOUNT: "wechat_account",
    Door.WEBSITE: "wechat_website",
}
"""What a site is told of how the person logged in: `amr` (RFC 8176)."""


class DoorOutcome(StrEnum):
    """How a login to a site ends."""

    LOGGED_IN = "logged_in"
    """The site has its session."""
    REFUSED = "refused"
    """The person has said no, or may not log in."""
    SNAPSHOT = "snapshot"
    """WeChat has shown a snapshot, whose people are made up."""
    FAILED = "failed"
    """WeChat or the database did not answer, or not as expected."""
