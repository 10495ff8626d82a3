"""An index of websites' sessions, by which those of a removed site are found. It has no sessions of mini-programs."""

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
