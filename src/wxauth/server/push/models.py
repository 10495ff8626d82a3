"""The table of WeChat's pushed messages."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME


class PushMessage(SQLModel, table=True):
    """A signature of WeChat's that has been used, or a message that has been carried out, by its digest.

    It stores nothing about the person.
    """

    __tablename__ = "push_messages"
    __table_args__ = (
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        CheckConstraint("octet_length(content) = 32", name="content"),
        Index(None, "kept_until"),
    )

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of app_id, timestamp and nonce; or of app_id and what identifies the message."""
    content: bytes | None = Field(sa_type=BYTEA)
    """Of a signature, SHA-256 of the message that it came with first; null for the check of the URL, which has none."""
    kept_until: datetime = Field(sa_type=TIME)
