"""A service that starts without its database checks the stored data before it uses the database."""

import asyncio
import math
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI

from tests.database_proxy import PATIENT, Proxy
from tests.fakes import OTHER_SECRET_KEY, service_env
from tests.problems import problem_of
from tests.processes import WXAUTH, Running, free_port, until as until_on_the_machine
from tests.world import Server, Stage, add_client, until
from wxauth.core.outages import OutageLog
from wxauth.service import lifespan
from wxauth.service.build import Timeouts, build_services
from wxauth.settings.settings import Settings

pytestmark = pytest.mark.own_database

JWKS = "/.well-known/jwks.json"
APP_OF_ANOTHER_KEY = """
DELETE FROM signing_keys;
INSERT INTO apps (app_id, fields, secrets, is_enabled, created_at)
VALUES ('wx00000000000000ff', '{}', 'sealed by another key', true, now())
"""
ONE_KEY_OF_ANOTHER_KEY = """
INSERT INTO signing_keys (id, alg, kid, public_jwk, private_key, created_at, activates_at)
SELECT gen_random_uuid(), alg, 'of another secret key', public_jwk, 'sealed by another key', created_at, activates_at
  FROM signing_keys
"""


@dataclass(frozen=True)
class Wrong:
    """A state of the database that this service must not use."""

    sql: str
    mended_by: str
    reason: str
    """A part of the reason in the log and in `/readyz`."""
    has_other_key: bool = False
    """Whether the service has another secret key."""
    has_client: bool = False
    """Whether a site has the name of the audience."""


WRONG = {
    "another secret key": Wrong("SELECT 1", "DELETE FROM signing_keys", "WXAUTH_SECRET_KEY", has_other_key=True),
    "no signing key, and an app of another secret key": Wrong(
        APP_OF_ANOTHER_KEY, "DELETE FROM apps", "WXAUTH_SECRET_KEY"
    ),
    "one signing key of another secret key": Wrong(
        ONE_KEY_OF_ANOTHER_KEY, "DELETE FROM signing_keys WHERE kid = 'of another secret key'", "WXAUTH_SECRET_KEY"
    ),
    "a client with the name of the audience": Wrong(
        "DELETE FROM signing_keys", "DELETE FROM clients", "WXAUTH_AUDIENCE", has_client=True
    ),
}
SCHEMAS = {
    "no schema": ("ALTER TABLE alembic_version RENAME TO later", "ALTER TABLE later RENAME TO alembic_version"),
    "the schema of a preview": ("UPDATE alembic_version SET version_num = '0031'", "UPDATE alembic_version SET "),
    "the schema of another program": ("UPDATE alembic_version SET version_num = 'a1b2'", "UPDATE alembic_version SET "),
    "a schema that is being migrated": (
        "ALTER TABLE signing_keys RENAME TO later; UPDATE alembic_version SET version_num = '0101'",
        "ALTER TABLE later RENAME TO signing_keys; UPDATE alembic_version SET ",
    ),
}

Start = Callable[..., AbstractAsyncContextManager[Stage]]


@pytest.fixture
def start(stage: Stage, proxy: Proxy, make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch) -> Start:
    """A function that starts a replica while its database is away."""
    monkeypatch.setattr(lifespan, "_CHECK_PAUSE_SECONDS", 0.05)

    @asynccontextmanager
    async def start(**settings: object) -> AsyncIterator[Stage]:
        await proxy.refuse()
        services = build_services(
            make_settings(**{"database_url": proxy.url, **settings}),
            clock=stage.clock,
            wechat_transport=stage.wechat.transport,
            timeouts=Timeouts(database=PATIENT),
        )
        client = stage.make_client(services)
        async with lifespan.lifespan(services, FastAPI()):
            yield replace(stage, client=client, services=services, login=replace(stage.login, client=client))

    return start


async def add_clashing_client(stage: Stage) -> None:
    audience, uri = stage.services.settings.audience, "https://shop.example.com"
    await add_client(stage.services.database, audience, now=stage.clock(), title="Shop", redirect_uris=[uri])


async def checks(late: Stage) -> dict[str, str]:
    """Return the current checks of `/readyz`, which are empty if the service is ready."""
    late.clock.advance(seconds=1)
    answer = await late.client.get("/readyz")
    found = answer.json()["checks"]
    assert (answer.status_code == 200) == (set(found.values()) == {"ok"})
    return {name: state for name, state in found.items() if state != "ok"}


async def is_wrong(late: Stage, reason: str) -> bool:
    return reason in (await checks(late)).get("stored_state", "")


