"""The fixtures run a service as in production, for verifiers that know only its address."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import UUID

import asyncpg
import httpx
import pytest

from tests.clock import PATIENCE
from tests.databases import TEMPLATE
from tests.fakes import SECRET_KEY, service_env
from tests.guard.hostile import Forger, Forgery
from tests.processes import WXAUTH, Running, free_port, serving
from wxauth.core.clock import utc_now
from wxauth.core.database import Database
from wxauth.core.sealing import Sealer
from wxauth.keys.keyring import KeyRing, unsealed_key
from wxauth.settings.loading import settings_from
from wxauth.settings.settings import Settings
from wxauth.tokens import AccessClaims, SigningKey, TokenIssuer
from wxauth_desk.postgres import EmbeddedPostgres
from wxauth_desk.wechat import APPS, create_simulator

PHP_PARSER = Path(__file__).with_name("php")


def pytest_itemcollected(item: pytest.Item) -> None:
    item.add_marker(pytest.mark.foreign)


@dataclass(frozen=True, slots=True)
class Issuer:
    """A running `wxauth serve` with its keys, which tests forge tokens with."""

    url: str
    token: str
    """The access token of a login."""
    keys: KeyRing
    sealer: Sealer

    def forge(self, forgery: Forgery) -> str:
        return forgery(Forger(self.token, self.keys.signing_key(utc_now())))

    async def rotate(self) -> str:
        """Add a key to the service, and return a valid token signed by this key."""
        key = unsealed_key(await self.keys.rotate(), self.sealer, SigningKey)
        return Forger(self.token, key).with_header(kid=key.kid)


@pytest.fixture(scope="package")
async def database_of_issuer(postgres: EmbeddedPostgres, admin: asyncpg.Connection) -> AsyncIterator[str]:
    await admin.execute(f"CREATE DATABASE foreign_verifiers TEMPLATE {TEMPLATE}")
    yield postgres.url("foreign_verifiers")
    await admin.execute("DROP DATABASE foreign_verifiers WITH (FORCE)")


@pytest.fixture(scope="package")
def resources() -> list[dict[str, Any]]:
    """The service's only resource. No server listens at its address yet."""
    scopes = {"orders:read": "查看你的订单", "orders:write": "替你下单、退单"}
    return [{"resource": f"http://127.0.0.1:{free_port()}/mcp", "title": "小店助手", "scopes": scopes}]


@asynccontextmanager
async def issuer_at(url: str, database_url: str) -> AsyncIterator[Issuer]:
    """Log in to the service at this address, and yield it with the keys from its database."""
    async with httpx.AsyncClient(base_url=url, trust_env=False, verify=False) as client:
        login = await client.post("/v1/login", json={"code": "alice"})
    settings = settings_from(Settings, database_url=database_url, secret_key=SECRET_KEY)
    database, sealer = Database(database_url), Sealer(settings.secret_keys)
    keys = KeyRing(settings=settings, database=database, sealer=sealer, clock=utc_now)
    await keys.refresh()
    yield Issuer(url, login.json()["access_token"], keys, sealer)
    await database.aclose()


@pytest.fixture(scope="package")
async def issuer(
    database_of_issuer: str, resources: list[dict[str, Any]], tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Issuer]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    with serving(create_simulator()) as wechat_url:
        settings = {"wechat_base_url": wechat_url, "issuer": url, "port": port, "resources": json.dumps(resources)}
        env = service_env(database_of_issuer, apps=[APPS[0]], **settings)
        with Running(WXAUTH, "serve", cwd=tmp_path_factory.mktemp("issuer"), env=env) as service:
            service.wait_for('"started"')
            async with issuer_at(url, database_of_issuer) as issuer:
                yield issuer


@contextmanager
def listening(*command: str, says: str, cwd: Path, url: str = "", **env: str) -> Iterator[httpx.Client]:
    """Run a program until it prints that it listens, and yield a client for it.

    The client uses this URL, or by default the last word of the program's output.
    """
    with Running(*command, cwd=cwd, env=env) as process:
        said = process.wait_for(says)
        with httpx.Client(base_url=url or said.split()[-1], trust_env=False, verify=False, timeout=PATIENCE) as client:
            yield client


class _Answering(ThreadingHTTPServer):
    """A server that counts how often its keys are read. A test can let it hang."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.readings = 0
        self.is_asked, self.answers = Event(), Event()
        self.answers.set()
        Thread(target=self.serve_forever, daemon=True).start()

    def __exit__(self, *_: object) -> None:
        self.answers.set()
        self.shutdown()
        self.server_close()


class Front(_Answering):
    """A server in front of a service. A test can make the service unreachable."""

    def __init__(self, behind: str) -> None:
        super().__init__(_Forwarding)
        self.client = httpx.Client(base_url=behind, trust_env=False, verify=False)
        self.is_away = False
        self.status: int | None = None

    def __exit__(self, *exc: object) -> None:
        super().__exit__(*exc)
        self.client.close()


class _Forwarding(BaseHTTPRequestHandler):
    server: Front

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.server.is_away:
            return
        if self.server.status is not None:
            self.send_response(self.server.status)
            self.end_headers()
            return
        self.server.readings += self.path.endswith("/jwks.json")
        self.server.answers.wait(PATIENCE)
        headers = {name: self.headers[name] for name in ("Host", "Authorization", "Content-Type") if self.headers[name]}
        answer = self.server.client.request(self.command, self.path, headers=headers, content=body)
        with suppress(OSError):  # the client may have disconnected
            self.send_response(answer.status_code)
            self.send_header("Content-Type", answer.headers.get("content-type", "text/plain"))
            for name in ("X-Auth-User-ID", "X-Auth-Session-ID", "X-Auth-Roles"):
                if name in answer.headers:
                    self.send_header(name, answer.headers[name])
            self.end_headers()
            self.wfile.write(answer.content)

    do_POST = do_GET  # noqa: N815 as the server calls it

    def log_message(self, *_: object) -> None:
        pass


class Publisher(_Answering):
    """A server that publishes metadata, the key "known", and a key for other tokens."""

    def __init__(self) -> None:
        super().__init__(_PublishedKeys)
        self.key, self.kid = SigningKey.generate(), "known"

    def token(self, kid: str = "known", **claims: Any) -> str:
        """Return a token that names this key, with these claims."""
        now = int(utc_now().timestamp())
        user = {"user_id": UUID(int=1), "session_id": UUID(int=2), "app_id": "wxtest", "openid": "o1", "roles": []}
        tokens = TokenIssuer(issuer=self.url, audience="wxauth")
        issued = tokens.issue(self.key, AccessClaims(**user, issued_at=now, expires_in=3600))  # type: ignore[arg-type]
        named = Forger(issued, self.key).with_header(kid=kid)
        return Forger(named, self.key).with_claims(**claims)


class _PublishedKeys(BaseHTTPRequestHandler):
    server: Publisher

    def do_GET(self) -> None:
        self.server.readings += 1
        self.server.is_asked.set()
        self.server.answers.wait(PATIENCE)
        keys = [{**self.server.key.public_jwk, "kid": self.server.kid}, {"kty": "RSA", "kid": "id-token"}]
        with suppress(OSError):  # the client may have disconnected
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"keys": keys, "jwks_uri": self.server.url}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def publisher() -> Iterator[Publisher]:
    with Publisher() as server:
        yield server
