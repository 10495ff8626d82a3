"""How many scans there may be."""

from collections.abc import Callable
from typing import Self

from wxauth.core.settings import Settings
from wxauth.login.rate_limits import RateLimiter


class ScanLimits:
    """Counts new scans, and the pictures that WeChat is asked for.

    Args:
        browsers: Scans of one browser's address.
        clients: Scans that one confidential client starts.
        pictures: Of one app.
    """

    def __init__(self, *, browsers: RateLimiter, clients: RateLimiter, pictures: RateLimiter) -> None:
        self.browsers = browsers
        self.clients = clients
        self.pictures = pictures

    @classmethod
    def of(cls, settings: Settings, make: Callable[[str, str], RateLimiter]) -> Self:
        """As the settings have it; `make` gives a limiter of that rate for what is so called."""
        return cls(
            browsers=make(settings.scan_rate_limit, "scan"),
            clients=make(settings.scan_client_limit, "scan-client"),
            pictures=make(settings.scan_picture_limit, "scan-picture"),
        )

    async def aclose(self) -> None:
        """Close the connections."""
        for limiter in (self.browsers, self.clients, self.pictures):
            await limiter.aclose()
