"""Runs nginx, Caddy and HAProxy with the files of `deploy/proxies`, and the services behind them."""

import json
import os
import pwd
import shutil
import sys
from asyncio import StreamReader, StreamWriter, wait_for
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from email import message_from_bytes
from hashlib import sha256
from pathlib import Path
from urllib.parse import parse_qs

from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.utils import accept_key

from tests.listening import Listening
from tests.processes import Running, free_port, is_served, until
from tests.programs import ROOT, needs

CONFIGURATIONS = ROOT / "deploy/proxies"
SILENCE = 0.5
"""The seconds of silence after which `Switching` ends a connection."""

SHOWN_PAGE = "https://shop.example.com"
"""The origin of pages that the configurations show as an example."""

NGINX_CONF = """\
user {user};
daemon off;
worker_processes 1;
pid nginx.pid;
error_log stderr warn;
events {{}}
http {{
    access_log off;
    client_body_temp_path body;
    proxy_temp_path proxy;
    fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi;
    scgi_temp_path scgi;
    include conf.d/*.conf;
}}
"""
"""The configuration around `conf.d`. It uses none of the system's folders."""


@contextmanager
def running(name: str, folder: Path, *, wxauth: str, service: str, page: str = "") -> Iterator[str]:
    """Run a proxy in front of wxauth and a service, both given as `host:port`, and yield its URL.

    Pages at the origin `page` may read the proxy's own responses.
    """
    port = free_port()
    start: Callable[..., Running] = {"nginx": _nginx, "caddy": _caddy, "haproxy": _haproxy}[name]
    with start(folder, address=f"127.0.0.1:{port}", wxauth=wxauth, service=service, page=page) as command:
        until(lambda: is_served(port) or command.process.poll() is not None)
        assert command.process.poll() is None, command.output
        yield f"http://127.0.0.1:{port}"


def _nginx(folder: Path, *, address: str, wxauth: str, service: str, page: str) -> Running:
    text = (CONFIGURATIONS / "nginx/orders.conf").read_text()
    addresses = {"127.0.0.1:8080": address, "127.0.0.1:8000": wxauth, "127.0.0.1:9000": service}
    return nginx_with(text, folder, addresses, page=page)


def nginx_with(text: str, folder: Path, addresses: Mapping[str, str], *, page: str = "") -> Running:
    """Run nginx with this text in `conf.d` and with the folder `wxauth` next to it.

    `addresses` maps the addresses that the text shows to those of this test.
    """
    program = needs("nginx")
    shutil.copytree(CONFIGURATIONS / "nginx/wxauth", folder / "wxauth")
    if page:
        file = folder / "wxauth/http.conf"
        shown = f"# {SHOWN_PAGE} $http_origin;"
        assert file.read_text().count(shown) == 1
        file.write_text(file.read_text().replace(shown, f"{page} $http_origin;"))
    (folder / "nginx.conf").write_text(NGINX_CONF.format(user=pwd.getpwuid(os.geteuid()).pw_name))
    for shown, here in addresses.items():
        assert text.count(shown) == 1, f"{shown} is not to be changed at one place"
        text = text.replace(shown, here)
    (folder / "conf.d").mkdir()
    (folder / "conf.d/orders.conf").write_text(text)
    return Running(program, "-p", f"{folder}", "-c", f"{folder}/nginx.conf", "-e", "stderr", cwd=folder)


def _caddy(folder: Path, *, address: str, wxauth: str, service: str, page: str) -> Running:
    addresses = {"SITE": f"http://{address}", "WXAUTH": wxauth, "UPSTREAM": service} | ({"PAGE": page} if page else {})
    homes = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    command = (needs("caddy"), "run", "--config", str(CONFIGURATIONS / "caddy/Caddyfile"), "--adapter", "caddyfile")
    return Running(*command, cwd=folder, env=addresses | homes)


