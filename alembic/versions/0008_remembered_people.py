"""Every unionid that a person has had, and every id that was merged into another one, are remembered."""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("ALTER TABLE identities ADD COLUMN unionid text")
    op.execute(r"""
        CREATE TABLE unionids (
            unionid text NOT NULL,
            user_id uuid NOT NULL,
            CONSTRAINT unionids_pkey PRIMARY KEY (unionid),
            CONSTRAINT unionids_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
            CONSTRAINT unionids_unionid_check CHECK (unionid <> '')
        )
    """)
    op.execute("CREATE INDEX unionids_user_id_idx ON unionids (user_id)")
    op.execute(r"""
        CREATE TABLE former_users (
            id uuid NOT NULL,
            user_id uuid NOT NULL,
            merged_at timestamptz NOT NULL,
            CONSTRAINT former_users_pkey PRIMARY KEY (id),
            CONSTRAINT former_users_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
        )
    """)
    op.execute("CREATE INDEX former_users_user_id_idx ON former_users (user_id)")
    # A trigger, because replicas of the version before write users.unionid without a row here.
    op.execute(r"""
        CREATE FUNCTION remember_unionid() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO unionids (unionid, user_id) VALUES (NEW.unionid, NEW.id) ON CONFLICT DO NOTHING;
            RETURN NULL;
        END
        $$
    """)
    op.execute(r"""
        CREATE TRIGGER users_remember_unionid AFTER INSERT OR UPDATE OF unionid ON users
            FOR EACH ROW WHEN (NEW.unionid IS NOT NULL) EXECUTE FUNCTION remember_unionid()
    """)
    # New types of events have a dot in their name. Stored events fit the former rule, and fit this one too.
    op.execute("ALTER TABLE events DROP CONSTRAINT events_type_check")
    op.execute("ALTER TABLE events ADD CONSTRAINT events_type_check CHECK (type ~ '^[a-z][a-z_.]{0,63}$') NOT VALID")


def downgrade() -> None:
    op.execute("ALTER TABLE events DROP CONSTRAINT events_type_check")
    op.execute("ALTER TABLE events ADD CONSTRAINT events_type_check CHECK (type ~ '^[a-z][a-z_]{0,63}$') NOT VALID")
    # Events with a dot in their name stay: nothing is ever taken out of the trail.
    op.execute(r"""
        DO $$
        BEGIN
            IF NOT EXISTS (SELECT FROM events WHERE type LIKE '%.%') THEN
                ALTER TABLE events VALIDATE CONSTRAINT events_type_check;
            END IF;
        END
        $$
    """)
    op.execute("DROP TRIGGER users_remember_unionid ON users")
    op.execute("DROP FUNCTION remember_unionid")
    op.execute("DROP TABLE former_users")
    op.execute("DROP TABLE unionids")
    op.execute("ALTER TABLE identities DROP COLUMN unionid")
