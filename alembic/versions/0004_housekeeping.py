"""How far the sweep of ended sessions has come."""

from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(r"""
        CREATE TABLE sweeps (
            name text NOT NULL,
            after uuid NOT NULL,
            due_at timestamptz NOT NULL,
            CONSTRAINT sweeps_pkey PRIMARY KEY (name)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE sweeps")
