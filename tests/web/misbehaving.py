"""An app for tests of misbehaving clients, with the server and the edge around it.

At some paths, the app misbehaves too.
"""

import asyncio
import socket
import threading
from collections import Counter
from contextlib import suppress
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from tests.processes import PATIENCE
from wxauth.service.server import uvicorn_options
from wxauth.web.edge import SENDING_SECONDS, Edge
from wxauth.web.http_protocol import HttpProtocol

LARGE = 64 * 2**20
_BODY = bytes(LARGE)
GET = b"GET /%b HTTP/1.1\r\nHost: a\r\n\r\n"


def behind_edge(app: ASGIApp, *, seconds: float = SENDING_SECONDS) -> Edge:
    """Put the app behind our edge, with bodies of any size and with more time for `/slow`."""
    return Edge(
        app,
        size_limits={"/{path:path}": LARGE},
        time_limits={"/auth/slow": PATIENCE},
        on_refusal=lambda *_: None,
        leaving=SimpleNamespace(is_leaving=False),
        body_seconds=seconds,
    )


def options(*, seconds: float = SENDING_SECONDS) -> dict[str, Any]:
    """Return uvicorn's options for such an app."""
    timed = {"http": type("Timed", (HttpProtocol,), {"head_seconds": seconds}), "timeout_keep_alive": seconds}
    return uvicorn_options() | {"lifespan": "off", **timed}


class App:
    """Responds with the path and the body, except at some paths."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.begun, self.ended = Counter[str](), Counter[str]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send a response, and count it."""
        self.begun[scope["path"]] += 1
        try:
            await self._answer(scope, receive, send)
        finally:
            self.ended[scope["path"]] += 1

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def start(status: int = 200, **headers: str) -> None:
            fields = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
            await send({"type": "http.response.start", "status": status, "headers": fields})

        async def end(body: bytes) -> None:
            await send({"type": "http.response.body", "body": body})

        match scope["path"]:
            case "/unread":
                await start(413, content_length="2")
                await end(b"no")
            case "/waits":
                await asyncio.to_thread(self.let_go.wait, PATIENCE)
                await start(content_length="2")
                await end(b"ok")
            case "/begins":
                await start()
                await asyncio.to_thread(self.let_go.wait, PATIENCE)
                await end(b"ok")
            case "/large":
                await start(content_length=str(LARGE))
                await end(_BODY)
            case "/unmeasured":
                await start()
                await send({"type": "http.response.body", "body": b"in ", "more_body": True})
                await end(b"parts")
            case "/split":
                await start(x=(await receive())["body"].decode())
                await end(b"")
            case "/fails":
                raise ZeroDivisionError
            case "/fails-later":
                await start(content_length="9")
                raise ZeroDivisionError
            case "/breaks":
                await start(content_length="9")
                await send({"type": "http.response.body", "body": b"in ", "more_body": True})
            case path:
                text = path.encode() + b" " + await Request(scope, receive).body()
                await start(content_length=str(len(text)))
                await end(text)


def connected(url: str) -> socket.socket:
    """Return a connection to a server that sends each part at once."""
    address = urlsplit(url)
    connection = socket.create_connection((address.hostname, address.port), timeout=PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def read_all(connection: socket.socket) -> bytes:
    """Return everything that arrives until the server closes the connection."""
    received = []
    with connection, suppress(ConnectionError):
        while part := connection.recv(65536):
            received.append(part)
    return b"".join(received)
