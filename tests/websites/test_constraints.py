"""The database refuses invalid sites and scans."""

from collections.abc import Sequence

import asyncpg
import pytest

SITE = (
    "INSERT INTO clients (name, title, scopes, device, id_token_alg, created_at, secret_hash)"
    " VALUES ('shop', 'Shop', '{openid}', true, 'RS256', now(), sha256('a'))"
)
REQUEST = (
    "INSERT INTO site_requests (id, client_id, scope, created_at, expires_at, kept_until)"
    " VALUES (gen_random_uuid(), 'shop', 'openid', now(), now() + '3 min', now() + '1 h')"
)
PAGE = (
    "INSERT INTO login_pages (request_id, page_hash, browser_hash, redirect_uri, response_mode, code_challenge)"
    " SELECT id, sha256('a'), sha256('b'), 'https://shop.example/', 'query', 'c' FROM site_requests"
)
SCAN = (
    "INSERT INTO scans (id, request_id, scene_hash, user_code_hash, expires_at)"
    " SELECT id, id, sha256('a'), sha256('b'), expires_at FROM site_requests"
)
VISIT = (
    "INSERT INTO visits (id, request_id, door, app_id, state_hash, created_at, expires_at)"
    " SELECT id, id, 'account', 'wx1', sha256('a'), created_at, expires_at FROM site_requests"
)
USER = "INSERT INTO users (id, created_at) VALUES (gen_random_uuid(), now())"
IDENTITY = "INSERT INTO identities (app_id, openid, user_id, created_at) SELECT 'wx1', 'o1', id, now() FROM users"
GRANT = (
    "INSERT INTO grants (id, client_id, scope, door, app_id, openid, authenticated_at, authenticated_by,"
    " expires_at) SELECT gen_random_uuid(), 'shop', 'openid', 'account', app_id, openid, now(), 'wechat_account', now()"
    " FROM identities"
)
CODE = (
    "INSERT INTO authorization_codes (grant_id, code_hash, redirect_uri, code_challenge, expires_at)"
    " SELECT id, sha256('a'), 'https://shop.example/', 'c', now() FROM grants"
)
ALL = (SITE, REQUEST, PAGE, SCAN, VISIT, USER, IDENTITY, GRANT, CODE)


@pytest.mark.parametrize(
    ("constraint", "statement"),
    [
        ("site_requests_client_id_fkey", REQUEST.replace("'shop'", "'nobody'")),
        ("site_requests_expires_at_check", "UPDATE site_requests SET expires_at = created_at"),
        ("site_requests_kept_until_check", "UPDATE site_requests SET kept_until = expires_at - interval '1 s'"),
        ("login_pages_response_mode_check", "UPDATE login_pages SET response_mode = 'fragment'"),
        ("scans_claim_check", "UPDATE scans SET claimed_at = now()"),
        ("scans_claim_check", "UPDATE scans SET claimed_at = now(), claimed_session_id = id"),
        ("scans_door_check", "UPDATE scans SET claimed_at = now(), claimed_session_id = id, door = 'account'"),
        ("scans_verdict_check", "UPDATE scans SET verdict = 'approved'"),
        (
            "scans_verdict_check",
            "UPDATE scans SET verdict = 'perhaps', claimed_at = now(), claimed_session_id = id, door = 'scan'",
        ),
        ("scan_pictures_content_type_check", "INSERT INTO scan_pictures SELECT id, 'image/svg+xml', 'x' FROM scans"),
        ("scan_pictures_content_check", "INSERT INTO scan_pictures SELECT id, 'image/png', '' FROM scans"),
        ("visits_door_check", "UPDATE visits SET door = 'scan'"),
        ("visits_outcome_check", "UPDATE visits SET outcome = 'logged_in'"),
        ("visits_expires_at_check", "UPDATE visits SET expires_at = created_at"),
        ("grants_client_id_fkey", "UPDATE grants SET client_id = 'nobody'"),
        ("grants_app_id_openid_fkey", "UPDATE grants SET openid = 'o2'"),
        ("grants_door_check", "UPDATE grants SET door = 'window', approving_session_id = id"),
        ("grants_approving_session_id_check", "UPDATE grants SET door = 'scan'"),
        ("grants_approving_session_id_check", "UPDATE grants SET approving_session_id = id"),
        ("wrong_user_codes_user_id_fkey", "INSERT INTO wrong_user_codes SELECT id, now(), 1 FROM scans"),
    ],
)
async def test_a_row_that_violates_a_constraint_is_refused(
    rows: asyncpg.Connection, constraint: str, statement: str
) -> None:
    for before in ALL:
        await rows.execute(before)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refusal:
        await rows.execute(statement)
    assert refusal.value.constraint_name == constraint


PICTURE = "INSERT INTO scan_pictures SELECT id, 'image/png', 'x' FROM scans"
OF_A_REQUEST = ("site_requests", "login_pages", "scans", "scan_pictures", "visits")
OF_A_GRANT = ("grants", "authorization_codes")


@pytest.mark.parametrize(
    ("deleted", "goes"),
    [("clients", (*OF_A_REQUEST, *OF_A_GRANT)), ("site_requests", OF_A_REQUEST), ("users", OF_A_GRANT)],
)
async def test_what_belongs_to_a_row_is_deleted_with_it(
    rows: asyncpg.Connection, deleted: str, goes: Sequence[str]
) -> None:
    for statement in (*ALL, PICTURE):
        await rows.execute(statement)
    await rows.execute(f"DELETE FROM {deleted}")
    for table in (*OF_A_REQUEST, *OF_A_GRANT):
        assert await rows.fetchval(f"SELECT count(*) FROM {table}") == (0 if table in goes else 1), table
