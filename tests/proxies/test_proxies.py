"""nginx, Caddy and HAProxy guard a service with the files of `deploy/proxies` and a real wxauth."""

import asyncio
import json
import re
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlsplit
from uuid import uuid4

import asyncpg
import httpx
import pytest
import websockets
from starlette.types import Scope

from tests.conftest import SETTINGS
from tests.fakes import Clock, Secrets
from tests.guard.hostile import EXPIRED, HOSTILE, Forger
from tests.problems import problem_of
from tests.processes import PATIENCE, free_port, serving
from tests.proxies.longest import LONGEST, REDIRECT_URI
from tests.proxies.running import Recorder, Switching, echo, haproxy_with, headers_of, running
from tests.sweeps import Sweep
from tests.world import bearer, body_of, set_roles, until
from wxauth.core.services import Services
from wxauth.keys.keyring import KeyRing
from wxauth.service.app import create_app
from wxauth.service.build import build_services
from wxauth.service.server import uvicorn_options
from wxauth.settings.loading import settings_from
from wxauth.settings.settings import Settings
from wxauth_desk.postgres import EmbeddedPostgres
from wxauth_desk.wechat import APPS, create_simulator

pytestmark = pytest.mark.proxy

PROXIES = ("nginx", "caddy", "haproxy")
IDENTITY = ("x-auth-user-id", "x-auth-app-id", "x-auth-openid", "x-auth-session-id", "x-auth-roles", "x-auth-scope")
NOBODY = {"x-auth-roles": "", "x-auth-scope": ""}
LONGEST_HEAD = 16_000
"""A number of bytes that each proxy passes on. wxauth itself then rejects the token if it exceeds 8,192 bytes."""
TOO_LONG = {"nginx": {400}, "caddy": {431}, "haproxy": {400, 431}}  # 431 since HAProxy 3
"""The status that each proxy returns for a longer token."""

# Other spellings of X-Auth-*, and other names that begin with this prefix.
SPOOFED = [
    *("X-Auth-User-Id", "x-auth-user-id", "X-AUTH-ROLES", "X-Auth-Scope", "X-Auth-", "X-Auth-Roles-", "X_Auth_User_Id"),
    *(f"X{one}Auth{other}Roles" for one, other in product("-_.", repeat=2)),
    *(f"X{character}Auth{character}Roles" for character in "!#$%&'*+^`|~"),
    *(f"X-Auth{character}Roles" for character in "!#$%&'*+^`|~"),
]

# Paths that one program reads as protected and another program as public.
UP = [
    *("..", ".", "%2e%2e", "%2E.", ".%2e", "%252e%252e", "..;", "..;x=1", "%3b/..", "%20..", "..%20", "%zz", "a%3F"),
    "%0d%0aX-Auth-Roles:%20admin",
]
"""Path segments that some program reads as a step up, which leads out of `/public`."""
BEHIND_ADMIN = [
    *("%2fa", "%00", "%0a", "/audit%0A", "%0d", "%09", "%1F", "%7f", "#a", ";", ";/a", "%20", "%20?a=1", "%20/audit"),
    *("/audit%20", "%20.", ".%20", "/%zz", "/audit/%", "/%2", "%3fa", "%23a", "/../orders"),
]
AMBIGUOUS = [
    *(f"/public/{up}/orders" for up in UP),
    *(f"/public/..{slash}orders" for slash in ("%2f", "%2F", "%5c", "\\", "%252f")),
    *("/public/..", "/public/.", "/public%2f..%2forders", "/public;/../orders", "/public//orders", "//public/orders"),
    *(f"/admin{more}" for more in BEHIND_ADMIN),
    *("//admin", "/%20admin", "/orders/../public/a", "/orders//admin", "/orders/..;/admin", "/orders/%20%20/a"),
    *("x:*", "x:admin/audit", "admin/audit", "?role=admin"),  # no paths
]

HANDSHAKE = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="

# Requests hidden in a body (request smuggling).
STOLEN = "DELETE /admin/audit HTTP/1.1\r\nHost: a\r\nX-Auth-User-Id: a\r\nX-Auth-Roles: admin,auditor\r\n\r\n"
OF_ITS_LENGTH = f"Content-Length: {len(STOLEN)}\r\n\r\n{STOLEN}"
CHUNKED = f"Transfer-Encoding: chunked\r\n\r\n{len(STOLEN):x}\r\n{STOLEN}\r\n0\r\n\r\n"


# Malformed header lines, each of which some version of a proxy might accept.
MALFORMED = [
    "Authorization: Bearer {token}\0",
    "Authorization : Bearer {token}",
    "Authorization: Bearer\r\n {token}",
    "X: a\nAuthorization: Bearer {token}",
    "X: a\rAuthorization: Bearer {token}",
    "X-Auth-User-Id: a\r\nX-Auth-Roles : admin",
    "X-Auth-User-Id\t: a",
    " X-Auth-Roles: admin",
    "X: a\r\n X-Auth-Roles: admin",
    "X-Auth-Röles: admin",
    "X-Auth-Roles",
    ": X-Auth-Roles",
]

