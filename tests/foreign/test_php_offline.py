"""The PHP guard asks wxauth about tokens, and does without only while wxauth is unreachable."""

import fcntl
import json
import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from operator import methodcaller
from pathlib import Path
from threading import Event, Thread
from typing import Any

import httpx
import pytest

from tests.certificates import Authority
from tests.clock import PATIENCE
from tests.docs import ROOT
from tests.foreign.conftest import PHP_PARSER
from tests.foreign.corpus import ACCEPTED, REFUSED
from tests.foreign.key_documents import KEY, key_set
from tests.foreign.php_packages import autoload
from tests.foreign.ports import output_with_few_ports
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
        self.has_keys = True
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
            if self.path == "/.well-known/jwks.json" and self.server.has_keys:
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

    def confirmation(self) -> dict[str, str]:
        claims = json.loads(decode(self.headers["Authorization"].split(".")[1]))
        return {"X_Auth_User_ID": claims["sub"], "X_Auth_Session_ID": claims["sid"], "X_Auth_Roles": "clerk"}

    def log_message(self, *_: object) -> None:
        pass


def accept(handler: _Handler) -> None:
    handler.reply(b"", 200, **handler.confirmation())


def accept_in_chunks(handler: _Handler) -> None:
    head = "".join(f"{name.replace('_', '-').lower()}: {value}\r\n" for name, value in handler.confirmation().items())
    handler.wfile.write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n")
    handler.wfile.write(head.encode() + b"\r\n3;a=b\r\nabc\r\n0\r\n\r\n")
    handler.server.ends.wait(PATIENCE)  # the connection stays open


def confirm_another(handler: _Handler) -> None:
    handler.reply(b"", X_Auth_User_ID="01900000-0000-7000-8000-000000000009", X_Auth_Roles="clerk")


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
    return lambda handler: handler.reply(b"{}", code, Location="/v1/verify", Retry_After="1")


SERVICE = """<?php
require 'vendor/autoload.php';
$options = ['or_offline' => getenv('OFFLINE') === '1', 'websites' => getenv('WEBSITES') === '1'];
$guard = new Wxauth\\Guard($options + ['issuer' => getenv('WXAUTH_ISSUER'), 'keys_dir' => getenv('KEYS')]);
$path = $_SERVER['REQUEST_URI'];
try {
    $guard = $path === '/orders' || $path === '/staff' ? $guard : $guard->current();
    $user = $guard->user($_SERVER['HTTP_AUTHORIZATION'], ...($path === '/staff' ? ['staff'] : []));
    echo json_encode(['current' => $user->isCurrent]);
} catch (Wxauth\\Refusal $refusal) {
    $refusal->send();
}
"""


PORTS = """<?php
require 'vendor/autoload.php';
$server = stream_socket_server('tcp://127.0.0.1:0');
$url = 'http://' . stream_socket_get_name($server, false);
$issuer = new Wxauth\\Testing\\Issuer(['issuer' => $url]);
$guard = new Wxauth\\Guard(['issuer' => $url, 'keys' => $issuer, 'or_offline' => true, 'keys_dir' => 'keys']);
for ($taken = []; count($taken) < 20; $taken[] = @stream_socket_client(str_replace('http', 'tcp', $url)));
try {
    echo end($taken) === false, $guard->current()->user($issuer->authorization())->isCurrent;
} catch (Wxauth\\Refusal $refusal) {
    echo $refusal->status(), ' ', $refusal->code();
}
"""
LOG = """<?php
require 'vendor/autoload.php';
class Logger { public function warning($line) { echo strstr($line, ' of', true); } }
$guard = new Wxauth\\Guard(['issuer' => 'https://a.test', 'keys_dir' => 'none', 'log' => [new Logger(), 'warning']]);
$token = 'eyJhbGciOiJFUzI1NiIsInR5cCI6ImF0K2p3dCIsImtpZCI6IngifQ.e30.' . str_repeat('A', 86);
try {
    $guard->user("Bearer $token");
} catch (Wxauth\\Refusal $refusal) {
}
"""


