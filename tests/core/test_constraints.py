"""The database refuses invalid data."""

import asyncpg
import pytest

from tests.sweeps import Sweep, swept
from tests.world import Rows

pytestmark = pytest.mark.oldest_postgres

ALICE, BOB, NOBODY = (f"01933c5e-8f1a-7c3e-9b1d-00000000000{n}" for n in range(3))
SESSION, OTHER = (f"01933c5e-8f1b-7c3e-9b1d-00000000000{n}" for n in range(2))
AVATAR = "Yp4Zt2Vq8nCwRk1EtTmHYj"

COLUMNS = {
    "identities": "app_id, openid, user_id, created_at",
    "sessions": "id, user_id, app_id, openid, created_at, last_used_at, expires_at",
    "phone_answers": "code_hash, app_id, openid, sealed, asked_at, settled_at",
    "avatars": "id, user_id, content_type, content, created_at",
    "events": "id, type, at, actor, data",
    "signing_keys": "id, alg, kid, public_jwk, private_key, created_at, activates_at, retires_at",
}
INSERT = {table: f"INSERT INTO {table} ({columns}) VALUES" for table, columns in COLUMNS.items()}

OF_USERS = {
    "pkey": [f"id = '{ALICE}'"],
    "unionid_key": ["unionid = 'union-alice'"],
    "unionid_check": ["unionid = ''"],
    "status_check": ["status = 'banned'"],
    "nickname_check": ["nickname = ''", "nickname = repeat('小', 65)"],
    "avatar_url_check": ["avatar_url = ''", "avatar_url = repeat('x', 2049)"],
    "phone_check": [
        *("phone = ''", "phone = '13800138000'", "phone = '+0138001'", "phone = '+1234567890123456'"),
        "phone = '+8613800138000' || chr(10)",
    ],
    "roles_number_check": ["roles = ARRAY(SELECT 'r' || n FROM generate_series(1, 33) n)"],
    "roles_check": [
        *("roles = '{Admin}'", "roles = '{1st}'", "roles = '{admin,\"\"}'", "roles = '{\"\"}'", "roles = '{NULL}'"),
        *("roles = '{admin,NULL}'", "roles = '{\"admin,editor\"}'", "roles = '{{admin},{editor}}'"),
        *("roles = ARRAY['admin' || chr(10)]", "roles = ARRAY[repeat('x', 33)]"),
    ],
    "ban_reason_check": ["status = 'disabled', ban_reason = ''"],
    "ban_check": ["ban_reason = 'spam'", "banned_until = now()"],
}
OF_SESSIONS = [
    *("generation = -1", "expires_at = created_at - interval '1 second'", "revoked_at = now()"),
    *("revoked_reason = 'banned'", "revoked_at = now(), revoked_reason = 'banned', session_key = '\\x00'"),
]
INSERTED = {
    "identities_pkey": f"'wxa', 'openid-alice', '{BOB}', now()",
    "identities_user_id_fkey": f"'wxa', 'new', '{NOBODY}', now()",
    "identities_app_id_check": f"'', 'new', '{BOB}', now()",
    "identities_openid_check": f"'wxa', '', '{BOB}', now()",
    "sessions_pkey": f"'{SESSION}', '{ALICE}', 'wxa', 'openid-alice', now(), now(), now()",
    "sessions_user_id_fkey": f"'{OTHER}', '{NOBODY}', 'wxa', 'openid-alice', now(), now(), now()",
    "phone_answers_app_id_openid_fkey": "sha256(''), 'wxa', 'openid-bob', '\\x00', now(), NULL",
    "phone_answers_code_hash_check": "'\\x00', 'wxa', 'openid-alice', '\\x00', now(), NULL",
    "phone_answers_settled_at_check": "sha256(''), 'wxa', 'openid-alice', NULL, now(), NULL",
    "phone_answers_settled_at_check ": "sha256(''), 'wxa', 'openid-alice', '\\x00', now(), now()",
    "avatars_user_id_fkey": f"'{AVATAR}', '{NOBODY}', 'image/png', '\\x00', now()",
    "avatars_id_check": f"'1', '{ALICE}', 'image/png', '\\x00', now()",
    "avatars_content_type_check": f"'{AVATAR}', '{ALICE}', 'image/svg', '\\x00', now()",
    "avatars_content_check": f"'{AVATAR}', '{ALICE}', 'image/png', '', now()",
    "avatars_user_id_key": f"'{AVATAR}', '{ALICE}', 'image/png', '\\x00', now()), "
    f"('{AVATAR[::-1]}', '{ALICE}', 'image/png', '\\x00', now()",
    "events_type_check": f"'{OTHER}', 'User Created', now(), 'system', '{{}}'",
    "events_actor_check": f"'{OTHER}', 'user.created', now(), '', '{{}}'",
    "events_data_check": f"'{OTHER}', 'user.created', now(), 'system', '[]'",
    "signing_keys_kid_key": f"'{OTHER}', 'ES256', 'kid', '{{}}', '', now(), now(), NULL",
}
WRONG = [
    *((f"users_{name}", f"UPDATE users SET {each}") for name, wrong in OF_USERS.items() for each in wrong),
    *(("sessions_state_check", f"UPDATE sessions SET {each}") for each in OF_SESSIONS),
    *(
        (name.strip(), f"{next(INSERT[table] for table in INSERT if name.startswith(table))} ({values})")
        for name, values in INSERTED.items()
    ),
    ("signing_keys_alg_check", "UPDATE signing_keys SET alg = 'HS256'"),
    ("signing_keys_retires_at_check", "UPDATE signing_keys SET retires_at = activates_at"),
]


