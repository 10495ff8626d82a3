"""`wxauth check` prints a line for each check, with the error and how to fix it, and changes nothing."""

import asyncio
import json
import socket
import ssl
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from email.utils import format_datetime
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from types import SimpleNamespace
from typing import Any

import asyncpg
import pytest
from aiohttp import web
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.certificates import Authority
from tests.checks.conftest import BAD, NOTE, OK, Doctor, Said, StrictWeChat, assert_reported
from tests.database_proxy import HURRIED, Proxy
from tests.databases import claim
from tests.fakes import OTHER_SECRET_KEY, SECRET_KEY, Secrets, service_env
from tests.forward_proxy import CREDENTIALS, PASSWORD, ForwardProxy
from tests.processes import free_port, run, serving
from tests.receiver import Receiver
from tests.sweeps import swept
from tests.upstream import Upstream, abort, answer, hang, know_no_name, raw
from tests.world import MakeServices, Rows, Stage, with_part
from wxauth.apps.managed_apps import ManagedApps
from wxauth.checks.database import judge_schema, judge_server
from wxauth.checks.queries import PostgresServer
from wxauth.checks.result import CheckLevel
from wxauth.core.clock import utc_now
from wxauth.core.trail import OPERATOR
from wxauth.housekeeping.housekeeping import sweep
from wxauth.keys.keyring import KeyRing
from wxauth.service.app import create_app
from wxauth.service.lifespan import check_stored_state
from wxauth.settings.apps import App
from wxauth_desk.wechat import ACCOUNT, APPS, LATER_APP, MOBILE_APP, OTHER_APPS, WEBSITE, create_simulator
from wxauth_desk.wechat.push import push_signature
from wxauth_guard.issuer import METADATA_PATH

APP_ID, OTHER_APP_ID = (app["app_id"] for app in APPS)
pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("simulated")]

GENERAL = ["settings", "database", "clock database", "schema", "signing_keys", "sealed_data", "clock wechat", "issuer"]
OF_AN_APP = ["", " access_token", " push"]
APIS = ["code2session", "stable_token"]

Serve = Callable[..., Awaitable[str]]


@dataclass(frozen=True)
class Command:
    """Runs `wxauth check --json` or another command, with any settings by name."""

    folder: Path
    env: dict[str, str]
    secrets: Secrets

    def __call__(self, **changed: str) -> tuple[int, dict[str, dict[str, Any]]]:
        """Run the check, and return its exit status and its results by name."""
        done = self.run("check", "--json", **changed)
        self.secrets.check_log(done.stdout + done.stderr)
        assert done.stderr == ""
        results = json.loads(done.stdout)
        assert all(result["ok"] is (result["level"] != "bad") for result in results)
        assert done.returncode == (0 if all(result["ok"] for result in results) else 1)
        return done.returncode, {result["name"]: result for result in results}

    def run(self, *arguments: str, **changed: str) -> CompletedProcess[str]:
        env = self.env | {f"WXAUTH_{name}": value for name, value in changed.items()}
        return run(*arguments, cwd=self.folder, env=env)


@pytest.fixture
def check(database_url: str, wechat_url: str, tmp_path: Path, secrets: Secrets) -> Command:
    env = service_env(database_url, wechat_base_url=wechat_url, issuer=f"http://127.0.0.1:{free_port()}")
    return Command(tmp_path, env, secrets)


def of_app(suffix: str = "", app_id: str = APP_ID) -> str:
    return f"wechat {app_id}{suffix and ' '}{suffix}"


async def all_rows(connection: asyncpg.Connection) -> dict[str, list[str]]:
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")
    return {
        table: sorted(row[0] for row in await connection.fetch(f'SELECT t::text FROM "{table}" t'))
        for (table,) in tables
    }


# The command.


@pytest.mark.process
@pytest.mark.no_signing_key
async def test_all_checks_pass_even_before_the_service_has_started(check: Command) -> None:
    status, results = await asyncio.to_thread(check)
    assert status == 0, results
    names = [f"wechat {app['app_id']}{suffix}" for app in APPS for suffix in OF_AN_APP]
    assert list(results) == [*GENERAL, *names]
    assert set(results["settings"]) == {"name", "ok", "level", "message"}
    levels = {name: result["level"] for name, result in results.items() if result["level"] != "ok"}
    assert levels == {"issuer": "note"}  # on a laptop, nothing listens at the issuer yet, and WeChat can't reach it


@pytest.mark.process
def test_for_people_the_report_is_a_line_per_check_with_aligned_columns(check: Command) -> None:
    done = check.run("check", APPS=json.dumps([APPS[0], {"app_id": "wx0", "app_secret": "x"}]))
    assert (done.returncode, done.stderr) == (1, "")
    lines = done.stdout.splitlines()
    assert {line.split()[0] for line in lines} == {"ok", "note", "BAD"}
    [line] = [line for line in lines if line.startswith("BAD") and "wx0 " in line and "access_token" not in line]
    column = line.index("the AppID is wrong")
    assert all(line[column - 2 : column].isspace() and not line[column].isspace() for line in lines)


async def test_the_check_changes_nothing_and_each_app_costs_two_calls(doctor: Doctor, stage: Stage) -> None:
    await stage.login()
    before = await all_rows(stage.rows)
    assert before["sessions"]
    token = doctor.wechat.access_tokens[APP_ID].hand_out_stable_token(force=False)["access_token"]
    await doctor()
    assert doctor.wechat.asked == dict.fromkeys(APIS, len(APPS))
    assert await all_rows(stage.rows) == before
    assert not any(call.json["force_refresh"] for call in doctor.wechat.calls_of("stable_token"))
    assert doctor.wechat.access_tokens[APP_ID].hand_out_stable_token(force=False)["access_token"] == token


@pytest.mark.process
def test_the_check_creates_nothing_in_an_empty_database(check: Command, empty_database_url: str) -> None:
    status, results = check(DATABASE_URL=empty_database_url)
    assert status == 1
    assert results["schema"]["message"] == "hasn't been created yet: run 'wxauth migrate'"
    assert check(DATABASE_URL=empty_database_url)[1]["schema"] == results["schema"]


