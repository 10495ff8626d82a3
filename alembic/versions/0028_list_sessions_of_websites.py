"""The sessions of each website in a table of its own, in place of an index on sessions.

No login of a mini-program was in that index, and yet it cost each of them some microseconds.
"""

from alembic import op

revision = "0028"
down_revision = "0027"
branch_labels = None
depends_on = None

transactional = False


def upgrade() -> None:
    op.execute("""
        CREATE TABLE IF NOT EXISTS website_sessions (
            client_id text NOT NULL,
            session_id uuid NOT NULL,
            CONSTRAINT website_sessions_pkey PRIMARY KEY (client_id, session_id),
            CONSTRAINT website_sessions_session_id_fkey
                FOREIGN KEY (session_id) REFERENCES sessions (id) ON DELETE CASCADE
        )
    """)
    op.execute("CREATE INDEX IF NOT EXISTS website_sessions_session_id_idx ON website_sessions (session_id)")
    op.execute("""
        INSERT INTO website_sessions (client_id, session_id)
        SELECT client_id, id FROM sessions WHERE client_id IS NOT NULL
        ON CONFLICT DO NOTHING
    """)
    op.execute("DROP INDEX CONCURRENTLY IF EXISTS sessions_client_id_idx")


def downgrade() -> None:
    op.execute("DROP INDEX IF EXISTS sessions_client_id_idx")
    op.execute("CREATE INDEX CONCURRENTLY sessions_client_id_idx ON sessions (client_id) WHERE client_id IS NOT NULL")
    op.execute("DROP TABLE IF EXISTS website_sessions")
