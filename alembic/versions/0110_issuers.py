"""The URLs under which the service has issued tokens, so that `wxauth check` notices a move to another domain."""

from alembic import op

revision, down_revision = "0110", "0109"


def upgrade() -> None:
    """Add the table."""
    op.execute("""
        CREATE TABLE issuers (
            issuer TEXT COLLATE "C" NOT NULL,
            used_at TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT issuers_pkey PRIMARY KEY (issuer)
        )
    """)


def downgrade() -> None:
    """Remove the table."""
    op.execute("DROP TABLE issuers")