# Settings.


@pytest.mark.process
def test_nothing_is_contacted_while_a_setting_is_wrong_or_misspelt(check: Command, strict_wechat: StrictWeChat) -> None:
    status, results = check(PORT="http", PROT="8000")
    assert status == 1
    assert list(results) == ["settings"]
    assert not strict_wechat.calls
    status, results = check(PROT="8000")
    assert (status, len(results) > 1) == (1, True)
    assert results["settings"]["message"] == "WXAUTH_PROT: no such setting. Did you mean WXAUTH_PORT?"


# The database.


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("postgresql://wxauth:hunter2@127.0.0.1:1/wxauth", ["refuses connections", "WXAUTH_DATABASE_URL"]),
        ("{good}_not?{query}", ["does not exist"]),
        ("postgresql:///x?host=/nowhere", ["No such file"]),
    ],
)
async def test_a_database_that_is_not_there_is_one_line_and_the_rest_goes_on(
    doctor: Doctor, url: str, words: list[str]
) -> None:
    good, query = doctor.database_url.split("?")
    results = await doctor(database_url=url.format(good=good, query=query))
    assert_reported(results, "database", BAD, *words)
    assert "schema" not in results
    assert_reported(results, of_app(), OK)


async def test_a_database_that_falls_silent_holds_nobody_up(doctor: Doctor) -> None:
    async with Proxy(doctor.database_url) as proxy:
        loop = asyncio.get_running_loop()

        def clock() -> datetime:  # called for the first time after the database has returned a result
            proxy.fall_silent()
            return utc_now()

        began = loop.time()
        waits = {"deadlines": HURRIED}
        results = await doctor(database_url=f"{proxy.url}?sslmode=disable", clock=clock, timeouts=waits)
        assert loop.time() - began < HURRIED.total + 2.0
    assert_reported(results, "database", OK)
    assert_reported(results, "stored", BAD, "doesn't respond", "TimeoutError")
    assert_reported(results, of_app(), OK)


@pytest.mark.own_database
async def test_a_default_that_allows_no_writes_or_isolates_more_is_reported(doctor: Doctor, rows: Rows) -> None:
    change = f"ALTER DATABASE {await rows.fetchval('SELECT current_database()')} SET"
    await rows.execute(f"{change} default_transaction_isolation = serializable")
    await doctor.says("database", OK)
    words = ("serializable", "default_transaction_isolation", "read committed")
    await doctor.says("database", BAD, *words, database_url=f"{doctor.database_url}&pgbouncer=true")
    await rows.execute(f"{change} default_transaction_read_only = on")
    await doctor.says("database", BAD, "doesn't accept writes", "default_transaction_read_only")


@pytest.mark.own_database
async def test_an_engine_that_cannot_run_the_schema_is_named(doctor: Doctor, rows: Rows) -> None:
    await claim(rows, "PostgreSQL 16.0 (openGauss 7.0.0 build 0) compiled at 2025-01-01")
    results = await doctor()
    assert_reported(results, "database", BAD, "is openGauss", "docs/run/database.md")
    assert "schema" not in results
    await rows.execute("CREATE TABLE other.pg_language (lanname text)")
    await claim(rows, "PostgreSQL")
    await doctor.says("database", BAD, "without PL/pgSQL")


def test_a_standby_an_old_version_and_another_encoding_are_reported() -> None:
    server = PostgresServer(
        "10.23",
        100023,
        is_standby=False,
        is_read_only=False,
        isolation="read committed",
        engine="PostgreSQL 10.23",
        has_plpgsql=True,
        encoding="UTF8",
    )
    for judged, words in (
        (replace(server, is_standby=True), ("standby", "WXAUTH_DATABASE_URL")),
        (server, ("PostgreSQL 10.23", "11 or later")),
        (replace(server, version_number=180001, encoding="SQL_ASCII"), ("SQL_ASCII", "instead of UTF8")),
    ):
        assert_reported({"database": judge_server(judged)}, "database", BAD, *words)