@pytest.fixture
async def stored(rows: Rows) -> asyncpg.Connection:
    """A database with two users in different apps, a session of the first user, and a signing key."""
    await rows.execute(f"""
        INSERT INTO users (id, unionid, created_at, last_login_at)
        VALUES ('{ALICE}', 'union-alice', now(), now()), ('{BOB}', NULL, now(), now());
        {INSERT["identities"]} ('wxa', 'openid-alice', '{ALICE}', now()), ('wxb', 'openid-bob', '{BOB}', now());
        {INSERT["sessions"]}
        ('{SESSION}', '{ALICE}', 'wxa', 'openid-alice', now(), now(), now() + interval '30 days');
        {INSERT["signing_keys"]} ('{SESSION}', 'ES256', 'kid', '{{}}', '\\x00', now(), now(), NULL);
    """)
    return rows


@swept(("constraint", "statement"), WRONG)
async def test_wrong_data_is_refused(stored: asyncpg.Connection, constraint: str, statement: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
        await stored.execute(statement)
    assert refused.value.constraint_name == constraint


async def test_a_required_column_cannot_be_null(stored: asyncpg.Connection) -> None:
    with Sweep() as sweep:
        for table, columns in {"users": "roles status created_at", "sessions": "user_id openid"}.items():
            for column in columns.split():
                with sweep.case(column), pytest.raises(asyncpg.NotNullViolationError):
                    await stored.execute(f"UPDATE {table} SET {column} = NULL")


async def test_right_data_is_taken(stored: asyncpg.Connection) -> None:
    for assignment in (
        "nickname = repeat('小', 64), avatar_url = repeat('x', 2048), phone = '+8613800138000'",
        "roles = ARRAY(SELECT 'r' || n FROM generate_series(1, 32) n)",
        "roles = ARRAY[repeat('x', 32), 'a-b_9', 'null', 'a']",
        "roles = '{}'",
    ):
        await stored.execute(f"UPDATE users SET {assignment}")


async def test_sessions_move_and_go_with_their_identity_which_goes_with_its_user(stored: asyncpg.Connection) -> None:
    await stored.execute(f"""
        {INSERT["identities"]} ('wxb', 'openid-alice', '{ALICE}', now());
        {INSERT["sessions"]} ('{OTHER}', '{ALICE}', 'wxb', 'openid-alice', now(), now(), now());
        UPDATE identities SET user_id = '{BOB}' WHERE app_id = 'wxa';
    """)
    assert dict(await stored.fetch("SELECT id::text, user_id::text FROM sessions")) == {SESSION: BOB, OTHER: ALICE}
    await stored.execute("DELETE FROM identities WHERE app_id = 'wxa'")
    assert [str(row["id"]) for row in await stored.fetch("SELECT id FROM sessions")] == [OTHER]
    await stored.execute(f"DELETE FROM users WHERE id = '{ALICE}'")
    assert await stored.fetchval("SELECT array_agg(openid) FROM identities") == ["openid-bob"]
    assert await stored.fetchval("SELECT count(*) FROM sessions") == 0
