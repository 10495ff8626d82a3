"""The stored apps, which were added at run time."""

from datetime import datetime
from typing import Any, Final

from sqlalchemy import (
    CheckConstraint,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import BYTEA, JSONB
from sqlmodel import Field, SQLModel

from wxauth.server.core.database import Reseal
from wxauth.server.core.models import TIME
from wxauth.server.core.statements import Nothing, Statement, columns_of


class SealedApp(SQLModel):
    """An app that was added at run time, with its secrets sealed. The settings may contain others."""

    app_id: str = Field(sa_type=Text, primary_key=True)
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
        CheckConstraint("jsonb_typeof(fields) = 'object'", name="fields"),
    )


_COLUMNS: Final = ", ".join(columns_of(SealedApp))
# In the order in which they were added.
STORED_APPS: Final = Statement[SealedApp](f"SELECT {_COLUMNS} FROM apps ORDER BY created_at, app_id")
LOCK_APP: Final = Statement[SealedApp](f"SELECT {_COLUMNS} FROM apps WHERE app_id = :app_id FOR UPDATE")
# Of several concurrent requests for one id, one wins.
ADD_APP: Final = Statement[str](f"""
INSERT INTO apps ({_COLUMNS}) VALUES ({", ".join(f":{name}" for name in columns_of(SealedApp))})
ON CONFLICT DO NOTHING
RETURNING app_id
""")
CHANGE_APP: Final = Statement[Nothing]("""
UPDATE apps SET is_enabled = :is_enabled, fields = :fields, secrets = :secrets WHERE app_id = :app_id
""")
DELETE_APP: Final = Statement[str]("DELETE FROM apps WHERE app_id = :app_id RETURNING app_id")
reseal_app: Final = Reseal.of("apps", "secrets", key="app_id")
IS_NAME_OF_SITE: Final = Statement[bool]("SELECT EXISTS (SELECT FROM clients WHERE name = :name AND title IS NOT NULL)")