@pytest.mark.own_database
@pytest.mark.parametrize("write", ["INSERT ON sessions", "UPDATE ON users"])  # for a first login and for a later login
async def test_a_login_that_the_database_refuses_is_reported(doctor: Doctor, rows: Rows, write: str) -> None:
    await rows.execute(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'not here'; END$$;
        CREATE TRIGGER refuses BEFORE {write} FOR EACH ROW EXECUTE FUNCTION refuse()
    """)
    await doctor.says("login", BAD, "not here")


def test_a_schema_that_is_behind_is_reported() -> None:
    result = judge_schema("0100", known=("0101", "0100"))
    assert_reported(
        {"schema": result}, "schema", BAD, "is at 0100, but this version of wxauth requires 0101", "wxauth migrate"
    )


@pytest.mark.own_database
async def test_a_schema_of_a_preview_is_reported_and_a_newer_schema_is_a_note(doctor: Doctor, rows: Rows) -> None:
    await rows.execute("UPDATE alembic_version SET version_num = '0031'")
    results = await doctor()
    assert_reported(results, "schema", BAD, "before 0.1.0")
    assert "signing_keys" not in results
    await rows.execute("UPDATE alembic_version SET version_num = '0999'")
    await doctor.says("schema", NOTE, "0999", "newer version")


# Sealed values.


@pytest.mark.no_signing_key
async def test_the_key_that_signs_and_the_next_rotation_are_shown(doctor: Doctor, stage: Stage) -> None:
    services = (await stage.replica(signing_key_max_age=7200)).services
    now = services.clock()
    [first] = [key["kid"] for key in json.loads(services[KeyRing].jwks)["keys"]]
    due = (now + timedelta(hours=1)).isoformat(timespec="minutes")  # it signs an hour later
    results = await doctor(signing_key_max_age=7200, clock=services.clock)
    assert_reported(results, "signing_keys", OK, f"1 published. {first} signs now", f"the next key is created at {due}")

    await services[KeyRing].rotate()
    second = next(key["kid"] for key in json.loads(services[KeyRing].jwks)["keys"] if key["kid"] != first)
    starts = (now + timedelta(hours=1)).isoformat(timespec="minutes")
    results = await doctor(signing_key_max_age=7200, clock=services.clock)
    assert_reported(results, "signing_keys", OK, f"2 published. {first} signs now", f"{second} signs from {starts}")


async def test_sealed_values_that_do_not_open_are_counted(doctor: Doctor, stage: Stage) -> None:
    await doctor.says("sealed_data", BAD, "1 of 1 values", secret_key=OTHER_SECRET_KEY)
    for person in ("alice", "bob"):
        await stage.login(person, phone_code="phone-13800138000")
    results = await doctor(secret_key=OTHER_SECRET_KEY)
    for name, number in (("signing_keys", "WXAUTH_SECRET_KEY"), ("sealed_data", "3 of 3 values")):
        assert_reported(results, name, BAD, number, "WXAUTH_SECRET_KEY_PREVIOUS", "wxauth secret forget")
    await doctor.says("sealed_data", OK, "all 3 values checked can be decrypted")
    await stage.rows.execute(
        "INSERT INTO phone_answers (code_hash, app_id, openid, sealed, asked_at) SELECT decode(repeat('00', 32), "
        "'hex'), app_id, openid, 'sealed by nobody', now() - interval '1 hour' FROM identities LIMIT 1"
    )
    await doctor.says("sealed_data", BAD, "1 of 4 values")
    await stage.rows.execute(
        "INSERT INTO webhooks (id, name, url, types, secret, created_at)"
        " VALUES (gen_random_uuid(), 'orders', 'https://a.example', '{}', 'sealed by nobody', now())"
    )
    await doctor.says("sealed_data", BAD, "2 of 5 values")
    await stage.rows.execute(
        "INSERT INTO signing_keys (id, kid, alg, private_key, public_jwk, created_at, activates_at)"
        " SELECT gen_random_uuid(), 'of-id-tokens', 'RS256', 'sealed by nobody', public_jwk, created_at, activates_at"
        " FROM signing_keys"
    )
    await doctor.says("sealed_data", BAD, "3 of 6 values")
    await stage.rows.execute(
        "INSERT INTO apps (app_id, fields, secrets, is_enabled, created_at)"
        " VALUES ('wx00000000000000ff', '{}', 'sealed by nobody', true, now())"
    )
    await doctor.says("apps", BAD, "wx00000000000000ff", "WXAUTH_SECRET_KEY")


@pytest.mark.parametrize(
    ("addresses", "age", "is_noted"),
    [
        (["10.0.2.100"] * 3, 0, True),
        (["172.18.0.0/24"] * 3, 0, True),  # truncated by ADDRESSES_KEPT_DAYS
        (["127.0.0.1"] * 3, 0, True),
        (["100.64.0.1"] * 3, 0, True),
        (["fd00::1"] * 3, 0, True),
        (["10.0.2.100"] * 2, 0, False),
        (["10.0.2.100", "10.0.2.100", "10.0.2.101"], 0, False),
        (["10.0.2.100", "10.0.2.100", "8.8.8.8"], 0, False),
        (["8.8.8.8"] * 3, 0, False),
        (["10.0.2.100"] * 3, 25, False),
    ],
)
async def test_logins_of_a_day_that_all_have_one_private_address_are_a_note(
    doctor: Doctor, stage: Stage, rows: Rows, addresses: list[str], age: int, is_noted: bool
) -> None:
    login = (await stage.replica()).login
    for person, address in zip(("alice", "bob", "carol"), addresses, strict=False):
        await login(person)
        newest = "(SELECT id FROM sessions ORDER BY id DESC LIMIT 1)"
        await rows.execute(f"UPDATE sessions SET ip = $1::text::inet WHERE id = {newest}", address)
    found = await doctor(clock=lambda: stage.services.clock() + timedelta(hours=age))
    assert ("client addresses" in found) == is_noted
    if is_noted:
        assert_reported(found, "client addresses", NOTE, addresses[0].partition("/")[0], "3 users")


@pytest.mark.process
async def test_values_that_need_the_former_key_are_reported(doctor: Doctor, stage: Stage, check: Command) -> None:
    await stage.login()
    rotated = {"secret_key": OTHER_SECRET_KEY, "secret_key_previous": SECRET_KEY}
    results = await doctor(**rotated)
    assert_reported(results, "signing_keys", OK)
    assert_reported(results, "sealed_data", NOTE, "2 of 2", "wxauth secret reseal")
    changed = {name.upper(): value for name, value in rotated.items()}
    assert (await asyncio.to_thread(check.run, "secret", "reseal", **changed)).returncode == 0
    await doctor.says(
        "sealed_data", OK, "all 2 values checked can be decrypted without WXAUTH_SECRET_KEY_PREVIOUS", **rotated
    )


@pytest.mark.no_signing_key
async def test_one_signing_key_of_several_that_does_not_open_is_named(doctor: Doctor, stage: Stage) -> None:
    key = await stage.services[KeyRing].rotate()
    await stage.rows.execute("UPDATE signing_keys SET private_key = 'nonsense' WHERE kid = $1", key.kid)
    await doctor.says("signing_keys", BAD, f"1 of 2 keys can't be decrypted ({key.kid})", clock=stage.services.clock)


# The issuer.


@contextmanager
def answering(app: ASGIApp, **options: Any) -> Iterator[tuple[str, SimpleNamespace]]:
    """Serve an app. Yield its URL and an object whose attribute `app` can be replaced."""
    front = SimpleNamespace(app=app)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        await front.app(scope, receive, send)

    with serving(answer, lifespan="off", **options) as url:
        yield url, front


class KeysAsRead:
    """The keys that a service has read.

    The service that uses this class runs in another thread, where it must not use the test's connection.
    """

    is_ready = True

    def __init__(self, keys: KeyRing) -> None:
        self._keys = keys

    @property
    def jwks(self) -> bytes:
        return self._keys.jwks

    async def refresh_for_first_site(self) -> None:
        """Do nothing, because this service has no sites."""


def with_header(app: ASGIApp, name: bytes, value: Callable[[], str | None]) -> ASGIApp:
    """Wrap an app like a proxy that sets this header, or removes it if the value is None."""

    async def altered(scope: Scope, receive: Receive, send: Send) -> None:
        async def send_altered(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [it for it in message["headers"] if it[0] != name]
                if (now := value()) is not None:
                    message["headers"].append((name, now.encode("latin-1")))
            await send(message)

        await app(scope, receive, send_altered)

    return altered


@pytest.fixture
def serve(make_services: MakeServices) -> Iterator[Serve]:
    """A function that starts a service at the URL in its settings."""
    with answering(PlainTextResponse()) as (url, front):

        async def start(name: bytes = b"x-nothing", value: str | None = None) -> str:
            services = await make_services(issuer=url)
            app = create_app(with_part(services, KeyRing, KeysAsRead(services[KeyRing])))
            front.app = with_header(app, name, lambda: value)
            return url

        yield start


@pytest.fixture
def certificate(tmp_path: Path) -> dict[str, str]:
    """uvicorn's options for a certificate of an unknown authority."""
    (tmp_path / "unknown").mkdir()
    unknown = Authority(tmp_path / "unknown")
    return {"ssl_certfile": str(unknown.file), "ssl_keyfile": str(unknown.key_file)}


async def test_the_metadata_of_each_resource_is_read(doctor: Doctor) -> None:
    ours = "https://auth.test"
    with answering(PlainTextResponse()) as (url, front):
        resource = f"{url}/mcp"
        entry: dict[str, Any] = {"resource": resource, "title": "小店助手", "scopes": {"orders:read": "查看订单"}}
        for document, level, said in (
            ({"resource": resource, "authorization_servers": ["https://a.test", ours]}, OK, "this issuer"),
            ({"resource": f"{resource}/", "authorization_servers": [ours]}, BAD, "a different resource"),
            ({"resource": resource, "authorization_servers": [f"{ours}/"]}, BAD, ours),
            ({"resource": resource}, BAD, ours),
            (None, BAD, "can't be read"),
        ):
            page = PlainTextResponse(status_code=404) if document is None else JSONResponse(document)
            well_known = Route("/.well-known/oauth-protected-resource/mcp", lambda _, page=page: page)
            front.app = Starlette(routes=[well_known])
            await doctor.says(f"resource {resource}", level, said, issuer=ours, resources=[entry])
        front.app = RedirectResponse("https://mcp.example.com/metadata")
        advice = "or set the URL in WXAUTH_RESOURCES to the second address"
        await doctor.says(f"resource {resource}", BAD, advice, issuer=ours, resources=[entry])


@swept(
    ("header", "said"),
    [
        ((b"x-request-id", "1"), "repeats an X-Request-ID"),
        ((b"age", "7"), "has an Age header"),
        ((b"cache-control", "max-age=600"), "lacks Cache-Control: no-store"),
    ],
)
async def test_a_caching_proxy_is_reported(doctor: Doctor, serve: Serve, header: tuple[bytes, str], said: str) -> None:
    url = await serve(*header)
    await doctor.says("issuer", BAD, f"{url}/livez {said}", "one user's data", issuer=url)


async def test_an_issuer_with_another_name_or_keys_of_another_database_is_reported(
    doctor: Doctor, serve: Serve, rows: Rows
) -> None:
    url = await serve()
    other = url.replace("127.0.0.1", "localhost")
    await doctor.says("issuer", BAD, repr(url), other, "WXAUTH_ISSUER", issuer=other)
    nowhere = "postgresql:///x?host=/nowhere"
    await doctor.says("issuer", NOTE, "can't be checked", issuer=url, database_url=nowhere)
    await rows.execute("UPDATE signing_keys SET kid = 'another'")
    await doctor.says("issuer", BAD, "none of the stored keys", "WXAUTH_DATABASE_URL", issuer=url)


async def test_a_service_that_makes_its_first_key_during_the_check_has_the_stored_keys(
    doctor: Doctor, stage: Stage
) -> None:
    keys, loop = stage.services[KeyRing], asyncio.get_running_loop()
    await stage.rows.execute("DELETE FROM signing_keys")

    async def metadata(request: Request) -> Response:
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(keys.refresh(), loop))  # like a service that starts
        issuer = str(request.base_url).removesuffix("/")
        return JSONResponse({"issuer": issuer, "jwks_uri": f"{issuer}/jwks.json"})

    async def key_set(_: Request) -> Response:
        return Response(keys.jwks, media_type="application/json")

    routes = [Route(METADATA_PATH, metadata), Route("/jwks.json", key_set)]
    with answering(Starlette(routes=routes)) as (url, _front):
        results = await doctor(issuer=url)
    assert_reported(results, "signing_keys", OK, "there are no keys yet")
    assert_reported(results, "issuer", NOTE, "returns the stored keys")


