"""The newcomers whose risk WeChat has not told yet."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE users ADD COLUMN unjudged_since timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE users DROP COLUMN unjudged_since")