# Paths, a user's roles, and whether the roles open the path.
DEMANDS: list[tuple[str, tuple[str, ...], bool]] = [
    ("/admin", (), False),
    ("/admin/a", ("auditor",), False),
    ("/admin/a", ("clerk",), True),
    ("/admin/audit", ("clerk",), False),
    ("/admin/audit/a", ("auditor",), False),
    ("/admin/audit/a", ("clerk", "auditor"), True),
    ("/Admin", (), False),
    ("/ADMIN/a", (), False),
    ("/%61dmin/a", (), False),
    ("/admin/AUDIT/a", ("clerk",), False),
    ("/admin?role=", (), False),
    ("/admin.json", (), False),
    ("/Admin.", ("auditor",), False),
    ("/admin.json/a", ("clerk",), True),
    ("/admin/audit.csv", ("clerk",), False),
    ("/admin/AUDIT.csv", ("auditor",), False),
    ("/admin/audit.csv", ("clerk", "auditor"), True),
    ("/admin/auditors", ("clerk",), True),
    ("/administration", (), True),
    *((f"/admin{end}", (), False) for end in ("%c2%a0", "%C2%85", "%a0", "%e3%80%80", "~", "%c2%a0/audit", ".%c2%a0")),
    *((f"/admin/audit{end}", ("clerk",), False) for end in ("%c2%a0", "%a0", "%e2%80%8b", ".csv%c2%a0")),
]

NOT_PLAINLY_PUBLIC = [
    "/public",
    "/publicity",
    "/Public.html",
    "/PUBLIC/a",
    "/Public/a",
    "/%50ublic/a",
    "/publi%43/a",
    "/public.html",
    "/_wxauth/",
    "/_wxauth/role=a",
    "/v1/verify",
]

TO_WEBSOCKET = ["Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket", "Connection: Upgrade\r\nUpgrade: websocket"]
# Some versions of nginx and HAProxy ignore the other protocol, and others ignore the upgrade.
TO_WEBSOCKET_OR_ANOTHER = [
    "Connection: Upgrade\r\nUpgrade: websocket, h2c",
    "Connection: Upgrade\r\nUpgrade: h2c, websocket",
    "Connection: Upgrade\r\nUpgrade: h2c\r\nUpgrade: websocket",
    "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c",
]
UPGRADES = [
    "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__",
    "Connection: Upgrade\r\nUpgrade: foo",
    *TO_WEBSOCKET_OR_ANOTHER,
    "Connection: Upgrade\r\nUpgrade: websocket2",
    "Connection: Upgrade\r\nUpgrade: websocket/13",
    *TO_WEBSOCKET,
]
WITH_A_BODY = [
    ("GET", OF_ITS_LENGTH),
    ("GET", "Content-Length: 0\r\n\r\n"),
    ("GET", CHUNKED),
    ("POST", OF_ITS_LENGTH),
    ("POST", CHUNKED),
    ("POST", "\r\n"),
    ("HEAD", "\r\n"),
    ("OPTIONS", "\r\n"),
]

