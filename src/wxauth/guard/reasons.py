"""The log of a guard's refusals: why tokens are refused, once per cause and minute."""

import logging
from typing import Final

from wxauth.errors import InvalidToken

PAUSE: Final = 60.0
"""Seconds between two lines about the same cause."""

_log = logging.getLogger("wxauth.guard")


class Reasons:
    """Tells the log what the answer does not: which value the token has, and which one this guard expects."""

    def __init__(self) -> None:
        self._told_at: dict[str, float] = {}  # by cause: the few fixed details of the verifier

    def tell(self, refusal: InvalidToken, *, now: float) -> None:
        """Log a warning, except for a malformed token, or if the same cause was told within the last minute."""
        told_at = self._told_at.get(refusal.detail)
        if refusal.for_log and (told_at is None or abs(now - told_at) >= PAUSE):  # the clock may be set back
            self._told_at[refusal.detail] = now
            _log.warning("A token was refused: %s", refusal.for_log)
