"""A unique index of external ids: each is one user's, and is found without reading the whole table."""

from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

transactional = False


def upgrade() -> None:
    op.execute("DROP INDEX IF EXISTS users_external_id_idx")
    op.execute("""
        CREATE UNIQUE INDEX CONCURRENTLY users_external_id_idx ON users (external_id) WHERE external_id IS NOT NULL
    """)


def downgrade() -> None:
    op.execute("DROP INDEX CONCURRENTLY IF EXISTS users_external_id_idx")
