"""The tables of refused logins, and of hourly counts."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    Index,
    Text,
    text,
)
from sqlalchemy.dialects.postgresql import CIDR
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME


class Refusal(SQLModel):
    """A refused login, or several of one minute, of which the first is described."""

    id: UUID = Field(primary_key=True, exclude=True)
    at: datetime = Field(sa_type=TIME, schema_extra={"examples": ["2026-11-20T10:02:00Z"]})
    code: str = Field(sa_type=Text, schema_extra={"examples": ["account_disabled"]})
    wechat_errcode: int | None = Field(description="WeChat's errcode, if it gave one.")
    app_id: str | None = Field(sa_type=Text, schema_extra={"examples": ["wx1a2b3c4d5e6f7a8b"]})
    user_id: UUID | None = Field(
        description="Null if unknown.", schema_extra={"examples": ["01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"]}
    )
    """Not a foreign key: a user may have too many rows to delete within an erasure."""
    network: str | None = Field(
        sa_type=CIDR, description="The /24 or /48 of the address.", schema_extra={"examples": ["203.0.113.0/24"]}
    )
    request_id: str = Field(
        sa_type=Text,
        description="At most 64 characters of it.",
        schema_extra={"examples": ["0f8fad5bd9cb469fa16570867728950e"]},
    )
    count: int = Field(
        sa_column_kwargs={"server_default": text("1")},
        description="The number of refusals in this entry: those of this user or network with this `code`, from `at` "
        "to the end of its minute. The other fields are those of the first.",
        schema_extra={"examples": [1]},
    )


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


class HourlyNumbers(SQLModel, table=True):
    """The counts of one process in one hour. An old hour has one row, with the process id `SUMS`."""

    __tablename__ = "hourly_numbers"
    __table_args__ = (CheckConstraint("new_users >= 0 AND logins >= 0", name="numbers"),)

    hour: datetime = Field(sa_type=DateTime(timezone=True), primary_key=True)
    process: UUID = Field(primary_key=True)
    new_users: int = Field(sa_type=BigInteger)
    logins: int = Field(sa_type=BigInteger)
