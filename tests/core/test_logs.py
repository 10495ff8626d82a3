"""Errors of libraries are redacted before they are logged, and printed values don't contain secrets."""

import asyncio
import io
import json
import logging
import re
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack, suppress
from logging.config import dictConfig
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import structlog
from litestar.logging import LoggingConfig

from tests.fakes import service_env
from tests.logging_kept import logging_kept
from tests.processes import PATIENCE, WXAUTH, Running, free_port, run, until
from tests.sweeps import swept
from tests.world import LogLines, Rows, Stage, add_client
from wxauth.clients.clients import Credentials
from wxauth.core.logs import console_line, redact
from wxauth.keys.access_tokens import AccessToken
from wxauth.login.routes import LogoutRequest, RefreshRequest
from wxauth.login.schemas import LoginRequest
from wxauth.phones.routes import PhoneRequest
from wxauth.settings.env_file import EnvFile, EnvLine


@swept(
    ("text", "redacted"),
    [
        (
            "GET /sns/jscode2session?appid=wx1&secret=5f4d&js_code=0a1b",
            "GET /sns/jscode2session?appid=wx1&secret=***&js_code=***",
        ),
        ("Authorization: Basic Zm9vOmJhcg==", "Authorization: Basic ***"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("session_key=b'tiih'", "session_key=***"),
        ("WXAUTH_SECRET_KEY=AAEC", "WXAUTH_SECRET_KEY=***"),
        ("push_aes_key: xx", "push_aes_key: ***"),
        ("password='a b c' host=db", "password=*** host=db"),
        ("{'code': '0a1b'}", "{'code': ***}"),
        ("cannot connect to postgresql://wxauth:hunter2@db/wxauth", "cannot connect to postgresql://***db/wxauth"),
        ("bad token eyJhbGciOi.J9.x and wxr_AaH4", "bad token *** and ***"),
        ("bad cookie wxc_AaH4, bad key whsec_Aa+/H4==", "bad cookie ***, bad key ***"),
        ("errcode=40029", "errcode=40029"),
        ("status code: 500", "status code: 500"),
        ("broken\nDETAIL:  Failing row contains (1,\nAlice).\nHINT:  ask", "broken\nDETAIL: ***"),
        ("exception=E('x: Key (unionid)=(oabc) already exists.')", "exception=E('x: Key (unionid)= ***"),
        ('invalid input syntax for type uuid: "Alice"', "invalid input syntax for type uuid: ***"),
        ("invalid input for query argument $1: 'Alice' (an int)", "invalid input for query argument $1: ***"),
        ("exit code: 3", "exit code: 3"),
    ],
)
@pytest.mark.requirement("asvs-16.2.5")
def test_a_value_that_looks_like_a_secret_is_masked(text: str, redacted: str) -> None:
    assert redact(text) == redacted


def test_of_a_long_text_only_the_beginning_is_looked_through_and_kept() -> None:
    assert len(redact("Key (" * 20_000)) == 8192


def test_a_library_warning_with_a_callers_text_is_not_logged(log_lines: LogLines) -> None:
    for library in ("opentelemetry.trace.span", "python_multipart.multipart"):
        logging.getLogger(library).warning("the words of a caller")
        logging.getLogger(library).error("a fault of its own")
    assert [line["event"] for line in log_lines()] == ["a fault of its own"] * 2


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda: LoggingConfig().configure(), id="another root handler, as Litestar sets it"),
        pytest.param(lambda: logging.basicConfig(stream=io.StringIO(), force=True), id="another root handler"),
        pytest.param(lambda: logging.getLogger().handlers.clear(), id="no root handler"),
        pytest.param(lambda: logging.getLogger().setLevel("CRITICAL"), id="the root's level"),
        pytest.param(lambda: logging.getLogger("library").setLevel("CRITICAL"), id="the logger's level"),
        pytest.param(lambda: setattr(logging.getLogger("library"), "propagate", False), id="no propagation"),
        pytest.param(lambda: dictConfig({"version": 1}), id="loggers disabled"),
        pytest.param(lambda: logging.disable(), id="everything disabled"),
    ],
)
def test_what_a_test_does_to_logging_ends_with_it(log_lines: LogLines, change: Callable[[], object]) -> None:
    logging.getLogger("library").warning("before")
    with logging_kept():
        change()
    logging.getLogger("library").warning("after")
    logging.getLogger("library.new").warning("new")
    assert [line["event"] for line in log_lines()] == ["before", "after", "new"]


