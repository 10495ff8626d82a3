"""The table of hourly counts."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
)
from sqlmodel import Field, SQLModel


class HourlyNumbers(SQLModel, table=True):
    """The counts of one process in one hour. An old hour has one row, with the process id `SUMS`."""

    __tablename__ = "hourly_numbers"
    __table_args__ = (CheckConstraint("new_users >= 0 AND logins >= 0", name="numbers"),)

    hour: datetime = Field(sa_type=DateTime(timezone=True), primary_key=True)
    process: UUID = Field(primary_key=True)
    new_users: int = Field(sa_type=BigInteger)
    logins: int = Field(sa_type=BigInteger)
