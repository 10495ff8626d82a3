"""How long sessions last."""

from dataclasses import dataclass

from wxauth.server.core.settings import Settings


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetimes:
    """How long a session lasts, in seconds."""

    unused: int
    at_most: int
    reuse_grace: int
    """For how long a rotated token still gets its successor."""

    @property
    def unrefreshed(self) -> int:
        """How long a new session lasts if it is never refreshed."""
        return min(self.unused, self.at_most)


def app_session_lifetimes(settings: Settings) -> Lifetimes:
    """The lifetimes of a session in an app."""
    return Lifetimes(
        unused=settings.refresh_token_ttl,
        at_most=settings.session_max_age,
        reuse_grace=settings.refresh_reuse_grace,
    )


def website_session_lifetimes(settings: Settings) -> Lifetimes:
    """The lifetimes of a website's session."""
    return Lifetimes(
        unused=settings.web_session_ttl,
        at_most=settings.web_session_max_age,
        reuse_grace=settings.refresh_reuse_grace,
    )
