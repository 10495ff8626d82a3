"""Pictures of users. A picture is deleted as soon as the user's avatar_url no longer leads to it."""

from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(r"""
        CREATE TABLE avatars (
            id text NOT NULL,
            user_id uuid NOT NULL,
            content_type text NOT NULL,
            content bytea NOT NULL,
            created_at timestamptz NOT NULL,
            CONSTRAINT avatars_pkey PRIMARY KEY (id),
            CONSTRAINT avatars_user_id_key UNIQUE (user_id),
            CONSTRAINT avatars_user_id_fkey FOREIGN KEY (user_id) REFERENCES users (id) ON DELETE CASCADE,
            CONSTRAINT avatars_id_check CHECK (id ~ '^[A-Za-z0-9_-]{22}$'),
            CONSTRAINT avatars_content_type_check CHECK (content_type IN ('image/jpeg', 'image/png')),
            CONSTRAINT avatars_content_check CHECK (octet_length(content) BETWEEN 1 AND 2097152)
        )
    """)
    op.execute("ALTER TABLE avatars ALTER COLUMN content SET STORAGE EXTERNAL")
    op.execute(r"""
        CREATE FUNCTION forget_former_avatar() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            DELETE FROM avatars
             WHERE user_id = NEW.id AND strpos(COALESCE(NEW.avatar_url, ''), '/v1/avatars/' || id || '.') = 0;
            RETURN NULL;
        END
        $$
    """)
    op.execute(r"""
        CREATE TRIGGER users_forget_former_avatar AFTER UPDATE OF avatar_url ON users
            FOR EACH ROW WHEN (OLD.avatar_url IS DISTINCT FROM NEW.avatar_url)
            EXECUTE FUNCTION forget_former_avatar()
    """)


def downgrade() -> None:
    op.execute("DROP TRIGGER users_forget_former_avatar ON users")
    op.execute("DROP FUNCTION forget_former_avatar")
    op.execute("DROP TABLE avatars")
