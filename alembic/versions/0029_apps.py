"""Apps that are added while the service runs, their secrets sealed."""

from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(r"""
        CREATE TABLE apps (
            app_id text NOT NULL,
            title text,
            app_secret bytea NOT NULL,
            push_token bytea,
            push_aes_key bytea,
            sign_up text,
            is_enabled boolean NOT NULL DEFAULT true,
            created_at timestamptz NOT NULL,
            CONSTRAINT apps_pkey PRIMARY KEY (app_id),
            CONSTRAINT apps_app_id_check CHECK (app_id ~ '^[A-Za-z0-9_-]{1,64}$'),
            CONSTRAINT apps_title_check CHECK (char_length(title) BETWEEN 1 AND 64),
            CONSTRAINT apps_sign_up_check CHECK (sign_up IN ('open', 'closed')),
            CONSTRAINT apps_push_aes_key_check CHECK (push_aes_key IS NULL OR push_token IS NOT NULL)
        )
    """)


def downgrade() -> None:
    op.execute("DROP TABLE apps")
