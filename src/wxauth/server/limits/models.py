"""The table of counted attempts."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    Index,
)
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME


class AttemptCount(SQLModel, table=True):
    """A person's attempts of one kind within a window of at most an hour, such as calls that use up WeChat's quota."""

    __tablename__ = "attempts"
    __table_args__ = (
        CheckConstraint("octet_length(key) = 32", name="key"),
        CheckConstraint("number >= 0", name="number"),
        Index(None, "since"),
    )

    key: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of the kind and the person's identity or unionid. An erasure does not delete it, to keep the count."""
    since: datetime = Field(sa_type=TIME)
    """When the window began."""
    number: int