class Orders:
    """A service with this folder for keys."""

    def __init__(self, stack: ExitStack, site: Path, issuer_url: str, folder: Path, **env: str) -> None:
        address = f"127.0.0.1:{free_port()}"
        env = {"WXAUTH_ISSUER": issuer_url, "KEYS": str(folder), "OFFLINE": "1", "no_proxy": "*", **env}
        self.folder = folder
        self.process = stack.enter_context(Running(needs("php"), "-S", address, "service.php", cwd=site, env=env))
        self.process.wait_for("started")
        self.client = stack.enter_context(httpx.Client(base_url=f"http://{address}", trust_env=False, timeout=PATIENCE))

    def ask(self, token: str, path: str = "/orders") -> tuple[int, Any]:
        answer = self.client.get(path, headers=bearer(token))
        found = answer.json()
        return answer.status_code, found["current"] if answer.status_code == 200 else found["code"]

    def refund(self, token: str) -> tuple[int, Any]:
        """Ask a route that asks wxauth, as if the last finding was older than a second."""
        for file in self.folder.glob("*.away*"):
            file.unlink()
        return self.ask(token, "/refund")


@pytest.fixture
def site(tmp_path: Path) -> Path:
    autoload(tmp_path / "vendor")
    (tmp_path / "service.php").write_text(SERVICE)
    return tmp_path


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
CONFIRMED = (200, True)
ADMITTED_OFFLINE = (200, False)
AWAY = (503, "keys_unavailable")
NOT_ASKED = (503, "verification_unavailable")
INVALID = (401, "invalid_token")
GATEWAYS: dict[str, Answer] = {str(code): status(code) for code in (502, 503, 504)}
UNREACHABLE: dict[str, Answer] = {
    "no response": lambda handler: None,
    "a connection that is reset": reset,
    "half a head": answering(b"HTTP/1.1 200 OK\r\nContent-"),
    "a hint, and nothing more": answering(b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "silence": hang,
    "silence in the body": hang_in_the_body,
}
FAILURES: dict[str, Answer] = {
    **{str(code): status(code) for code in (201, 204, 301, 302, 303, 307, 308, 400, 404, 405, 408, 409)},
    **{str(code): status(code) for code in (410, 413, 421, 422, 425, 429, 431, 500, 501, 505, 507, 511, 520, 529, 599)},
    "no HTTP": answering(b"SSH-2.0-OpenSSH_9.2\r\n\r\n"),
    "HTTP/2": answering(b"HTTP/2 503 \r\n\r\n"),
    "a page with status 200": lambda handler: handler.reply(b"<html>503</html>"),
    "another user": confirm_another,
    "a body that is cut off": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{"),
    "a response without end": answering(b"HTTP/1.1 200 OK\r\n\r\n" + b" " * 300_000),
}


def test_a_token_is_admitted_unasked_only_while_wxauth_is_unreachable(
    stack: ExitStack, site: Path, wxauth: FakeWxauth, folder: Path
) -> None:
    orders, strict = Orders(stack, site, wxauth.url, folder), Orders(stack, site, wxauth.url, folder, OFFLINE="0")
    forged = wxauth.forge(HOSTILE["one bit off"])
    assert orders.refund(wxauth.token) == strict.refund(wxauth.token) == CONFIRMED
    with Sweep() as sweep:
        for name, answer in {**GATEWAYS, **UNREACHABLE}.items():
            wxauth.answer = answer
            with sweep.case(name, "its keys too"):
                wxauth.has_keys = False
                assert orders.refund(wxauth.token) == ADMITTED_OFFLINE
                assert strict.refund(wxauth.token) == NOT_ASKED
                assert orders.refund(forged) == INVALID
            with sweep.case(name, "its keys are there"):
                wxauth.has_keys = True
                assert orders.refund(wxauth.token) == (ADMITTED_OFFLINE if name in GATEWAYS else NOT_ASKED)
        for name, answer in FAILURES.items():
            wxauth.answer = answer
            for has_keys in (True, False):
                wxauth.has_keys = has_keys
                with sweep.case(name, has_keys):
                    assert orders.refund(wxauth.token) == NOT_ASKED
    wxauth.has_keys = True
    for answer, expected in {
        accept_in_chunks: CONFIRMED,
        status(401): (401, "session_revoked"),
        status(403): (403, "insufficient_scope"),
    }.items():
        wxauth.answer = answer
        assert orders.refund(wxauth.token) == expected
    assert wxauth.token.split(".")[2] not in orders.process.output
    wxauth.server_close()  # no connection
    assert (orders.refund(wxauth.token), strict.refund(wxauth.token)) == (ADMITTED_OFFLINE, NOT_ASKED)


def test_a_process_that_is_late_itself_finds_no_outage(
    stack: ExitStack, site: Path, wxauth: FakeWxauth, folder: Path
) -> None:
    orders = Orders(stack, site, wxauth.url, folder)
    assert orders.refund(wxauth.token) == CONFIRMED
    wxauth.has_keys = False

    def stop_at_the_keys(handler: _Handler) -> None:
        if handler.path == "/.well-known/jwks.json":
            os.kill(orders.process.process.pid, signal.SIGSTOP)
            handler.server.ends.wait(3)  # longer than the time limit of a request, and half a second
            os.kill(orders.process.process.pid, signal.SIGCONT)

    wxauth.answer = stop_at_the_keys
    assert orders.refund(wxauth.token) == NOT_ASKED


def test_a_machine_without_free_ports_is_no_outage(site: Path, folder: Path) -> None:
    (site / "ports.php").write_text(PORTS)
    assert output_with_few_ports(needs("php"), "ports.php", cwd=site) == "1503 verification_unavailable"


def test_the_log_tells_once_a_minute_why_tokens_are_refused(
    stack: ExitStack, site: Path, wxauth: FakeWxauth, folder: Path
) -> None:
    orders = Orders(stack, site, wxauth.url, folder)
    for _ in range(2):
        for claims in ({"aud": "shop"}, {"iss": "https://evil\n\u202e"}, {"exp": 9}, {"iat": 9e9}):
            orders.ask(wxauth.forge(methodcaller("with_claims", **claims)))
        orders.ask(wxauth.forge(HOSTILE["one bit off"]))
        orders.ask(wxauth.forge(methodcaller("with_header", kid="evil\n" + "x" * 999)))
        orders.ask("x")
    said = re.findall(r"wxauth: a token was refused: (.*)", orders.process.output)
    assert [re.sub(r"\d+ s ", "N s ", line) for line in said] == [
        "aud is 'shop', this guard expects 'wxauth'",
        f"iss is 'https://evil????', this guard expects '{wxauth.url}'",
        "expired N s ago by this machine's clock",
        "iat is N s in the future by this machine's clock",
        f"its signature does not fit the key '{KEY.kid}' of {wxauth.url}",
        f"its kid is 'evil?{'x' * 195}', which is no key of {wxauth.url}",
    ]


def test_a_project_sends_the_log_where_it_wants(site: Path) -> None:
    (site / "log.php").write_text(LOG)
    assert output_of(needs("php"), "log.php", cwd=site) == "wxauth: keys_dir must be a folder with mode 0700"


def test_processes_share_one_finding_a_second_and_who_neither_finds_nor_asks_is_refused(
    stack: ExitStack, site: Path, wxauth: FakeWxauth, folder: Path
) -> None:
    orders = Orders(stack, site, wxauth.url, folder)
    assert orders.refund(wxauth.token) == CONFIRMED
    wxauth.answer = lambda handler: None
    wxauth.has_keys = False
    assert orders.refund(wxauth.token) == ADMITTED_OFFLINE
    [found] = folder.glob("*.away")
    assert stat.S_IMODE(found.stat().st_mode) == 0o600
    found.write_text(f"{time.time() + 3600:.3f}")  # as after a clock that was set back
    assert orders.ask(wxauth.token, "/refund") == NOT_ASKED
    found.unlink()
    lock = found.with_name(f"{found.name}.lock")
    lock.unlink()
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        assert orders.ask(wxauth.token, "/refund") == NOT_ASKED


@pytest.fixture
def away(site: Path, stack: ExitStack, wxauth: FakeWxauth, folder: Path) -> Orders:
    """A service that has kept the keys. wxauth is unreachable."""
    orders = Orders(stack, site, wxauth.url, folder)
    assert orders.ask(wxauth.token) == ADMITTED
    wxauth.answer, wxauth.has_keys = status(503), False
    return orders


def test_good_tokens_of_own_apps_are_admitted_alone(away: Orders, wxauth: FakeWxauth) -> None:
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
            ("sub", "1"),
            ("sid", "1"),
            ("roles", [["staff"]]),
            ("roles", None),
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
                assert (code, reason) == INVALID or (code == 401 and name.startswith("exp "))
        scopes: list[Any] = ["openid", "", None, 0, False, [], ["openid"], {}]
        for scope in scopes:
            with sweep.case(f"scope {scope!r}"):
                token = wxauth.forge(methodcaller("with_claims", scope=scope))
                assert away.ask(token) == (403, "insufficient_scope")
        with sweep.case("roles"):
            assert away.ask(wxauth.token, "/staff") == (403, "insufficient_role")
            assert away.ask(wxauth.forge(methodcaller("with_claims", roles=["staff"])), "/staff") == ADMITTED


def test_a_websites_token_is_refused_unless_websites_are_accepted(
    stack: ExitStack, site: Path, wxauth: FakeWxauth, folder: Path
) -> None:
    token = wxauth.forge(methodcaller("with_claims", scope="openid"))
    orders, open_to_both = (Orders(stack, site, wxauth.url, folder, WEBSITES=each) for each in ("0", "1"))
    for path in ("/orders", "/refund"):
        refusal = orders.client.get(path, headers=bearer(token))
        assert (refusal.status_code, refusal.json()["code"]) == (403, "insufficient_scope")
        assert refusal.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
        assert open_to_both.ask(token, path)[0] == open_to_both.ask(wxauth.token, path)[0] == 200


def kept_file(folder: Path) -> Path:
    [file] = folder.glob("*.json")
    return file


def made_older(folder: Path, seconds: int) -> None:
    file = kept_file(folder)
    state = json.loads(file.read_text())
    file.write_text(json.dumps({**state, "read_at": state["read_at"] - seconds}))


def test_keys_are_read_seldom_kept_privately_and_used_for_a_day(away: Orders, wxauth: FakeWxauth, folder: Path) -> None:
    unknown = wxauth.forge(HOSTILE["kid unknown"])
    wxauth.has_keys = True
    assert {away.ask(wxauth.token) for _ in range(20)} == {ADMITTED}
    assert wxauth.readings == 1
    made_older(folder, 301)
    for lock in folder.glob("*.lock"):
        lock.unlink()
    assert {away.ask(wxauth.token) for _ in range(5)} == {ADMITTED}
    assert wxauth.readings == 2
    assert stat.S_IMODE(kept_file(folder).stat().st_mode) == 0o600
    assert len(list(folder.iterdir())) == 2  # the keys, and the lock
    wxauth.has_keys = False
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


def test_a_folder_that_others_can_change_is_refused(
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
                assert "keys_dir must be a folder with mode 0700" in said
                assert f"{name} {fault}" in said


def test_a_wrong_certificate_is_no_outage(
    stack: ExitStack, site: Path, folder: Path, tmp_path: Path, wxauth: FakeWxauth
) -> None:
    (tmp_path / "trusted").mkdir()
    (tmp_path / "other").mkdir()
    trusted, other = Authority(tmp_path / "trusted"), Authority(tmp_path / "other")
    fake = stack.enter_context(FakeWxauth(trusted.server("127.0.0.1")))
    orders = Orders(stack, site, fake.url, folder, SSL_CERT_FILE=str(trusted.file))
    assert orders.refund(fake.token) == CONFIRMED
    fake.answer, fake.has_keys = hang, False
    assert orders.refund(fake.token) == ADMITTED_OFFLINE
    for name, wrong in {
        "another authority": other.server("127.0.0.1"),
        "another name": trusted.server("auth.example.com"),
        "expired": trusted.server("127.0.0.1", days=-1),
    }.items():
        fake.tls = wrong
        assert orders.refund(fake.token) == NOT_ASKED, name
    assert "certificate" in orders.process.output
    fake.tls = None  # it does not speak TLS, and ends the connection
    assert orders.refund(fake.token) in (ADMITTED_OFFLINE, NOT_ASKED)
    fake.server_close()
    assert orders.refund(fake.token) == ADMITTED_OFFLINE


@pytest.mark.node
def test_php_7_2_can_read_every_file() -> None:
    files = sorted(str(path) for path in (ROOT / "clients/php/src").rglob("*.php"))
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