ONE_CHUNK = "Transfer-Encoding: chunked\r\n\r\n1\r\n\n\r\n0\r\n\r\n"
PAGE = "https://shop.example"
PREFLIGHT = {"Origin": PAGE, "Access-Control-Request-Method": "DELETE"}
"""The headers by which a browser asks whether its page may send a request."""
WISHES = "Access-Control-Request-Method: DELETE"
NO_PREFLIGHTS = [
    "OPTIONS {path} HTTP/1.1\r\n{host}\r\n",
    f"OPTIONS {{path}} HTTP/1.1\r\n{{host}}{WISHES}\r\n\r\n",
    f"OPTIONS {{path}} HTTP/1.1\r\n{{host}}Origin:\r\n{WISHES}\r\n\r\n",
    f"OPTIONS {{path}} HTTP/1.1\r\n{{host}}Origin: \t \r\n{WISHES}\r\n\r\n",
    f"OPTIONS {{path}} HTTP/1.1\r\n{{host}}Origin {PAGE}\r\n{WISHES}\r\n\r\n",
    f"OPTIONS {{path}} HTTP/1.1\r\n{{host}}X-Origin: {PAGE}\r\n{WISHES}\r\n\r\n",
    f"OPTIONS {{path}} HTTP/1.1\r\n{{host}}Origin: {PAGE}\r\n\r\n",
    f"OPTIONS {{path}} HTTP/1.1\r\n{{host}}Origin: {PAGE}\r\nAccess-Control-Request-Method:\r\n\r\n",
    f"OPTIONS {{path}} HTTP/1.1\r\n{{host}}Origin: {PAGE}\r\nAccess_Control_Request_Method: GET\r\n\r\n",
    f"OPTIONS {{path}} HTTP/1.1\r\n{{host}}Origin: {PAGE}\r\n{WISHES}\r\n{OF_ITS_LENGTH}",
    f"OPTIONS {{path}} HTTP/1.1\r\n{{host}}Origin: {PAGE}\r\n{WISHES}\r\nContent-Length: 1\r\n\r\nx",
    f"OPTIONS {{path}} HTTP/1.1\r\n{{host}}Origin: {PAGE}\r\n{WISHES}\r\n{CHUNKED}",
    f"OPTIONS {{path}} HTTP/1.1\r\n{{host}}Origin: {PAGE}\r\n{WISHES}\r\n{ONE_CHUNK}",
    *(
        f"{method} {{path}} HTTP/1.1\r\n{{host}}Origin: {PAGE}\r\n{WISHES}\r\n{override}\r\n"
        for method in ("options", "Options", "GET", "POST", "HEAD", "DELETE", "OPTIONSX")
        for override in ("", "X-HTTP-Method-Override: OPTIONS\r\n")
    ),
]
# Some frameworks let one of these headers replace the method, with "-" or another character in its name.
OVERRIDING = [
    *("X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "X-Method", "X-HTTP-Verb-Override"),
    *("X-Original-Method", "X-Forwarded-Method", "X-Rewrite-Method", "HTTP-Method-Override", "Method-Override"),
    *("Method", "_method", "X_HTTP_Method_Override", "X.HTTP.Method.Override", "Http_Method", "X-Override-Method"),
]


@dataclass
class Wxauth:
    """A running service whose clock stands still."""

    address: str
    services: Services
    arrived: Recorder
    database_url: str

    @property
    def asked(self) -> list[Scope]:
        """The requests in which the proxy has asked wxauth."""
        return [scope for scope in self.arrived.scopes if scope["path"] == "/v1/verify"]

    async def log_in(self, person: str = "alice") -> dict[str, Any]:
        async with httpx.AsyncClient(trust_env=False, verify=False) as client:
            return body_of(await client.post(f"http://{self.address}/v1/login", json={"code": person}))

    async def grant(self, person: str, *roles: str) -> dict[str, Any]:
        """Log in a user who has these roles."""
        tokens = await self.log_in(person)
        rows = await asyncpg.connect(self.database_url)
        await set_roles(rows, *roles, user_id=tokens["user"]["id"])
        await rows.close()
        return tokens


@dataclass
class Guarded:
    """The service that the proxy guards."""

    address: str
    arrived: Recorder


StartWxauth = Callable[[str], Wxauth]


@dataclass
class Proxy:
    """A proxy between the guarded service and an outside client that has Alice's token."""

    name: str
    url: str
    client: httpx.AsyncClient
    wxauth: Wxauth
    service: Guarded
    tokens: dict[str, Any]
    folder: Path
    """The folder of the test."""

    @property
    def alice(self) -> dict[str, Any]:
        """The header with Alice's token."""
        return {"Authorization": f"Bearer {self.tokens['access_token']}"}

    @property
    def authorization(self) -> str:
        """The header with Alice's token as a line of text."""
        return f"Authorization: {self.alice['Authorization']}"

    @property
    def passed(self) -> list[Scope]:
        """The requests that the service received."""
        return self.service.arrived.scopes

    async def ask(self, path: str, headers: Any = None, *, method: str = "GET", **options: Any) -> httpx.Response:
        """Request exactly this path, as Alice or with these headers. httpx would normalize the path of a URL."""
        target = {"target": path.encode()}
        headers = self.alice if headers is None else headers
        return await self.client.send(
            self.client.build_request(method, "/", headers=headers, extensions=target, **options)
        )

    @asynccontextmanager
    async def another(self, *, wxauth: str = "", service: str = "", page: str = "") -> AsyncIterator[httpx.AsyncClient]:
        """Run another proxy of the same kind with another wxauth or another service, and yield an outside client."""
        addresses = {"wxauth": wxauth or self.wxauth.address, "service": service or self.service.address}
        with running(self.name, self.folder, page=page, **addresses) as url:
            async with outside(url) as client:
                yield client


@pytest.fixture(scope="module")
async def database_url(postgres: EmbeddedPostgres, admin: asyncpg.Connection) -> AsyncIterator[str]:
    await admin.execute("CREATE DATABASE proxies TEMPLATE template_wxauth STRATEGY FILE_COPY")
    yield postgres.url("proxies")
    await admin.execute("DROP DATABASE proxies WITH (FORCE)")


@pytest.fixture(scope="module")
def start_wxauth(secrets: Secrets) -> Iterator[StartWxauth]:
    """A function that serves wxauth with this database in its own thread."""
    with ExitStack() as stack:
        wechat_url = stack.enter_context(serving(create_simulator()))

        def start(database_url: str) -> Wxauth:
            values = {"apps": list(APPS), "database_url": database_url, "wechat_base_url": wechat_url}
            settings = settings_from(Settings, **SETTINGS | values)
            services = build_services(settings, clock=Clock(datetime(2026, 11, 20, 8, 0, tzinfo=UTC)))
            arrived = Recorder(create_app(services))
            url = stack.enter_context(serving(arrived, **uvicorn_options()))
            return Wxauth(urlsplit(url).netloc, services, arrived, database_url)

        yield start


@pytest.fixture(scope="module")
def wxauth(start_wxauth: StartWxauth, database_url: str) -> Wxauth:
    return start_wxauth(database_url)


@pytest.fixture(scope="module")
def service() -> Iterator[Guarded]:
    arrived = Recorder(echo)
    with serving(arrived, proxy_headers=False) as url:
        yield Guarded(urlsplit(url).netloc, arrived)


@pytest.fixture(scope="module", params=PROXIES)
def name(request: pytest.FixtureRequest) -> str:
    """The name of the proxy."""
    return str(request.param)


@pytest.fixture(scope="module")
def url(name: str, tmp_path_factory: pytest.TempPathFactory, wxauth: Wxauth, service: Guarded) -> Iterator[str]:
    with running(name, tmp_path_factory.mktemp(name), wxauth=wxauth.address, service=service.address) as url:
        yield url


@pytest.fixture(scope="module")
async def tokens(wxauth: Wxauth) -> dict[str, Any]:
    return await wxauth.log_in("alice")


@pytest.fixture
async def proxy(
    name: str, url: str, wxauth: Wxauth, service: Guarded, tokens: dict[str, Any], secrets: Secrets, tmp_path: Path
) -> AsyncIterator[Proxy]:
    """A proxy, and a client that checks that no response contains a token.

    The service returns all headers that it receives.
    """
    secrets.add(tokens["access_token"].rpartition(".")[2])
    wxauth.arrived.scopes.clear()
    service.arrived.scopes.clear()
    async with outside(url, event_hooks={"response": [secrets.check_answer]}) as client:
        yield Proxy(name, url, client, wxauth, service, tokens, tmp_path)


def identity_in(headers: list[list[str]]) -> dict[str, str]:
    """Return the X-Auth-* headers in any spelling, each at most once. An empty header can be missing."""
    found = [(re.sub("[^a-z0-9]", "-", name), value) for name, value in headers]
    found = [(name, value) for name, value in found if name.startswith("x-auth-")]
    assert len(dict(found)) == len(found), found
    return {**NOBODY, **dict(found)}


def identity_of(tokens: dict[str, Any], roles: str = "") -> dict[str, str]:
    user = tokens["user"]
    return dict(
        zip(IDENTITY, (user["id"], user["app_id"], user["openid"], tokens["session_id"], roles, ""), strict=True)
    )


def outside(url: str, **options: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, trust_env=False, verify=False, **options)


async def status_of(client: httpx.AsyncClient, request: str) -> int:
    """Return the status of the response to these bytes, or 0 if the proxy closes the connection.

    `{host}` in the bytes stands for the proxy's address.
    """
    address = client.base_url.netloc.decode()
    reader, writer = await asyncio.open_connection(*address.split(":"))
    writer.write(request.replace("{host}", address).encode())
    line = await asyncio.wait_for(reader.read(100), PATIENCE)
    writer.close()
    return int(line.split()[1]) if line.startswith(b"HTTP/1.1 ") else 0


# Access by token and path.


async def test_a_good_token_lets_a_request_pass_says_whose_it_is_and_goes_no_further(proxy: Proxy) -> None:
    target = "/orders/%E8%8C%B6%20a+b?next=//a/../b;c&d=%2e%2e%2f%5c%00"
    answer = body_of(await proxy.ask(target))
    assert answer["target"] == target, "a plain path and any query arrive as they were sent"
    assert identity_in(answer["headers"]) == identity_of(proxy.tokens)
    assert "authorization" not in dict(answer["headers"])


async def test_no_hostile_token_passes(proxy: Proxy) -> None:
    key = proxy.wxauth.services[KeyRing].signing_key(proxy.wxauth.services.clock())
    with Sweep() as sweep:
        for forgery, forge in (HOSTILE | EXPIRED).items():
            token = forge(Forger(proxy.tokens["access_token"], key))
            if "\0" in token:
                continue  # no header can contain it, so the next test covers it
            with sweep.case(forgery):
                answer = await proxy.ask("/orders", {b"Authorization": b"Bearer " + token.encode()})
                if len(token) > LONGEST_HEAD:
                    assert answer.status_code in TOO_LONG[proxy.name]
                else:
                    problem_of(answer, "token_expired" if forgery in EXPIRED else "invalid_token", 401)
                    assert answer.headers["www-authenticate"] == 'Bearer error="invalid_token"'
                assert proxy.passed == []


async def test_a_malformed_head_gains_nothing(proxy: Proxy) -> None:
    address = urlsplit(proxy.url).netloc
    with Sweep() as sweep:
        for line in MALFORMED:
            with sweep.case(repr(line)):
                proxy.passed.clear()
                reader, writer = await asyncio.open_connection(*address.split(":"))
                head = f"GET /public/a HTTP/1.1\r\nHost: {address}\r\n{line.format(token=proxy.tokens['access_token'])}"
                writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode())
                status = int((await reader.read()).split(b" ", 2)[1])
                writer.close()
                assert status in (200, 400)
                for scope in proxy.passed:
                    assert identity_in(headers_of(scope)) == NOBODY
                assert len(proxy.passed) == (1 if status == 200 else 0)


