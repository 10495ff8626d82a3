"""The stored form of a signing key."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredSigningKey:
    """A key that signs access tokens, or id_tokens for websites. Its private key is sealed."""

    id: UUID
    kid: str
    public_jwk: dict[str, Any]
    private_key: bytes = field(repr=False)
    """PKCS#8, sealed."""
    created_at: datetime
    activates_at: datetime
    """When the key begins to sign. It is published earlier."""
    retires_at: datetime | None
    """When the key is no longer published."""
