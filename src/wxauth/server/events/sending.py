"""A webhook's messages, sent once each; sites' logout tokens, with their order and their schedule.

Specifications: Standard Webhooks 1.0.0; OpenID Connect Back-Channel Logout 1.0.
"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from secrets import token_urlsafe
from time import perf_counter
from typing import Any, Final
from urllib.parse import urlencode
from uuid import UUID

import httpx
from pydantic_core import to_json

from wxauth.server.core import metrics
from wxauth.server.core.clock import Clock
from wxauth.server.core.database import Database
from wxauth.server.core.logs import get_logger
from wxauth.server.core.services import part
from wxauth.server.core.settings import Settings
from wxauth.server.events.webhook_rows import LeasedLogout, lease_logout
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.outbound.receivers import USER_AGENT
from wxauth.server.outbound.transport import ANSWER
from wxauth.tokens.keys import PrivateKey, base64url, sign

LEASE: Final = timedelta(seconds=30)
"""How long a message belongs to the process that leased it. Longer than any attempt."""

log = get_logger()

MAX_ANSWER: Final = 4096
"""Bytes of a body that are read. The connection of a longer one is not kept."""
BODY_SECONDS: Final = 1.0
"""How long the body of an answer is waited for, so that its connection can be kept. Only the status matters."""

LOGOUT_TOKEN_TYPE: Final = "logout+jwt"  # noqa: S105 - a media type
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_TOKEN_LASTS: Final = timedelta(seconds=120)
LOGOUT_TIMEOUT_SECONDS: Final = 5.0
"""Seconds to wait for a site's response."""
LOGOUT_RETRIES: Final = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
)
"""The pause before each attempt but the first."""
MAX_CONCURRENT_FOR_ONE_USER: Final = 2
"""Tokens of one priority about one user that a site gets at once from a process: half of those that it gets."""
FINAL_STATUSES: Final = frozenset({400, 401, 403, 404, 410, 501})
"""After these, the same site would refuse the next token, too."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a message: a status, or a few words about why there is none."""

    status: int | None
    milliseconds: int
    error: str | None = None
    retry_after: str | None = None

    @property
    def is_accepted(self) -> bool:
        """Whether the receiver has accepted the message."""
        return self.status is not None and 200 <= self.status < 300


async def send(
    transport: httpx.AsyncBaseTransport, url: str, *, content: bytes, headers: dict[str, str], patience: float
) -> Answer:
    """POST this once. Of the response, only the status, within `patience` seconds, and `Retry-After` are kept."""
    started = perf_counter()
    response = error = None
    ended: float | None = None

    def end(_status: int) -> float:
        nonlocal ended
        ended = perf_counter()
        limit.reschedule(None)
        return BODY_SECONDS

    try:
        own = {**headers, "accept": "*/*", "user-agent": USER_AGENT}
        how = {"on_status": end, "max_body": MAX_ANSWER}
        request = httpx.Request("POST", url, content=content, headers=own, extensions=how)
        async with asyncio.timeout(patience) as limit:
            response = await transport.handle_async_request(request)
    except TimeoutError:
        error = f"no answer in {patience:g} s"
    except httpx.TransportError as exc:
        error = str(exc)
    except (httpx.InvalidURL, UnicodeError):
        error = "URL cannot be used"
    milliseconds = round(((ended or perf_counter()) - started) * 1000)
    if response is None:
        return Answer(None, milliseconds, error)
    return Answer(response.status_code, milliseconds, retry_after=response.extensions[ANSWER].retry_after)


LOGOUTS: Final = metrics.Counter(
    "wxauth_backchannel_logouts",
    "Attempts to send a logout token to a site, by outcome: delivered, retried (another attempt follows) or failed.",
    "outcome",
    first=("delivered", "retried", "failed"),
)


@part
class BackchannelLogouts:
    """Makes and sends logout tokens. `Deliveries` decides when.

    Args:
        transport: Sends to the sites.
        patience: Seconds to wait for a site's response.
    """

    settings: Settings
    database: Database
    clock: Clock
    keys: KeyRing
    transport: httpx.AsyncBaseTransport
    patience: float = LOGOUT_TIMEOUT_SECONDS
    _leasing: asyncio.Lock = field(init=False, default_factory=asyncio.Lock)
    _under_way: dict[UUID, tuple[tuple[str, int], UUID]] = field(init=False, default_factory=dict)

    @asynccontextmanager
    async def lease(self, client_id: str, *, priority: int, now: datetime) -> AsyncIterator[LeasedLogout | None]:
        """A site's next due logout, leased to this process. Some of a user's at once keep back that user's others."""
        async with self._leasing:  # else two at once could count the same user
            users = Counter(user_id for line, user_id in self._under_way.values() if line == (client_id, priority))
            busy = [user_id for user_id, number in users.items() if number >= MAX_CONCURRENT_FOR_ONE_USER]
            until = now + LEASE
            logout = await lease_logout(
                self.database, client_id, priority=priority, except_of=busy, now=now, until=until
            )
            if logout is not None:
                self._under_way[logout.session_id] = (client_id, priority), logout.user_id
        try:
            yield logout
        finally:
            if logout is not None:
                self._under_way.pop(logout.session_id, None)

    async def deliver(self, logout: LeasedLogout) -> datetime | None:
        """Send a new logout token once. Returns when to try again, or None if that is not necessary or useless.

        Raises: StorageUnavailable, if no token can be signed now; CannotOpen.
        """
        if logout.uri is None:
            return None
        key = await self.keys.id_token_key(logout.id_token_alg, self.clock())
        token = logout_token(key, logout, issuer=self.settings.issuer, now=self.clock())
        answer = await send(
            self.transport,
            logout.uri,
            content=urlencode({"logout_token": token}).encode(),
            headers={"content-type": "application/x-www-form-urlencoded"},
            patience=self.patience,
        )
        attempts = logout.attempts + 1
        is_final = answer.is_accepted or answer.status in FINAL_STATUSES or attempts > len(LOGOUT_RETRIES)
        next_at = None if is_final else self.clock() + LOGOUT_RETRIES[logout.attempts]
        LOGOUTS.count("delivered" if answer.is_accepted else "failed" if is_final else "retried")
        fields = {"client_id": logout.client_id, "attempt": attempts, "status": answer.status}
        if answer.is_accepted:
            log.info("backchannel_logout_sent", **fields)
        else:
            log.warning("backchannel_logout_not_sent", **fields, reason=answer.error, next_at=next_at)
        return next_at


def logout_token(key: PrivateKey, logout: LeasedLogout, *, issuer: str, now: datetime) -> str:
    """A logout token (section 2.4), signed as the client's id_tokens are.

    Its own `typ` keeps it from being accepted as an id_token or an access token.
    """
    issued_at = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": str(logout.user_id),
        "aud": logout.client_id,
        "iat": issued_at,
        "exp": issued_at + int(LOGOUT_TOKEN_LASTS.total_seconds()),
        "jti": token_urlsafe(16),
        "sid": str(logout.session_id),
        "events": {LOGOUT_EVENT: {}},
    }
    header = {"alg": key.public_jwk["alg"], "kid": key.kid, "typ": LOGOUT_TOKEN_TYPE}
    return sign(key.signer, base64url(to_json(header)), to_json(claims))
