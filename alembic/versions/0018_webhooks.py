"""Webhooks, and their deliveries."""

from alembic import op

revision = "0018"
down_revision = "0017"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE webhooks (
            id uuid NOT NULL,
            name text NOT NULL,
            url text NOT NULL,
            types text[] DEFAULT '{}' NOT NULL,
            is_enabled boolean DEFAULT true NOT NULL,
            secret bytea NOT NULL,
            former_secret bytea,
            former_secret_until timestamptz,
            created_at timestamptz NOT NULL,
            delivered_at timestamptz,
            CONSTRAINT webhooks_pkey PRIMARY KEY (id),
            CONSTRAINT webhooks_name_key UNIQUE (name),
            CONSTRAINT webhooks_name_check CHECK (name ~ '^[a-z0-9][a-z0-9_-]{0,63}$'),
            CONSTRAINT webhooks_former_secret_check CHECK ((former_secret IS NULL) = (former_secret_until IS NULL))
        )
    """)
    op.execute("""
        CREATE TABLE deliveries (
            webhook_id uuid NOT NULL,
            event_id uuid NOT NULL,
            id uuid NOT NULL,
            type text NOT NULL,
            state text DEFAULT 'pending' NOT NULL,
            attempts integer DEFAULT 0 NOT NULL,
            is_taken boolean DEFAULT false NOT NULL,
            status integer,
            error text,
            next_at timestamptz,
            at timestamptz NOT NULL,
            CONSTRAINT deliveries_pkey PRIMARY KEY (webhook_id, event_id),
            CONSTRAINT deliveries_state_check CHECK (state IN ('pending', 'delivered', 'failed')),
            CONSTRAINT deliveries_next_at_check CHECK ((state = 'pending') = (next_at IS NOT NULL)),
            CONSTRAINT deliveries_is_taken_check CHECK (state = 'pending' OR NOT is_taken)
        )
        WITH (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_insert_scale_factor = 0.02)
    """)
    op.execute("CREATE INDEX deliveries_pending_idx ON deliveries (webhook_id, next_at) WHERE state = 'pending'")
    op.execute("CREATE INDEX deliveries_webhook_id_state_id_idx ON deliveries (webhook_id, state, id)")


def downgrade() -> None:
    op.execute("DROP TABLE deliveries")
    op.execute("DROP TABLE webhooks")
