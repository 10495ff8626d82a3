"""The table of sweeps."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    Text,
)
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME


class Sweep(SQLModel, table=True):
    """The progress of a sweep. Any worker may continue it."""

    __tablename__ = "sweeps"

    name: str = Field(sa_type=Text, primary_key=True)
    after: UUID
    """The id of the last row that was checked."""
    due_at: datetime = Field(sa_type=TIME)
    """When the next page is due; after the last page, when the next sweep begins."""
