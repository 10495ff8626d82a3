"""The tables of users' pictures and of WeChat's checks of them."""

from datetime import datetime
from uuid import UUID

from sqlalchemy import CheckConstraint, ForeignKeyConstraint, Index, Text, UniqueConstraint
from sqlalchemy.dialects.postgresql import BYTEA
from sqlmodel import Field, SQLModel

from wxauth.server.core.models import TIME, after_create, of_identity


class StoredAvatar(SQLModel, table=True):
    """The picture that a user's avatar_url points to."""

    __tablename__ = "avatars"
    __table_args__ = (
        UniqueConstraint("user_id"),
        ForeignKeyConstraint(["user_id"], ["users.id"], ondelete="CASCADE"),
        CheckConstraint("id ~ '^[A-Za-z0-9_-]{22}$'", name="id"),
        CheckConstraint("content_type IN ('image/jpeg', 'image/png')", name="content_type"),
        CheckConstraint("octet_length(content) BETWEEN 1 AND 2097152", name="content"),
    )

    id: str = Field(sa_type=Text, primary_key=True)
    """The secret part of the picture's URL: anybody who has the URL may see the picture."""
    user_id: UUID
    content_type: str = Field(sa_type=Text)
    content: bytes = Field(sa_type=BYTEA)
    created_at: datetime = Field(sa_type=TIME)


class PictureCheck(SQLModel, table=True):
    """WeChat's check of a picture: what was asked, what WeChat answered, or both."""

    __tablename__ = "picture_checks"
    __table_args__ = (
        of_identity(),
        CheckConstraint("(openid IS NULL) = (avatar_id IS NULL)", name="asked"),
        CheckConstraint("(suggest IS NULL) = (label IS NULL)", name="answered"),
        CheckConstraint("openid IS NOT NULL OR suggest IS NOT NULL", name="halves"),
        CheckConstraint("suggest IN ('pass', 'review', 'risky')", name="suggest"),
        Index(None, "app_id", "openid"),
        Index(None, "at"),
    )

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


after_create(
    StoredAvatar,
    "ALTER TABLE avatars ALTER COLUMN content SET STORAGE EXTERNAL",  # already compressed
    # A trigger, so that the statements that change avatar_url need not delete the picture. Its cost to a login, which
    # sets the column, is one comparison.
    """
        CREATE FUNCTION delete_former_avatar() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM avatars
             WHERE user_id = NEW.id AND strpos(COALESCE(NEW.avatar_url, ''), '/v1/avatars/' || id || '.') = 0;
            RETURN NULL;
        END
        $$
    """,
    """
        CREATE TRIGGER users_delete_former_avatar AFTER UPDATE OF avatar_url ON users
            FOR EACH ROW WHEN (OLD.avatar_url IS DISTINCT FROM NEW.avatar_url)
            EXECUTE FUNCTION delete_former_avatar()
    """,
)
