"""Users, their identities, their sessions, and the keys that sign tokens."""

from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(r"""
        CREATE TABLE users (
            id uuid NOT NULL,
            unionid text,
            nickname text,
            avatar_url text,
            phone text,
            roles text[] DEFAULT '{}' NOT NULL,
            status text DEFAULT 'active' NOT NULL,
            created_at timestamptz NOT NULL,
            last_login_at timestamptz NOT NULL,
            CONSTRAINT users_pkey PRIMARY KEY (id),
            CONSTRAINT users_unionid_key UNIQUE (unionid),
            CONSTRAINT users_unionid_check CHECK (unionid <> ''),
            CONSTRAINT users_status_check CHECK (status IN ('active', 'disabled')),
            CONSTRAINT users_roles_number_check CHECK (cardinality(roles) <= 32),
            CONSTRAINT users_roles_check CHECK (
                cardinality(roles) = 0 OR (
                    roles = string_to_array(array_to_string(roles, ','), ',')
                    AND array_to_string(roles, ',') ~ '^[a-z][a-z0-9_-]{0,31}(,[a-z][a-z0-9_-]{0,31})*$'
                )
            ),
            CONSTRAINT users_nickname_check CHECK (char_length(nickname) BETWEEN 1 AND 64),
            CONSTRAINT users_avatar_url_check CHECK (char_length(avatar_url) BETWEEN 1 AND 2048),
            CONSTRAINT users_phone_check CHECK (phone ~ '^\+[1-9][0-9]{1,14}$')
        ) WITH (fillfactor = 85)
    """)
    op.execute(r"""
        CREATE TABLE identities (
            app_id text NOT NULL,
            openid text NOT NULL,
            user_id uuid NOT NULL,
            created_at timestamptz NOT NULL,
            CONSTRAINT identities_pkey PRIMARY KEY (app_id, openid),
            CONSTRAINT identities_app_id_openid_user_id_key UNIQUE (app_id, openid, user_id),
            CONSTRAINT identities_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
            CONSTRAINT identities_app_id_check CHECK (app_id <> ''),
            CONSTRAINT identities_openid_check CHECK (openid <> '')
        )
    """)
    op.execute(r"""
        CREATE INDEX identities_user_id_idx ON identities (user_id)
    """)
    op.execute(r"""
        CREATE TABLE sessions (
            id uuid NOT NULL,
            user_id uuid NOT NULL,
            app_id text NOT NULL,
            openid text NOT NULL,
            session_key bytea,
            generation integer DEFAULT 0 NOT NULL,
            rotated_at timestamptz,
            ip inet,
            user_agent text,
            created_at timestamptz NOT NULL,
            last_used_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            revoked_at timestamptz,
            revoked_reason text,
            CONSTRAINT sessions_pkey PRIMARY KEY (id),
            CONSTRAINT sessions_app_id_openid_user_id_fkey FOREIGN KEY (app_id, openid, user_id)
                REFERENCES identities (app_id, openid, user_id) ON UPDATE CASCADE ON DELETE CASCADE,
            CONSTRAINT sessions_generation_check CHECK (generation >= 0),
            CONSTRAINT sessions_expires_at_check CHECK (expires_at >= created_at),
            CONSTRAINT sessions_revoked_reason_check CHECK ((revoked_at IS NULL) = (revoked_reason IS NULL)),
            CONSTRAINT sessions_session_key_check CHECK (revoked_at IS NULL OR session_key IS NULL)
        )
    """)
    op.execute(r"""
        CREATE INDEX sessions_user_id_idx ON sessions (user_id)
    """)
    op.execute(r"""
        CREATE TABLE signing_keys (
            id uuid NOT NULL,
            kid text NOT NULL,
            public_jwk jsonb NOT NULL,
            private_key bytea NOT NULL,
            created_at timestamptz NOT NULL,
            activates_at timestamptz NOT NULL,
            retires_at timestamptz,
            CONSTRAINT signing_keys_pkey PRIMARY KEY (id),
            CONSTRAINT signing_keys_kid_key UNIQUE (kid),
            CONSTRAINT signing_keys_retires_at_check CHECK (retires_at > activates_at)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE signing_keys, sessions, identities, users")
