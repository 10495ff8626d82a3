"""Limits on the requests of one client, and their count, so that a loop in one service takes nothing from others."""

from collections.abc import Callable
from enum import StrEnum
from typing import Final

from wxauth.errors import RateLimited
from wxauth.server.core.clock import Clock
from wxauth.server.core.logs import get_logger
from wxauth.server.core.metrics import Counter
from wxauth.server.core.settings import Settings
from wxauth.server.limits.rate_limits import RateLimiter

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


RATES_IN_A_PROCESS: Final = {
    ClientOperation.SIGN: "100/second",
    ClientOperation.SIGN_CHECK: "10/second",
    ClientOperation.MODERATE: "100/second",
}
"""The operations that `CLIENT_RATE_LIMIT` does not limit. Each process counts them for itself."""


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
        self._limiters = {
            kind: RateLimiter(RATES_IN_A_PROCESS[kind], what=f"client-{kind}", clock=clock)
            if kind in RATES_IN_A_PROCESS
            else make(settings.client_rate_limit, f"client-{kind}")
            for kind in ClientOperation
        }

    async def admit(self, client: str, operation: ClientOperation) -> None:
        """Count a request of a client, whose name has been proved. Raises: RateLimited."""
        try:
            await self._limiters[operation].admit(client)
        except RateLimited:
            log.info("rate_limited", what=f"client-{operation}", client=client)
            REQUESTS.count(client, operation, RateLimited.code)
            raise
        REQUESTS.count(client, operation, "ok")

    async def aclose(self) -> None:
        """Close the connections."""
        for limiter in self._limiters.values():
            await limiter.aclose()
