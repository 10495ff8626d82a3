"""Sends one message to somebody else's server, signed as Standard Webhooks 1.0.0 says, and reports how that went."""

import asyncio
import hmac
import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from time import perf_counter
from typing import Final

import httpx

from wxauth.server.core.receivers import USER_AGENT

LEASE: Final = timedelta(seconds=30)
"""How long a message belongs to the process that leased it. Longer than any attempt."""


SECRET_BYTES: Final = 32

_PREFIX: Final = "whsec_"


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
    """POST this once. `patience` is in seconds. Of the response, only the status and `Retry-After` are kept."""
    started = perf_counter()
    response = error = None
    try:
        request = httpx.Request(
            "POST", url, content=content, headers={**headers, "accept": "*/*", "user-agent": USER_AGENT}
        )
        async with asyncio.timeout(patience):
            response = await transport.handle_async_request(request)
    except TimeoutError:
        error = f"no answer in {patience:g} s"
    except httpx.TransportError as exc:
        error = str(exc)
    except (httpx.InvalidURL, UnicodeError):
        error = "URL cannot be used"
    milliseconds = round((perf_counter() - started) * 1000)
    if response is None:
        return Answer(None, milliseconds, error)
    await response.aclose()  # the body does not matter: the status is known
    return Answer(response.status_code, milliseconds, retry_after=response.headers.get("Retry-After"))


def new_webhook_secret() -> bytes:
    """A secret to sign a webhook's messages with."""
    return secrets.token_bytes(SECRET_BYTES)


def shown_secret(secret: bytes) -> str:
    """A secret in the form that the receiver's library accepts."""
    return _PREFIX + b64encode(secret).decode()


def signed_headers(message_id: str, body: bytes, keys: Iterable[bytes], *, now: datetime) -> Mapping[str, str]:
    """The headers of a message, with one signature per key."""
    timestamp = str(int(now.timestamp()))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signatures = (b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }
