"""A user's sessions in the order of their logins, so that the newest hundred are found without reading the others."""

from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

transactional = False


def upgrade() -> None:
    op.execute("DROP INDEX IF EXISTS sessions_user_id_id_idx")
    op.execute("CREATE INDEX CONCURRENTLY sessions_user_id_id_idx ON sessions (user_id, id)")
    op.execute("DROP INDEX CONCURRENTLY IF EXISTS sessions_user_id_idx")


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS sessions_user_id_idx")
    op.execute("CREATE INDEX CONCURRENTLY sessions_user_id_idx ON sessions (user_id)")
    op.execute("DROP INDEX CONCURRENTLY IF EXISTS sessions_user_id_id_idx")
