"""The guard of examples/php asks wxauth, and verifies tokens with kept keys only while wxauth is unreachable."""

import json
import os
import shutil
import socket
import ssl
import stat
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import methodcaller
from pathlib import Path
from threading import Event, Thread
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from tests.certificates import Authority
from tests.clock import PATIENCE
from tests.docs import ROOT
from tests.foreign.conftest import PHP_PARSER
from tests.foreign.corpus import ACCEPTED, REFUSED
from tests.foreign.key_documents import KEY, key_set
from tests.guard.hostile import CLAIMS, HOSTILE, Forger, Forgery, decode
from tests.processes import Running, free_port
from tests.programs import needs, needs_node, output_of
from tests.sweeps import Sweep
from tests.world import bearer
from wxauth.core.clock import utc_now
from wxauth.tokens import AccessClaims, TokenIssuer

pytestmark = [pytest.mark.process, pytest.mark.slow]

OTHERWISE = ("signature padded", "signature spelt another way", "padded header, signed so", "plain base64")
Answer = Callable[["_Handler"], None]


class FakeWxauth(ThreadingHTTPServer):
    """A server that accepts each token of the key, or returns whatever a test sets as `answer`."""

    daemon_threads = True

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.server_port}"
        self.answer: Answer = accept
        self.readings = 0
        self.ends = Event()
        self.tls = tls
        now = int(utc_now().timestamp())
        user: dict[str, Any] = {"user_id": "01900000-0000-7000-8000-000000000001", "openid": "o1", "roles": []}
        user |= {"session_id": "01900000-0000-7000-8000-000000000002", "app_id": "wxtest"}
        issuer = TokenIssuer(issuer=self.url, audience="wxauth")
        self.token = issuer.issue(KEY, AccessClaims(**user, issued_at=now, expires_in=3600))
        Thread(target=self.serve_forever, daemon=True).start()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        if self.tls:  # the handshake happens in the handler's thread
            connection = self.tls.wrap_socket(connection, server_side=True, do_handshake_on_connect=False)
        return connection, address

    def handle_error(self, *_: object) -> None:
        pass

    def forge(self, forgery: Forgery) -> str:
        return forgery(Forger(self.token, KEY))

    def __exit__(self, *_: object) -> None:
        self.ends.set()
        self.shutdown()
        self.server_close()


class _Handler(BaseHTTPRequestHandler):
    server: FakeWxauth
    protocol_version = "HTTP/1.1"
    content = b""

    def do_GET(self) -> None:
        self.content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.close_connection = True
        with suppress(OSError):
            if self.path == "/.well-known/jwks.json":
                self.server.readings += 1
                self.reply(key_set(KEY.public_jwk))
            else:
                self.server.answer(self)

    do_POST = do_GET  # noqa: N815 as the server calls it

    def reply(self, body: bytes, status: int = 200, **headers: str) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        self.wfile.write(body)

    def introspection(self) -> bytes:
        token = parse_qs(self.content.decode())["token"][0]
        return json.dumps({"active": True, **json.loads(decode(token.split(".")[1]))}).encode()

    def log_message(self, *_: object) -> None:
        pass


def accept(handler: _Handler) -> None:
    handler.reply(handler.introspection())


def accept_in_chunks(handler: _Handler) -> None:
    body = handler.introspection()
    handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
    for piece in (body[:9], body[9:]):
        handler.wfile.write(b"%X;a=b\r\n%b\r\n" % (len(piece), piece))
    handler.wfile.write(b"0\r\n\r\n")
    handler.server.ends.wait(PATIENCE)  # the connection stays open


def deny(handler: _Handler) -> None:
    handler.reply(b'{"active": false}')


def answering(raw: bytes) -> Answer:
    return lambda handler: void(handler.wfile.write(raw))


def void(_: object) -> None:
    pass


def hang(handler: _Handler) -> None:
    handler.server.ends.wait(PATIENCE)


