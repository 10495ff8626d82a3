"""The address from which a device has started a login."""

from alembic import op

revision, down_revision = "0111", "0110"


def upgrade() -> None:
    """Add the column."""
    op.execute("ALTER TABLE site_logins ADD COLUMN requested_ip INET")


def downgrade() -> None:
    """Remove the column."""
    op.execute("ALTER TABLE site_logins DROP COLUMN requested_ip")
