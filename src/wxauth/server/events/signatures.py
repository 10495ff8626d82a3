"""Signatures of webhook messages: Standard Webhooks 1.0.0, symmetric."""

import hmac
import secrets
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Final

SECRET_BYTES: Final = 32
_PREFIX: Final = "whsec_"


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
