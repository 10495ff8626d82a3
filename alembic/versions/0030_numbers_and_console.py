"""The numbers of each day; the links that open the console, and the console's sessions."""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE daily_numbers (
            day date NOT NULL,
            process uuid NOT NULL,
            new_users bigint NOT NULL,
            logins bigint NOT NULL,
            CONSTRAINT daily_numbers_pkey PRIMARY KEY (day, process),
            CONSTRAINT daily_numbers_numbers_check CHECK (new_users >= 0 AND logins >= 0)
        )
    """)
    op.execute("""
        CREATE TABLE admin_links (
            digest bytea NOT NULL,
            user_id uuid NOT NULL,
            expires_at timestamptz NOT NULL,
            CONSTRAINT admin_links_pkey PRIMARY KEY (digest),
            CONSTRAINT admin_links_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
            CONSTRAINT admin_links_digest_check CHECK (octet_length(digest) = 32)
        )
    """)
    op.execute("CREATE INDEX admin_links_user_id_idx ON admin_links (user_id)")
    op.execute("""
        CREATE TABLE console_sessions (
            session_id uuid NOT NULL,
            CONSTRAINT console_sessions_pkey PRIMARY KEY (session_id)
        )
    """)


def downgrade() -> None:
    # Without its mark, a session of the console would be taken for a phone's.
    op.execute("""
        UPDATE sessions SET revoked_at = now(), revoked_reason = 'signed_out', session_key = NULL
          FROM console_sessions WHERE console_sessions.session_id = sessions.id AND revoked_at IS NULL
    """)
    op.execute("DROP TABLE console_sessions")
    op.execute("DROP TABLE admin_links")
    op.execute("DROP TABLE daily_numbers")
