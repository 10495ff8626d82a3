"""The table of users' pictures."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import Text
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.core.models import TIME


class StoredAvatar(SQLModel, table=True):
    """The table of uploaded pictures. Each user has at most one, and its URL is the user's `avatar_url`."""

    __tablename__ = "avatars"

    id: str = Field(sa_type=Text, primary_key=True)
    """The secret part of the picture's URL. Anybody who has the URL can see the picture."""
    user_id: UUID
    content_type: str = Field(sa_type=Text)
    content: bytes = Field(sa_type=BYTEA)
    created_at: datetime = Field(sa_type=TIME)
