"""The signatures of messages to webhooks and the sign-up hook (Standard Webhooks 1.0.0), and their secrets."""

import hmac
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import datetime
from secrets import token_bytes
from typing import Final

from wxauth.settings.secrets import WEBHOOK_PREFIX

_SECRET_BYTES: Final = 32  # Standard Webhooks requires 24 to 64


def signed_headers(message_id: str, body: bytes, keys: Iterable[bytes], *, now: datetime) -> Mapping[str, str]:
    """Return the headers of a signed message, with one signature for each key.

    A receiver that knows only one of the keys accepts the message, so a key can be replaced without lost messages.
    """
    timestamp = str(int(now.timestamp()))
    signed = b".".join((message_id.encode(), timestamp.encode(), body))
    signatures = (b64encode(hmac.digest(key, signed, "sha256")).decode() for key in keys)
    return {
        "webhook-id": message_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": " ".join(f"v1,{signature}" for signature in signatures),
    }


def new_webhook_secret() -> bytes:
    return token_bytes(_SECRET_BYTES)


def shown_secret(secret: bytes) -> str:
    """Return a secret in the form that libraries for Standard Webhooks accept."""
    return WEBHOOK_PREFIX + b64encode(secret).decode()
