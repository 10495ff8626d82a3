"""The model of signing keys, and their table."""

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Text,
    UniqueConstraint,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSONB
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME


class StoredSigningKey(SQLModel):
    """A key that signs access tokens (ES256), or id_tokens for websites (RS256). Its private key is sealed."""

    id: UUID = Field(primary_key=True)
    alg: str = Field(sa_type=Text)
    kid: str = Field(sa_type=Text)
    public_jwk: dict[str, Any] = Field(sa_type=JSONB)
    private_key: bytes = Field(sa_type=BYTEA, repr=False)
    """PKCS#8, sealed."""
    created_at: datetime = Field(sa_type=TIME)
    activates_at: datetime = Field(sa_type=TIME)
    """When the key begins to sign. It is published earlier."""
    retires_at: datetime | None = Field(sa_type=TIME)
    """When the key is no longer published."""


class SigningKeyRow(StoredSigningKey, table=True):
    """A signing key. The first one of id_tokens is made for the first site."""

    __tablename__ = "signing_keys"
    __table_args__ = (
        UniqueConstraint("kid"),
        CheckConstraint("alg IN ('ES256', 'RS256')", name="alg"),
        CheckConstraint("retires_at > activates_at", name="retires_at"),
    )
