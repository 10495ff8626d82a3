"""The removal of columns that recorded which user contributed which data to a merge.

An identity is now split from a user without that history. The previous version writes these columns, so stop all of its
replicas first.
"""

from alembic import op

revision, down_revision = "0106", "0105"

# The removed columns with their types, by table.
COLUMNS = {
    "users": {
        "nickname_from": "UUID",
        "avatar_url_from": "UUID",
        "phone_from": "UUID",
        "external_id_from": "UUID",
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
        actions = ", ".join(f"DROP COLUMN {name}" for name in columns)
        op.execute(f"ALTER TABLE {table} {actions}")


def downgrade() -> None:
    """Add the columns without their values."""
    for table, columns in COLUMNS.items():
        actions = ", ".join(f"ADD COLUMN {name} {column_type}" for name, column_type in columns.items())
        op.execute(f"ALTER TABLE {table} {actions}")
