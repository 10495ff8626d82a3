"""The database refuses invalid sites and scans."""

import asyncpg
import pytest

SITE = (
    "INSERT INTO clients (name, title, scopes, device, id_token_alg, created_at, secret_hash)"
    " VALUES ('shop', 'Shop', '{openid}', true, 'RS256', now(), sha256('a'))"
)
SCAN = (
    "INSERT INTO scans (id, client_id, scope, scene_hash, user_code_hash, device_code_hash, created_at, expires_at)"
    " VALUES (gen_random_uuid(), 'shop', 'openid', sha256('a'), sha256('b'), sha256('c'), now(), now() + '3 min')"
)


@pytest.mark.parametrize(
    ("constraint", "statement"),
    [
        ("scans_client_id_fkey", SCAN.replace("'shop'", "'nobody'").replace("sha256('", "sha256('x")),
        ("scans_kind_check", "UPDATE scans SET request_hash = 'x', browser_hash = 'y'"),
        ("scans_kind_check", "UPDATE scans SET device_code_hash = NULL"),
        ("scans_browser_hash_check", "UPDATE scans SET device_code_hash = NULL, request_hash = 'x'"),
        ("scans_claimed_at_check", "UPDATE scans SET claimed_at = now()"),
        ("scans_verdict_check", "UPDATE scans SET verdict = 'approved', decided_at = now()"),
        (
            "scans_verdict_check",
            "UPDATE scans SET verdict = 'perhaps', decided_at = now(), claimed_at = now(), claimed_session_id = id",
        ),
        (
            "scans_decided_at_check",
            "UPDATE scans SET verdict = 'denied', claimed_at = now(), claimed_session_id = id",
        ),
        ("scans_code_expires_at_check", "UPDATE scans SET code_hash = 'x'"),
        ("scans_expires_at_check", "UPDATE scans SET expires_at = created_at"),
        ("scan_pictures_content_type_check", "INSERT INTO scan_pictures SELECT id, 'image/svg+xml', 'x' FROM scans"),
        ("scan_pictures_content_check", "INSERT INTO scan_pictures SELECT id, 'image/png', '' FROM scans"),
        ("wrong_user_codes_user_id_fkey", "INSERT INTO wrong_user_codes SELECT id, now(), 1 FROM scans"),
        (
            "id_token_keys_retires_at_check",
            "INSERT INTO id_token_keys VALUES (gen_random_uuid(), 'kid', '{}', 'x', now(), now(), now())",
        ),
    ],
)
async def test_a_row_that_violates_a_constraint_is_refused(
    rows: asyncpg.Connection, constraint: str, statement: str
) -> None:
    for before in (SITE, SCAN):
        await rows.execute(before)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refusal:
        await rows.execute(statement)
    assert refusal.value.constraint_name == constraint


async def test_deleting_a_client_deletes_its_scans_and_their_pictures(rows: asyncpg.Connection) -> None:
    for statement in (SITE, SCAN, "INSERT INTO scan_pictures SELECT id, 'image/png', 'x' FROM scans"):
        await rows.execute(statement)
    await rows.execute("DELETE FROM clients")
    for table in ("scans", "scan_pictures"):
        assert await rows.fetchval(f"SELECT count(*) FROM {table}") == 0
