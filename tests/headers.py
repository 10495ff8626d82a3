"""Headers of requests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def bearer(token: Mapping[str, Any] | str | bytes) -> dict[str, Any]:
    """Return the Authorization header with this access token, or with the access token in this response's body."""
    given = token["access_token"] if isinstance(token, Mapping) else token
    return {"Authorization": b"Bearer " + (given.encode() if isinstance(given, str) else given)}
