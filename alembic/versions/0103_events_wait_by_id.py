"""The use of the event's id as the primary key of events that wait for their place in the feed.

Until now, the key was a number from a sequence, which is only needed to order the events. If the sequence was set back,
a repeated number violated the key, and after the last number, there was no next one. Both prevented logins.
"""

from alembic import op

revision, down_revision = "0103", "0102"


def upgrade() -> None:
    """Remove duplicate events, use the id as the key, and let the sequence start again after its last number."""
    op.execute("""
        DELETE FROM events_unplaced later USING events_unplaced earlier
         WHERE later.event_id = earlier.event_id AND later.number > earlier.number
    """)
    # Events wait only half a second, so this table contains few rows.
    op.execute("""
        -- squawk-ignore ban-drop-constraint, constraint-missing-not-valid, adding-serial-primary-key-field
        ALTER TABLE events_unplaced DROP CONSTRAINT events_unplaced_pkey, ADD PRIMARY KEY (event_id)
    """)
    op.execute("ALTER TABLE events_unplaced ALTER number SET CYCLE")


def downgrade() -> None:
    """Use the number as the key again."""
    op.execute("""
        ALTER TABLE events_unplaced DROP CONSTRAINT events_unplaced_pkey,
            ADD CONSTRAINT events_unplaced_pkey PRIMARY KEY (number),
            ALTER number SET NO CYCLE
    """)
