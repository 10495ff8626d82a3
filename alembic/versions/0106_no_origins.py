"""The removal of columns that recorded which user contributed which data to a merge.

An identity is now split from a user without that history. The previous version writes these columns, so stop all of its
replicas first.
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
    """Drop the columns."""
    for table, columns in COLUMNS.items():
        op.execute(f"ALTER TABLE {table} {', '.join(f'DROP COLUMN {name}' for name in columns)}")


def downgrade() -> None:
    """Add the columns without their values."""
    for table, columns in COLUMNS.items():
        op.execute(f"ALTER TABLE {table} {', '.join(f'ADD COLUMN {name} {kind}' for name, kind in columns.items())}")
