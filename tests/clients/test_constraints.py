"""The constraints of the database reject invalid clients."""

import asyncpg
import pytest

from tests.sweeps import swept
from tests.world import Rows

pytestmark = pytest.mark.oldest_postgres

SERVICE = "INSERT INTO clients (name, secret_hash, created_at) VALUES ('ledger', sha256('a'), now())"
SITE = (
    "INSERT INTO clients (name, title, scopes, redirect_uris, logout_uris, id_token_alg, created_at, secret_hash)"
    " VALUES ('shop', 'Shop', '{users,openid}', '{https://a}', '{https://a}', 'ES256', now(), sha256('a'))"
)
PUBLIC = (
    "INSERT INTO clients (name, title, scopes, redirect_uris, is_public, id_token_alg, created_at)"
    " VALUES ('page', 'Page', '{openid}', '{https://a}', true, 'RS256', now())"
)


@pytest.fixture
async def stored(rows: Rows) -> Rows:
    for statement in (SERVICE, SITE, PUBLIC):
        await rows.execute(statement)
    return rows


@swept(
    ("constraint", "name", "change"),
    [
        ("clients_name_check", "ledger", "name = ''"),
        ("clients_name_check", "ledger", "name = 'Billing'"),
        ("clients_name_check", "ledger", "name = '-billing'"),
        ("clients_name_check", "ledger", "name = 'billing' || chr(10)"),
        ("clients_name_check", "ledger", "name = repeat('a', 65)"),
        ("clients_pkey", "ledger", "name = 'shop'"),
        ("clients_secret_hash_check", "ledger", "secret_hash = ''"),
        ("clients_secret_hash_check", "ledger", "secret_hash = 'the secret itself, in plain text, of 43 letters'"),
        ("clients_secret_hash_check", "ledger", "secret_hash = NULL"),
        ("clients_secret_hash_check", "page", "secret_hash = sha256('a')"),
        ("clients_secret_hash_check", "page", "is_public = false"),
        ("clients_former_secret_check", "ledger", "former_secret_hash = sha256('b')"),
        ("clients_former_secret_check", "ledger", "former_secret_hash = 'b', former_secret_until = now()"),
        ("clients_former_secret_check", "ledger", "former_secret_until = now()"),
        ("clients_scopes_check", "ledger", "scopes = '{introspect,everything}'"),
        ("clients_scopes_check", "ledger", "scopes = '{introspect,openid}'"),
        ("clients_scopes_check", "shop", "scopes = '{users}'"),
        ("clients_scopes_check", "shop", "scopes = '{}'"),
        ("clients_title_check", "shop", "title = ''"),
        ("clients_title_check", "shop", "title = repeat('a', 65)"),
        ("clients_grant_check", "shop", "redirect_uris = '{}'"),
        ("clients_grant_check", "ledger", "device = true"),
        ("clients_grant_check", "ledger", "phone_id_token = true"),
        ("clients_phone_id_token_check", "shop", "phone_id_token = true, near = true"),
        ("clients_phone_id_token_check", "shop", "phone_id_token = true, scopes = '{profile}'"),
        ("clients_is_public_check", "page", "device = true"),
        ("clients_id_token_alg_check", "shop", "id_token_alg = 'none'"),
        ("clients_id_token_alg_check", "shop", "id_token_alg = NULL"),
        ("clients_id_token_alg_check", "ledger", "id_token_alg = 'RS256'"),
        ("clients_service_check", "ledger", "is_public = true, secret_hash = NULL"),
        ("clients_service_check", "ledger", "near = true"),
        ("clients_service_check", "ledger", "user_code = true"),
        ("clients_service_check", "ledger", "logout_uris = '{https://a}'"),
        ("clients_service_check", "ledger", "app_id = 'wx1'"),
        ("clients_service_check", "ledger", "email_domain = 'example.com'"),
    ],
)
async def test_a_client_that_breaks_a_rule_is_refused(stored: Rows, constraint: str, name: str, change: str) -> None:
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
        await stored.execute(f"UPDATE clients SET {change} WHERE name = $1", name)
    assert refused.value.constraint_name == constraint
