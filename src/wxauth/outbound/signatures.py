"""The signatures of messages to other operators' servers, as in Standard Webhooks 1.0.0."""

import hmac
from base64 import b64encode
from collections.abc import Iterable, Mapping
from datetime import datetime


def signed_headers(message_id: str, body: bytes, keys: Iterable[bytes], *, now: datetime) -> Mapping[str, str]:
    """Return the headers of a signed message: its id, the time, and one signature for each key.

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
