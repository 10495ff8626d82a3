"""`serve`, `migrate` and `check` report an unusable database in one line and in the same words."""

import asyncio
import json
import os
import signal
import struct
import time
from asyncio import StreamReader, StreamWriter
from contextlib import aclosing
from itertools import product
from pathlib import Path
from urllib.parse import urlencode, urlsplit

import pytest

from tests import world
from tests.certificates import Authority
from tests.database_proxy import Proxy, socket_of, with_tls
from tests.fakes import service_env
from tests.listening import Listening, join
from tests.processes import WXAUTH, Running, free_port, run, until
from tests.world import LogLines, Rows, Server
from wxauth.core.database import Database
from wxauth.core.outages import DatabaseUrlRefused, NotConnected, outage_log, outage_text
from wxauth.core.statements import Nothing, Statement
from wxauth.errors import StorageUnavailable

pytestmark = [pytest.mark.process, pytest.mark.own_database]

PASSWORD = "hunter2"
AGAIN = '"database_answers_again"'
NOBODY = "http://127.0.0.1:1"


async def refuse_the_password(reader: StreamReader, writer: StreamWriter) -> None:
    (length,) = struct.unpack("!i", await reader.readexactly(4))
    await reader.readexactly(length - 4)
    writer.write(b"R" + struct.pack("!ii", 8, 3))  # this message asks for the password
    await reader.read(1024)
    fields = b'SFATAL\0C28P01\0Mpassword authentication failed for user "wxauth"\0\0'
    writer.write(b"E" + struct.pack("!i", len(fields) + 4) + fields)
    writer.close()


TROUBLES = {
    "TLS": "doesn't support TLS",
    "database": 'doesn\'t have this database: database "nowhere" does not exist',
    "role": 'rejects the role: role "nobody" does not exist',
    "name": "nowhere.invalid:5432: can't be reached, because its host name doesn't resolve",
    "password": "rejects the password",
    "connection": "refuses connections",
    "certificate": "has a certificate that isn't trusted",
    "authority": "SSL_CERT_FILE",
    "option": "`sslmode` parameter must be one of: disable, allow, prefer, require, verify-ca, verify-full",
    "file": "can't read /nowhere: No such file or directory",
}
"""The line that reports each problem."""


@pytest.mark.parametrize("wrong", TROUBLES)
async def test_a_database_problem_is_one_line(proxy: Proxy, database_url: str, tmp_path: Path, wrong: str) -> None:
    name = urlsplit(database_url).path
    context = Authority(tmp_path).server("localhost")
    (tmp_path / "other").mkdir()
    other = Authority(tmp_path / "other").file
    async with Listening(refuse_the_password) as strict, Listening(with_tls(context, database_url)) as tls:
        url = {
            "TLS": f"postgresql://postgres:{PASSWORD}@{proxy.address}{name}?sslmode=require",
            "database": f"postgresql://postgres:{PASSWORD}@{proxy.address}/nowhere",
            "role": f"postgresql://nobody:{PASSWORD}@{proxy.address}{name}",
            "name": f"postgresql://postgres:{PASSWORD}@nowhere.invalid/wxauth",
            "password": f"postgresql://wxauth:{PASSWORD}@{strict.address}/wxauth?sslmode=disable",
            "connection": f"postgresql://postgres:{PASSWORD}@127.0.0.1:{free_port()}/wxauth",
            "certificate": f"postgresql://postgres:{PASSWORD}@{tls.address}{name}?sslmode=verify-full&sslrootcert={other}",
            "authority": f"postgresql://postgres:{PASSWORD}@{tls.address}{name}?sslmode=verify-full",
            "option": f"postgresql://postgres:{PASSWORD}@{tls.address}{name}?sslmode=required",
            "file": f"postgresql://postgres:{PASSWORD}@{tls.address}{name}?sslmode=verify-ca&sslrootcert=/nowhere",
        }[wrong]
        env = service_env(url, wechat_base_url=NOBODY, port=str(free_port())) | {"HOME": str(tmp_path)}
        migrated = await asyncio.to_thread(run, "migrate", cwd=tmp_path, env=env)
        checked = await asyncio.to_thread(run, "check", cwd=tmp_path, env=env)
        with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as served:
            await asyncio.to_thread(served.wait_for, TROUBLES[wrong].replace('"', '\\"'))
    assert migrated.returncode == 1
    assert migrated.stderr.startswith("WXAUTH_DATABASE_URL: ")
    assert len(migrated.stderr.splitlines()) == 1
    assert TROUBLES[wrong] in migrated.stderr
    assert any(TROUBLES[wrong] in line for line in checked.stdout.splitlines() if line.startswith("BAD"))
    if wrong not in ("authority", "option"):
        place = urlsplit(url)
        assert f"{place.hostname}:{place.port or 5432}" in migrated.stderr
    logged = [json.loads(line) for line in served.output.splitlines() if "database_does_not_answer" in line]
    level = "error" if wrong in {"database", "role", "password"} else "warning"
    assert {line["level"] for line in logged} <= {level}, "an error, where waiting does not help"
    for text in (migrated.stderr, checked.stdout, served.output):
        assert PASSWORD not in text


