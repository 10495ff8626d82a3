"""The sessions of each website, so that those of one that is removed are found. A mini-program's are not in it."""

from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

transactional = False


def upgrade() -> None:
    op.execute("DROP INDEX IF EXISTS sessions_client_id_idx")
    op.execute("CREATE INDEX CONCURRENTLY sessions_client_id_idx ON sessions (client_id) WHERE client_id IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP INDEX CONCURRENTLY IF EXISTS sessions_client_id_idx")
