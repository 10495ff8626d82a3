"""The model of an app that was added at run time, and its table."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    CheckConstraint,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSONB
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME


class SealedApp(SQLModel):
    """An app that was added at run time, with its secrets sealed. The settings may contain others."""

    app_id: str = Field(sa_type=Text, primary_key=True)
    title: str | None = Field(sa_type=Text)
    """Its name for administrators."""
    is_enabled: bool = Field(sa_column_kwargs={"server_default": text("true")})
    created_at: datetime = Field(sa_type=TIME)
    fields: dict[str, Any] = Field(sa_type=JSONB)
    """The fields of `App` without id and secrets, by name."""
    secrets: bytes = Field(sa_type=BYTEA, repr=False)
    """The secrets by name, as one sealed JSON object."""


class StoredApp(SealedApp, table=True):
    """An app that was added at run time."""

    __tablename__ = "apps"
    __table_args__ = (
        CheckConstraint("app_id ~ '^[A-Za-z0-9_-]{1,64}$'", name="app_id"),
        CheckConstraint("char_length(title) BETWEEN 1 AND 64", name="title"),
        CheckConstraint("jsonb_typeof(fields) = 'object'", name="fields"),
    )