async def uses_nothing(late: Stage) -> None:
    """Check that the service lives, and refuses what needs the database."""
    assert (await late.client.get("/livez")).status_code == 200
    assert (await late.client.get("/metrics")).status_code == 200
    for path in (JWKS, "/v1/me"):
        assert (await late.client.get(path, headers={"Authorization": "Bearer a.b.c"})).status_code in (401, 503)
    problem_of(await late.login.ask("alice"), "storage_unavailable", 503)
    asked = await late.client.post("/v1/introspect", data={"token": "a"}, auth=("ledger", "wxs_" + 43 * "A"))
    problem_of(asked, "storage_unavailable", 503)


@pytest.mark.parametrize("state", WRONG)
async def test_wrong_stored_data_is_not_used_until_somebody_corrects_it(
    start: Start, stage: Stage, proxy: Proxy, state: str
) -> None:
    wrong = WRONG[state]
    if wrong.has_client:
        await add_clashing_client(stage)
    await stage.rows.execute(wrong.sql)
    keys = await stage.rows.fetch("SELECT * FROM signing_keys ORDER BY id")
    async with start(**({"secret_key": OTHER_SECRET_KEY} if wrong.has_other_key else {})) as late:
        assert {"database", "signing_key", "stored_state"} <= set(await checks(late))
        await uses_nothing(late)
        for _outage in range(2):
            await proxy.accept()
            await until(lambda: is_wrong(late, wrong.reason))
            await uses_nothing(late)
            assert await stage.rows.fetch("SELECT * FROM signing_keys ORDER BY id") == keys
            assert await stage.number("users") == 0
            await proxy.refuse()
            await until(lambda: is_wrong(late, "not checked yet"))
        await proxy.accept()
        await until(lambda: is_wrong(late, wrong.reason))
        await stage.rows.execute(wrong.mended_by)
        await until(lambda: _is_ready(late))
        assert (await late.login("alice"))["is_new_user"]
        [line] = stage.logged("stored_state_wrong")
        assert (line["level"], wrong.reason in str(line["reason"])) == ("error", True)
        assert len(stage.logged("stored_state_right")) == 1


async def _is_ready(late: Stage) -> bool:
    return not await checks(late)


@pytest.mark.parametrize("state", SCHEMAS)
async def test_a_schema_that_is_not_there_yet_or_belongs_to_others_is_waited_for(
    start: Start, stage: Stage, proxy: Proxy, state: str
) -> None:
    revision = await stage.rows.fetchval("SELECT version_num FROM alembic_version")
    spoil, mend = SCHEMAS[state]
    await stage.rows.execute(spoil)
    async with start() as late:
        await proxy.accept()
        await until(lambda: _answers_with_schema(late))
        await uses_nothing(late)
        await stage.rows.execute(f"{mend}version_num = '{revision}'" if mend.endswith("SET ") else mend)
        await until(lambda: _is_ready(late))
        await late.login("alice")


async def _answers_with_schema(late: Stage) -> bool:
    found = await checks(late)
    return "database" not in found and "schema" in found


async def test_a_database_that_goes_away_again_during_the_check_is_checked_later(
    start: Start, stage: Stage, proxy: Proxy
) -> None:
    await stage.rows.execute(APP_OF_ANOTHER_KEY)
    async with start() as late:
        async with stage.rows.transaction():
            await stage.rows.execute("LOCK TABLE apps")
            await proxy.accept()
            await until(lambda: stage.rows.fetchval("SELECT count(*) > 0 FROM pg_locks WHERE NOT granted"))
            await proxy.refuse()
        await until(lambda: is_wrong(late, "not checked yet"))
        await proxy.accept()
        await until(lambda: is_wrong(late, "WXAUTH_SECRET_KEY"))
        assert await stage.number("signing_keys") == 0


async def test_each_new_reason_is_one_line(start: Start, stage: Stage, proxy: Proxy) -> None:
    await add_clashing_client(stage)
    await stage.rows.execute(APP_OF_ANOTHER_KEY)
    async with start() as late:
        await proxy.accept()
        await until(lambda: is_wrong(late, "WXAUTH_SECRET_KEY"))
        await stage.rows.execute("DELETE FROM apps")
        await until(lambda: is_wrong(late, "WXAUTH_AUDIENCE"))
        await stage.rows.execute("DELETE FROM clients")
        await until(lambda: _is_ready(late))
    reasons = [str(line["reason"]).partition(":")[0] for line in stage.logged("stored_state_wrong")]
    assert reasons == ["WXAUTH_SECRET_KEY", "WXAUTH_AUDIENCE, WXAUTH_APPS"]


