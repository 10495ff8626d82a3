"""The database refuses invalid data."""

import asyncpg
import pytest

from tests.sweeps import swept
from tests.world import Rows

pytestmark = pytest.mark.oldest_postgres

ALICE, BOB, NOBODY = (f"01933c5e-8f1a-7c3e-9b1d-00000000000{n}" for n in range(3))
SESSION, OTHER = (f"01933c5e-8f1b-7c3e-9b1d-00000000000{n}" for n in range(2))

SESSION_COLUMNS = "INSERT INTO sessions (id, user_id, app_id, openid, created_at, last_used_at, expires_at)"
PHONE_ANSWER_COLUMNS = "INSERT INTO phone_answers (code_hash, app_id, openid, sealed, asked_at, settled_at)"
AVATAR_COLUMNS = "INSERT INTO avatars (id, user_id, content_type, content, created_at)"
EVENT_COLUMNS = "INSERT INTO events (id, type, at, actor, data)"
AVATAR = "Yp4Zt2Vq8nCwRk1EtTmHYj"
SIGNING_KEY_COLUMNS = (
    "INSERT INTO signing_keys (id, alg, kid, public_jwk, private_key, created_at, activates_at, retires_at)"
)


@pytest.fixture
async def stored(rows: Rows) -> asyncpg.Connection:
    """Two people, one in one app and one in another; a session of hers; a signing key."""
    await rows.execute(f"""
        INSERT INTO users (id, unionid, created_at, last_login_at)
        VALUES ('{ALICE}', 'union-alice', now(), now()), ('{BOB}', NULL, now(), now());
        INSERT INTO identities (app_id, openid, user_id, created_at)
        VALUES ('wxa', 'openid-alice', '{ALICE}', now()), ('wxb', 'openid-bob', '{BOB}', now());
        {SESSION_COLUMNS}
        VALUES ('{SESSION}', '{ALICE}', 'wxa', 'openid-alice', now(), now(), now() + interval '30 days');
        {SIGNING_KEY_COLUMNS} VALUES ('{SESSION}', 'ES256', 'kid', '{{}}', '\\x00', now(), now(), NULL);
    """)
    return rows


