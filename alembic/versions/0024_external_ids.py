"""The user's id from before wxauth, and whether the phone number has been proved."""

from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Stored numbers have all been proved by the phone button. PostgreSQL does not write the default into the rows.
    op.execute("""
        ALTER TABLE users
            ADD COLUMN external_id varchar(128),
            ADD COLUMN phone_verified boolean NOT NULL DEFAULT true,
            ALTER COLUMN last_login_at DROP NOT NULL
    """)


def downgrade() -> None:
    op.execute("UPDATE users SET last_login_at = created_at WHERE last_login_at IS NULL")
    op.execute("""
        ALTER TABLE users DROP COLUMN external_id, DROP COLUMN phone_verified,
            ALTER COLUMN last_login_at SET NOT NULL
    """)
