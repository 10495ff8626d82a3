"""Lets the feed take events by the names of their types, so that a new type needs no revision."""

from alembic import op

revision, down_revision = "0102", "0101"

MARK = """
        CREATE OR REPLACE FUNCTION mark_unplaced() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            IF {} THEN
                INSERT INTO events_unplaced (event_id) VALUES (NEW.id);
            END IF;
            RETURN NULL;
        END
        $$
    """
BEFORE = """NEW.type IN (
                'user.created', 'user.merged', 'user.split', 'identity.added', 'identity.removed', 'consent.given',
                'consent.withdrawn', 'user.erased', 'user.banned', 'user.unbanned', 'user.roles_changed',
                'user.phone_bound', 'user.phone_removed', 'user.profile_changed', 'user.attributes_changed',
                'user.authorization_revoked', 'user.leaving', 'user.stayed', 'session.ended'
            )"""
BY_NAME = """split_part(NEW.type, '.', 1) IN ('user', 'identity', 'consent', 'session')
               AND NEW.type <> 'user.exported'"""


def upgrade() -> None:
    """Take what is about a person and is no read."""
    op.execute(MARK.format(BY_NAME))


def downgrade() -> None:
    """Take the types of a list."""
    op.execute(MARK.format(BEFORE))