@swept(
    ("constraint", "statement"),
    [
        ("users_pkey", f"UPDATE users SET id = '{ALICE}'"),
        ("users_unionid_key", "UPDATE users SET unionid = 'union-alice'"),
        ("users_unionid_check", "UPDATE users SET unionid = ''"),
        ("users_status_check", "UPDATE users SET status = 'banned'"),
        ("users_status_check", "UPDATE users SET status = ''"),
        ("users_nickname_check", "UPDATE users SET nickname = ''"),
        ("users_nickname_check", "UPDATE users SET nickname = repeat('小', 65)"),
        ("users_avatar_url_check", "UPDATE users SET avatar_url = ''"),
        ("users_avatar_url_check", "UPDATE users SET avatar_url = repeat('x', 2049)"),
        ("users_phone_check", "UPDATE users SET phone = ''"),
        ("users_phone_check", "UPDATE users SET phone = '13800138000'"),
        ("users_phone_check", "UPDATE users SET phone = '+0138001'"),
        ("users_phone_check", "UPDATE users SET phone = '+8613800138000' || chr(10)"),
        ("users_phone_check", "UPDATE users SET phone = '+1234567890123456'"),
        ("users_roles_number_check", "UPDATE users SET roles = ARRAY(SELECT 'r' || n FROM generate_series(1, 33) n)"),
        ("users_roles_check", "UPDATE users SET roles = '{Admin}'"),
        ("users_roles_check", "UPDATE users SET roles = '{1st}'"),
        ("users_roles_check", "UPDATE users SET roles = '{admin,\"\"}'"),
        ("users_roles_check", "UPDATE users SET roles = '{\"\"}'"),
        ("users_roles_check", "UPDATE users SET roles = '{NULL}'"),
        ("users_roles_check", "UPDATE users SET roles = '{admin,NULL}'"),
        ("users_roles_check", "UPDATE users SET roles = '{\"admin,editor\"}'"),
        ("users_roles_check", "UPDATE users SET roles = '{{admin},{editor}}'"),
        ("users_roles_check", "UPDATE users SET roles = ARRAY['admin' || chr(10)]"),
        ("users_roles_check", "UPDATE users SET roles = ARRAY[repeat('x', 33)]"),
        ("users_ban_reason_check", "UPDATE users SET status = 'disabled', ban_reason = ''"),
        ("users_ban_check", "UPDATE users SET ban_reason = 'spam'"),
        ("users_ban_check", "UPDATE users SET banned_until = now()"),
        ("identities_pkey", f"INSERT INTO identities VALUES ('wxa', 'openid-alice', '{BOB}', now())"),
        ("identities_user_id_fkey", f"INSERT INTO identities VALUES ('wxa', 'new', '{NOBODY}', now())"),
        ("identities_app_id_check", f"INSERT INTO identities VALUES ('', 'new', '{BOB}', now())"),
        ("identities_openid_check", f"INSERT INTO identities VALUES ('wxa', '', '{BOB}', now())"),
        (
            "sessions_pkey",
            f"{SESSION_COLUMNS} VALUES ('{SESSION}', '{ALICE}', 'wxa', 'openid-alice', now(), now(), now())",
        ),
        (
            "sessions_user_id_fkey",
            f"{SESSION_COLUMNS} VALUES ('{OTHER}', '{NOBODY}', 'wxa', 'openid-alice', now(), now(), now())",
        ),
        (
            "phone_answers_app_id_openid_fkey",
            f"{PHONE_ANSWER_COLUMNS} VALUES (sha256(''), 'wxa', 'openid-bob', '\\x00', now(), NULL)",
        ),
        (
            "phone_answers_code_hash_check",
            f"{PHONE_ANSWER_COLUMNS} VALUES ('\\x00', 'wxa', 'openid-alice', '\\x00', now(), NULL)",
        ),
        (
            "phone_answers_settled_at_check",
            f"{PHONE_ANSWER_COLUMNS} VALUES (sha256(''), 'wxa', 'openid-alice', NULL, now(), NULL)",
        ),
        (
            "phone_answers_settled_at_check",
            f"{PHONE_ANSWER_COLUMNS} VALUES (sha256(''), 'wxa', 'openid-alice', '\\x00', now(), now())",
        ),
        ("avatars_user_id_fkey", f"{AVATAR_COLUMNS} VALUES ('{AVATAR}', '{NOBODY}', 'image/png', '\\x00', now())"),
        ("avatars_id_check", f"{AVATAR_COLUMNS} VALUES ('1', '{ALICE}', 'image/png', '\\x00', now())"),
        ("avatars_content_type_check", f"{AVATAR_COLUMNS} VALUES ('{AVATAR}', '{ALICE}', 'image/svg', '\\x00', now())"),
        ("avatars_content_check", f"{AVATAR_COLUMNS} VALUES ('{AVATAR}', '{ALICE}', 'image/png', '', now())"),
        (
            "avatars_user_id_key",
            f"{AVATAR_COLUMNS} VALUES ('{AVATAR}', '{ALICE}', 'image/png', '\\x00', now()), "
            f"('{AVATAR[::-1]}', '{ALICE}', 'image/png', '\\x00', now())",
        ),
        ("sessions_state_check", "UPDATE sessions SET generation = -1"),
        ("sessions_state_check", "UPDATE sessions SET expires_at = created_at - interval '1 second'"),
        ("sessions_state_check", "UPDATE sessions SET revoked_at = now()"),
        ("sessions_state_check", "UPDATE sessions SET revoked_reason = 'banned'"),
        (
            "sessions_state_check",
            "UPDATE sessions SET revoked_at = now(), revoked_reason = 'banned', session_key = '\\x00'",
        ),
        ("events_type_check", f"{EVENT_COLUMNS} VALUES ('{OTHER}', 'User Created', now(), 'system', '{{}}')"),
        ("events_actor_check", f"{EVENT_COLUMNS} VALUES ('{OTHER}', 'user.created', now(), '', '{{}}')"),
        ("events_data_check", f"{EVENT_COLUMNS} VALUES ('{OTHER}', 'user.created', now(), 'system', '[]')"),
        (
            "signing_keys_kid_key",
            f"{SIGNING_KEY_COLUMNS} VALUES ('{OTHER}', 'ES256', 'kid', '{{}}', '', now(), now(), NULL)",
        ),
        ("signing_keys_alg_check", "UPDATE signing_keys SET alg = 'HS256'"),
        ("signing_keys_retires_at_check", "UPDATE signing_keys SET retires_at = activates_at"),
    ],
)
async def test_wrong_data_is_refused(stored: asyncpg.Connection, constraint: str, statement: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
        await stored.execute(statement)
    assert refused.value.constraint_name == constraint


@swept(
    "column",
    ["users.roles", "users.status", "users.created_at", "identities.user_id", "sessions.user_id", "sessions.openid"],
)
async def test_a_required_column_cannot_be_null(stored: asyncpg.Connection, column: str) -> None:
    table, name = column.split(".")
    with pytest.raises(asyncpg.NotNullViolationError):
        await stored.execute(f"UPDATE {table} SET {name} = NULL")


@pytest.mark.parametrize(
    "assignment",
    [
        "nickname = repeat('小', 64)",
        "avatar_url = repeat('x', 2048)",
        "phone = '+8613800138000'",
        "roles = ARRAY(SELECT 'r' || n FROM generate_series(1, 32) n)",
        "roles = ARRAY[repeat('x', 32), 'a-b_9', 'null', 'a']",
        "roles = '{}'",
    ],
)
async def test_right_data_is_taken(stored: asyncpg.Connection, assignment: str) -> None:
    await stored.execute(f"UPDATE users SET {assignment}")


async def test_erasing_a_user_takes_identities_and_sessions_along(stored: asyncpg.Connection) -> None:
    await stored.execute(f"DELETE FROM users WHERE id = '{ALICE}'")
    assert await stored.fetchval("SELECT array_agg(openid) FROM identities") == ["openid-bob"]
    assert await stored.fetchval("SELECT count(*) FROM sessions") == 0


async def test_deleting_an_identity_deletes_only_its_own_sessions(stored: asyncpg.Connection) -> None:
    await stored.execute(f"""
        INSERT INTO identities (app_id, openid, user_id, created_at) VALUES ('wxb', 'openid-alice', '{ALICE}', now());
        {SESSION_COLUMNS} VALUES ('{OTHER}', '{ALICE}', 'wxb', 'openid-alice', now(), now(), now());
        DELETE FROM identities WHERE app_id = 'wxa';
    """)
    assert [str(row["id"]) for row in await stored.fetch("SELECT id FROM sessions")] == [OTHER]


async def test_the_sessions_of_an_identity_move_with_the_identity(stored: asyncpg.Connection) -> None:
    await stored.execute(f"UPDATE identities SET user_id = '{BOB}' WHERE openid = 'openid-alice'")
    assert str(await stored.fetchval("SELECT user_id FROM sessions")) == BOB
