"""The table of consents."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    CheckConstraint,
    Index,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import INET
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME


class Consent(SQLModel, table=True):
    """A person's consent to a version of a document. A withdrawn consent stays, with the time of the withdrawal."""

    __tablename__ = "consents"
    __table_args__ = (
        CheckConstraint("document <> ''", name="document"),
        CheckConstraint("version <> ''", name="version"),
        Index(None, "user_id", "given_at", "id"),
        # A small index, however many consents have been withdrawn.
        Index("consents_present_idx", "user_id", "document", postgresql_where=text("withdrawn_at IS NULL")),
    )

    id: UUID = Field(primary_key=True)
    user_id: UUID
    """The id of the user, or of a former user who was merged. Not a foreign key: there may be too many rows for one
    transaction to delete or move at an erasure or a merge."""
    document: str = Field(sa_type=Text)
    version: str = Field(sa_type=Text)
    given_at: datetime = Field(sa_type=TIME)
    withdrawn_at: datetime | None = Field(sa_type=TIME)
    app_id: str | None = Field(sa_type=Text)
    ip: str | None = Field(sa_type=INET)
