"""Parameters of the database's URL and libpq's environment variables are heeded, or named if they are wrong."""

import asyncio
from asyncio import StreamReader, StreamWriter
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.certificates import Authority
from tests.database_proxy import Proxy, socket_of, with_tls
from tests.fakes import service_env
from tests.listening import Listening, join
from tests.processes import run
from tests.sweeps import swept
from tests.world import LogLines, MakeServices
from wxauth.checks.result import CheckResult
from wxauth.checks.runner import check_with
from wxauth.core.database import Database
from wxauth.core.outages import DatabaseUrlRefused, outage_text
from wxauth.core.statements import Statement
from wxauth.errors import StorageUnavailable
from wxauth.service.lifespan import lifespan
from wxauth.settings.settings import Settings

ONE = Statement[int]("SELECT 1 AS one")
MakeSettings = Callable[..., Settings]


async def refusal_of(url: str) -> StorageUnavailable | None:
    async with aclosing(Database(url)) as database:
        try:
            assert await database.value(ONE) == 1
        except StorageUnavailable as exc:
            return exc
    return None


@asynccontextmanager
async def tls_to(database_url: str, authority: Authority, host: str, *, is_direct: bool) -> AsyncIterator[str]:
    """Yield the URL of a server with a certificate for this host."""
    context = authority.server(host)
    context.set_alpn_protocols(["postgresql"])

    async def after_tls(reader: StreamReader, writer: StreamWriter) -> None:
        await join(reader, writer, *await asyncio.open_unix_connection(socket_of(database_url)))

    listening = Listening(after_tls, tls=context) if is_direct else Listening(with_tls(context, database_url))
    async with listening as server:
        yield f"postgresql://postgres@localhost:{server.port}{urlsplit(database_url).path}"


@swept(
    ("query", "variables", "is_direct"),
    [
        ("sslmode=require&channel_binding=require", {}, False),
        ("sslmode=verify-full&sslrootcert=system", {}, False),
        ("sslrootcert=system", {}, False),
        ("sslrootcert=system&sslnegotiation=direct", {}, True),
        ("sslrootcert=system&channel_binding=require&pgbouncer=true", {}, False),
        ("", {"PGSSLROOTCERT": "system"}, False),
        ("sslrootcert=system", {"PGSSLMODE": "verify-full", "PGSSLROOTCERT": "/nowhere"}, False),
        ("sslmode=verify-full", {"PGSSLMODE": "require", "PGSSLROOTCERT": "system"}, False),
        ("sslmode=verify-full", {"PGSSLROOTCERT": ""}, False),  # PostgreSQL's programs count an empty variable as unset
    ],
)
async def test_urls_that_services_print_connect_and_check_the_certificate(
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    query: str,
    variables: dict[str, str],
    is_direct: bool,
) -> None:
    authority = Authority(tmp_path)
    (tmp_path / "other").mkdir(exist_ok=True)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGSSLMODE", "PGSSLROOTCERT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    is_verified = "channel_binding" not in query or "system" in query
    for host, trusted in (("localhost", authority), ("other.test", authority), ("localhost", None)):
        file = trusted.file if trusted is not None else Authority(tmp_path / "other").file
        monkeypatch.setenv("SSL_CERT_FILE", str(file))
        async with tls_to(database_url, authority, host, is_direct=is_direct) as url:
            refusal = await refusal_of(f"{url}?{query}")
        if (host, trusted) == ("localhost", authority) or not is_verified:
            assert refusal is None
        else:
            assert refusal is not None
            assert "has a certificate that isn't trusted" in outage_text(refusal)


