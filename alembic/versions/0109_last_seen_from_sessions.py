"""The last refreshes of users, from the sessions that are still stored."""

from alembic import op

revision, down_revision, transactional = "0109", "0108", False

# Each batch is a transaction, so that logins of the users in a batch wait only briefly. The statement locks the users
# in the order of their ids, and skips locked users, so that it can neither deadlock nor wait. A skipped user is stored
# at the next refresh.
USERS = """
    DO $$
    DECLARE
        begin_after uuid := '00000000-0000-0000-0000-000000000000';
        last_id uuid;
    BEGIN
        LOOP
            SELECT id INTO last_id FROM (
                SELECT id FROM users WHERE id > begin_after ORDER BY id LIMIT 5000) AS page ORDER BY id DESC LIMIT 1;
            EXIT WHEN last_id IS NULL;
            WITH used AS (
                SELECT user_id, max(last_used_at) AS at FROM sessions
                 WHERE user_id > begin_after AND user_id <= last_id GROUP BY user_id
            ), locked AS MATERIALIZED (
                SELECT users.id, used.at FROM users JOIN used ON used.user_id = users.id
                 WHERE GREATEST(last_login_at, last_refresh_at) IS NULL
                    OR GREATEST(last_login_at, last_refresh_at) < used.at
                 ORDER BY users.id FOR NO KEY UPDATE OF users SKIP LOCKED
            )
            UPDATE users SET last_refresh_at = locked.at FROM locked WHERE users.id = locked.id;
            COMMIT;
            begin_after := last_id;
        END LOOP;
    END $$
"""


def upgrade() -> None:
    """Store the last use of each user's sessions that is later than the last login."""
    op.execute(USERS)


def downgrade() -> None:
    """Change nothing, because the previous revision removes the column."""