@pytest.mark.parametrize("field", ["path", "event"])
@pytest.mark.requirement("asvs-16.4.1")
def test_no_line_steers_the_terminal(field: str) -> None:
    event = {"event": "request_refused", field: "/\x1b[31mred\x1b]0;title\x07\x9b2J\u202e小明"}
    line = console_line(colors=False)(None, "info", event).decode()
    assert line.replace("\n", "").isprintable()
    assert "小明" in line


UNPRINTABLE = "\x7f\x9b2J\u00a0\u202e\u2028\ufeff\U000e0041"


@pytest.mark.requirement("asvs-16.4.1")
async def test_what_a_client_sends_neither_steers_a_terminal_nor_breaks_a_line(stage: Stage, logs: io.BytesIO) -> None:
    await stage.client.get(f"/小明{quote(UNPRINTABLE)}")
    *_, line = logs.getvalue().decode().splitlines()
    assert line.isprintable()
    assert "小明\\u007f\\u009b2J\\u00a0\\u202e\\u2028\\ufeff\\udb40\\udc41" in line
    assert json.loads(line)["path"] == f"/小明{UNPRINTABLE}"


async def test_a_client_with_many_addresses_fills_no_log(stage: Stage, logs: io.BytesIO) -> None:
    uris = [f"https://shop.example.com/{number}/{'a' * 90}" for number in range(100)]
    await add_client(stage.services.database, "shop", now=stage.clock(), title="Shop", redirect_uris=uris)
    query = {"client_id": "shop", "redirect_uri": "https://e.example/x"}
    await stage.client.get("/v1/authorize", params=query)
    *_, line, _refused = logs.getvalue().splitlines()
    logged = json.loads(line)
    assert (logged["event"], len(line) < 1500) == ("redirect_uri_not_registered", True)
    assert logged["registered"] == [*uris[:5], "… (95 more)"]


FAILED = [f"frame {number} {'f' * 200}" for number in range(60)]


@swept(
    ("fields", "kept"),
    [
        ({"text": "a" * 9000}, lambda line: re.fullmatch(r"a{7900,}… \(1\d+ more\)", line["text"])),
        ({"text": "库" * 9000, "short": "库"}, lambda line: line["short"] == "库"),
        ({"text": UNPRINTABLE * 1000}, lambda line: line["text"].startswith(UNPRINTABLE * 50)),
        ({"deep": {"list": ["b" * 9000] * 9}}, lambda line: line["deep"]["list"][5] == "… (4 more)"),
        ({"five": [1, 2, 3, 4, 5]}, lambda line: line["five"] == [1, 2, 3, 4, 5]),
        ({"six": [1, 2, 3, 4, 5, 6]}, lambda line: line["six"] == [1, 2, 3, 4, 5, "… (1 more)"]),
        ({"frames": ["a", "b", "c", "d", "e", "f"]}, lambda line: line["frames"] == [*"abcdef"]),
        (
            {"first": "a" * 9000, "second": "b" * 9000},
            lambda line: "a" * 2000 in line["first"] and "b" * 2000 in line["second"],
        ),
        ({"frames": FAILED}, lambda line: (line["frames"][:9], line["frames"][-19:]) == (FAILED[:9], FAILED[-19:])),
        ({f"n{number}": "short" for number in range(9000)}, lambda _line: True),
    ],
)
def test_a_line_of_any_size_is_one_short_object(logs: io.BytesIO, fields: Any, kept: Callable[[Any], object]) -> None:
    structlog.get_logger().error("what_happened", code="storage_unavailable", request_id="r" * 64, **fields)
    *_, line = logs.getvalue().splitlines(keepends=True)
    assert len(line) <= 8192
    logged = json.loads(line)
    assert (logged["event"], logged["level"], logged["code"]) == ("what_happened", "error", "storage_unavailable")
    assert logged["request_id"] == "r" * 64
    assert kept(logged), logged


