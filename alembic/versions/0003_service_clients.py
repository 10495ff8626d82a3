"""Service clients."""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(r"""
        CREATE TABLE service_clients (
            name text NOT NULL,
            secret_hash bytea NOT NULL,
            created_at timestamptz NOT NULL,
            CONSTRAINT service_clients_pkey PRIMARY KEY (name),
            CONSTRAINT service_clients_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
            CONSTRAINT service_clients_secret_hash_check CHECK (octet_length(secret_hash) = 32)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE service_clients")
