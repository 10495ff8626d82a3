"""The database refuses invalid logins to sites."""

import asyncpg
import pytest

from tests.sweeps import swept
from tests.world import Rows

SITE = (
    "INSERT INTO clients (name, title, scopes, device, id_token_alg, created_at, secret_hash)"
    " VALUES ('shop', 'Shop', '{openid}', true, 'RS256', now(), sha256('a'))"
)
USER = "INSERT INTO users (id, created_at) VALUES (gen_random_uuid(), now())"
IDENTITY = "INSERT INTO identities (app_id, openid, user_id, created_at) SELECT 'wx1', 'o1', id, now() FROM users"
LOGIN = (
    "INSERT INTO site_logins (id, client_id, scope, redirect_uri, response_mode, stage, door, app_id, openid,"
    " authenticated_at, authenticated_by, granted_until, created_at, expires_at, kept_until, scene_hash)"
    " SELECT gen_random_uuid(), 'shop', 'openid', 'https://shop.example/', 'query', 'approved', 'account', app_id,"
    " openid, now(), 'wechat_account', now(), now(), now() + '3 min', now() + '1 h', sha256('a') FROM identities"
)
ALL = (SITE, USER, IDENTITY, LOGIN)


@pytest.fixture
async def stored(rows: Rows) -> Rows:
    for statement in ALL:
        await rows.execute(statement)
    return rows


@swept(
    ("constraint", "change"),
    [
        ("site_fkey", "client_id = 'nobody'"),
        ("app_id_openid_fkey", "openid = 'o2'"),
        ("stage_check", "stage = 'perhaps'"),
        ("door_check", "door = 'window', claimed_session_id = id"),
        ("response_mode_check", "response_mode = 'fragment'"),
        ("expires_at_check", "expires_at = created_at - interval '1 s'"),
        ("kept_until_check", "kept_until = expires_at - interval '1 s'"),
        ("query_check", "query = 'client_id=shop'"),
        ("stage_door_check", "stage = 'claimed', openid = NULL, door = NULL"),
        ("number_check", "number = sha256('a')"),
        ("outcome_check", "outcome = 'logged_in'"),
        ("openid_check", "granted_until = NULL"),
        ("claimed_session_id_check", "door = 'scan'"),
        ("claimed_session_id_check", "claimed_session_id = id"),
        ("browser_login_id_check", "door = 'sso'"),
        ("code_check", "code_hash = sha256('a')"),
        ("session_id_check", "stage = 'redeemed'"),
        ("session_id_check", "session_id = id"),
        ("client_name_check", "client_name = 'Agent'"),
    ],
)
async def test_a_login_that_violates_a_constraint_is_refused(stored: Rows, constraint: str, change: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refusal:
        await stored.execute(f"UPDATE site_logins SET {change}")
    assert refusal.value.constraint_name == f"site_logins_{constraint}"


@swept("secret", ["page_hash", "device_code_hash", "scene_hash", "user_code_hash", "state_hash"])
async def test_a_secret_finds_one_login(stored: Rows, secret: str) -> None:
    await stored.execute(LOGIN.replace("scene_hash", secret).replace("'a'", "'b'"))
    with pytest.raises(asyncpg.UniqueViolationError):
        await stored.execute(LOGIN.replace("scene_hash", secret).replace("'a'", "'b'"))


PICTURE = "INSERT INTO scan_pictures SELECT id, 'image/png', 'x' FROM site_logins"


@swept(("constraint", "kind", "content"), [("content_type", "svg+xml", "x"), ("content", "png", "")])
async def test_an_invalid_picture_is_refused(stored: Rows, constraint: str, kind: str, content: str) -> None:
    with pytest.raises(asyncpg.CheckViolationError) as refusal:
        await stored.execute(PICTURE.replace("png", kind).replace("'x'", f"'{content}'"))
    assert refusal.value.constraint_name == f"scan_pictures_{constraint}_check"


@pytest.mark.parametrize("deleted", ["clients", "site_logins", "users"])
async def test_what_belongs_to_a_row_is_deleted_with_it(stored: Rows, deleted: str) -> None:
    await stored.execute(PICTURE)
    await stored.execute(f"DELETE FROM {deleted}")
    for table in ("site_logins", "scan_pictures"):
        assert await stored.fetchval(f"SELECT count(*) FROM {table}") == 0, table