async def test_neither_a_head_that_is_too_long_nor_one_with_two_tokens_is_passed_on(proxy: Proxy) -> None:
    answer = await proxy.ask("/orders", proxy.alice | {"X-A": "a" * 60_000})
    assert answer.status_code in TOO_LONG[proxy.name]
    assert proxy.wxauth.asked == []
    answer = await proxy.ask("/orders", [("Authorization", "Bearer x"), *proxy.alice.items()])
    assert answer.status_code == 400
    assert proxy.passed == []


async def test_a_longest_token_passes(proxy: Proxy, secrets: Secrets) -> None:
    key = proxy.wxauth.services[KeyRing].signing_key(proxy.wxauth.services.clock())
    token = Forger(proxy.tokens["access_token"], key).with_claims(padding="p" * 5500)
    assert 7900 < len(token) <= 8192
    secrets.add(token.rpartition(".")[2])
    assert (await proxy.ask("/orders", bearer(token))).status_code == 200


async def test_a_site_behind_the_proxy_may_send_the_longest_state_and_gets_it_back(proxy: Proxy) -> None:
    target = f"to={REDIRECT_URI}?code={'c' * 43}&iss=https%3A%2F%2Fauth.test&state={quote_plus(LONGEST)}"
    for path, headers in {"/orders": proxy.alice, "/public/back": {}}.items():
        answer = await proxy.ask(f"{path}?{target}", headers)
        assert (answer.status_code, answer.json()["target"]) == (200, f"{path}?{target}")
        assert answer.headers["location"] == target.removeprefix("to=")


async def test_a_sign_out_counts_at_once(proxy: Proxy) -> None:
    token = bearer((await proxy.wxauth.log_in("bob"))["access_token"])
    assert (await proxy.ask("/orders", token)).status_code == 200
    async with outside(f"http://{proxy.wxauth.address}") as direct:
        assert (await direct.post("/v1/logout", headers=token)).status_code == 204
    problem_of(await proxy.ask("/orders", token), "invalid_token", 401)
    assert len(proxy.passed) == 1


async def test_a_path_demands_every_role_that_it_names(proxy: Proxy) -> None:
    tokens = {roles: await proxy.wxauth.grant("-".join(("carol", *roles)), *roles) for _, roles, _ in DEMANDS}
    with Sweep() as sweep:
        for path, roles, passes in DEMANDS:
            with sweep.case(path, roles):
                proxy.passed.clear()
                answer = await proxy.ask(path, bearer(tokens[roles]))
                if passes:
                    assert answer.status_code == 200, answer.text
                    assert identity_in(answer.json()["headers"]) == identity_of(tokens[roles], ",".join(roles))
                else:
                    problem_of(answer, "insufficient_role", 403)
                    assert "www-authenticate" not in answer.headers
                    assert proxy.passed == []
                problem_of(await proxy.ask(path, {}), "missing_token", 401)


