"""After a secret key is lost, `wxauth secret forget` erases the values that it sealed, and keeps the users."""

import asyncio
import json
from base64 import b64decode
from dataclasses import asdict

import pytest

from tests.fakes import OTHER_SECRET_KEY, SECRET_KEY
from tests.keys.conftest import WxAuth
from tests.problems import problem_of
from tests.world import Stage, bearer, until
from wxauth.core.sealing import CannotOpen, Sealer
from wxauth.service.resealing import SealedCounts, forget

pytestmark = pytest.mark.no_signing_key

NEW_SEALER = Sealer([b64decode(OTHER_SECRET_KEY)])

WEBHOOK = """
INSERT INTO webhooks (id, name, url, secret, created_at)
VALUES (gen_random_uuid(), 'orders', 'https://orders.example.com/', 'sealed by the lost one', now());
"""
APP = """
INSERT INTO apps (app_id, fields, secrets, is_enabled, created_at)
VALUES ('wx00000000000000ff', '{}', 'sealed by the lost one', true, now());
"""
"""An app that was added while the service ran."""
PHONE_ANSWER = """
INSERT INTO phone_answers (code_hash, app_id, openid, sealed, asked_at)
SELECT decode(repeat('00', 32), 'hex'), app_id, openid, 'sealed by the lost one', now() FROM identities LIMIT 1;
"""
"""A stored response to a phone code. WeChat has charged for it, but it isn't bound to a user yet."""


@pytest.mark.process
async def test_a_service_starts_again_and_everybody_is_who_they_were(stage: Stage, wxauth: WxAuth) -> None:
    alice, _ = await stage.login("alice", nickname="小爱"), await stage.login("bob")
    await stage.rows.execute(PHONE_ANSWER + WEBHOOK + APP)
    with pytest.raises(CannotOpen):
        await stage.make_services(secret_key=OTHER_SECRET_KEY)

    given_up = "erased: 1 signing keys, 2 session keys, 1 phone number responses, 1 webhook secrets, 1 apps\n"
    status, output, errors = await wxauth("secret", "forget", "--yes", WXAUTH_SECRET_KEY=OTHER_SECRET_KEY)
    assert (status, output.startswith(given_up), errors) == (0, True, "")
    assert await stage.rows.fetchval("SELECT is_enabled FROM webhooks") is False
    assert await stage.number("apps") == 0
    kinds = {row["type"] for row in await stage.rows.fetch("SELECT type FROM events")}
    assert kinds >= {"webhook.disabled", "app.removed"}

    client = await stage.make(secret_key=OTHER_SECRET_KEY)
    problem_of(await client.get("/v1/me", headers=bearer(alice)), "invalid_token", 401)
    refused = await client.post("/v1/refresh", json={"refresh_token": alice["refresh_token"]})
    problem_of(refused, "invalid_refresh_token", 400)
    again = await stage.login("alice", at=client)
    assert again["is_new_user"] is False
    assert (again["user"]["id"], again["user"]["nickname"]) == (alice["user"]["id"], "小爱")
    assert (await client.get("/v1/me", headers=bearer(again))).status_code == 200


@pytest.mark.process
async def test_nothing_is_erased_that_opens_or_without_confirmation(stage: Stage, wxauth: WxAuth) -> None:
    await stage.login("alice")
    everything = (
        "SELECT (SELECT array_agg(session_key) FROM sessions), (SELECT array_agg(private_key) FROM signing_keys)"
    )
    before = await stage.rows.fetchrow(everything)
    rotated = {"WXAUTH_SECRET_KEY": OTHER_SECRET_KEY, "WXAUTH_SECRET_KEY_PREVIOUS": SECRET_KEY}
    done = await wxauth("secret", "forget", "--yes", "--json", **rotated)
    assert json.loads(done[1]) == asdict(SealedCounts())
    status, output, errors = await wxauth("secret", "forget", WXAUTH_SECRET_KEY=OTHER_SECRET_KEY)
    assert (status, output) == (2, "")
    assert "--yes" in errors
    assert await stage.rows.fetchrow(everything) == before


@pytest.mark.oldest_postgres
async def test_a_session_that_is_being_changed_is_waited_for(stage: Stage) -> None:
    busy, other = [(await stage.login(person))["session_id"] for person in ("alice", "bob")]
    async with stage.rows.transaction():
        await stage.rows.execute("SELECT FROM sessions WHERE id = $1 FOR UPDATE", busy)
        forgetting = asyncio.create_task(forget(stage.services.database, NEW_SEALER, now=stage.clock.now))
        await until(lambda: stage.rows.fetchval("SELECT session_key IS NULL FROM sessions WHERE id = $1", other))
        assert await stage.number("signing_keys") == 1, "the signing keys come last"
    assert await forgetting == SealedCounts(signing_keys=1, session_keys=2)


@pytest.mark.oldest_postgres
@pytest.mark.parametrize(("made", "table", "column"), [(WEBHOOK, "webhooks", "secret"), (APP, "apps", "secrets")])
async def test_what_was_renewed_meanwhile_is_kept(stage: Stage, made: str, table: str, column: str) -> None:
    await stage.rows.execute(made)
    async with stage.rows.transaction():
        await stage.rows.execute(f"UPDATE {table} SET {column} = 'renewed'")
        forgetting = asyncio.create_task(forget(stage.services.database, NEW_SEALER, now=stage.clock.now))
        await until(lambda: stage.rows.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted)"))
    assert await forgetting == SealedCounts(signing_keys=1)
    assert await stage.rows.fetchval(f"SELECT is_enabled AND {column} = 'renewed' FROM {table}") is True
