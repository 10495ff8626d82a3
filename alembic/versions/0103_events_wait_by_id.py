"""A key by id for events that wait for a place, so that no state of a sequence prevents a login.

Their numbers only order them. Until now, a number that was given twice, because the sequence was set back, violated a
key, and so did a number after the last one.
"""

from alembic import op

revision, down_revision = "0103", "0102"


def upgrade() -> None:
    """Key waiting events by their ids, once each, and let numbers begin again after the last."""
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
    """Key them by their numbers again."""
    op.execute("""
        ALTER TABLE events_unplaced DROP CONSTRAINT events_unplaced_pkey,
            ADD CONSTRAINT events_unplaced_pkey PRIMARY KEY (number),
            ALTER number SET NO CYCLE
    """)