def hang_in_the_body(handler: _Handler) -> None:
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n{")
    handler.server.ends.wait(PATIENCE)


def reset(handler: _Handler) -> None:
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    handler.connection.close()


def status(code: int) -> Answer:
    return lambda handler: handler.reply(b"{}", code, Location="/v1/introspect", Retry_After="1")


class Orders:
    """The example service with this folder for keys."""

    def __init__(self, stack: ExitStack, site: Path, issuer_url: str, folder: Path | str | None, **env: str) -> None:
        address = f"127.0.0.1:{free_port()}"
        env = {"WXAUTH_ISSUER": issuer_url, "WXAUTH_CLIENT": "orders:secret", "no_proxy": "*", **env}
        env |= {} if folder is None else {"WXAUTH_KEYS_DIR": str(folder)}
        self.process = stack.enter_context(Running(needs("php"), "-S", address, "index.php", cwd=site, env=env))
        self.process.wait_for("started")
        self.client = stack.enter_context(httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=PATIENCE))

    def ask(self, token: str, path: str = "/orders") -> tuple[int, str | None]:
        answer = self.client.get(path, headers=bearer(token))
        return answer.status_code, answer.json().get("code")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(ROOT / "examples/php", tmp_path_factory.mktemp("php"), dirs_exist_ok=True))


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


@pytest.fixture
def wxauth() -> Iterator[FakeWxauth]:
    with FakeWxauth() as fake:
        yield fake


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    return folder