def _haproxy(
    folder: Path,
    *,
    address: str,
    wxauth: str,
    service: str,
    page: str = "",
    lua: Path = CONFIGURATIONS / "haproxy/wxauth.lua",
) -> Running:
    asked_at = f"abns@{address}" if sys.platform == "linux" else f"unix@{folder}/wxauth"
    addresses = {"LISTEN": address, "WXAUTH": wxauth, "UPSTREAM": service, "ASKED_AT": asked_at, "LUA_FILE": str(lua)}
    addresses |= {"PAGES": f"https://another.example {page}"} if page else {}
    command = (needs("haproxy"), "-db", "-f", str(CONFIGURATIONS / "haproxy/haproxy.cfg"))
    return Running(*command, cwd=folder, env=addresses)


@contextmanager
def haproxy_with(lua: str, folder: Path, *, service: str) -> Iterator[str]:
    """Run HAProxy with another Lua file instead of wxauth's own."""
    file, port = folder / "wxauth.lua", free_port()
    file.write_text(lua)
    with _haproxy(folder, address=f"127.0.0.1:{port}", wxauth="127.0.0.1:1", service=service, lua=file):
        until(lambda: is_served(port))
        yield f"http://127.0.0.1:{port}"


class Recorder:
    """An app that records the ASGI scope of each request and passes the request on to another app."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self.scopes: list[Scope] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            self.scopes.append(scope)
        await self._app(scope, receive, send)


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Return the request as JSON. `?status=` sets the status, and `?to=` redirects.

    A WebSocket gets its headers, and then its own message back.
    """
    if scope["type"] == "websocket":
        await _echo_websocket(WebSocket(scope, receive, send))
    if scope["type"] != "http":
        return
    size, digest = 0, sha256()
    more_body = True
    while more_body:
        message = await receive()
        digest.update(message.get("body", b""))
        size += len(message.get("body", b""))
        more_body = message.get("more_body", False)
    received = {
        "method": scope["method"],
        "target": scope["raw_path"].decode() + (f"?{query}" if (query := scope["query_string"].decode()) else ""),
        "headers": headers_of(scope),
        "size": size,
        "sha256": digest.hexdigest(),
    }
    [status] = parse_qs(query).get("status", ["200"])
    headers = {"X-Request-ID": "the-service's-own", "X-Told-By": "the service"}
    headers["Access-Control-Allow-Origin"] = "https://allowed-by-the-service.example"
    if query.startswith("to="):
        headers["Location"] = query.removeprefix("to=")
    await Response(json.dumps(received), int(status), headers, "application/json")(scope, receive, send)


async def _echo_websocket(socket: WebSocket) -> None:
    await socket.accept()
    await socket.send_json(headers_of(socket.scope))
    try:
        while True:
            await socket.send_text(await socket.receive_text())
    except WebSocketDisconnect:
        pass


def headers_of(scope: Scope) -> list[list[str]]:
    return [[name.decode("latin-1").lower(), value.decode("latin-1")] for name, value in scope["headers"]]


class Switching(Listening):
    """A service that switches to any requested protocol and records each byte that arrives."""

    def __init__(self) -> None:
        super().__init__(self._record)
        self.received: list[bytearray] = []
        """The bytes that have arrived, by connection."""

    async def _record(self, reader: StreamReader, writer: StreamWriter) -> None:
        received = bytearray()
        self.received.append(received)
        with suppress(TimeoutError):
            while line := await wait_for(reader.readline(), SILENCE):
                received += line
                if received.count(b"\r\n\r\n") == 1 and line == b"\r\n":
                    writer.write(_answer(bytes(received)))


def _answer(head: bytes) -> bytes:
    given = message_from_bytes(head.partition(b"\r\n")[2])
    if "Upgrade" not in given:
        return b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    accepted = accept_key(given.get("Sec-WebSocket-Key", ""))  # HAProxy checks this value
    fields = f"Connection: Upgrade\r\nUpgrade: {given['Upgrade']}\r\nSec-WebSocket-Accept: {accepted}"
    return f"HTTP/1.1 101 Switching Protocols\r\n{fields}\r\n\r\n".encode()
