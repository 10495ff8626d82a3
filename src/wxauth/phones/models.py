"""The table of WeChat's responses to phone codes."""

from datetime import datetime

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME


class PhoneAnswerRow(SQLModel, table=True):
    """The table of WeChat's responses to phone codes.

    wxauth stores each response before it uses the response, because a response costs money, and WeChat returns it only
    once.
    """

    __tablename__ = "phone_answers"

    code_hash: bytes = Field(sa_type=BYTEA, primary_key=True)
    """The SHA-256 of the app id, the openid and the phone code."""
    app_id: str = Field(sa_type=Text)
    openid: str = Field(sa_type=Text)
    sealed: bytes | None = Field(sa_type=BYTEA)
    """WeChat's `phone_info`, encrypted; null from `settled_at` on."""
    asked_at: datetime = Field(sa_type=TIME)
    """The time of the request for which wxauth called WeChat."""
    refused_at: datetime | None = Field(sa_type=TIME)
    """The time at which wxauth last refused to bind the number; null if it has never refused.

    After a refusal, wxauth tries again only if a request contains the same code.
    """
    settled_at: datetime | None = Field(sa_type=TIME)
    """The time at which wxauth bound the number to the user, or merged the user into the holder of the number.

    It is null if wxauth has done neither.
    """