ADMITTED = (200, None)
AWAY = (503, "keys_unavailable")
INVALID = (401, "invalid_token")
UNREACHABLE: dict[str, Answer] = {
    "no response": lambda handler: None,
    "a connection that is reset": reset,
    "half a head": answering(b"HTTP/1.1 200 OK\r\nContent-"),
    "a hint, and nothing more": answering(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "silence": hang,
    "silence in the body": hang_in_the_body,
    **{str(code): status(code) for code in (502, 503, 504)},
}
FAILURES: dict[str, Answer] = {
    **{str(code): status(code) for code in (201, 204, 301, 302, 303, 307, 308, 400, 401, 403, 404, 405, 408, 409)},
    **{str(code): status(code) for code in (410, 413, 421, 422, 425, 429, 431, 500, 501, 505, 507, 511, 520, 529, 599)},
    "no HTTP": answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "HTTP/2": answering(b"HTTP/2 503 \r\n\r\n"),
    "a page with status 200": lambda handler: handler.reply(b"<html>503</html>"),
    "no active": lambda handler: handler.reply(b'{"status": 503}'),
    "active a text": lambda handler: handler.reply(b'{"active": "true"}'),
    "a body that is cut off": answering(b'HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"active": true'),
    "chunks that are cut off": answering(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9\r\n{"acti'),
    "a response without end": answering(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 300_000),
}


def test_kept_keys_decide_only_while_wxauth_is_unreachable(
    stack: ExitStack, site: Path, wxauth: FakeWxauth, folder: Path
) -> None:
    orders, without = (Orders(stack, site, wxauth.url, kept) for kept in (folder, None))
    forged = wxauth.forge(HOSTILE["one bit off"])
    assert orders.ask(wxauth.token) == without.ask(wxauth.token) == ADMITTED
    with Sweep() as sweep:
        for name, answer in UNREACHABLE.items():
            wxauth.answer = answer
            with sweep.case(name):
                assert orders.ask(wxauth.token) == ADMITTED
                assert without.ask(wxauth.token) == AWAY
        for name, answer in FAILURES.items():
            wxauth.answer = answer
            with sweep.case(name):
                lines = orders.process.output.count("wxauth: ")
                assert orders.ask(wxauth.token) == orders.ask(forged) == AWAY
                assert orders.process.output.count("wxauth: ") == lines + 2
        wxauth.answer = hang
        with sweep.case("forged"):
            assert orders.ask(forged) == INVALID
    for name, answer in {"deny": deny, "chunks": accept_in_chunks}.items():
        wxauth.answer = answer
        assert orders.ask(wxauth.token) == (INVALID if name == "deny" else ADMITTED)
    assert wxauth.token.split(".")[2] not in orders.process.output
    wxauth.server_close()  # no connection
    assert (orders.ask(wxauth.token), without.ask(wxauth.token)) == (ADMITTED, AWAY)


@pytest.fixture
def away(site: Path, stack: ExitStack, wxauth: FakeWxauth, folder: Path) -> Orders:
    """A service that has kept the keys. wxauth is unreachable."""
    orders = Orders(stack, site, wxauth.url, folder)
    assert orders.ask(wxauth.token) == ADMITTED
    wxauth.answer = status(503)
    return orders


def test_kept_keys_admit_good_tokens_of_own_apps_alone(away: Orders, wxauth: FakeWxauth) -> None:
    refused = {**REFUSED, **{name: HOSTILE[name] for name in OTHERWISE}}
    refused |= {f"{name} null": HOSTILE[f"{name} null"] for name in CLAIMS}
    refused |= {
        f"{name} {value!r}": methodcaller("with_claims", **{name: value})
        for name, value in [
            ("aud", {"0": "wxauth"}),
            ("aud", {"a": "wxauth"}),
            ("aud", True),
            ("exp", True),
            ("exp", [9e9]),
            ("iat", 9e9),
            ("nbf", 9e9),
            ("nbf", None),
            ("nbf", "0"),
            ("sub", 7),
            ("sub", True),
            ("openid", ""),
            ("roles", [["staff"]]),
            ("app_id", 7),
            ("external_id", None),
        ]
    }
    with Sweep() as sweep:
        for name, forgery in ACCEPTED.items():
            with sweep.case(name):
                assert away.ask(wxauth.forge(forgery)) == ADMITTED
        for name, forgery in refused.items():
            with sweep.case(name):
                code, reason = away.ask(wxauth.forge(forgery))
                assert (code, reason) == INVALID
        scopes: list[Any] = ["openid", "", None, 0, False, [], ["openid"], {}]
        for scope in scopes:
            with sweep.case(f"scope {scope!r}"):
                token = wxauth.forge(methodcaller("with_claims", scope=scope))
                assert away.ask(token) == (403, "insufficient_scope")
        with sweep.case("roles"):
            assert away.ask(wxauth.token, "/staff") == (403, "insufficient_role")
            assert away.ask(wxauth.forge(methodcaller("with_claims", roles=["staff"])), "/staff") == ADMITTED


def test_wxauths_answer_about_a_websites_token_is_refused_unless_websites_are_accepted(
    stack: ExitStack, site: Path, wxauth: FakeWxauth, folder: Path, tmp_path: Path
) -> None:
    both = Path(shutil.copytree(site, tmp_path / "both"))
    index = (both / "index.php").read_text()
    assert "['staff'] : []" in index
    (both / "index.php").write_text(index.replace("['staff'] : []", "['staff'] : [], ['websites' => true]"))
    token = wxauth.forge(methodcaller("with_claims", scope="openid"))
    orders, open_to_both = (Orders(stack, where, wxauth.url, folder) for where in (site, both))
    for answer in (accept, status(503)):
        wxauth.answer = answer
        refusal = orders.client.get("/orders", headers=bearer(token))
        assert (refusal.status_code, refusal.json()["code"]) == (403, "insufficient_scope")
        assert refusal.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
        assert open_to_both.ask(token) == open_to_both.ask(wxauth.token) == ADMITTED


def kept_file(folder: Path) -> Path:
    [file] = folder.glob("*.json")
    return file


def made_older(folder: Path, seconds: int) -> None:
    file = kept_file(folder)
    state = json.loads(file.read_text())
    file.write_text(json.dumps({**state, "read_at": state["read_at"] - seconds}))


def test_keys_are_read_seldom_kept_privately_and_used_for_a_day(away: Orders, wxauth: FakeWxauth, folder: Path) -> None:
    unknown = wxauth.forge(HOSTILE["kid unknown"])
    wxauth.answer = accept
    assert {away.ask(wxauth.token) for _ in range(20)} == {ADMITTED}
    assert wxauth.readings == 1
    made_older(folder, 301)
    for lock in folder.glob("*.lock"):
        lock.unlink()
    assert {away.ask(wxauth.token) for _ in range(5)} == {ADMITTED}
    assert wxauth.readings == 2
    assert stat.S_IMODE(kept_file(folder).stat().st_mode) == 0o600
    assert len(list(folder.iterdir())) == 2  # the keys, and the lock
    wxauth.answer = status(503)
    assert away.ask(unknown) == INVALID
    made_older(folder, 301)
    assert (away.ask(wxauth.token), away.ask(unknown)) == (ADMITTED, AWAY)
    made_older(folder, 86_000)
    assert (away.ask(wxauth.token), wxauth.readings) == (ADMITTED, 2)
    made_older(folder, 400)
    assert away.ask(wxauth.token) == AWAY
    made_older(folder, -(10**6))  # the clock was set back
    assert away.ask(wxauth.token) == AWAY
    for broken in ("", "null", "[]", '{"keys": 7, "read_at": 7}', '{"keys": {"a": 7}}', "\0"):
        kept_file(folder).write_text(broken)
        assert away.ask(wxauth.token) == AWAY, broken


def test_keys_of_one_issuer_do_not_count_for_another(
    away: Orders, site: Path, stack: ExitStack, wxauth: FakeWxauth, folder: Path
) -> None:
    other = f"http://127.0.0.1:{free_port()}"
    token = wxauth.forge(methodcaller("with_claims", iss=other))
    assert Orders(stack, site, other, folder).ask(token) == AWAY


def test_a_folder_that_others_can_change_is_refused_although_wxauth_answers(
    stack: ExitStack, site: Path, wxauth: FakeWxauth, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    folders = {"nothing": "is not a folder", "file": "is not a folder"}
    for mode in (0o755, 0o750, 0o770, 0o777, 0o711, 0o600, 0o500, 0o705):
        (tmp_path / f"{mode:o}").mkdir()
        (tmp_path / f"{mode:o}").chmod(mode)
        folders[f"{mode:o}"] = f"has mode 0{mode:o}"
    if os.geteuid() == 0:
        (tmp_path / "another's").mkdir(mode=0o700)
        os.chown(tmp_path / "another's", 1, -1)
        folders["another's"] = "belongs to user 1,"
    with Sweep() as sweep:
        for name, fault in folders.items():
            with sweep.case(name):
                orders = Orders(stack, site, wxauth.url, tmp_path / name)
                assert orders.ask(wxauth.token) == AWAY
                said = orders.process.output
                assert "WXAUTH_KEYS_DIR must be a folder with mode 0700" in said
                assert f"{name} {fault}" in said


def test_a_wrong_certificate_is_no_outage(
    stack: ExitStack, site: Path, folder: Path, tmp_path: Path, wxauth: FakeWxauth
) -> None:
    (tmp_path / "trusted").mkdir()
    (tmp_path / "other").mkdir()
    trusted, other = Authority(tmp_path / "trusted"), Authority(tmp_path / "other")
    fake = stack.enter_context(FakeWxauth(trusted.server("127.0.0.1")))
    orders = Orders(stack, site, fake.url, folder, SSL_CERT_FILE=str(trusted.file))
    assert orders.ask(fake.token) == ADMITTED
    fake.answer = hang
    assert orders.ask(fake.token) == ADMITTED
    for name, wrong in {
        "another authority": other.server("127.0.0.1"),
        "another name": trusted.server("auth.example.com"),
        "expired": trusted.server("127.0.0.1", days=-1),
    }.items():
        fake.tls = wrong
        assert orders.ask(fake.token) == AWAY, name
    assert "certificate" in orders.process.output
    fake.tls = None  # it does not speak TLS, and ends the connection
    assert orders.ask(fake.token) in (ADMITTED, AWAY)
    fake.server_close()
    assert orders.ask(fake.token) == ADMITTED


@pytest.mark.node
def test_php_7_2_can_read_every_file() -> None:
    files = sorted(str(path) for path in (ROOT / "examples/php").glob("*.php"))
    needs_node(PHP_PARSER)
    assert output_of(needs("node"), str(PHP_PARSER / "php72.js"), *files) == ""


NEWER = (
    "$f = fn ($x) => $x;",
    "$a ??= 1;",
    "f(1, 2,);",
    "$a = match (1) { 1 => 2 };",
    "$a = $b ?: throw new E();",
    "f(name: 1);",
    "$a?->b();",
    "class A { public int $x; }",
    "class A { public function __construct(private $x) {} }",
    "class A { public readonly array $x; }",
    "function f(mixed $x) {}",
    "function f(int|string $x) {}",
    "function f(): static {}",
    "function f(): never {}",
    "try { f(); } catch (E) {}",
    "$a = [...$b];",
    "[&$a] = $b;",
    "$a = 1_000;",
    "$a = <<<X\n  text\n  X;",
    "enum A { case B; }",
    "$f = strlen(...);",
    "$a = $b::class;",
    "str_contains($a, 'b');",
    "array_is_list($a);",
    "array_key_last($a);",
    "hrtime();",
    "is_countable($a);",
    "json_decode($a, true, 512, JSON_THROW_ON_ERROR);",
    "setcookie('a', 'b', ['samesite' => 'Lax']);",
)


@pytest.mark.node
def test_what_is_newer_than_php_7_2_is_found(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.php" for number in range(len(NEWER))]
    for file, newer in zip(files, NEWER, strict=True):
        file.write_text(f"<?php\n{newer}\n")
    needs_node(PHP_PARSER)
    command = [needs("node"), str(PHP_PARSER / "php72.js"), *map(str, files)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert {line.split(":")[0] for line in done.stdout.splitlines()} == {*map(str, files)}
