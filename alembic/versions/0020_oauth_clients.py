"""Service clients that may log people in, and the keys that sign their id_tokens."""

from alembic import op

revision = "0020"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # A site has no scope of siblings, unless it is given one.
    op.execute("""
        ALTER TABLE service_clients
            DROP CONSTRAINT service_clients_scopes_check,
            ADD CONSTRAINT service_clients_scopes_check CHECK (
                scopes <@ '{introspect,access_token,users,phones,events}'
            )
    """)
    op.execute("""
        CREATE TABLE oauth_clients (
            name text NOT NULL,
            title text NOT NULL,
            app_id text,
            scopes text[] NOT NULL,
            redirect_uris text[] NOT NULL,
            logout_uris text[] NOT NULL,
            is_public boolean NOT NULL,
            may_scan boolean NOT NULL,
            is_near boolean NOT NULL,
            takes_user_codes boolean NOT NULL,
            email_domain text,
            CONSTRAINT oauth_clients_pkey PRIMARY KEY (name),
            CONSTRAINT oauth_clients_name_fkey FOREIGN KEY (name) REFERENCES service_clients (name) ON DELETE CASCADE,
            CONSTRAINT oauth_clients_title_check CHECK (char_length(title) BETWEEN 1 AND 64),
            CONSTRAINT oauth_clients_scopes_check CHECK (cardinality(scopes) > 0),
            CONSTRAINT oauth_clients_grant_check CHECK (may_scan OR cardinality(redirect_uris) > 0),
            CONSTRAINT oauth_clients_is_public_check CHECK (NOT (is_public AND may_scan))
        )
    """)
    op.execute("""
        CREATE TABLE id_token_keys (
            id uuid NOT NULL,
            kid text NOT NULL,
            public_jwk jsonb NOT NULL,
            private_key bytea NOT NULL,
            created_at timestamptz NOT NULL,
            activates_at timestamptz NOT NULL,
            retires_at timestamptz,
            CONSTRAINT id_token_keys_pkey PRIMARY KEY (id),
            CONSTRAINT id_token_keys_kid_key UNIQUE (kid),
            CONSTRAINT id_token_keys_retires_at_check CHECK (retires_at > activates_at)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE id_token_keys")
    op.execute("DELETE FROM service_clients USING oauth_clients WHERE service_clients.name = oauth_clients.name")
    op.execute("DROP TABLE oauth_clients")
    op.execute("""
        ALTER TABLE service_clients
            DROP CONSTRAINT service_clients_scopes_check,
            ADD CONSTRAINT service_clients_scopes_check CHECK (
                cardinality(scopes) > 0
                AND scopes <@ '{introspect,access_token,users,phones,events}'
            )
    """)
