"""The table of apps that were added at run time."""

from datetime import datetime

from sqlalchemy import (
    CheckConstraint,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.server.core.tables import TIME


class StoredApp(SQLModel, table=True):
    """A mini-program that was added at run time; the settings may name others."""

    __tablename__ = "apps"
    __table_args__ = (
        CheckConstraint("app_id ~ '^[A-Za-z0-9_-]{1,64}$'", name="app_id"),
        CheckConstraint("char_length(title) BETWEEN 1 AND 64", name="title"),
        CheckConstraint("sign_up IN ('open', 'closed')", name="sign_up"),
        CheckConstraint("push_aes_key IS NULL OR push_token IS NOT NULL", name="push_aes_key"),
    )

    app_id: str = Field(sa_type=Text, primary_key=True)
    title: str | None = Field(sa_type=Text)
    """What administrators call it."""
    app_secret: bytes = Field(sa_type=BYTEA)
    """Sealed, like the two below."""
    push_token: bytes | None = Field(sa_type=BYTEA)
    push_aes_key: bytes | None = Field(sa_type=BYTEA)
    sign_up: str | None = Field(sa_type=Text)
    is_enabled: bool = Field(sa_column_kwargs={"server_default": text("true")})
    created_at: datetime = Field(sa_type=TIME)
