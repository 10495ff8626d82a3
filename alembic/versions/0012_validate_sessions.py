"""Validate the rule for sessions, which stored ones have kept all along: the schema is then that of a new database."""

from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None

transactional = False


def upgrade() -> None:
    op.execute("ALTER TABLE sessions VALIDATE CONSTRAINT sessions_state_check")


def downgrade() -> None:
    op.execute("ALTER TABLE sessions DROP CONSTRAINT sessions_state_check")
    op.execute("""
        ALTER TABLE sessions ADD CONSTRAINT sessions_state_check CHECK (
            generation >= 0 AND expires_at >= created_at AND (revoked_at IS NULL) = (revoked_reason IS NULL)
            AND (revoked_at IS NULL OR session_key IS NULL)
        ) NOT VALID
    """)
