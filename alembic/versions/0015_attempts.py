"""How often WeChat has been asked for a person within an hour."""

from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(r"""
        CREATE TABLE attempts (
            key bytea NOT NULL,
            since timestamptz NOT NULL,
            number integer NOT NULL,
            CONSTRAINT attempts_pkey PRIMARY KEY (key),
            CONSTRAINT attempts_key_check CHECK (octet_length(key) = 32),
            CONSTRAINT attempts_number_check CHECK (number >= 0)
        )
    """)
    op.execute("CREATE INDEX attempts_since_idx ON attempts (since)")


def downgrade() -> None:
    op.execute("DROP TABLE attempts")
