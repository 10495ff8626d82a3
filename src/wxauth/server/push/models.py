"""The tables of WeChat's pushed messages."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    Index,
    Text,
)
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME


class PushMessage(SQLModel, table=True):
    """A message from WeChat that has been carried out. It stores nothing about the person."""

    __tablename__ = "push_messages"
    __table_args__ = (CheckConstraint("octet_length(digest) = 32", name="digest"), Index(None, "received_at"))

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    app_id: str = Field(sa_type=Text)
    received_at: datetime = Field(sa_type=TIME)


class PushNonce(SQLModel, table=True):
    """A timestamp and nonce that WeChat has signed, and the first message they came with."""

    __tablename__ = "push_nonces"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        CheckConstraint("octet_length(content) = 32", name="content"),
        Index(None, "received_at"),
    )

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of app_id, timestamp and nonce."""
    content: bytes | None = Field(sa_type=BYTEA)
    """SHA-256 of the message; null for the check of the URL, which has no message."""
    received_at: datetime = Field(sa_type=TIME)
