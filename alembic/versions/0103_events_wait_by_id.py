"""The use of the event's id as the primary key of events that wait for their place in the feed.

Until now, the key was a number from a sequence, which is only needed to order the events. If a tool had set the
sequence back, a repeated number violated the key. After its highest number, the sequence had no next one. Both cases
prevented logins.
"""

from alembic import op

revision, down_revision = "0103", "0102"


def upgrade() -> None:
    """Delete duplicate rows, use the event's id as the key, and let the sequence restart after its highest number."""
    op.execute("""
        DELETE FROM events_unplaced later USING events_unplaced earlier
         WHERE later.event_id = earlier.event_id AND later.number > earlier.number
    """)
    # Squawk warns of these changes, because they would lock a large table for too long. Events wait only half a second,
    # so this table contains few rows.
    op.execute("""
        -- squawk-ignore ban-drop-constraint, constraint-missing-not-valid, adding-serial-primary-key-field
        ALTER TABLE events_unplaced DROP CONSTRAINT events_unplaced_pkey, ADD PRIMARY KEY (event_id)
    """)
    op.execute("ALTER TABLE events_unplaced ALTER number SET CYCLE")


def downgrade() -> None:
    """Use the number as the key again, and let the sequence end at its highest number."""
    op.execute("""
        ALTER TABLE events_unplaced DROP CONSTRAINT events_unplaced_pkey,
            ADD CONSTRAINT events_unplaced_pkey PRIMARY KEY (number),
            ALTER number SET NO CYCLE
    """)
