"""Limits on the number of scans and pictures."""

from collections.abc import Callable
from typing import Self

from wxauth.errors import RateLimited
from wxauth.server.core.parts import part
from wxauth.server.core.settings import Settings
from wxauth.server.limits.rate_limits import RateLimiter


class PressesUsedUp(RateLimited):
    """The button of a page was pressed as often as it may be: waiting does not help."""


@part
class ScanLimits:
    """Counts new scans, and the pictures requested from WeChat.

    Args:
        browsers: Limits the scans and visits to WeChat's page per browser address.
        pages: Limits the pages with a button: in WeChat's browser per address, of a browser with a login per login.
        clients: Limits the scans that one confidential client starts.
        pictures: Limits the pictures per app.
    """

    browsers: RateLimiter
    pages: RateLimiter
    clients: RateLimiter
    pictures: RateLimiter

    @classmethod
    def of(cls, settings: Settings, make: Callable[[str, str], RateLimiter]) -> Self:
        """The limits of the settings. `make` returns a limiter for a rate and a name."""
        return cls(
            browsers=make(settings.scan_rate_limit, "scan"),
            pages=make(settings.scan_rate_limit, "scan-page"),
            clients=make(settings.scan_client_limit, "scan-client"),
            pictures=make(settings.scan_picture_limit, "scan-picture"),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        for limiter in (self.browsers, self.pages, self.clients, self.pictures):
            await limiter.aclose()
