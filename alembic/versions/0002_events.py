"""The audit trail: what was done to whom, and by whom; and an index that finds the administrators."""

from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(r"""
        CREATE TABLE events (
            id uuid NOT NULL,
            type text NOT NULL,
            at timestamptz NOT NULL,
            actor text NOT NULL,
            user_id uuid,
            app_id text,
            ip inet,
            data jsonb DEFAULT '{}' NOT NULL,
            CONSTRAINT events_pkey PRIMARY KEY (id),
            CONSTRAINT events_type_check CHECK (type ~ '^[a-z][a-z_]{0,63}$'),
            CONSTRAINT events_actor_check CHECK (actor <> ''),
            CONSTRAINT events_data_check CHECK (jsonb_typeof(data) = 'object')
        )
    """)
    op.execute("CREATE INDEX events_user_id_id_idx ON events (user_id, id)")
    op.execute("CREATE INDEX events_type_id_idx ON events (type, id)")
    op.execute("CREATE INDEX events_actor_idx ON events (actor) WHERE ip IS NOT NULL")
    # The trigger refuses changes and deletions of events, except for the data of an erased person.
    op.execute(r"""
        CREATE FUNCTION events_are_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF TG_OP = 'UPDATE' AND NEW.ip IS NULL AND NEW.data IN ('{}', OLD.data)
               AND (NEW.id, NEW.type, NEW.at, NEW.actor, NEW.user_id, NEW.app_id)
                   IS NOT DISTINCT FROM (OLD.id, OLD.type, OLD.at, OLD.actor, OLD.user_id, OLD.app_id) THEN
                RETURN NEW;
            END IF;
            RAISE EXCEPTION 'events are append-only';
        END
        $$
    """)
    op.execute(r"""
        CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events
            FOR EACH ROW EXECUTE FUNCTION events_are_append_only()
    """)
    op.execute("CREATE INDEX users_administrators_idx ON users (id) WHERE 'admin' = ANY (roles)")


def downgrade() -> None:
    op.execute("DROP INDEX users_administrators_idx")
    op.execute("DROP TABLE events")
    op.execute("DROP FUNCTION events_are_append_only()")
