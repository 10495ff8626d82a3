"""The message that came with each timestamp and nonce of WeChat's. Those that were carried out are kept for a month."""

from alembic import op

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(r"""
        CREATE TABLE push_nonces (
            digest bytea NOT NULL,
            content bytea,
            received_at timestamptz NOT NULL,
            CONSTRAINT push_nonces_pkey PRIMARY KEY (digest),
            CONSTRAINT push_nonces_digest_check CHECK (octet_length(digest) = 32),
            CONSTRAINT push_nonces_content_check CHECK (octet_length(content) = 32)
        )
    """)
    op.execute("CREATE INDEX push_nonces_received_at_idx ON push_nonces (received_at)")
    op.execute("CREATE INDEX push_messages_received_at_idx ON push_messages (received_at)")


def downgrade() -> None:
    op.execute("DROP INDEX push_messages_received_at_idx")
    op.execute("DROP TABLE push_nonces")