@pytest.mark.no_signing_key
async def test_an_issuer_is_reported_if_it_lacks_a_signing_key_but_not_if_it_lacks_the_next_key(
    doctor: Doctor, serve: Serve, stage: Stage
) -> None:
    url = await serve()
    await stage.services[KeyRing].rotate()
    clock = stage.services.clock
    await doctor.says("issuer", NOTE, f"{url} returns the stored keys", issuer=url, clock=clock)
    await stage.rows.execute("UPDATE signing_keys SET activates_at = activates_at - interval '1 day'")
    await doctor.says("issuer", BAD, "lacks 1 of 2", "signing_keys_not_opened", issuer=url, clock=clock)


async def test_an_issuer_without_a_listener_or_a_known_name_is_a_note(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await doctor.says("issuer", NOTE, "nothing listens on http://127.0.0.1:", "wxauth serve")
    monkeypatch.setattr(socket, "getaddrinfo", know_no_name)
    unknown = "https://wxauth.invalid"
    await doctor.says("issuer", NOTE, unknown, "resolve on this machine", issuer=unknown)


async def test_an_issuer_without_a_known_name_is_bad_once_a_replica_has_served(
    doctor: Doctor, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", know_no_name)
    unknown = "https://wxauth.invalid"
    await doctor.says("issuer", NOTE, "resolve on this machine", issuer=unknown)
    await check_stored_state((await stage.replica(issuer=unknown)).services)
    await doctor.says("issuer", BAD, "resolve on this machine, so users can't log in", issuer=unknown)
    # replicas may be stopped, for example for a restore
    await doctor.says("issuer", NOTE, "nothing listens on http://127.0.0.1:")


async def test_a_previous_issuer_is_a_note_for_as_long_as_its_sessions_can_last(
    doctor: Doctor, stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", know_no_name)
    before, after = "https://auth.test", "https://new.test"
    for issuer in (before, "http://127.0.0.1:8000"):
        await check_stored_state((await stage.replica(issuer=issuer)).services)
    assert "previous issuer" not in await doctor(issuer=before)
    words = (f"until {stage.clock.now:%Y-%m-%d}, wxauth issued tokens as {before}, and now as {after}", "domain.md")
    await doctor.says("previous issuer", NOTE, *words, issuer=after)
    moved = (await stage.replica(issuer=after)).services
    for days, is_noted in ((29, True), (1, False)):
        stage.clock.advance(days=days)
        await sweep(moved, pause=0)
        assert ("previous issuer" in await doctor(issuer=after)) is is_noted


def with_metadata(url: str, **more: str) -> Response:
    return JSONResponse({"issuer": url, **{name: value.format(url=url) for name, value in more.items()}})


@swept(
    ("answer", "said"),
    [
        (PlainTextResponse("", 502), (NOTE, "502", "can't reach the service behind it")),
        (PlainTextResponse("", 404), (BAD, "404", "/.well-known/")),
        (RedirectResponse("https://www.example.com/?x=hunter2"), (BAD, "redirects to https://www.example.com/,")),
        (PlainTextResponse("", 300), (BAD, "300", "/.well-known/")),
        (PlainTextResponse("<html>"), (BAD, "isn't a JSON object", "Another service")),
        (JSONResponse([]), (BAD, "isn't a JSON object")),
        (JSONResponse({}), (BAD, "'none'")),
        (PlainTextResponse(" " * 300_000), (BAD, "too large")),
        (partial(with_metadata, jwks_uri="http://keys.example.com/"), (BAD, "no jwks_uri with https")),
        (with_metadata, (BAD, "no jwks_uri with https")),
        (partial(with_metadata, jwks_uri="{url}/jwks"), (BAD, "/jwks has no list of keys")),
    ],
)
async def test_another_service_at_the_issuer_is_recognised(doctor: Doctor, answer: Any, said: Said) -> None:
    with answering(PlainTextResponse()) as (url, front):
        front.app = answer if isinstance(answer, Response) else answer(url)
        await doctor.says("issuer", *said, url, issuer=url)


@pytest.mark.parametrize(
    ("name", "value"),
    [("NO_PROXY", "::1/128,[::1],["), ("ALL_PROXY", "socks5://127.0.0.1:9"), ("HTTPS_PROXY", "ftp://127.0.0.1:9")],
)
async def test_variables_of_a_proxy_that_cannot_be_used_are_left_out(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    monkeypatch.setattr(socket, "getaddrinfo", know_no_name)
    await doctor.says("issuer", NOTE, "resolve on this machine", issuer="https://auth.example.com")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{free_port()}")
    said = "nothing listens on https://auth.example.com (through the proxy in https_proxy)"
    await doctor.says("issuer", NOTE, said, issuer="https://auth.example.com")


async def test_a_certificate_of_an_authority_that_is_not_known_here_is_reported_with_the_remedy(
    doctor: Doctor, certificate: dict[str, str], tmp_path: Path
) -> None:
    """微信云托管 can replace WeChat's certificate with such a certificate."""
    with answering(PlainTextResponse(), **certificate) as (url, _):
        self_signed = await doctor(wechat_base_url=url.replace("http:", "https:"))
    (tmp_path / "another").mkdir()
    async with Upstream(answer({}), tls=Authority(tmp_path / "another").server("127.0.0.1")) as upstream:
        by_authority = await doctor(wechat_base_url=upstream.url)
    for results in (self_signed, by_authority):
        assert_reported(results, of_app(), BAD, "WeChat couldn't be reached", "SSL_CERT_FILE")
        assert "请在 SSL_CERT_FILE 中指定其 CA 证书文件" in results[of_app()].text.translated("zh-CN")


async def test_a_certificate_not_of_the_form_that_newer_pythons_require_is_reported_in_words(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = ssl.create_default_context

    def as_python_3_13(*arguments: Any, **options: Any) -> ssl.SSLContext:
        context = usual(*arguments, **options)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    monkeypatch.setattr(ssl, "create_default_context", as_python_3_13)
    tls = Authority(tmp_path).server("127.0.0.1", has_key_ids=False)
    async with Upstream(answer({}), tls=tls) as upstream:
        results = await doctor(issuer=upstream.url, wechat_base_url=upstream.url)
    for name in ("issuer", of_app()):
        assert_reported(results, name, BAD, "Missing Authority Key Identifier", "3.13", "conform to RFC 5280")
    assert upstream.requests == []


async def test_http_in_place_of_https_the_reverse_and_an_invalid_certificate_are_reported(
    doctor: Doctor, certificate: dict[str, str]
) -> None:
    with answering(PlainTextResponse()) as (url, _):
        await doctor.says("issuer", BAD, "doesn't use TLS", "uses http", issuer=url.replace("http:", "https:"))
    with answering(PlainTextResponse(), **certificate) as (url, _):
        await doctor.says("issuer", BAD, "without a response", "WXAUTH_ISSUER must begin with https", issuer=url)
        words = ("invalid certificate: self-signed certificate", "complete chain")
        await doctor.says("issuer", BAD, *words, issuer=url.replace("http:", "https:"))


async def test_an_issuer_that_hangs_up_or_says_nothing_is_reported(doctor: Doctor) -> None:
    async with Upstream(abort) as upstream:
        await doctor.says("issuer", BAD, "without a response", issuer=upstream.url)
    async with Upstream(hang) as upstream:
        results = await doctor(issuer=upstream.url, timeouts={"issuer_patience": 0.2})
        assert_reported(results, "issuer", BAD, "accepts the connection but doesn't respond")


# The clocks.


@pytest.mark.parametrize(
    ("seconds", "of_database", "text", "of_wechat"),
    [
        (95, BAD, "95 s ahead of the database's clock, and wxauth relies on the database's clock. Synchronize", BAD),
        (-95, BAD, "95 s behind the database's clock, and wxauth relies on the database's clock. Synchronize", BAD),
        (20, BAD, "20 s ahead of the database's", OK),  # siblings tolerate this difference
        (-4, OK, "within 4 s", OK),
    ],
)
async def test_a_wrong_clock_is_reported_by_comparison_with_database_and_wechat(
    doctor: Doctor, seconds: int, of_database: CheckLevel, text: str, of_wechat: CheckLevel
) -> None:
    results = await doctor(clock=lambda: utc_now() + timedelta(seconds=seconds))
    assert_reported(results, "clock database", of_database, text)
    assert_reported(results, "clock wechat", of_wechat, "WeChat's", *(["NTP"] if of_wechat is BAD else []))


@pytest.mark.parametrize("date", [None, "yesterday", "Thu, 32 Nov 2026 08:00:00 GMT", "\xff"])
async def test_a_wechat_that_sends_no_date_is_not_asked_for_the_time(doctor: Doctor, date: str | None) -> None:
    with with_date(doctor.wechat, lambda: date) as url:
        results = await doctor(wechat_base_url=url)
    assert "clock wechat" not in results
    assert_reported(results, of_app(), OK)


async def test_of_wechats_times_the_nearest_counts(doctor: Doctor) -> None:
    times = iter([utc_now() - timedelta(hours=1)])  # the first date is old, like that of a cached response
    with with_date(doctor.wechat, lambda: format_datetime(next(times, utc_now()), usegmt=True)) as url:
        await doctor.says("clock wechat", OK, wechat_base_url=url)


def with_date(wechat: StrictWeChat, date: Callable[[], str | None]) -> AbstractContextManager[str]:
    """Serve the simulator with this Date header in its responses."""
    return serving(with_header(create_simulator(wechat), b"date", date), date_header=False)


# WeChat.


async def test_an_address_that_is_not_whitelisted_is_reported_as_wechat_saw_it(doctor: Doctor) -> None:
    doctor.wechat.account(APP_ID).is_whitelisted = False
    results = await doctor()
    assert_reported(results, of_app(), OK)
    message = results[of_app("access_token")].text
    assert message.startswith(
        "WeChat receives this server's requests from 127.0.0.1. Add this address to the app's IP whitelist 白名单"
    )
    assert "rid" not in message


@pytest.mark.process
@pytest.mark.parametrize(
    ("locale", "words"),
    [
        ({"LC_ALL": "", "LANG": "zh_TW.UTF-8"}, "响应正常，AppSecret 正确"),
        ({"LC_ALL": "en_US.UTF-8", "LANG": "zh_CN.UTF-8"}, "responds, and accepts the app's secret"),
    ],
)
def test_the_command_speaks_the_language_of_the_terminal(check: Command, locale: dict[str, str], words: str) -> None:
    check.env.update({"LC_MESSAGES": "", **locale})
    reported = check.run("check").stdout
    assert f"{of_app()}  " in reported
    assert words in reported


async def test_every_address_that_wechat_names_is_reported_once(doctor: Doctor) -> None:
    errmsg = "invalid ip 203.0.113.7 ipv6 2001:db8::7, not in whitelist rid: 6543ab-12 hunter2"
    with serving(JSONResponse({"errcode": 40164, "errmsg": errmsg}), lifespan="off") as url:
        results = await doctor(wechat_base_url=url)
    assert_reported(results, of_app(), BAD, "from 203.0.113.7 and 2001:db8::7. ")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ({"errcode": 40243}, (BAD, "frozen")),
        ({"errcode": 89503}, (BAD, "administrator's confirmation")),
        ({"errcode": 40164}, (BAD, "WeChat receives this server's requests from 127.0.0.1")),
        ({"errcode": 45009}, (BAD, "quota", "midnight in Beijing")),
        ({"errcode": 45011}, (NOTE, "again in a minute")),
        ({"errcode": -1}, (BAD, "busy")),
        ({"errcode": 99999}, (BAD, "table of return codes")),
        ({"errcode": 89501}, (BAD, "administrator must confirm")),
        ({"errcode": 89506}, (BAD, "IP whitelist", "24 hours")),
        ({"errcode": 89507}, (BAD, "IP whitelist", "an hour")),
        ({"errcode": 40234}, (BAD, "API security")),
        ({"status": 503}, (BAD, "status 503", "can reach http://127.0.0.1:")),
        ({"html": True}, (BAD, "isn't JSON", "WXAUTH_WECHAT_BASE_URL")),
        ({"drop": True}, (BAD, "WeChat couldn't be reached")),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
async def test_the_reason_for_no_access_token_is_reported(doctor: Doctor, fault: dict[str, Any], said: Said) -> None:
    doctor.wechat.fail("stable_token", app_id=APP_ID, times=None, **fault)
    results = await doctor()
    errcode = [f"(errcode {fault['errcode']})"] if "errcode" in fault else []
    assert_reported(results, of_app("access_token"), *said, *errcode)
    assert_reported(results, of_app(), OK)
    assert_reported(results, of_app("access_token", OTHER_APP_ID), OK)


async def test_a_response_without_an_openid_is_reported_in_the_language_of_the_terminal(doctor: Doctor) -> None:
    with serving(JSONResponse({"session_key": "a2V5"}), lifespan="off") as url:
        results = await doctor(wechat_base_url=url)
    assert_reported(results, of_app(), BAD, "has no usable openid")
    assert "微信的响应中没有可用的 openid" in results[of_app()].text.translated("zh-CN")


async def test_a_blocked_user_shows_that_the_secret_is_accepted(doctor: Doctor) -> None:
    doctor.wechat.fail("code2session", app_id=APP_ID, times=None, errcode=40226)
    assert_reported(await doctor(), of_app(), OK)


async def test_a_wrong_secret_and_a_wrong_app_id_are_reported_once_each(doctor: Doctor) -> None:
    apps = [{**APPS[0], "app_secret": "wrong"}, {"app_id": "wx0", "app_secret": "x"}]
    results = await doctor(apps=apps)
    assert_reported(results, of_app(), BAD, "WXAUTH_APP_SECRET", "(errcode 40125)")
    assert_reported(results, of_app("access_token"), BAD, "for the same reason")
    assert_reported(results, of_app(app_id="wx0"), BAD, "WXAUTH_APP_ID", "(errcode 40013)")


async def test_a_server_that_accepts_any_code_is_not_taken_for_wechat(doctor: Doctor) -> None:
    async def answer_login(_: Request) -> JSONResponse:
        return JSONResponse({"openid": "o1", "session_key": "a2V5", "access_token": "t", "expires_in": 7200})

    with serving(Starlette(routes=[Route("/{path:path}", answer_login, methods=["GET", "POST"])])) as url:
        await doctor.says(of_app(), BAD, "WXAUTH_WECHAT_BASE_URL", wechat_base_url=url)


async def test_a_wechat_that_is_unreachable_or_reached_by_its_fallback_alone_is_reported(doctor: Doctor) -> None:
    nobody = f"http://localhost:{free_port()}"
    await doctor.says(of_app(), BAD, "WeChat couldn't be reached", nobody, wechat_base_url=nobody)
    results = await doctor(wechat_base_url=nobody, wechat_fallback_url=doctor.wechat_url)
    assert_reported(results, of_app(), NOTE, "only 127.0.0.1 responds. wxauth can't connect to localhost")
    assert_reported(results, of_app("access_token"), OK)


async def test_a_proxy_that_lets_nobody_through_is_reported(doctor: Doctor, secrets: Secrets) -> None:
    secrets.add(PASSWORD)
    secrets.add(CREDENTIALS)
    nobody = f"http://{CREDENTIALS}@127.0.0.1:{free_port()}"
    refused = "can't connect through the proxy: ConnectionRefusedError: "
    await doctor.says(of_app(), BAD, refused, "WXAUTH_WECHAT_PROXY", doctor.wechat_url, wechat_proxy=nobody)
    async with ForwardProxy() as proxy:
        await doctor.says(of_app(), OK, wechat_proxy=proxy.url)
        strange = proxy.url.replace(CREDENTIALS, "somebody:else")
        await doctor.says(
            of_app(), BAD, "the proxy returned status 407: check WXAUTH_WECHAT_PROXY", wechat_proxy=strange
        )


async def test_a_proxy_that_leads_to_private_addresses_or_nowhere_is_reported(doctor: Doctor, secrets: Secrets) -> None:
    secrets.add(PASSWORD)
    secrets.add(CREDENTIALS)
    name = "receivers_proxy"
    refuse = raw(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
    async with ForwardProxy(instead=refuse) as proxy:
        await doctor.says(name, OK, "refuses 127.0.0.1, 169.254.169.254", receivers_proxy=proxy.url)
    async with ForwardProxy(forbids="169.254.169.254") as proxy:  # it connects to its own port
        await doctor.says(name, BAD, f"connects to 127.0.0.1:{proxy.port}", receivers_proxy=proxy.url)
        strange = proxy.url.replace(CREDENTIALS, "somebody:else")
        await doctor.says(
            name, BAD, "the proxy returned status 407: check WXAUTH_RECEIVERS_PROXY", receivers_proxy=strange
        )
    metadata = raw(b"HTTP/1.1 200 OK\r\n\r\n")
    async with ForwardProxy(instead=metadata) as proxy:
        await doctor.says(name, BAD, "connects to ", receivers_proxy=proxy.url)
    nobody = f"http://{CREDENTIALS}@127.0.0.1:{free_port()}"
    await doctor.says(name, BAD, "ConnectionRefusedError: check WXAUTH_RECEIVERS_PROXY", receivers_proxy=nobody)


async def test_a_wechat_that_hangs_holds_up_no_more_than_its_own_lines(doctor: Doctor) -> None:
    for api in ("code2session", "stable_token"):
        doctor.wechat.fail(api, hang=True, times=None)
    began = asyncio.get_running_loop().time()
    results = await doctor(wechat_timeout=1.5)
    assert asyncio.get_running_loop().time() - began < 5  # one check after the other would take 6 s
    for app in APPS:
        assert_reported(results, of_app(app_id=app["app_id"]), BAD, "code2session did not respond in 1.5 s")
        assert_reported(results, of_app("access_token", app["app_id"]), BAD, "for the same reason")


# Settings in WeChat that wxauth can't query and that operators must set by hand.


async def test_the_push_url_is_shown(doctor: Doctor) -> None:
    apps = [*APPS, {"app_id": "wx0", "app_secret": "x"}]
    results = await doctor(apps=apps, issuer="https://wxauth.invalid/auth")
    url = "https://wxauth.invalid/auth/v1/wechat/push"
    assert_reported(
        results,
        of_app("push"),
        NOTE,
        f"{url}/{APP_ID}",
        "明文模式",
        "doesn't sign the content of messages",
        "push_aes_key",
    )
    assert_reported(results, of_app("push", OTHER_APP_ID), OK, f"{url}/{OTHER_APP_ID}", "安全模式", "push_forward")
    assert_reported(results, of_app("push", "wx0"), NOTE, "push_token", "WXAUTH_APPS", f"{url}/wx0")


async def test_an_app_without_a_token_is_told_where_its_own_is_set(doctor: Doctor, stage: Stage) -> None:
    later = {"app_id": LATER_APP["app_id"], "app_secret": LATER_APP["app_secret"]}
    await stage.services[ManagedApps].add(App(**later), is_enabled=True, asks_wechat=False, by=OPERATOR)
    by_command, in_apps = "Set a push_token with 'wxauth apps set'. The", "Set a push_token in WXAUTH_APPS. The"
    moved = "Replace WXAUTH_APP_ID and WXAUTH_APP_SECRET with WXAUTH_APPS, and set a push_token there. The"

    async def told(its_id: str, /, **settings: Any) -> str:
        result = (await doctor(**settings))[of_app("push", its_id)]
        assert result.level is NOTE
        return result.text

    assert by_command in await told(later["app_id"])
    # if the settings and the database both contain an app, the settings win
    assert in_apps in await told(later["app_id"], apps=[*APPS, later])
    bare = {name: APPS[0][name] for name in ("app_id", "app_secret")}
    assert in_apps in await told(APP_ID, apps=[bare])
    assert moved in await told(APP_ID, apps=(), **bare)
    assert by_command in await told(later["app_id"], apps=(), **bare)


async def test_a_token_that_another_app_has_is_reported_where_no_message_is_encrypted(doctor: Doctor) -> None:
    apps = [APPS[0], {**APPS[1], "push_token": APPS[0]["push_token"]}]
    results = await doctor(apps=apps, issuer="https://wxauth.invalid")
    assert_reported(results, of_app("push"), BAD, OTHER_APP_ID, "Give each app its own")
    assert_reported(results, of_app("push", OTHER_APP_ID), OK, "安全模式")


# The handler that messages from WeChat are forwarded to.


def handed_on(url: str) -> dict[str, Any]:
    return {"apps": [{**APPS[0], "push_forward": url}], "issuer": "https://wxauth.invalid"}


async def test_a_handler_is_asked_by_a_used_up_signature(doctor: Doctor, stage: Stage, receiver: Receiver) -> None:
    stored: list[int] = []
    queries: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        stored.append(await stage.rows.fetchval("SELECT count(*) FROM push_messages WHERE content IS NULL"))
        query = dict(request.query)
        queries.append(query)
        token = APPS[0]["push_token"]
        is_right = query["signature"] == push_signature(token, query["timestamp"], query["nonce"])
        return web.Response(text=query["echostr"] if is_right and request.method == "GET" else "no")

    receiver.usual = answer
    results = await doctor(**handed_on(f"{receiver.url}?own=1"))
    assert_reported(results, of_app("push_forward"), OK, "passes WeChat's verification")
    assert "ignored" not in results[of_app("push")].text
    assert (stored, queries[0]["own"]) == ([1], "1")
    caught = {name: queries[0][name] for name in ("signature", "timestamp", "nonce")}
    left = json.dumps({"Event": "user_authorization_cancellation", "OpenID": "o", "MsgType": "event"})
    refused = await stage.client.post(f"/v1/wechat/push/{APP_ID}", params=caught, content=left)
    assert refused.json()["code"] == "invalid_signature"


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (200, ["did not return the echostr", "push_token"]),
        (403, ["its status was 403", "aren't forwarded"]),
        (None, ["could not connect", "aren't forwarded"]),
    ],
)
async def test_a_handler_that_does_not_give_echostr_back_is_reported(
    doctor: Doctor, receiver: Receiver, answer: int | None, words: list[str]
) -> None:
    receiver.usual = answer
    url = receiver.url if answer else f"http://127.0.0.1:{free_port()}/"
    await doctor.says(of_app("push_forward"), BAD, *words, **handed_on(url))


async def test_without_the_database_no_signature_leaves_the_house(doctor: Doctor, receiver: Receiver) -> None:
    nowhere = "postgresql://nobody@127.0.0.1:1/nothing"
    await doctor.says(of_app("push_forward"), BAD, "not checked", **handed_on(receiver.url), database_url=nowhere)
    assert not receiver.got


# Apps of other kinds.


async def test_an_app_of_each_kind_is_checked_by_what_wechat_lets_be_checked(doctor: Doctor) -> None:
    kinds = {
        MOBILE_APP["app_id"]: ["", " push"],
        WEBSITE["app_id"]: ["", " push", " callback domain"],
        ACCOUNT["app_id"]: ["", " access_token", " push", " callback domain"],
    }
    results = await doctor(apps=[*APPS, *OTHER_APPS])
    for app_id, suffixes in kinds.items():
        assert [name for name in results if app_id in name] == [f"wechat {app_id}{suffix}" for suffix in suffixes]
        assert_reported(results, of_app(app_id=app_id), OK, "accepts the app's secret")
        assert_reported(results, of_app("push", app_id), OK, f"/v1/wechat/push/{app_id}")
    assert doctor.wechat.asked["access_token"] == len(OTHER_APPS)
    wrong = await doctor(apps=[*APPS, {**MOBILE_APP, "app_secret": "hunter2-of-nobody"}])
    assert_reported(wrong, of_app(app_id=MOBILE_APP["app_id"]), BAD, "40125")
    another = await doctor(apps=[*APPS, {**MOBILE_APP, "app_id": "wx00000000000000ff"}])
    assert_reported(another, of_app(app_id="wx00000000000000ff"), BAD, "40013")


@pytest.mark.parametrize(
    ("issuer", "level", "word"),
    [
        ("https://auth.invalid", OK, "auth.invalid"),
        ("https://auth.invalid/path", OK, "WXAUTH_CHECK_FILES"),
        ("https://auth.invalid:8443", BAD, "without a port"),
        ("https://192.0.2.7", BAD, "a domain name"),
        ("http://127.0.0.1:8000", OK, "WXAUTH_ISSUER"),
    ],
)
async def test_for_a_service_account_the_check_reports_whether_the_issuer_can_be_a_callback_domain(
    doctor: Doctor, issuer: str, level: CheckLevel, word: str
) -> None:
    results = await doctor(apps=[ACCOUNT], issuer=issuer, timeouts={"issuer_patience": 0.2})
    assert_reported(results, of_app("callback domain", ACCOUNT["app_id"]), level, word)