async def test_of_two_that_wait_for_an_empty_database_only_one_gives_it_a_key(
    start: Start, stage: Stage, proxy: Proxy
) -> None:
    await stage.rows.execute("DELETE FROM signing_keys")
    async with start() as first, start(secret_key=OTHER_SECRET_KEY) as second:
        await proxy.accept()

        async def is_decided() -> bool:
            found = [await checks(late) for late in (first, second)]
            return {} in found and any("WXAUTH_SECRET_KEY" in it.get("stored_state", "") for it in found)

        await until(is_decided)
        assert await stage.number("signing_keys") == 1


async def test_a_check_that_breaks_is_repeated(
    start: Start, stage: Stage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(*_: object) -> None:
        raise LookupError("for example, a column of a later migration is missing")

    with monkeypatch.context() as patched:
        patched.setattr(lifespan, "ensure_opens", fail)
        async with start() as late:
            await proxy.accept()
            await until(lambda: stage.logged("stored_state_not_checked"))
            await asyncio.sleep(3 * lifespan._CHECK_PAUSE_SECONDS)
            await uses_nothing(late)
            patched.undo()
            await until(lambda: _is_ready(late))
    assert len(stage.logged("stored_state_not_checked")) == 1


REFUSALS = {
    "?nonsense=1": "nonsense",
    "?statement_timeout=abc": 'invalid value for parameter "statement_timeout"',
    "?server_version=9": "server_version",
    "?options=-x": "-x",
    "?sslmode=require": "doesn't support TLS",
    "/nowhere": "doesn't have this database",
    "nobody@": "rejects the role",
}


@pytest.mark.parametrize("wrong", REFUSALS)
async def test_a_database_that_comes_back_and_refuses_the_url_is_named_at_once(
    start: Start, stage: Stage, proxy: Proxy, monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    own_log = OutageLog(math.inf)  # a line that is not due at once never comes
    for module in ("core.background", "core.connecting", "service.lifespan", "service.probes"):
        monkeypatch.setattr(f"wxauth.{module}.outage_log", own_log)
    url = proxy.url + wrong
    if wrong == "/nowhere":
        url = f"postgresql://postgres@{proxy.address}{wrong}"
    elif wrong.endswith("@"):
        url = proxy.url.replace("postgres@", wrong)
    async with start(database_url=url) as late:
        until_now = len(stage.log_lines())
        await proxy.accept()

        def said() -> list[str]:
            return [str(line.get("reason")) for line in stage.log_lines()[until_now:] if line["level"] != "info"]

        await until(lambda: any(REFUSALS[wrong] in reason for reason in said()))
        assert sum(REFUSALS[wrong] in reason for reason in said()) == 1
        await uses_nothing(late)


@pytest.mark.process
@pytest.mark.parametrize("program", ["serve", "serve with workers", "uvicorn"])
async def test_no_server_lets_a_wrong_secret_key_in_later(
    program: str, stage: Stage, proxy: Proxy, tmp_path: Path
) -> None:
    await stage.rows.execute(APP_OF_ANOTHER_KEY)
    port, workers = free_port(), 2 if "workers" in program else 1
    url = f"postgresql://postgres@{proxy.address}{urlsplit(proxy.url).path}"
    env = service_env(url, wechat_base_url="http://127.0.0.1:1", port=port, workers=workers)
    await proxy.refuse()
    command = [WXAUTH, "serve"]
    if program == "uvicorn":
        command = [str(Path(WXAUTH).with_name("uvicorn")), "--factory", "wxauth.asgi:create_app", f"--port={port}"]
    with Running(*command, cwd=tmp_path, env=env) as running, (served := Server(running, port)).client:
        await asyncio.to_thread(until_on_the_machine, lambda: served.has_started == workers)
        await proxy.accept()
        await asyncio.to_thread(until_on_the_machine, lambda: running.output.count('"stored_state_wrong"') == workers)
        for _try in range(3):
            answer = await asyncio.to_thread(served.get, "/readyz")
            assert (answer.status_code, "WXAUTH_SECRET_KEY" in answer.text) == (503, True)
        assert await stage.number("signing_keys") == 0
        await stage.rows.execute("DELETE FROM apps")
        await asyncio.to_thread(until_on_the_machine, served.is_ready)
        assert await stage.number("signing_keys") == 1
