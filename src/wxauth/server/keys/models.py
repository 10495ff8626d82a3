"""The tables of signing keys (`stored.py`)."""

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


class _Key(SQLModel):
    id: UUID = Field(primary_key=True)
    kid: str = Field(sa_type=Text)
    public_jwk: dict[str, Any] = Field(sa_type=JSONB)
    private_key: bytes = Field(sa_type=BYTEA)
    created_at: datetime = Field(sa_type=TIME)
    activates_at: datetime = Field(sa_type=TIME)
    retires_at: datetime | None = Field(sa_type=TIME)


class AccessTokenKey(_Key, table=True):
    """A key that signs access tokens."""

    __tablename__ = "signing_keys"
    __table_args__ = (
        UniqueConstraint("kid"),
        CheckConstraint("retires_at > activates_at", name="retires_at"),
    )


class IdTokenKey(_Key, table=True):
    """A key that signs id_tokens for websites. The first one is made for the first site."""

    __tablename__ = "id_token_keys"
    __table_args__ = (
        UniqueConstraint("kid"),
        CheckConstraint("retires_at > activates_at", name="retires_at"),
    )