@pytest.mark.filterwarnings("ignore:password file")
@pytest.mark.parametrize("parameter", ["sslrootcert", "sslcert", "sslkey", "sslcrl", "passfile"])
async def test_a_file_of_libpqs_that_cannot_be_read_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, parameter: str
) -> None:
    authority = Authority(folder)
    monkeypatch.setenv("HOME", str(folder))
    good = {"sslmode": "verify-full", "sslrootcert": authority.file, "sslcert": authority.file}
    good = {"sslmode": "disable"} if parameter == "passfile" else {**good, "sslkey": authority.key_file}
    locked, inside, rubbish = (folder / name for name in ("locked", "inside", "rubbish"))
    inside.mkdir(0o755)
    rubbish.write_text("rubbish")
    locked.touch(0)
    os.chmod(folder, 0o755)
    files = {folder / "nowhere": "No such file or directory", inside: "Is a directory", locked: "Permission denied"}
    if parameter != "passfile":
        files[rubbish] = ""
    user = os.geteuid()
    async with Listening(refuse_the_password) as strict:
        for (file, reason), by in product(files.items(), ("query", "environment")):
            query = {**good, parameter: file}
            if by == "environment":
                monkeypatch.setenv(f"PG{parameter.upper()}", str(query.pop(parameter)))
            url = f"postgresql://wxauth@{strict.address}/wxauth?{urlencode(query)}"
            if user == 0:  # root can read all files
                os.seteuid(65534)
            try:
                async with aclosing(Database(url)) as database:
                    with pytest.raises(StorageUnavailable) as refusal:
                        await database.time()
            finally:
                os.seteuid(user)
            variable = f" (PG{parameter.upper()})" if by == "environment" else ""
            assert f"{strict.address}: can't read {file}{variable}: {reason}" in outage_text(refusal.value), by
            monkeypatch.delenv(f"PG{parameter.upper()}", raising=False)


