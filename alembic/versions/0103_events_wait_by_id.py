"""Keys events that wait for a place by their ids, so that no state of a sequence refuses a login.

Their numbers order them. A number that is given twice, because the sequence was set back, was a violated key until now,
and so was one after the last.
"""

from alembic import op

revision, down_revision = "0103", "0102"


def upgrade() -> None:
    """Key them by event, once each, and let numbers begin again after the last."""
    op.execute("""
        DELETE FROM events_unplaced later USING events_unplaced earlier
         WHERE later.event_id = earlier.event_id AND later.number > earlier.number
    """)
    # Events wait half a second, so this table has a few rows.
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
