"""The removal of WeChat's verdicts on users and pictures, because wxauth no longer asks for them."""

from alembic import op

revision, down_revision = "0104", "0103"


def upgrade() -> None:
    """Drop the pending checks, and the time since which a user's risk was unknown."""
    op.execute("DROP TABLE picture_checks")
    op.execute("ALTER TABLE users DROP COLUMN unjudged_since")


def downgrade() -> None:
    """Create both again, empty, because nothing waits for a verdict."""
    op.execute("ALTER TABLE users ADD COLUMN unjudged_since TIMESTAMP WITH TIME ZONE")
    op.execute("""
        CREATE TABLE picture_checks (
            app_id TEXT COLLATE "C" NOT NULL,
            trace_id TEXT COLLATE "C" NOT NULL,
            openid TEXT COLLATE "C",
            avatar_id TEXT COLLATE "C",
            suggest TEXT COLLATE "C",
            label INTEGER,
            at TIMESTAMP WITH TIME ZONE NOT NULL,
            CONSTRAINT picture_checks_pkey PRIMARY KEY (app_id, trace_id),
            CONSTRAINT picture_checks_app_id_openid_fkey FOREIGN KEY(app_id, openid) REFERENCES identities
                (app_id, openid) ON DELETE CASCADE ON UPDATE CASCADE,
            CONSTRAINT picture_checks_asked_check CHECK ((openid IS NULL) = (avatar_id IS NULL)),
            CONSTRAINT picture_checks_answered_check CHECK ((suggest IS NULL) = (label IS NULL)),
            CONSTRAINT picture_checks_halves_check CHECK (openid IS NOT NULL OR suggest IS NOT NULL),
            CONSTRAINT picture_checks_suggest_check CHECK (suggest IN ('pass', 'review', 'risky'))
        )
    """)
    op.execute("CREATE INDEX picture_checks_app_id_openid_idx ON picture_checks (app_id, openid)")
    op.execute("CREATE INDEX picture_checks_at_idx ON picture_checks (at)")