async def test_a_path_that_can_be_read_in_two_ways_is_refused(proxy: Proxy) -> None:
    for headers in ({}, proxy.alice):
        answers = {path: await proxy.ask(path, headers) for path in AMBIGUOUS}
        assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(AMBIGUOUS, 400)
    assert proxy.passed == []


async def test_a_target_in_absolute_form_is_guarded(proxy: Proxy) -> None:
    answers = {
        path: (await proxy.ask(proxy.url + path)).status_code for path in ("/admin", "/orders/../admin", "//admin")
    }
    # Caddy accepts no such target.
    assert answers == {"/admin": 400 if proxy.name == "caddy" else 403, "/orders/../admin": 400, "//admin": 400}
    assert proxy.passed == []


async def test_a_path_that_is_not_plainly_public_is_guarded(proxy: Proxy) -> None:
    answers = {path: (await proxy.ask(path, {})).status_code for path in NOT_PLAINLY_PUBLIC}
    # nginx uses this path internally to ask wxauth, and hides it from clients.
    hidden = {path for path in NOT_PLAINLY_PUBLIC if proxy.name == "nginx" and path.startswith("/_wxauth/")}
    assert answers == {path: 404 if path in hidden else 401 for path in NOT_PLAINLY_PUBLIC}
    assert proxy.passed == []


async def test_a_public_path_is_open_and_wxauth_is_not_asked(proxy: Proxy) -> None:
    for headers in ({}, bearer("x"), proxy.alice):
        answer = body_of(await proxy.ask("/public/a", headers))
        assert identity_in(answer["headers"]) == NOBODY
        assert "authorization" not in dict(answer["headers"])
    assert proxy.wxauth.asked == []


async def test_a_method_that_is_none_of_a_services_is_refused(proxy: Proxy) -> None:
    with Sweep() as sweep:
        for method, target in product(("CONNECT", "TRACE"), ("/public/a", "/orders", "/admin/audit", "{host}")):
            for more in ("", f"{proxy.authorization}\r\n"):
                with sweep.case(method, target, "with a token" if more else "without"):
                    asked = f"{method} {target} HTTP/1.1\r\nHost: {{host}}\r\n{more}\r\n"
                    assert await status_of(proxy.client, asked) in (400, 405)
    assert proxy.passed == []


# Preflights, with which browsers ask whether a page at another origin may send a request.


async def test_a_preflight_reaches_the_service_bare_and_wxauth_is_not_asked(proxy: Proxy) -> None:
    sent = [*proxy.alice.items(), *PREFLIGHT.items(), ("Access-Control-Request-Headers", "authorization")]
    sent += [("Proxy-Authorization", "Basic eDp5"), ("Cookie", "session=1"), ("Cookie2", "a"), ("X-A", "b")]
    sent += [(name, "PURGE") for name in (*OVERRIDING, *SPOOFED)]
    with Sweep() as sweep:
        paths = ("/orders", "/admin/audit?a=b", "/Admin", "/public/a")
        for path, more in product(paths, ([], [("Content-Length", "0")])):
            with sweep.case(path, more):
                answer = await proxy.ask(path, [*sent, *more], method="OPTIONS")
                assert answer.status_code == 200, answer.text
                received = answer.json()
                assert (received["method"], received["target"], received["size"]) == ("OPTIONS", path, 0)
                headers = received["headers"]
                arrived = dict(headers)
                assert (arrived["origin"], arrived["access-control-request-method"]) == (PAGE, "DELETE")
                assert arrived["access-control-request-headers"] == "authorization"
                assert not {"authorization", "proxy-authorization", "cookie", "cookie2"} & arrived.keys()
                assert identity_in(headers) == NOBODY
                assert "PURGE" not in arrived.values()
                [address] = [value for name, value in headers if name == "x-forwarded-for"]
                assert (address, arrived["x-request-id"]) == ("127.0.0.1", answer.headers["x-request-id"])
    assert proxy.wxauth.asked == []


async def test_no_other_request_passes_as_a_preflight(proxy: Proxy) -> None:
    host = f"Host: {urlsplit(proxy.url).netloc}\r\n"
    with Sweep() as sweep:
        for request, path in product(NO_PREFLIGHTS, ("/orders", "/admin")):
            with sweep.case(path, repr(request)):
                proxy.passed.clear()
                status = await status_of(proxy.client, request.replace("{path}", path).replace("{host}", host))
                assert status in (400, 401, 405, 411, 413)
                assert proxy.passed == []


async def test_a_preflight_of_a_target_that_can_be_read_in_two_ways_is_refused(proxy: Proxy) -> None:
    answers = {path: await proxy.ask(path, PREFLIGHT, method="OPTIONS") for path in AMBIGUOUS}
    assert {path: answer.status_code for path, answer in answers.items()} == dict.fromkeys(answers, 400)
    assert (await proxy.ask("*", PREFLIGHT, method="OPTIONS")).status_code in (200, 400)  # Caddy itself answers it
    assert proxy.passed == []
    answer = await proxy.ask(f"{proxy.url}/admin", proxy.alice | PREFLIGHT, method="OPTIONS")
    if proxy.name == "caddy":  # it accepts no target in absolute form
        assert answer.status_code == 400
    else:
        assert identity_in(answer.json()["headers"]) == NOBODY
        assert "authorization" not in dict(answer.json()["headers"])


