"""Limits on the requests of one client, and their count, so that a loop in one service takes nothing from others."""

from collections.abc import Callable
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from wxauth.errors import RateLimited
from wxauth.server.core.clock import Clock
from wxauth.server.core.logs import get_logger
from wxauth.server.core.metrics import Counter
from wxauth.server.core.settings import Settings
from wxauth.server.limits.rate_limits import RateLimiter

_SECOND: Final = timedelta(seconds=1)

log = get_logger()


class ClientOperation(StrEnum):
    """What is counted, each kind for itself."""

    INTROSPECT = "introspect"
    USERS = "users"
    """Looks users up."""
    TOKEN = "token"  # noqa: S105 - no password
    """Exchanges a code or a refresh token: of confidential clients, because anybody can name a public one."""
    SIGN = "sign"
    """Has data signed with a session_key."""
    SIGN_CHECK = "sign_check"
    """Has WeChat asked first whether that session_key is valid."""
    MODERATE = "moderate"
    """Bans, unbans or signs a user out."""


IN_A_SECOND: Final = {ClientOperation.SIGN: 100, ClientOperation.SIGN_CHECK: 10, ClientOperation.MODERATE: 100}
"""The operations that `CLIENT_RATE_LIMIT` does not limit, with the limits of each process."""
REQUESTS: Final = Counter(
    "wxauth_client_requests",
    "Requests of clients, by client, operation (introspect, users, token, sign, sign_check, moderate) and outcome: ok "
    "or rate_limited.",
    "client",
    "operation",
    "outcome",
)


class ClientLimits:
    """Counts each client's requests. `make` returns a limiter, shared by all processes, for a rate and a name."""

    def __init__(self, settings: Settings, clock: Clock, make: Callable[[str, str], RateLimiter]) -> None:
        self._clock = clock
        self._limiters = {
            kind: make(settings.client_rate_limit, f"client-{kind}")
            for kind in ClientOperation
            if kind not in IN_A_SECOND
        }
        self._seconds: dict[tuple[str, ClientOperation], tuple[datetime, int]] = {}
        """The beginning of each client's last second, and how many requests it had in it."""

    async def admit(self, client: str, operation: ClientOperation) -> None:
        """Count a request of a client, whose name has been proved. Raises: RateLimited."""
        try:
            if operation in IN_A_SECOND:
                self._admit_here(client, operation)
            else:
                await self._limiters[operation].admit(client)
        except RateLimited:
            log.info("rate_limited", what=f"client-{operation}", client=client)
            REQUESTS.count(client, operation, RateLimited.code)
            raise
        REQUESTS.count(client, operation, "ok")

    def _admit_here(self, client: str, operation: ClientOperation) -> None:
        # A signature costs little more than `GET /v1/me`. A window of `limits` would be a tenth of that.
        now = self._clock()
        began, number = self._seconds.get((client, operation), (now, 0))
        if not timedelta() <= now - began < _SECOND:
            began, number = now, 0
        if number >= IN_A_SECOND[operation]:
            raise RateLimited(f"rate limit exceeded: client-{operation}", retry_after=1)
        self._seconds[client, operation] = began, number + 1

    async def aclose(self) -> None:
        """Close the connections."""
        for limiter in self._limiters.values():
            await limiter.aclose()
