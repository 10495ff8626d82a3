"""Each proxy limits heads, header fields and times, so that no request beyond these limits reaches a service."""

import os
import re
import shutil
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from tests.certificates import Authority
from tests.deploy.manifests import haproxy_of_the_controller
from tests.docs import ROOT
from tests.processes import PATIENCE, Running, free_port, is_served, serving, until
from tests.programs import needs
from tests.proxies import running
from tests.web.misbehaving import behind_edge, options, read_all
from wxauth.web.edge import MAX_FIELDS

pytestmark = pytest.mark.proxy

Connect = Callable[[], socket.socket]
LIMITS = (
    r"\b((?:client_(?:header|body)_timeout|send_timeout|read_(?:header|body)|timeout (?:http-request|client)) +)\d+s"
)
OF_SERVICES = ("nginx", "caddy", "haproxy")
HEAD = b"POST /public/a HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 4\r\nConnection: close\r\n"


async def answer(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the body, and respond."""
    await Request(scope, receive).body()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(scope="module")
def upstream() -> Iterator[str]:
    with serving(behind_edge(answer), **options()) as url:
        yield url.removeprefix("http://")


@pytest.fixture(params=["deploy/nginx", "deploy/compose", "deploy/kubernetes", *OF_SERVICES])
def connect(
    request: pytest.FixtureRequest, tmp_path: Path, upstream: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Connect]:
    """Return a function that connects to a proxy. The proxy's time limits are one second."""
    copy = tmp_path / "deploy"
    shutil.copytree(ROOT / "deploy", copy)
    for path in copy.rglob("*"):
        if path.suffix in (".conf", ".cfg") or path.name == "Caddyfile":
            path.write_text(re.sub(LIMITS, r"\g<1>1s", path.read_text()))
    monkeypatch.setattr(running, "CONFIGURATIONS", copy / "proxies")
    (folder := tmp_path / "run").mkdir()
    port, name = free_port(), request.param
    if name in OF_SERVICES:
        with running.running(name, folder, wxauth=upstream, service=upstream) as url:
            yield lambda: socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), PATIENCE)
        return
    if name == "deploy/kubernetes":
        started = _controller(folder, port, upstream)
    else:
        started = (
            _nginx(copy, folder, port, upstream) if name == "deploy/nginx" else _caddy(copy, folder, port, upstream)
        )
    trusted = ssl.create_default_context()
    trusted.check_hostname, trusted.verify_mode = False, ssl.CERT_NONE

    def connected() -> socket.socket:
        plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
        return trusted.wrap_socket(plain) if name == "deploy/nginx" else plain

    with started as command:
        until(lambda: is_served(port) or command.process.poll() is not None)
        assert command.process.poll() is None, command.output
        yield connected


def _nginx(deploy: Path, folder: Path, port: int, upstream: str) -> Running:
    Authority(folder).server("127.0.0.1")
    addresses = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "listen 80": f"listen 127.0.0.1:{free_port()}",
        "127.0.0.1:8001": upstream,
        "    server 127.0.0.1:8002 max_fails=0;\n": "",
        "/etc/letsencrypt/live/auth.example.com/fullchain.pem": f"{folder}/server.pem",
        "/etc/letsencrypt/live/auth.example.com/privkey.pem": f"{folder}/server.pem",
        "/var/log/wxauth/access.log": f"{folder}/access.log",
    }
    return running.nginx_with((deploy / "nginx/wxauth.conf").read_text(), folder, addresses)


def _controller(folder: Path, port: int, upstream: str) -> Running:
    (folder / "haproxy.cfg").write_text(re.sub(LIMITS, r"\g<1>1s", haproxy_of_the_controller(port, upstream)))
    return Running(needs("haproxy"), "-db", "-f", str(folder / "haproxy.cfg"), cwd=folder)


def _caddy(deploy: Path, folder: Path, port: int, upstream: str) -> Running:
    homes = {name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")}
    env = {"SITE": f"http://127.0.0.1:{port}", "BIND": "127.0.0.1", "REPLICAS": upstream, **homes}
    command = (needs("caddy"), "run", "--config", str(deploy / "compose/Caddyfile"), "--adapter", "caddyfile")
    return Running(*command, cwd=folder, env=os.environ | env)


def exchange(connect: Connect, sent: bytes) -> bytes:
    connection = connect()
    with suppress(ConnectionError):  # the proxy may reject it before reading everything
        connection.sendall(sent)
    return read_all(connection)


def test_a_proxy_limits_heads_fields_and_times(connect: Connect, request: pytest.FixtureRequest) -> None:
    until(lambda: exchange(connect, HEAD + b"\r\nbody").endswith(b"\r\n\r\nok"))
    refused = {
        "a head that does not end": HEAD,
        "a body that does not end": HEAD + b"\r\nbo",
        "a long head": HEAD + b"X: " + b"a" * 300_000 + b"\r\n\r\nbody",
        "many long fields": HEAD + b"".join(b"X-%d: %b\r\n" % (n, b"a" * 8000) for n in range(40)) + b"\r\nbody",
        "many fields": HEAD + b"".join(b"X-%d: a\r\n" % n for n in range(MAX_FIELDS)) + b"\r\nbody",
    }
    if request.node.callspec.params["connect"] == "nginx":
        del refused["many fields"]  # nginx drops fields that are not in its list
    answers = {what: exchange(connect, sent) for what, sent in refused.items()}
    assert not [what for what, answered in answers.items() if answered.endswith(b"\r\n\r\nok")], answers
