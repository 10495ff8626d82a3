"""The columns that only a website's session has, not that of a mini-program."""

from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        ALTER TABLE sessions
            ADD COLUMN client_id text,
            ADD COLUMN scope text,
            ADD COLUMN authenticated_at timestamptz,
            ADD COLUMN authenticated_by text
    """)


def downgrade() -> None:
    # Without these columns, a website's session would be taken for a phone's.
    op.execute("""
        UPDATE sessions SET revoked_at = now(), revoked_reason = 'administrator'
         WHERE client_id IS NOT NULL AND revoked_at IS NULL
    """)
    op.execute("""
        ALTER TABLE sessions
            DROP COLUMN client_id,
            DROP COLUMN scope,
            DROP COLUMN authenticated_at,
            DROP COLUMN authenticated_by
    """)
