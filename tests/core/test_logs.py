"""Errors of libraries are redacted before they are logged, and printed values don't contain secrets."""

import asyncio
import io
import logging
from collections.abc import Callable
from logging.config import dictConfig
from pathlib import Path

import pytest
from litestar.logging import LoggingConfig

from tests.logging_kept import logging_kept
from tests.processes import run
from tests.sweeps import swept
from tests.world import LogLines, Rows
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
