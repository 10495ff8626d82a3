"""The tables of users' pictures and of WeChat's checks of them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME


class StoredAvatar(SQLModel, table=True):
    """The picture that a user's avatar_url points to."""

    __tablename__ = "avatars"

    id: str = Field(sa_type=Text, primary_key=True)
    """The secret part of the picture's URL: anybody who has the URL may see the picture."""
    user_id: UUID
    content_type: str = Field(sa_type=Text)
    content: bytes = Field(sa_type=BYTEA)
    created_at: datetime = Field(sa_type=TIME)


class PictureCheck(SQLModel, table=True):
    """WeChat's check of a picture: what was asked, what WeChat answered, or both."""

    __tablename__ = "picture_checks"

    app_id: str = Field(sa_type=Text, primary_key=True)
    trace_id: str = Field(sa_type=Text, primary_key=True)
    """The name that WeChat gave the check."""
    openid: str | None = Field(sa_type=Text)
    """Whose picture it is; null if WeChat's verdict arrived first."""
    avatar_id: str | None = Field(sa_type=Text)
    """Not a foreign key: a verdict on a replaced picture is still recorded."""
    suggest: str | None = Field(sa_type=Text)
    label: int | None
    at: datetime = Field(sa_type=TIME)
