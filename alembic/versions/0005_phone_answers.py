"""WeChat's answers to phone codes, and an index that finds the user who has a number."""

from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.execute(r"""
        CREATE TABLE phone_answers (
            code_hash bytea NOT NULL,
            app_id text NOT NULL,
            openid text NOT NULL,
            sealed bytea,
            asked_at timestamptz NOT NULL,
            refused_at timestamptz,
            settled_at timestamptz,
            CONSTRAINT phone_answers_pkey PRIMARY KEY (code_hash),
            CONSTRAINT phone_answers_app_id_openid_fkey FOREIGN KEY (app_id, openid)
                REFERENCES identities (app_id, openid) ON UPDATE CASCADE ON DELETE CASCADE,
            CONSTRAINT phone_answers_code_hash_check CHECK (octet_length(code_hash) = 32),
            CONSTRAINT phone_answers_settled_at_check CHECK ((sealed IS NULL) = (settled_at IS NOT NULL))
        )
    """)
    op.execute("CREATE INDEX phone_answers_app_id_openid_idx ON phone_answers (app_id, openid)")
    op.execute("CREATE INDEX phone_answers_asked_at_idx ON phone_answers (asked_at)")
    op.execute(r"""
        CREATE INDEX phone_answers_pending_idx ON phone_answers (asked_at)
            WHERE sealed IS NOT NULL AND refused_at IS NULL
    """)
    op.execute("CREATE INDEX users_phone_idx ON users (phone) WHERE phone IS NOT NULL")


def downgrade() -> None:
    op.execute("DROP INDEX users_phone_idx")
    op.execute("DROP TABLE phone_answers")
