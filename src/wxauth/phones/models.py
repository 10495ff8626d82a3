"""The table of WeChat's answers to phone codes."""

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME


class PhoneAnswer(SQLModel, table=True):
    """WeChat's answer to a phone code. It costs money, and WeChat gives it once."""

    __tablename__ = "phone_answers"

    code_hash: bytes = Field(sa_type=BYTEA, primary_key=True)
    """SHA-256 of app_id, openid and code."""
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    sealed: bytes | None = Field(sa_type=BYTEA)
    """WeChat's `phone_info`; null once the number is bound."""
    asked_at: datetime = Field(sa_type=TIME)
    refused_at: datetime | None = Field(sa_type=TIME)
    """When the number could not be bound. After that, only a request with the same code tries again."""
    settled_at: datetime | None = Field(sa_type=TIME)
