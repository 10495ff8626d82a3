"""Options of sites: the lifetime of id_tokens, and what they say about e-mail addresses."""

from alembic import op

revision, down_revision = "0112", "0111"


def upgrade() -> None:
    """Add the columns."""
    op.execute("""
        ALTER TABLE clients
            ADD COLUMN omit_email_verified BOOLEAN DEFAULT false NOT NULL,
            ADD COLUMN i_verify_this_address BOOLEAN DEFAULT false NOT NULL,
            ADD COLUMN id_token_ttl BIGINT
    """)
    op.execute("ALTER TABLE signing_keys ADD COLUMN id_token_ttl BIGINT DEFAULT 0 NOT NULL")


def downgrade() -> None:
    """Remove the columns."""
    op.execute("ALTER TABLE signing_keys DROP COLUMN id_token_ttl")
    op.execute("""
        ALTER TABLE clients
            DROP COLUMN omit_email_verified,
            DROP COLUMN i_verify_this_address,
            DROP COLUMN id_token_ttl
    """)
