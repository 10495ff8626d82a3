"""Documents that an issuer's address might return with status 200 instead of its keys, and issuers that return them."""

import gzip
import json
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Lock, Thread
from typing import Any
from uuid import UUID

from tests.clock import PATIENCE
from tests.guard.hostile import Forger
from wxauth.core.clock import utc_now
from wxauth.tokens import AccessClaims, SigningKey, TokenIssuer
from wxauth_guard.issuer import METADATA_PATH

KEY = SigningKey.generate()
GOOD = KEY.public_jwk
TOO_LARGE = b" " * 300_000
RSA = {"kty": "RSA", "kid": "id-token", "use": "sig", "alg": "RS256", "n": "AQAB" * 60, "e": "AQAB"}
UNUSABLE: dict[str, dict[str, Any]] = {
    "of RSA": RSA,
    "of another curve": {"crv": "P-384"},
    "off the curve": {"x": GOOD["y"], "y": GOOD["x"]},
    "beyond the field": {"x": "_" * 43, "y": "_" * 43},
    "of zeros": {"x": "A" * 43, "y": "A" * 43},
    "with a short x": {"x": "AA"},
    "with a number as x": {"x": 7},
    "without y": {"y": None},
    "without an id": {"kid": None},
    "with an empty id": {"kid": ""},
    "with a list as id": {"kid": [GOOD["kid"]]},
    "for encryption": {"use": "enc"},
    "for another algorithm": {"alg": "ES384"},
}
"""Changes that turn a good key into a key that ES256 can't use."""


def key_set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


NONE: dict[str, bytes] = {
    "an empty object": b"{}",
    "maintenance": b'{"error": "maintenance"}',
    "keys null": b'{"keys": null}',
    "null": b"null",
    "no keys": b'{"keys": []}',
    "keys an object": json.dumps({"keys": {GOOD["kid"]: GOOD}}).encode(),
    "keys a text": b'{"keys": "none"}',
    "keys a number": b'{"keys": 7}',
    "keys of other types": b'{"keys": [null, [], "key", 7, true, {}]}',
    "a list": b"[]",
    "a list with the key": json.dumps([GOOD]).encode(),
    "the key alone": json.dumps(GOOD).encode(),
    "a text": b'"keys"',
    "a number": b"7",
    "nothing": b"",
    "HTML": b"<!DOCTYPE html><title>Maintenance</title>",
    "words": b"down for maintenance",
    "cut in the middle": key_set(GOOD)[:-20],
    "a byte order mark": b"\xef\xbb\xbf{}",
    "not UTF-8": b'{"keys": [\xff]}',
    "nested deeply": b"[" * 100_000,
    "nested deeply in keys": b'{"keys": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "too large": b'{"keys": [], "x": "' + TOO_LARGE + b'"}',
    **{f"a key {name}": key_set({**GOOD, **change}) for name, change in UNUSABLE.items()},
    "all of them": key_set(*({**GOOD, **change} for change in UNUSABLE.values())),
}
"""Documents without a usable key, by name. Guards must treat them as if the issuer had returned no document."""
COMPRESSED = {
    "compressed": gzip.compress(b'{"keys": []}'),
    "a bomb": gzip.compress(b'{"keys": [' + b" " * 30_000_000 + b"]}"),
}
UNREAD: dict[str, bytes] = {
    "the key with a byte order mark": b"\xef\xbb\xbf" + key_set(GOOD),
    "the key in a large document": key_set(GOOD) + TOO_LARGE,
    "the key, padded": key_set({**GOOD, "x": GOOD["x"] + "="}),
}
"""Documents that some guards read and other guards reject."""
READ: dict[str, bytes] = {
    "the key": key_set(GOOD),
    "the key beside one of RSA": key_set(RSA, GOOD),
}
BESIDE: dict[str, bytes] = {
    "the key beside others that cannot be used": key_set(
        None,
        7,
        "key",
        [],
        {},
        *({**GOOD, "kid": f"k{n}", **change} for n, change in enumerate(UNUSABLE.values())),
        GOOD,
    )
}
"""A set that also contains malformed keys. Nimbus rejects the whole set."""
TWICE: dict[str, bytes] = {
    "two keys with one id": key_set(GOOD, {**SigningKey.generate().public_jwk, "kid": GOOD["kid"]}),
    "the key twice": key_set(GOOD, GOOD),
}
"""Sets in which nobody knows which key an id names. Nimbus takes one."""
DOCUMENTS = {**TWICE, **NONE, **COMPRESSED, **UNREAD, **READ, **BESIDE}


