"""Consents: their whole history, and on the user's row the present ones."""

from alembic import op

revision = "0026"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE users ADD COLUMN consents jsonb")
    op.execute("""
        CREATE TABLE consents (
            id uuid NOT NULL,
            user_id uuid NOT NULL,
            document text NOT NULL,
            version text NOT NULL,
            given_at timestamptz NOT NULL,
            withdrawn_at timestamptz,
            app_id text,
            ip inet,
            CONSTRAINT consents_pkey PRIMARY KEY (id),
            CONSTRAINT consents_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
            CONSTRAINT consents_document_check CHECK (document <> ''),
            CONSTRAINT consents_version_check CHECK (version <> '')
        )
    """)
    op.execute("CREATE INDEX consents_user_id_idx ON consents (user_id)")


def downgrade() -> None:
    op.execute("DROP TABLE consents")
    op.execute("ALTER TABLE users DROP COLUMN consents")
