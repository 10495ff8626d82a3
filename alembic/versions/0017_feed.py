"""The feed: events in the order in which they were committed, as siblings read them."""

from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE events_unplaced (
            event_id uuid NOT NULL,
            CONSTRAINT events_unplaced_pkey PRIMARY KEY (event_id)
        )
    """)
    op.execute("""
        CREATE TABLE feed (
            position bigint GENERATED ALWAYS AS IDENTITY,
            event_id uuid NOT NULL,
            type text NOT NULL,
            CONSTRAINT feed_pkey PRIMARY KEY (position),
            CONSTRAINT feed_event_id_key UNIQUE (event_id)
        )
    """)
    op.execute("CREATE INDEX feed_type_position_idx ON feed (type, position)")
    op.execute("""
        CREATE TABLE feed_swept (
            is_only boolean DEFAULT true NOT NULL,
            position bigint NOT NULL,
            event_id uuid NOT NULL,
            CONSTRAINT feed_swept_pkey PRIMARY KEY (is_only),
            CONSTRAINT feed_swept_is_only_check CHECK (is_only)
        )
    """)
    op.execute("""
        CREATE FUNCTION mark_unplaced() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO events_unplaced (event_id) VALUES (NEW.id);
            RETURN NULL;
        END
        $$
    """)
    # A trigger, because replicas of the version before write events without knowing of the feed.
    op.execute("""
        CREATE TRIGGER events_mark_unplaced AFTER INSERT ON events FOR EACH ROW WHEN (NEW.type IN (
            'user.created', 'user.merged', 'identity.added', 'consent.given', 'consent.withdrawn',
            'user_erased', 'user.erased', 'user_banned', 'user.banned', 'user_unbanned', 'user.unbanned',
            'roles_changed', 'user.roles_changed', 'phone_bound', 'user.phone_bound', 'user.phone_removed',
            'user.profile_changed', 'authorization_revoked', 'user.authorization_revoked', 'session.ended'
        )) EXECUTE FUNCTION mark_unplaced()
    """)
    op.execute("""
        CREATE FUNCTION forget_places() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM events_unplaced USING gone WHERE event_id = gone.id;
            WITH swept AS (
                DELETE FROM feed USING gone WHERE event_id = gone.id RETURNING position, event_id
            )
            INSERT INTO feed_swept (position, event_id)
            SELECT position, event_id FROM swept ORDER BY position DESC LIMIT 1
            ON CONFLICT (is_only) DO UPDATE SET position = excluded.position, event_id = excluded.event_id
             WHERE feed_swept.position < excluded.position;
            RETURN NULL;
        END
        $$
    """)
    op.execute("""
        CREATE TRIGGER events_forget_places AFTER DELETE ON events REFERENCING OLD TABLE AS gone
            FOR EACH STATEMENT EXECUTE FUNCTION forget_places()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER events_forget_places ON events")
    op.execute("DROP TRIGGER events_mark_unplaced ON events")
    op.execute("DROP FUNCTION forget_places()")
    op.execute("DROP FUNCTION mark_unplaced()")
    op.execute("DROP TABLE feed_swept")
    op.execute("DROP TABLE feed")
    op.execute("DROP TABLE events_unplaced")
