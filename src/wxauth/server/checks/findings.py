"""The findings of one check that others need."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wxauth.server.checks.clocks import ClockReading
from wxauth.server.checks.rows import UserSample
from wxauth.server.clients.models import Client
from wxauth.server.core.settings import App
from wxauth.server.keys.models import StoredSigningKey


@dataclass(slots=True)
class Findings:
    """The findings so far. A field is None or empty if it could not be determined."""

    apps: Sequence[App] = ()
    """The apps that people may log in to."""
    signing_keys: Sequence[StoredSigningKey] | None = None
    users: Mapping[str, UserSample] = field(default_factory=dict)
    """Statistics of a sample of users, by app_id."""
    sites: Sequence[Client] = ()
    """The clients that log people in."""
    wechat_readings: list[ClockReading] = field(default_factory=list)
    """Comparisons of our clock with WeChat's."""
