"""The creation and sending of logout tokens, which tell sites that a session has ended.

OpenID Connect Back-Channel Logout 1.0 specifies these tokens.
"""

from datetime import datetime, timedelta
from secrets import token_urlsafe
from typing import Any, Final
from urllib.parse import urlencode

import httpx
from pydantic_core import to_json

from wxauth.core import metrics
from wxauth.core.clock import Clock
from wxauth.core.logs import get_logger
from wxauth.core.services import part
from wxauth.events.models import DeliveryState
from wxauth.events.sending import send
from wxauth.events.webhook_queries import DeliveryOutcome, LeasedLogout
from wxauth.keys.keyring import KeyRing
from wxauth.settings.settings import Settings
from wxauth.tokens import PrivateKey, base64url, sign

LOGOUT_TOKEN_TYPE: Final = "logout+jwt"  # noqa: S105 - a media type
LOGOUT_EVENT: Final = "http://schemas.openid.net/event/backchannel-logout"
LOGOUT_TOKEN_LIFETIME: Final = timedelta(seconds=120)  # the specification recommends at most two minutes
LOGOUT_TIMEOUT_SECONDS: Final = 5.0
LOGOUT_RETRY_SCHEDULE: Final = (
    timedelta(seconds=5),
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=10),
)
FINAL_STATUSES: Final = frozenset({400, 401, 403, 404, 410, 501})  # the site would also refuse the next token

log = get_logger()

LOGOUTS: Final = metrics.Counter(
    "wxauth_backchannel_logouts",
    "Attempts to send a logout token to a site, by outcome: delivered, retried (another attempt follows) or failed.",
    "outcome",
    first=("delivered", "retried", "failed"),
)


@part
class BackchannelLogouts:
    """The sender of logout tokens to sites. `Deliveries` calls it when a delivery to a site is due."""

    settings: Settings
    clock: Clock
    keys: KeyRing
    transport: httpx.AsyncBaseTransport
    patience: float = LOGOUT_TIMEOUT_SECONDS

    async def deliver(self, delivery: LeasedLogout) -> DeliveryOutcome:
        """Send a new logout token to the site once. Without a URL, the delivery fails without an attempt.

        Raises: StorageUnavailable or CannotOpen, if the signing key cannot be read or decrypted.
        """
        if not delivery.url:  # nothing is attempted, so nothing is counted
            return DeliveryOutcome(state=DeliveryState.FAILED)
        now = self.clock()
        key = await self.keys.id_token_key(delivery.id_token_alg, now)
        token = logout_token(key, delivery, issuer=self.settings.issuer, now=now)
        sent = await send(
            self.transport,
            delivery.url,
            content=urlencode({"logout_token": token}).encode(),
            headers={"content-type": "application/x-www-form-urlencoded"},
            patience=self.patience,
        )
        log_fields = {"client_id": delivery.client_id, "attempt": delivery.attempts, "status": sent.status}
        if sent.is_accepted:
            LOGOUTS.count("delivered")
            log.info("backchannel_logout_sent", **log_fields)
            return DeliveryOutcome(state=DeliveryState.DELIVERED)
        # `delivery.attempts` includes this attempt, so the first retry follows attempt 1.
        is_final = sent.status in FINAL_STATUSES or delivery.attempts > len(LOGOUT_RETRY_SCHEDULE)
        # The pause begins now, and not before the attempt, which may have taken seconds.
        next_at = None if is_final else self.clock() + LOGOUT_RETRY_SCHEDULE[delivery.attempts - 1]
        LOGOUTS.count("failed" if is_final else "retried")
        log.warning("backchannel_logout_not_sent", **log_fields, reason=sent.error, next_at=next_at)
        state = DeliveryState.FAILED if is_final else DeliveryState.PENDING
        return DeliveryOutcome(state=state, next_at=next_at)


def logout_token(key: PrivateKey, delivery: LeasedLogout, *, issuer: str, now: datetime) -> str:
    """Sign a logout token (OpenID Connect Back-Channel Logout 1.0, section 2.4) like the site's id_tokens.

    Its `typ` prevents sites and services from accepting it as an id_token or an access token.
    """
    issued_at = int(now.timestamp())
    claims: dict[str, Any] = {
        "iss": issuer,
        "sub": str(delivery.user_id),
        "aud": delivery.client_id,
        "iat": issued_at,
        "exp": issued_at + int(LOGOUT_TOKEN_LIFETIME.total_seconds()),
        "jti": token_urlsafe(16),
        "sid": str(delivery.event_id),  # the id of the ended session (see `LeasedLogout`)
        "events": {LOGOUT_EVENT: {}},
    }
    header = {"alg": key.alg, "kid": key.kid, "typ": LOGOUT_TOKEN_TYPE}
    return sign(key.signer, base64url(to_json(header)), to_json(claims))
