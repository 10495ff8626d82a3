"""Headers of requests."""

from collections.abc import Mapping
from typing import Any


def bearer(token: Mapping[str, Any] | str | bytes) -> dict[str, Any]:
    """The header with this access token, or with the one in this answer."""
    if isinstance(token, Mapping):
        token = token["access_token"]
    return {"Authorization": b"Bearer " + (token.encode() if isinstance(token, str) else token)}
