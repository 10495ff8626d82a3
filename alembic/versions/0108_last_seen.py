"""The time of a user's last refresh, so that a user who doesn't log in again doesn't look absent."""

from alembic import op

revision, down_revision = "0108", "0107"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE users ADD COLUMN last_refresh_at TIMESTAMP WITH TIME ZONE")


def downgrade() -> None:
    """Remove the column."""
    op.execute("ALTER TABLE users DROP COLUMN last_refresh_at")