async def test_the_systems_authorities_are_used_without_ssl_cert_file(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    monkeypatch.setattr("wxauth.core.libpq._SYSTEM_FILES", ("/nowhere", str(authority.file)))
    monkeypatch.setattr("ssl.get_default_verify_paths", lambda: type("Paths", (), {"cafile": None}))
    async with tls_to(database_url, authority, "localhost", is_direct=False) as url:
        assert await refusal_of(f"{url}?sslrootcert=system") is None


@pytest.mark.parametrize("place", ["url", "environment"])
@pytest.mark.parametrize("mode", ["disable", "allow", "prefer", "require", "verify-ca", "nonsense"])
async def test_a_weaker_mode_beside_the_systems_authorities_is_refused(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, place: str, mode: str
) -> None:
    query = "sslrootcert=system"
    if place == "url":
        query += f"&sslmode={mode}"
    else:
        monkeypatch.setenv("PGSSLMODE", mode)
    refusal = await refusal_of(f"{proxy.url}?{query}")
    assert isinstance(refusal, DatabaseUrlRefused)
    assert "sslrootcert=system requires sslmode=verify-full" in outage_text(refusal)


@pytest.mark.parametrize(
    ("value", "is_told"), [("require", True), ("prefer", False), ("disable", False)], ids=lambda value: str(value)
)
async def test_channel_binding_that_is_required_is_noted(
    proxy: Proxy,
    make_settings: MakeSettings,
    make_services: MakeServices,
    log_lines: LogLines,
    value: str,
    is_told: bool,
) -> None:
    url = f"{proxy.url}?channel_binding={value}"
    results = await check_with(make_settings(database_url=url))
    noted = [result.level for result in results if "channel_binding" in result.text]
    services = await make_services(database_url=url)
    async with lifespan(services, None):  # type: ignore[arg-type]
        pass
    logged = [line["level"] for line in log_lines() if line["event"] == "channel_binding_ignored"]
    assert (noted, logged) == ((["note"], ["warning"]) if is_told else ([], []))


async def fault_in(settings: Settings) -> CheckResult:
    [bad] = [result for result in await check_with(settings) if result.name == "database"]
    assert not bad.is_ok
    return bad


@swept(
    ("query", "named"),
    [
        ("schema=public", "schema"),
        ("channel_binding=nonsense", "channel_binding"),
        ("gssencmode=require", "gssencmode"),
        ("require_auth=none", "require_auth"),
        ("statement_timeout=soon", "statement_timeout"),
        ("statement_timeout=-1", "statement_timeout"),
        ("jit=perhaps", "jit"),
        ("max_connections=9", "max_connections"),
        ("options=-c%20schema%3Dpublic", "schema"),
        ("options=-c%20jit%3Dperhaps", "jit"),
        ("options=--what", "--what"),
        ("options=-q", "-q"),
        ("search_path=%22", "search_path"),
        ("target_session_attrs=nonsense", "target_session_attrs"),
        ("sslmode=required", "sslmode"),
        ("sslmode=require", "sslmode"),
        ("sslnegotiation=nonsense", "sslnegotiation"),
        ("ssl_min_protocol_version=9&sslmode=require", "TLS version"),
    ],
)
async def test_a_wrong_parameter_is_named_by_check(
    proxy: Proxy, make_settings: MakeSettings, query: str, named: str
) -> None:
    bad = await fault_in(make_settings(database_url=f"{proxy.url}?{query}"))
    assert named in bad.text
    assert "running" not in bad.text
    assert "Check WXAUTH_DATABASE_URL" in bad.text


async def test_a_parameter_that_the_role_may_not_set_is_named(
    proxy: Proxy, make_settings: MakeSettings, admin: object
) -> None:
    role = "bound" + urlsplit(proxy.url).path[1:].replace("-", "_")
    await admin.execute(f"CREATE ROLE {role} LOGIN")  # type: ignore[attr-defined]
    try:
        url = proxy.url.replace("postgres@", f"{role}@") + "?log_statement=all"
        bad = await fault_in(make_settings(database_url=url))
    finally:
        await admin.execute(f"DROP ROLE {role}")  # type: ignore[attr-defined]
    assert 'permission denied to set parameter "log_statement"' in bad.text
    assert "running" not in bad.text


WRONG_VARIABLES = {
    "PGPORT": ["abc", "99999", "5432,5433", "1,", "-1"],
    "PGSSLCERT": ["/nonexistent"],
    "PGSSLMODE": ["nonsense", "full"],
    "PGSSLNEGOTIATION": ["nonsense"],
    "PGSSLMINPROTOCOLVERSION": ["nonsense", "SSLv3", "TLSv2", "1.2"],
    "PGSSLMAXPROTOCOLVERSION": ["nonsense", "SSLv3"],
    "PGTARGETSESSIONATTRS": ["nonsense", "read_write"],
    "PGGSSLIB": ["nonsense"],
}


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name in WRONG_VARIABLES for value in WRONG_VARIABLES[name]]
)
async def test_a_wrong_environment_variable_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    refusal = await refusal_of("postgresql://postgres@127.0.0.1/wxauth")
    assert refusal is not None
    assert name in outage_text(refusal)
    assert "\n" not in outage_text(refusal)


