"""The table of daily counts."""

from datetime import date
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Date,
)
from sqlmodel import Field, SQLModel


class DailyNumbers(SQLModel, table=True):
    """The counts of one process on one day. A day that is long over has one row, which belongs to no process."""

    __tablename__ = "daily_numbers"
    __table_args__ = (CheckConstraint("new_users >= 0 AND logins >= 0", name="numbers"),)

    day: date = Field(sa_type=Date, primary_key=True)
    process: UUID = Field(primary_key=True)
    new_users: int = Field(sa_type=BigInteger)
    logins: int = Field(sa_type=BigInteger)
