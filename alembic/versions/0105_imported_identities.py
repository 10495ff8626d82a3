"""A mark on the identities that an import has created, and that no user has logged in with yet.

A file can contain a user's unionid in place of the openid. A login of the user corrects such an identity, but only
while the identity has this mark.
"""

from alembic import op

revision, down_revision = "0105", "0104"


def upgrade() -> None:
    """Add the mark."""
    op.execute("ALTER TABLE identities ADD COLUMN awaits_login BOOLEAN NOT NULL DEFAULT false")


def downgrade() -> None:
    """Remove the mark."""
    op.execute("ALTER TABLE identities DROP COLUMN awaits_login")
