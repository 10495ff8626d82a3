"""Which of WeChat's messages have been carried out."""

from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(r"""
        CREATE TABLE push_messages (
            digest bytea NOT NULL,
            app_id text NOT NULL,
            received_at timestamptz NOT NULL,
            CONSTRAINT push_messages_pkey PRIMARY KEY (digest),
            CONSTRAINT push_messages_digest_check CHECK (octet_length(digest) = 32)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE push_messages")