async def test_files_below_the_home_of_another_user_are_not_tried(
    proxy: Proxy, database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".postgresql"
    folder.mkdir()
    (folder / "postgresql.key").write_text("of another user")
    folder.chmod(0)
    monkeypatch.setenv("HOME", str(tmp_path))
    user = os.geteuid()
    if user == 0:  # root can read all files
        os.seteuid(65534)
    try:
        database = Database(f"postgresql://postgres@{proxy.address}{urlsplit(database_url).path}")
        assert (await database.time()).tzinfo is not None
        await database.aclose()
    finally:
        os.seteuid(user)
        folder.chmod(0o700)


async def test_an_outage_is_one_line_in_ten_seconds_and_one_at_its_end(
    proxy: Proxy, database_url: str, tmp_path: Path
) -> None:
    url = f"postgresql://postgres@{proxy.address}{urlsplit(database_url).path}"
    env = service_env(url, wechat_base_url=NOBODY, port=str(free_port()))
    with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as served:
        await asyncio.to_thread(until, lambda: '"started"' in served.output)
        until_now = len(served.output)
        await proxy.refuse()
        await asyncio.sleep(3)
        await proxy.accept()
        await asyncio.to_thread(until, lambda: AGAIN in served.output)
        assert served.end(signal.SIGTERM) == 0
    lines = [json.loads(line) for line in served.output[until_now:].splitlines()]
    assert [line["event"] for line in lines if line["level"] != "info"] == ["database_does_not_answer"]
    [lasted] = [line["seconds"] for line in lines if line["event"] == "database_answers_again"]
    assert 2 < lasted < 20


async def test_a_database_without_writes_is_called_that(database_url: str, rows: Rows, log_lines: LogLines) -> None:
    database = await rows.fetchval("SELECT current_database()")
    await rows.execute(f"ALTER DATABASE {database} SET default_transaction_read_only = on")
    async with aclosing(Database(database_url)) as asked:
        with pytest.raises(StorageUnavailable, match="doesn't accept writes") as refused:
            await asked.run(Statement[Nothing]("DELETE FROM users"))
    outage_log.note(refused.value)
    [line] = log_lines()
    assert line["event"] == "database_takes_no_writes"
    assert "default_transaction_read_only" in line["reason"]
    assert outage_text(refused.value).translated("zh-CN").startswith("数据库：不接受写入")


async def test_a_connection_begun_before_an_outage_does_not_end_it(database_url: str, log_lines: LogLines) -> None:
    held = asyncio.Event()

    async def serve_late(reader: StreamReader, writer: StreamWriter) -> None:
        await held.wait()
        await join(reader, writer, *await asyncio.open_unix_connection(socket_of(database_url)))

    async with Listening(serve_late) as late:
        database = Database(f"postgresql://postgres@{late.address}{urlsplit(database_url).path}")
        opening = asyncio.create_task(database.connector.connect())
        await world.until(lambda: late.open_connections == 1)
        with pytest.raises(NotConnected):
            await Database(f"postgresql://postgres@127.0.0.1:{free_port()}/wxauth").connector.connect()
        outage_log.note(StorageUnavailable("down"))
        held.set()
        await (await opening).close()
        assert [line["event"] for line in log_lines()] == ["database_does_not_answer"]
        await (await database.connector.connect()).close()
        assert [line["event"] for line in log_lines()] == ["database_does_not_answer", "database_answers_again"]


async def test_ssl_cert_file_counts_for_the_database(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    authority = Authority(tmp_path)
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    async with Listening(with_tls(authority.server("127.0.0.1"), database_url)) as tls:
        database = Database(f"postgresql://postgres@{tls.address}{urlsplit(database_url).path}?sslmode=verify-full")
        assert await database.value(Statement[int]("SELECT 1 AS one")) == 1
        await database.aclose()


async def test_a_missing_authority_is_explained_in_chinese_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("SSL_CERT_FILE", raising=False)
    async with aclosing(Database("postgresql://postgres@127.0.0.1/wxauth?sslmode=verify-full")) as asked:
        with pytest.raises(DatabaseUrlRefused) as refused:
            await asked.time()
    assert "请用 sslrootcert 或 SSL_CERT_FILE 指定证书文件" in outage_text(refused.value).translated("zh-CN")


@pytest.mark.parametrize("workers", [1, 2])
def test_serve_names_migrate_and_serves_once_it_has_run(empty_database_url: str, tmp_path: Path, workers: int) -> None:
    port = free_port()
    env = service_env(empty_database_url, wechat_base_url=NOBODY, port=port, workers=workers)
    with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as command, (served := Server(command, port)).client:
        until(lambda: served.has_started == workers)
        time.sleep(3)  # each worker checks the schema three times during this time
        assert served.get("/livez").status_code == 200
        ready = served.get("/readyz")
        checks = ready.json()["checks"]
        assert (ready.status_code, checks["database"], "wxauth migrate" in checks["schema"]) == (503, "ok", True)
        logged = [it for it in served.lines if it["level"] != "info" and it["event"] != "request_refused"]
        assert [line["event"] for line in logged] == ["schema_missing"] * workers
        assert "wxauth migrate" in logged[0]["what_to_do"]
        assert run("migrate", cwd=tmp_path, env=env).returncode == 0
        until(served.is_ready)
        assert command.end(signal.SIGTERM) == 0