@dataclass(frozen=True, slots=True)
class Line:
    """The input of a judge, which asks a guard about the good token, the stranger's, and the good one again."""

    issuer: str
    token: str
    stranger: str

    def __str__(self) -> str:
        return f"{self.issuer} {self.token} {self.stranger}"


class Publisher(ThreadingHTTPServer):
    """A server with one issuer for each path.

    /kept/NUMBER returns good keys to the first request, /fresh/NUMBER never returns good keys, and /hanging returns
    good keys once and then hangs.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Publishing)
        self.read: Counter[str] = Counter()
        self.lock, self.is_asked, self.ends = Lock(), Event(), Event()
        self.hanging: list[socket.socket] = []
        Thread(target=self.serve_forever, daemon=True).start()

    def line(self, path: str) -> Line:
        issuer, now = f"http://127.0.0.1:{self.server_port}/{path}", int(utc_now().timestamp())
        user = {"user_id": UUID(int=1), "session_id": UUID(int=2), "app_id": "wxtest", "openid": "o1", "roles": []}
        tokens = TokenIssuer(issuer=issuer, audience="wxauth")
        token = tokens.issue(KEY, AccessClaims(**user, issued_at=now, expires_in=3600))  # type: ignore[arg-type]
        return Line(issuer, token, Forger(token, KEY).with_header(kid="a stranger's"))

    def is_waited_for(self) -> bool:
        """Return whether the client that is reading the keys still waits, and then end its request."""
        assert self.is_asked.wait(PATIENCE)
        (connection,) = self.hanging
        connection.setblocking(False)
        try:
            return connection.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        finally:
            self.ends.set()

    def lines(self, kind: str) -> list[Line]:
        """Return one line for each document, in the documents' order."""
        return [self.line(f"{kind}/{number}") for number in range(len(DOCUMENTS))]


@contextmanager
def publishing() -> Iterator[Publisher]:
    with Publisher() as publisher:
        try:
            yield publisher
        finally:
            publisher.ends.set()
            publisher.shutdown()


class _Publishing(BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self) -> None:
        if self.path.endswith("/answered"):
            self.answer("a document", str(self.server.is_waited_for()).encode())
            return
        path, _, name = self.path.rpartition("/.well-known/")
        kind, _, number = path[1:].partition("/")
        if self.path.endswith(METADATA_PATH):
            issuer = f"http://127.0.0.1:{self.server.server_port}{path}"
            self.answer(
                "a document", json.dumps({"issuer": issuer, "jwks_uri": f"{issuer}/.well-known/jwks.json"}).encode()
            )
            return
        assert name == "jwks.json"
        with self.server.lock:
            self.server.read[path] += 1
            is_first = self.server.read[path] == 1 and kind != "fresh"
        if is_first:
            self.answer("the key", READ["the key"])
        elif kind == "hanging":
            self.server.hanging.append(self.connection)
            self.server.is_asked.set()
            self.server.ends.wait(PATIENCE)
        else:
            self.answer(*list(DOCUMENTS.items())[int(number)])

    def answer(self, name: str, body: bytes) -> None:
        with suppress(OSError):  # the client may have disconnected
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if name in ("HTML", "maintenance") else "application/json")
            if name in COMPRESSED:
                self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass
