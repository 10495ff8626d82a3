"""Forgets which user brought what in a merge: an identity is taken out of a user without its history.

The version before writes these columns, so all of its replicas must be stopped first.
"""

from alembic import op

revision, down_revision = "0106", "0105"

COLUMNS = {
    "users": {
        **dict.fromkeys(("nickname_from", "avatar_url_from", "phone_from", "external_id_from"), "UUID"),
        "earlier_bans": "JSONB",
    },
    "identities": {"came_from": "UUID"},
    "unionids": {"came_from": "UUID"},
    "former_users": {"merged_into": "UUID"},
    "former_external_ids": {"came_from": "UUID"},
}


def upgrade() -> None:
    """Drop them."""
    for table, columns in COLUMNS.items():
        op.execute(f"ALTER TABLE {table} {', '.join(f'DROP COLUMN {name}' for name in columns)}")


def downgrade() -> None:
    """Add them without their values."""
    for table, columns in COLUMNS.items():
        op.execute(f"ALTER TABLE {table} {', '.join(f'ADD COLUMN {name} {kind}' for name, kind in columns.items())}")