async def test_a_body_behind_a_preflight_is_not_taken_for_the_next_request(proxy: Proxy) -> None:
    address = urlsplit(proxy.url).netloc
    for body in (OF_ITS_LENGTH, CHUNKED):
        reader, writer = await asyncio.open_connection(*address.split(":"))
        writer.write(f"OPTIONS /orders HTTP/1.1\r\nHost: {address}\r\nOrigin: {PAGE}\r\n{WISHES}\r\n{body}".encode())
        writer.write(f"GET /public/a HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n".encode())
        await asyncio.wait_for(reader.read(), PATIENCE)
        writer.close()
    assert {scope["path"] for scope in proxy.passed} <= {"/public/a"}


async def test_a_page_of_a_listed_origin_can_read_the_proxys_own_refusals(proxy: Proxy) -> None:
    cases = [("/orders", {}, 401), ("/admin", proxy.alice, 403), ("/orders//", {}, 400), ("/", bearer("x"), 401)]
    async with proxy.another(page=PAGE) as client:
        with Sweep() as sweep:
            for path, headers, status in cases:
                for origin in (PAGE, f"{PAGE}.evil.example", "null", PAGE.replace(".", "x"), None):
                    with sweep.case(path, status, origin):
                        from_page = headers | ({} if origin is None else {"Origin": origin})
                        answer = await client.send(
                            client.build_request("GET", "/", headers=from_page, extensions={"target": path.encode()})
                        )
                        allowed = answer.headers.get_list("access-control-allow-origin")
                        assert (answer.status_code, allowed) == (status, [PAGE] if origin == PAGE else [])
                        if origin == PAGE and status != 400:
                            exposed = answer.headers["access-control-expose-headers"]
                            assert exposed == "Retry-After, WWW-Authenticate, X-Request-ID"
                            assert "Origin" in answer.headers["vary"]
            for path, headers in (("/orders", proxy.alice), ("/public/a", {}), ("/orders?status=401", proxy.alice)):
                with sweep.case("the service's own response to", path):
                    answer = await client.get(path, headers=headers | {"Origin": PAGE})
                    allowed = answer.headers.get_list("access-control-allow-origin")
                    assert allowed == ["https://allowed-by-the-service.example"]
            with sweep.case("no origin is listed"):
                assert "access-control-allow-origin" not in (await proxy.ask("/orders", {"Origin": PAGE})).headers


async def test_a_page_reads_that_wxauth_is_unavailable(proxy: Proxy) -> None:
    async with proxy.another(page=PAGE, wxauth=f"127.0.0.1:{free_port()}") as client:
        answer = await client.get("/orders", headers=proxy.alice | {"Origin": PAGE})
        problem_of(answer, "keys_unavailable", 503)
        assert answer.headers.get_list("access-control-allow-origin") == [PAGE]
        assert (await client.options("/orders", headers=PREFLIGHT)).status_code == 200


async def test_only_an_upgrade_to_websocket_passes_the_proxy(proxy: Proxy) -> None:
    async with Switching() as behind, proxy.another(service=behind.address) as before:
        with Sweep() as sweep:
            for upgrade, path in product(UPGRADES, ("/public/a", "/orders")):
                with sweep.case(path, repr(upgrade)):
                    behind.received.clear()
                    head = f"GET {path} HTTP/1.1\r\nHost: {{host}}\r\n{proxy.authorization}\r\n{HANDSHAKE}"
                    status = await status_of(before, f"{head}\r\n{upgrade}\r\n\r\n")
                    switched = re.findall(rb"(?im)^upgrade:\s*(.*?)\r?$", b"".join(behind.received))
                    expected = [(101, [b"websocket"])] if upgrade in TO_WEBSOCKET else [(200, [])]
                    if upgrade in TO_WEBSOCKET_OR_ANOTHER:
                        expected.append((101, [b"websocket"]))
                    assert (status, [word.lower() for word in switched]) in expected


async def test_nothing_but_a_get_without_a_body_takes_an_upgrade_along(proxy: Proxy) -> None:
    marks = {case: uuid4().hex for case in product(WITH_A_BODY, ("/public/a", "/orders"))}
    async with Switching() as behind, proxy.another(service=behind.address) as before:
        for ((method, body), path), mark in marks.items():
            # Caddy may still connect to the service for a request whose client has disconnected.
            head = f"{method} {path}?{mark} HTTP/1.1\r\nHost: {{host}}\r\n{proxy.authorization}"
            upgrade = f"{HANDSHAKE}\r\nConnection: Upgrade\r\nUpgrade: websocket"
            await status_of(before, f"{head}\r\n{upgrade}\r\n{body}")
        await until(lambda: not behind.open_connections)
    with Sweep() as sweep:
        for ((method, body), path), mark in marks.items():
            with sweep.case(method, path, repr(body)):
                received = b"".join(connection for connection in behind.received if mark.encode() in connection)
                if proxy.name == "caddy" and (method, body) == ("GET", CHUNKED):  # Caddy 2.6 can't know this
                    assert b"/admin" not in received
                else:
                    assert b"upgrade: websocket" not in received.lower()


async def test_a_body_that_follows_an_upgrade_is_not_taken_for_the_next_request(proxy: Proxy) -> None:
    body = b"\r\n" * 600_000 + STOLEN.encode()
    for path in ("/public/a", "/orders"):
        proxy.passed.clear()
        answer = await proxy.ask(
            path, proxy.alice | {"Connection": "Upgrade", "Upgrade": "foo"}, method="POST", content=body
        )
        assert (answer.status_code, answer.json()["size"]) == (200, len(body))
        assert [scope["path"] for scope in proxy.passed] == [path]


