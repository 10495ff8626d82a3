"""The table of WeChat's answers to phone codes."""

from datetime import datetime

from sqlalchemy import CheckConstraint, Index, Text, text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME, of_identity


class PhoneAnswer(SQLModel, table=True):
    """WeChat's answer to a phone code. It costs money, and WeChat gives it once."""

    __tablename__ = "phone_answers"
    __table_args__ = (
        # Deleted together with the identity.
        of_identity(),
        CheckConstraint("octet_length(code_hash) = 32", name="code_hash"),
        CheckConstraint("(sealed IS NULL) = (settled_at IS NOT NULL)", name="settled_at"),
        Index(None, "app_id", "openid"),
        Index(None, "asked_at"),
        Index(
            "phone_answers_pending_idx",
            "asked_at",
            postgresql_where=text("sealed IS NOT NULL AND refused_at IS NULL"),
        ),
    )

    code_hash: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of app_id, openid and code."""
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    sealed: bytes | None = Field(sa_type=BYTEA)
    """WeChat's `phone_info`; null once the number is bound."""
    asked_at: datetime = Field(sa_type=TIME)
    refused_at: datetime | None = Field(sa_type=TIME)
    """When the number could not be bound. After that, only a request with the same code tries again."""
    settled_at: datetime | None = Field(sa_type=TIME)
