"""What a request shows."""

from collections.abc import Mapping
from typing import Any


def bearer(token: Mapping[str, Any] | str | bytes) -> dict[str, Any]:
    """The header that shows this access token, or the one in this answer."""
    if isinstance(token, Mapping):
        token = token["access_token"]
    return {"Authorization": b"Bearer " + (token.encode() if isinstance(token, str) else token)}
