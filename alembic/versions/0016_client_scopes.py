"""The scopes of a service client, and its former secret, which works while the new one is being rolled out."""

from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # The default is for clients from before, and of replicas of the version before: they may do what they could do.
    op.execute(r"""
        ALTER TABLE service_clients
            ADD COLUMN scopes text[] DEFAULT '{introspect,access_token}' NOT NULL,
            ADD COLUMN former_secret_hash bytea,
            ADD COLUMN former_secret_until timestamptz,
            ADD CONSTRAINT service_clients_scopes_check CHECK (
                cardinality(scopes) > 0
                AND scopes <@ '{introspect,access_token,users,phones,events}'
            ),
            ADD CONSTRAINT service_clients_former_secret_check CHECK (
                (former_secret_hash IS NULL) = (former_secret_until IS NULL) AND octet_length(former_secret_hash) = 32
            )
    """)


def downgrade() -> None:
    op.execute(r"""
        ALTER TABLE service_clients
            DROP CONSTRAINT service_clients_former_secret_check,
            DROP CONSTRAINT service_clients_scopes_check,
            DROP COLUMN former_secret_until,
            DROP COLUMN former_secret_hash,
            DROP COLUMN scopes
    """)
