"""A transaction that says so may sweep old events out of the trail. All others may only add events."""

from alembic import op

revision = "0027"
down_revision = "0026"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("DROP TRIGGER events_append_only ON events")
    op.execute("""
        CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events
            FOR EACH ROW WHEN (current_setting('wxauth.sweeping', true) IS DISTINCT FROM 'on')
            EXECUTE FUNCTION events_are_append_only()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER events_append_only ON events")
    op.execute("""
        CREATE TRIGGER events_append_only BEFORE UPDATE OR DELETE ON events
            FOR EACH ROW EXECUTE FUNCTION events_are_append_only()
    """)
