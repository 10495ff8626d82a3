"""The model of refused logins, and its table."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Index, Text, text
from sqlalchemy.dialects.postgresql import CIDR
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME


class Refusal(SQLModel):
    """A refused login, or several of one minute, of which the first is described."""

    id: UUID = Field(primary_key=True)
    at: datetime = Field(sa_type=TIME)
    code: str = Field(sa_type=Text)
    wechat_errcode: int | None
    app_id: str | None = Field(sa_type=Text)
    user_id: UUID | None
    """Not a foreign key: a user may have too many rows to delete within an erasure."""
    network: str | None = Field(sa_type=CIDR)
    """The client address, truncated to its /24 or /48 network."""
    request_id: str = Field(sa_type=Text)
    """At most 64 characters of it."""
    count: int = Field(sa_column_kwargs={"server_default": text("1")})


class RefusedLogin(Refusal, table=True):
    """A refused login."""

    __tablename__ = "refusals"
    __table_args__ = (
        Index(None, "request_id"),
        Index(None, "user_id", "id", postgresql_where=text("user_id IS NOT NULL")),
        Index(None, "code", "id"),
        Index(None, "app_id", "id", postgresql_where=text("app_id IS NOT NULL")),
        Index(None, "network", "id", postgresql_where=text("network IS NOT NULL")),
    )
