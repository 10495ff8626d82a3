"""What one check finds out for the others."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from wxauth.checks.clocks import Reading
from wxauth.checks.rows import Users
from wxauth.core.settings import App
from wxauth.core.tables import StoredSigningKey
from wxauth.oauth.client_rows import OAuthClient


@dataclass(slots=True)
class Findings:
    """What is known so far; None, or nothing, where it could not be found out."""

    apps: Sequence[App] = ()
    """Those that people may log in to."""
    signing_keys: Sequence[StoredSigningKey] | None = None
    users: Mapping[str, Users] = field(default_factory=dict)
    """A sample of each app's, by app_id."""
    sites: Sequence[OAuthClient] = ()
    """The OAuth clients."""
    wechat_readings: list[Reading] = field(default_factory=list)
    """How our clock stands to WeChat's."""
