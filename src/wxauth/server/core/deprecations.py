"""What is deprecated: whoever uses it is told by the log once a day, and over HTTP by RFC 9745 and 8594."""

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from typing import Final

from wxauth.server.core.clock import Clock
from wxauth.server.core.logs import OncePerDay, get_logger
from wxauth.server.core.parts import part

_SHORTEST: Final = timedelta(days=180)
"""What docs/upgrading.md promises."""

log = get_logger()


@dataclass(frozen=True, slots=True, kw_only=True)
class Deprecation:
    """Something that goes: `WXAUTH_OLD`, `POST /v1/old`, `old in POST /v1/login`. Raises: ValueError, if too soon."""

    name: str
    instead: str
    since: date
    until: date

    def __post_init__(self) -> None:
        if self.until - self.since < _SHORTEST:
            raise ValueError(f"{self.name}: must stay for {_SHORTEST.days} days")

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """Those of an answer to a request that uses it."""
        since, until = (datetime.combine(day, time(), UTC) for day in (self.since, self.until))
        sunset = format_datetime(until, usegmt=True)
        return [(b"deprecation", f"@{since.timestamp():.0f}".encode()), (b"sunset", sunset.encode())]


@part
class Deprecations:
    """Tells the operator what is used and goes."""

    clock: Clock

    def __post_init__(self) -> None:
        self._told = OncePerDay()

    def tell(self, used: Deprecation) -> None:
        """Log that it was used, once a UTC day in this process."""
        if self._told.is_due(used.name, self.clock().date()):
            log.warning("deprecated", used=used.name, what_to_do=f"use {used.instead}", until=used.until.isoformat())