def test_of_a_librarys_long_traceback_the_ends_are_kept_and_no_quoted_row(log_lines: LogLines) -> None:
    lines = [f"  File {number}" for number in range(2000)]
    logging.getLogger("library").error("\n".join(lines))
    logging.getLogger("library").error("\n".join([*lines[:500], "DETAIL:  Failing row contains (1", *lines[500:]]))
    whole, quoting = [line["event"] for line in log_lines()]
    assert whole.startswith("\n".join(lines[:100]))
    assert whole.endswith("\n".join(lines[-200:]))
    assert len(whole) < 6300
    assert quoting.startswith("\n".join(lines[:100]))
    assert lines[-1] not in quoting


WITHOUT_SPACE = """
import os, sys
from wxauth.core.logs import configure_logging, get_logger
from wxauth.core.metrics import LOG_LINES_LOST, REGISTRY

reader, writer = os.pipe()
os.set_blocking(writer, False)
configure_logging(level="info", log_format="json", stream=open(writer, "wb"))
LOG_LINES_LOST.make_first()
for number in range(1000):
    get_logger().info("logged_in", number=number, text="x" * 300)
os.write(1, os.read(reader, 10**7))
get_logger().info("afterwards", lost=REGISTRY.get_sample_value("wxauth_log_lines_lost_total"))
os.write(1, os.read(reader, 10**7))
"""


@pytest.mark.process
@pytest.mark.no_database
def test_lost_lines_are_counted_and_told_and_no_line_is_broken(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_SPACE], cwd=tmp_path, capture_output=True, check=True)
    *kept, told, last = map(json.loads, done.stdout.splitlines())
    assert [line["number"] for line in kept] == list(range(len(kept)))
    lost = 1000 - len(kept)
    assert lost > 0
    assert (told["event"], told["level"], told["count"]) == ("log_lines_lost", "error", lost)
    assert (last["event"], last["lost"]) == ("afterwards", lost)


@pytest.mark.process
@pytest.mark.skipif(sys.platform != "linux", reason="limits another process")
def test_a_process_without_file_descriptors_says_so_once_and_recovers(tmp_path: Path, database_url: str) -> None:
    port = free_port()
    env = service_env(database_url, wechat_base_url="http://127.0.0.1:1", port=port)
    with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as command:
        command.wait_for('"started"')
        pid = command.process.pid
        # The service itself opens some more after its start, for connections to the database.
        limit = max(int(descriptor.name) for descriptor in Path(f"/proc/{pid}/fd").iterdir()) + 50
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (limit, limit))
        with ExitStack() as stack:
            for _client in range(limit):
                stack.enter_context(socket.create_connection(("127.0.0.1", port), timeout=PATIENCE))
            [line] = re.findall('.*"out_of_files".*', command.wait_for('"out_of_files"'))
            assert json.loads(line)["level"] == "error"
        until(lambda: is_alive(port))
        assert command.end(signal.SIGTERM) == 0
        assert command.output.count('"out_of_files"') == 1


def is_alive(port: int) -> bool:
    with suppress(httpx.TransportError):
        return httpx.get(f"http://127.0.0.1:{port}/livez", timeout=PATIENCE).status_code == 200
    return False


@pytest.mark.parametrize(
    "holder",
    [
        Credentials("billing", "secret-1"),
        LoginRequest(code="secret-1", phone_code="secret-2"),
        PhoneRequest(code="secret-1"),
        RefreshRequest(refresh_token="secret-1"),
        LogoutRequest(refresh_token="secret-1"),
        AccessToken("secret-1", 900),
        EnvLine(1, "WXAUTH_APP_SECRET=secret-1", "WXAUTH_APP_SECRET", "secret-1"),
        EnvFile({"WXAUTH_APP_SECRET": "secret-1"}, []),
    ],
    ids=lambda holder: type(holder).__name__,
)
def test_the_repr_of_an_object_with_secrets_contains_none(holder: object) -> None:
    assert "secret" not in f"{holder!r} {holder}".replace("client_secret", "")


@pytest.mark.process
@pytest.mark.own_database
async def test_a_command_that_fails_quotes_no_row(database_url: str, rows: Rows, tmp_path: Path) -> None:
    await rows.execute("ALTER TABLE clients ADD CONSTRAINT never CHECK (false)")
    done = await asyncio.to_thread(
        run, "clients", "add", "billing-of-alice", cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url}
    )
    assert done.returncode == 1
    assert done.stderr.startswith("asyncpg.exceptions.CheckViolationError: ")
    assert "/wxauth/clients/clients.py:" in done.stderr
    assert "billing-of-alice" not in done.stdout + done.stderr
