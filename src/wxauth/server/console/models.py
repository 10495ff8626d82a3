"""The tables of the console's links and sessions."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    ForeignKeyConstraint,
    Index,
)
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME


class AdminLink(SQLModel, table=True):
    """A link that opens the console for an administrator once."""

    __tablename__ = "admin_links"
    __table_args__ = (
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        CheckConstraint("octet_length(digest) = 32", name="digest"),
        Index(None, "user_id"),
    )

    digest: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of the link's secret. The secret itself is not stored."""
    user_id: UUID
    expires_at: datetime = Field(sa_type=TIME)


class ConsoleSession(SQLModel, table=True):
    """The console's sessions. They end when their user loses the role that opened them."""

    __tablename__ = "console_sessions"

    session_id: UUID = Field(primary_key=True)
    """Not a foreign key: with one, PostgreSQL would look here for each of millions of sessions that are deleted."""