@pytest.mark.parametrize("mode", ["", "disable", "allow", "prefer"])
@pytest.mark.parametrize("place", ["url", "environment"])
async def test_direct_tls_with_a_weak_mode_names_its_variable(
    monkeypatch: pytest.MonkeyPatch, place: str, mode: str
) -> None:
    monkeypatch.setenv("PGSSLNEGOTIATION", "direct")
    if place == "environment" and mode:
        monkeypatch.setenv("PGSSLMODE", mode)
    query = f"?sslmode={mode}" if place == "url" and mode else ""
    refusal = await refusal_of(f"postgresql://postgres@127.0.0.1/wxauth{query}")
    assert isinstance(refusal, DatabaseUrlRefused)
    assert "sslmode=require, verify-ca, or verify-full (PGSSLNEGOTIATION)" in outage_text(refusal)


@swept(
    ("variables", "named"),
    [
        ({"PGSSLROOTCERT": "/nonexistent", "PGSSLMODE": "require"}, "PGSSLROOTCERT"),
        ({"PGSSLROOTCERT": "/nonexistent", "PGSSLMODE": "verify-full"}, "PGSSLROOTCERT"),
        ({"PGSSLCRL": "/nonexistent", "PGSSLMODE": "require"}, "PGSSLCRL"),
        ({"PGHOST": "a.invalid,b.invalid", "PGPORT": "1,2,3"}, "PGPORT"),
        ({"PGHOST": "[::1"}, "PGHOST"),
        ({"PGHOST": "a.invalid:abc"}, "PGHOST"),
        ({"PGHOST": "a.invalid,b.invalid", "PGPORT": "1,2", "PGSSLMODE": "nonsense"}, "PGSSLMODE"),
    ],
)
async def test_wrong_environment_variables_without_a_host_are_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variables: dict[str, str], named: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("PGSSLROOTCERT", "PGSSLCRL", "PGSSLMODE", "PGPORT", "PGHOST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    refusal = await refusal_of("postgresql:///wxauth")
    assert refusal is not None
    assert named in outage_text(refusal)


async def test_a_variable_that_the_url_overrides_is_not_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSSLMODE", "nonsense")
    monkeypatch.setenv("PGHOST", "[::1")
    refusal = await refusal_of("postgresql://postgres@127.0.0.1/wxauth?sslmode=required")
    assert refusal is not None
    assert "PG" not in outage_text(refusal)
    assert "sslmode" in outage_text(refusal)


@pytest.mark.filterwarnings("ignore:password file")
@swept(
    "variables",
    [
        {"PGCONNECT_TIMEOUT": "abc"},
        {"PGSERVICE": "nowhere", "PGSERVICEFILE": "/nonexistent"},
        {"PGPASSFILE": "/nonexistent"},
        {"PGPASSFILE": "/etc"},
        {"PGKRBSRVNAME": "x"},
        {"PGOPTIONS": "-c nonsense=1"},
        {"PGSSLKEY": "/nonexistent"},
        {"PGSSLROOTCERT": "/nonexistent"},
        {"PGHOST": "[::1"},
        {"PGUSER": "nobody", "PGDATABASE": "nowhere", "PGPASSWORD": "wrong"},
    ],
)
async def test_variables_that_do_not_matter_are_ignored(
    proxy: Proxy, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]
) -> None:
    for name in ("PGSERVICE", "PGSERVICEFILE", "PGPASSFILE", "PGSSLKEY", "PGSSLROOTCERT", "PGHOST"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert await refusal_of(proxy.url) is None


@pytest.mark.process
@pytest.mark.parametrize(
    ("name", "value"),
    [("PGPORT", "abc"), ("PGSSLCERT", "/nonexistent"), ("PGSSLMINPROTOCOLVERSION", "nonsense")],
)
def test_commands_end_with_a_sentence_that_names_the_variable(tmp_path: Path, name: str, value: str) -> None:
    env = service_env("postgresql://postgres@127.0.0.1/wxauth", wechat_base_url="http://127.0.0.1:1") | {name: value}
    for command in ("migrate", "apps list", "check"):
        done = run(*command.split(), cwd=tmp_path, env=env)
        [said] = [line for line in (done.stdout + done.stderr).splitlines() if name in line]
        assert (done.returncode, "running" in said) == (1, False), said
