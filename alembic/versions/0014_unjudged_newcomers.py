"""Of which newcomers WeChat has not said yet what it thinks."""

from alembic import op

revision = "0014"
down_revision = "0013"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE users ADD COLUMN unjudged_since timestamptz")


def downgrade() -> None:
    op.execute("ALTER TABLE users DROP COLUMN unjudged_since")
