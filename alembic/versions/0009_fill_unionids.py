"""The unionids of users from before the table. They are filled in by batches, while logins go on."""

from sqlalchemy import text

from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

transactional = False

_BATCH = text("""
    WITH batch AS (SELECT id, unionid FROM users WHERE id > :after ORDER BY id LIMIT 5000),
         remembered AS (
        INSERT INTO unionids (unionid, user_id) SELECT unionid, id FROM batch WHERE unionid IS NOT NULL
        ON CONFLICT DO NOTHING
    )
    SELECT max(id::text)::uuid FROM batch
""")


def upgrade() -> None:
    after = "00000000-0000-0000-0000-000000000000"
    while after is not None:
        after = op.get_bind().execute(_BATCH, {"after": after}).scalar_one()
    op.execute("ALTER TABLE events VALIDATE CONSTRAINT events_type_check")


def downgrade() -> None:
    op.execute("ALTER TABLE events DROP CONSTRAINT events_type_check")
    op.execute("ALTER TABLE events ADD CONSTRAINT events_type_check CHECK (type ~ '^[a-z][a-z_.]{0,63}$') NOT VALID")
