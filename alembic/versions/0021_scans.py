"""Codes that somebody may scan to log in to a site."""

from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE scans (
            id uuid NOT NULL,
            client_id text NOT NULL,
            scope text NOT NULL,
            scene_hash bytea NOT NULL,
            user_code_hash bytea NOT NULL,
            device_code_hash bytea,
            request_hash bytea,
            browser_hash bytea,
            redirect_uri text,
            state text,
            nonce text,
            code_challenge text,
            browser_ip inet,
            browser_user_agent text,
            poll_interval integer NOT NULL DEFAULT 2,
            polled_at timestamptz,
            claimed_session_id uuid,
            claimed_at timestamptz,
            is_typed boolean NOT NULL DEFAULT false,
            verdict text,
            decided_at timestamptz,
            code_hash bytea,
            code_expires_at timestamptz,
            session_id uuid,
            created_at timestamptz NOT NULL,
            expires_at timestamptz NOT NULL,
            CONSTRAINT scans_pkey PRIMARY KEY (id),
            CONSTRAINT scans_scene_hash_key UNIQUE (scene_hash),
            CONSTRAINT scans_user_code_hash_key UNIQUE (user_code_hash),
            CONSTRAINT scans_device_code_hash_key UNIQUE (device_code_hash),
            CONSTRAINT scans_request_hash_key UNIQUE (request_hash),
            CONSTRAINT scans_code_hash_key UNIQUE (code_hash),
            CONSTRAINT scans_client_id_fkey FOREIGN KEY (client_id) REFERENCES oauth_clients (name) ON DELETE CASCADE,
            CONSTRAINT scans_kind_check CHECK ((device_code_hash IS NULL) <> (request_hash IS NULL)),
            CONSTRAINT scans_browser_hash_check CHECK ((request_hash IS NULL) = (browser_hash IS NULL)),
            CONSTRAINT scans_claimed_at_check CHECK ((claimed_session_id IS NULL) = (claimed_at IS NULL)),
            CONSTRAINT scans_verdict_check
                CHECK (verdict IS NULL OR (verdict IN ('approved', 'denied') AND claimed_at IS NOT NULL)),
            CONSTRAINT scans_decided_at_check CHECK ((verdict IS NULL) = (decided_at IS NULL)),
            CONSTRAINT scans_code_expires_at_check CHECK ((code_hash IS NULL) = (code_expires_at IS NULL)),
            CONSTRAINT scans_expires_at_check CHECK (expires_at > created_at)
        )
    """)
    op.execute("CREATE INDEX scans_client_id_idx ON scans (client_id)")
    op.execute("CREATE INDEX scans_expires_at_idx ON scans (expires_at)")
    op.execute("""
        CREATE TABLE wrong_user_codes (
            user_id uuid NOT NULL,
            since timestamptz NOT NULL,
            number integer NOT NULL,
            CONSTRAINT wrong_user_codes_pkey PRIMARY KEY (user_id),
            CONSTRAINT wrong_user_codes_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
        )
    """)
    op.execute("""
        CREATE TABLE scan_pictures (
            scan_id uuid NOT NULL,
            content_type text NOT NULL,
            content bytea NOT NULL,
            CONSTRAINT scan_pictures_pkey PRIMARY KEY (scan_id),
            CONSTRAINT scan_pictures_scan_id_fkey FOREIGN KEY (scan_id) REFERENCES scans (id) ON DELETE CASCADE,
            CONSTRAINT scan_pictures_content_type_check CHECK (content_type IN ('image/jpeg', 'image/png')),
            CONSTRAINT scan_pictures_content_check CHECK (octet_length(content) BETWEEN 1 AND 2097152)
        )
    """)
    op.execute("ALTER TABLE scan_pictures ALTER COLUMN content SET STORAGE EXTERNAL")


def downgrade() -> None:
    op.execute("DROP TABLE scan_pictures")
    op.execute("DROP TABLE wrong_user_codes")
    op.execute("DROP TABLE scans")
