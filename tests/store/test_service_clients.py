"""Service clients as they are stored, whoever writes them."""

import asyncpg
import pytest


@pytest.mark.parametrize(
    ("constraint", "values"),
    [
        ("service_clients_name_check", "'', sha256('a'), now()"),
        ("service_clients_name_check", "'Billing', sha256('a'), now()"),
        ("service_clients_name_check", "'-billing', sha256('a'), now()"),
        ("service_clients_name_check", "'billing' || chr(10), sha256('a'), now()"),
        ("service_clients_name_check", "repeat('a', 65), sha256('a'), now()"),
        ("service_clients_secret_hash_check", "'billing', '', now()"),
        ("service_clients_secret_hash_check", "'billing', 'the secret itself, in plain text, of 43 letters', now()"),
        ("service_clients_pkey", "'ledger', sha256('a'), now()"),
        ("service_clients_scopes_check", "'billing', sha256('a'), now(), '{introspect,everything}'"),
        ("service_clients_former_secret_check", "'billing', sha256('a'), now(), '{users}', sha256('b'), NULL"),
        ("service_clients_former_secret_check", "'billing', sha256('a'), now(), '{users}', 'b', now()"),
        ("service_clients_former_secret_check", "'billing', sha256('a'), now(), '{users}', NULL, now()"),
    ],
)
async def test_wrong_data_is_refused(rows: asyncpg.Connection, constraint: str, values: str) -> None:
    await rows.execute("INSERT INTO service_clients VALUES ('ledger', sha256('a'), now())")
    with pytest.raises(asyncpg.IntegrityConstraintViolationError) as refused:
        await rows.execute(f"INSERT INTO service_clients VALUES ({values})")
    assert refused.value.constraint_name == constraint
