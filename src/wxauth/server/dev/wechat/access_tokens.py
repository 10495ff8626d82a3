"""The access tokens of one app, as returned by `stable_token`."""

import secrets
from collections.abc import Callable
from typing import Any, Final

from wxauth.server.dev.wechat.refused_calls import CallRefused

ACCESS_TOKEN_LIFETIME: Final = 7200.0
"""Seconds."""
OVERLAP: Final = 300.0
"""Seconds before a token's end at which the next one is issued. Both are valid then."""
FORCED_PAUSE_SECONDS: Final = 30.0
FORCED_A_DAY: Final = 20

_DAY: Final = 86400
_BEIJING: Final = 8 * 3600


class AccessTokens:
    """The access tokens of an app, as WeChat keeps them.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._ends: dict[str, float] = {}
        """When each token expires or has expired."""
        self._killed: set[str] = set()
        self._current: str | None = None
        self._forced_at: list[float] = []

    def hand_out(self, *, force: bool) -> dict[str, Any]:
        """The current token, or a new one. Raises: CallRefused."""
        now = self._clock()
        if force:
            self._note_forced(now)
        if force or self._current is None or now >= self._ends[self._current] - OVERLAP:
            if force:
                self.kill()
            self._current = "88_" + secrets.token_urlsafe(384)  # 515 characters, as long as WeChat's may be
            self._ends[self._current] = now + ACCESS_TOKEN_LIFETIME
        return {"access_token": self._current, "expires_in": int(self._ends[self._current] - now)}

    def kill(self) -> None:
        """End all tokens, as a `force_refresh` or a new app secret does."""
        self._killed |= self._ends.keys()
        self._current = None

    def check(self, token: str) -> None:
        """Check that a token is valid. Raises: CallRefused."""
        if token in self._killed:
            raise CallRefused(40001)
        if token not in self._ends:
            raise CallRefused(40014)
        if self._clock() >= self._ends[token]:
            raise CallRefused(42001)

    def __contains__(self, token: str) -> bool:
        """Whether this has ever been a token of the app."""
        return token in self._ends

    def _note_forced(self, now: float) -> None:
        if self._forced_at and now - self._forced_at[-1] < FORCED_PAUSE_SECONDS:
            raise CallRefused(45011)
        today = [at for at in self._forced_at if day_of(at) == day_of(now)]
        if len(today) >= FORCED_A_DAY:
            raise CallRefused(45009)
        self._forced_at = [*today, now]


def day_of(at: float) -> int:
    """The number of the day in Beijing."""
    return int(at + _BEIJING) // _DAY