async def test_a_proxy_listens_only_on_loopback_and_speaks_no_http2_that_was_not_configured(proxy: Proxy) -> None:
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.2", urlsplit(proxy.url).port)) != 0
    preface, settings = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "\0\0\0\4\0\0\0\0\0"
    # All proxies read this as HTTP/1.1. Caddy responds to a target that isn't a path of a site with an empty 200.
    assert await status_of(proxy.client, preface + settings) == (200 if proxy.name == "caddy" else 400)


# The headers that the service receives.


@pytest.mark.parametrize("path", ["/orders", "/public/a"])
async def test_the_clients_own_identity_is_taken_off(proxy: Proxy, path: str) -> None:
    expected = identity_of(proxy.tokens) if path == "/orders" else NOBODY
    answer = await proxy.ask(path, [*proxy.alice.items(), *((name, "admin") for name in SPOOFED * 2)])
    assert answer.status_code == 200, answer.text
    assert identity_in(answer.json()["headers"]) == expected
    for name in SPOOFED:
        answer = await proxy.ask(path, proxy.alice | {name: "admin"})
        assert identity_in(answer.json()["headers"]) == expected, name


@pytest.mark.parametrize("path", ["/orders", "/public/a"])
async def test_no_header_names_another_path(proxy: Proxy, path: str) -> None:
    names = ["X-Original-URL", "x-rewrite-url", "X_Original_URL", "X-Rewrite_Url"]
    answer = await proxy.ask(path, proxy.alice | dict.fromkeys(names, "/admin/audit"))
    assert answer.json()["target"] == path
    assert "/admin/audit" not in dict(answer.json()["headers"]).values()


async def test_a_connection_header_takes_no_identity_off(proxy: Proxy) -> None:
    answer = await proxy.ask("/orders", proxy.alice | {"Connection": "keep-alive, X-Auth-User-Id, x-auth-roles"})
    if proxy.name == "nginx":
        assert identity_in(answer.json()["headers"]) == identity_of(proxy.tokens)
    else:
        assert answer.status_code == 400


async def test_trailers_of_a_body_are_not_passed_on_as_headers(proxy: Proxy) -> None:
    trailer = "X-Auth-Roles: admin,auditor\r\nX_Auth_User_Id: a\r\nX-Request-ID: a"
    announcements = ("X-Auth-Roles, X_Auth_User_Id, X-Request-ID", "X-Auth-Roles", "X-A")
    with Sweep() as sweep:
        for path, announced in product(("/orders", "/public/a"), announcements):
            with sweep.case(path, announced):
                proxy.passed.clear()
                head = f"POST {path} HTTP/1.1\r\nHost: {{host}}\r\n{proxy.authorization}\r\nTrailer: {announced}"
                body = f"Transfer-Encoding: chunked\r\n\r\n2\r\n{{}}\r\n0\r\n{trailer}\r\n\r\n"
                status = await status_of(proxy.client, f"{head}\r\n{body}")
                if proxy.name == "haproxy":  # HAProxy requires the length of a body
                    assert (status, proxy.passed) == (411, [])
                else:
                    assert status == 200
                    [scope] = proxy.passed
                    headers = headers_of(scope)
                    assert identity_in(headers)["x-auth-roles"] == ""
                    assert [name for name, _ in headers].count("x-request-id") == 1


async def test_a_body_arrives_whole_and_stays_off_wxauth(proxy: Proxy) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for number in range(40):
            yield bytes([number]) * 100_000

    body = b"".join([chunk async for chunk in chunks()])
    with Sweep() as sweep:
        for method in ("GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"):
            contents: list[bytes | AsyncIterator[bytes]] = [b'{"item":"tea"}', body]
            for content in [*contents, *([chunks()] if proxy.name != "haproxy" else [])]:
                with sweep.case(method, len(content) if isinstance(content, bytes) else "in chunks"):
                    answer = await proxy.ask(
                        "/orders", proxy.alice | {"Content-Type": "application/json"}, method=method, content=content
                    )
                    assert answer.status_code == 200, answer.text
                    sent = body if not isinstance(content, bytes) else content
                    received = answer.json()
                    assert (received["method"], received["size"]) == (method, len(sent))
                    assert received["sha256"] == sha256(sent).hexdigest()
                    assert dict(received["headers"])["content-type"] == "application/json"
    for scope in proxy.wxauth.asked:
        assert scope["method"] == "GET"
        assert not {"content-length", "transfer-encoding", "content-type"} & dict(headers_of(scope)).keys()


@pytest.mark.parametrize("path", ["/orders", "/public/a"])
async def test_the_services_own_answers_pass_as_they_are(proxy: Proxy, path: str) -> None:
    for status in (201, 302, 400, 401, 403, 404, 500, 502, 503):
        answer = await proxy.ask(f"{path}?status={status}")
        assert (answer.status_code, answer.headers["x-told-by"]) == (status, "the service")
        assert answer.json()["target"] == f"{path}?status={status}"


async def test_a_websocket_passes_with_the_users_headers(proxy: Proxy) -> None:
    spoofed = [(name, "admin") for name in SPOOFED]
    address = f"{proxy.url.replace('http', 'ws')}/orders"
    async with websockets.connect(address, additional_headers=[*proxy.alice.items(), *spoofed], proxy=None) as socket:
        assert identity_in(json.loads(await socket.recv())) == identity_of(proxy.tokens)
        for text in ("hello", "你好" * 30_000):
            await socket.send(text)
            assert await socket.recv() == text
    for scope in proxy.wxauth.asked:
        assert not {"upgrade", "sec-websocket-key"} & dict(headers_of(scope)).keys()


async def test_a_websocket_without_a_token_is_refused_at_the_handshake(proxy: Proxy) -> None:
    with pytest.raises(websockets.InvalidStatus) as refusal:
        await websockets.connect(f"{proxy.url.replace('http', 'ws')}/orders", proxy=None)
    response = refusal.value.response
    assert (response.status_code, response.headers["www-authenticate"]) == (401, "Bearer")
    assert json.loads(response.body or b"")["code"] == "missing_token"
    assert proxy.passed == []


