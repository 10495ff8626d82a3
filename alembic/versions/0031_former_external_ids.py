"""The external ids of users who were merged into others, so that what is kept under them is still found."""

from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute("""
        CREATE TABLE former_external_ids (
            external_id varchar(128) NOT NULL,
            user_id uuid NOT NULL,
            CONSTRAINT former_external_ids_pkey PRIMARY KEY (external_id),
            CONSTRAINT former_external_ids_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE
        )
    """)
    op.execute("CREATE INDEX former_external_ids_user_id_idx ON former_external_ids (user_id)")


def downgrade() -> None:
    op.execute("DROP TABLE former_external_ids")