async def test_the_request_id_is_the_same_in_all_logs_and_answers(proxy: Proxy) -> None:
    with Sweep() as sweep:
        for given in ("a.b_C-1", "x" * 128, "x" * 129, 'a"b', "a b", "a,b", "é", None):
            headers = proxy.alice | ({} if given is None else {"X-Request-ID": given.encode("latin-1")})
            for path in ("/orders", "/admin", "/public/a", "/public//"):
                with sweep.case(given, path):
                    proxy.wxauth.arrived.scopes.clear()
                    proxy.passed.clear()
                    request_id = (await proxy.ask(path, headers)).headers["x-request-id"]
                    assert re.fullmatch("[A-Za-z0-9._-]{1,128}", request_id)
                    if given in ("a.b_C-1", "x" * 128):
                        assert request_id == given
                    arrived = [dict(headers_of(scope)) for scope in (*proxy.wxauth.asked, *proxy.passed)]
                    assert [received["x-request-id"] for received in arrived] == [request_id] * len(arrived)


async def test_of_two_request_ids_no_malformed_one_gets_through(proxy: Proxy) -> None:
    for given in (["a", 'b"'], ['b"', "a"], ["a", "b"]):
        answer = await proxy.ask("/orders", [*proxy.alice.items(), *(("X-Request-ID", value) for value in given)])
        ids = [value for name, value in answer.json()["headers"] if name == "x-request-id"]
        assert ids == [answer.headers["x-request-id"]]
        assert re.fullmatch("[A-Za-z0-9._-]{1,128}", ids[0])


async def test_wxauth_gets_only_the_headers_that_it_needs_and_the_service_the_clients_address(proxy: Proxy) -> None:
    sent = {"Accept-Language": "zh-CN", "Cookie": "a=b", "X-Auth-Roles": "admin"}
    sent |= {"X-Forwarded-For": "9.9.9.9", "X-Forwarded-Proto": "https"}
    headers = body_of(await proxy.ask("/orders", proxy.alice | sent, method="PUT", content=b"x"))["headers"]
    assert [value for name, value in headers if name == "x-forwarded-for"] == ["127.0.0.1"]
    assert dict(headers)["x-forwarded-proto"] == "http"
    [scope] = proxy.wxauth.asked
    received = dict(headers_of(scope))
    assert received["authorization"] == proxy.alice["Authorization"]
    assert (received["accept-language"], received["x-forwarded-for"]) == ("zh-CN", "127.0.0.1")
    assert not {"cookie", "upgrade", "content-length"} & received.keys()
    assert not [name for name in received if name.startswith("x-auth")]


async def test_connections_to_wxauth_and_to_the_service_are_kept(proxy: Proxy) -> None:
    for _ in range(30):
        assert (await proxy.ask("/orders")).status_code == 200
    assert len({scope["client"] for scope in proxy.wxauth.asked}) < 6
    assert len({scope["client"] for scope in proxy.passed}) < 6


# wxauth doesn't respond.


async def test_while_wxauth_is_down_nobody_passes_and_all_get_retry_after(proxy: Proxy) -> None:
    languages = {"zh_CN": "zh-CN", "en-GB,zh;q=0.5": "en", "": "en"}
    cases = list(product(languages, ("/orders", "/admin/a")))
    async with proxy.another(wxauth=f"127.0.0.1:{free_port()}") as client:
        answers = await asyncio.gather(  # HAProxy tries to connect for a second
            *(client.post(path, content=b"x", headers=proxy.alice | {"Accept-Language": it}) for it, path in cases)
        )
        with Sweep() as sweep:
            for (accepted, path), answer in zip(cases, answers, strict=True):
                with sweep.case(accepted, path):
                    problem_of(answer, "keys_unavailable", 503)
                    assert answer.headers["content-language"] == languages[accepted]
                    assert int(answer.headers["retry-after"]) > 0
        assert proxy.passed == []
        assert (await client.get("/public/a")).status_code == 200


async def test_while_wxauth_has_no_database_nobody_passes(proxy: Proxy, start_wxauth: StartWxauth) -> None:
    wxauth = start_wxauth("postgresql://nobody@127.0.0.1:1/nothing")
    async with proxy.another(wxauth=wxauth.address) as client:
        answer = await client.get("/orders", headers=proxy.alice)
        problem_of(answer, answer.json()["code"], 503)
        assert int(answer.headers["retry-after"]) > 0
        assert proxy.passed == []


async def test_a_service_that_is_down_is_not_taken_for_wxauth(proxy: Proxy) -> None:
    async with proxy.another(service=f"127.0.0.1:{free_port()}") as client:
        for path in ("/orders", "/public/a"):
            answer = await client.get(path, headers=proxy.alice)
            assert answer.status_code == (503 if proxy.name == "haproxy" else 502)
            assert "problem" not in answer.headers.get("content-type", "")


@pytest.mark.parametrize("lua", ["error('broken')", "return", "txn:set_var('txn.wxauth', 'x')"])
async def test_haproxy_refuses_every_request_if_its_lua_fails(tmp_path: Path, service: Guarded, lua: str) -> None:
    service.arrived.scopes.clear()
    action = f'core.register_action("wxauth", {{ "http-req" }}, function(txn, path) {lua} end, 1)'
    with haproxy_with(action, tmp_path, service=service.address) as url:
        async with outside(url) as client:
            for path in ("/orders", "/admin/a", "/admin/audit"):
                assert (await client.get(path)).status_code == 503
    assert service.arrived.scopes == []
