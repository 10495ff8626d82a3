"""The participants of a test: people and their phones, administrators, replicas of the service, siblings, sites."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from inspect import isawaitable
from pathlib import Path
from secrets import token_hex
from typing import Any, Self, cast
from uuid import UUID

import asyncpg
import httpx

from tests.clock import Clock
from tests.fakes import APP, Secrets, WeChatByRespx
from tests.headers import bearer as bearer
from tests.processes import PATIENCE, Running, children_of
from wxauth.clients import clients
from wxauth.clients.clients import Credentials
from wxauth.clients.rules import build_client
from wxauth.core.database import Database
from wxauth.core.services import Parts, Services
from wxauth_desk.wechat import APPS, Api, CodeRequest, PhoneCodeRequest, Simulator
from wxauth_desk.wechat.controls import openid_of
from wxauth_desk.wechat.push import Format, Mode, SignedPush, make_message, sign_push

Client = httpx.AsyncClient
Rows = asyncpg.Connection
"""A connection to the test's database."""
Body = dict[str, Any]
"""The body of an answer."""
MakeServices = Callable[..., Awaitable[Services]]
MakeClient = Callable[[Services], httpx.AsyncClient]
AddSite = Callable[..., Awaitable["Site"]]
GetPhone = Callable[..., Awaitable["Phone"]]
AddSibling = Callable[..., Awaitable[Credentials]]
LogLines = Callable[[], list[dict[str, Any]]]

NUMBER = "+8613800138000"
AT_LOGIN = ("user.created", "identity.added", "user.profile_changed")
"""The types of events recorded by logins."""
BESIDE_LOGINS = f"type NOT IN {AT_LOGIN}"
"""SQL for other types."""
HOLD_USERS = "SELECT FROM users FOR UPDATE"

NOBODY = UUID("01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17")
CALLBACK = "https://shop.example.com/callback"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
CAMERA = 1047
OFFICE, HOME, FAR = "203.0.113.7", "203.0.113.99", "198.51.100.1"
EDGE = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0"


def body_of(answer: httpx.Response) -> Body:
    """The body of an answer of success."""
    assert answer.status_code == 200, answer.text
    return answer.json()


@dataclass(frozen=True, slots=True)
class LogIn:
    """Logs people in: `await login("alice")` returns the answer's body, `await login.ask("alice")` any answer."""

    client: httpx.AsyncClient
    wechat: WeChatByRespx | None = None
    """None: the simulator, for which a person's name is a code."""

    async def ask(
        self,
        person: str = "alice",
        *,
        at: httpx.AsyncClient | None = None,
        app: Mapping[str, Any] | None = None,
        unionid: str | None = None,
        headers: Mapping[str, str] | None = None,
        **fields: object,
    ) -> httpx.Response:
        """Log in, optionally at another replica, to another app than the first, with a unionid, with these headers."""
        code = person
        if self.wechat is not None:
            code = self.wechat.code_for(person, unionid=unionid, app_id=(app or APP)["app_id"])
        named = {} if app is None else {"app_id": app["app_id"]}
        return await (at or self.client).post("/v1/login", json={"code": code, **named, **fields}, headers=headers)

    async def __call__(self, person: str = "alice", **how: Any) -> Body:
        return body_of(await self.ask(person, **how))


async def leave(
    client: httpx.AsyncClient, login: Body, *, path: str = "", method: str = "DELETE", person: str | None = None
) -> httpx.Response:
    """Ask for the erasure of a person who has logged in, with a new code: of this person, or else of the same one."""
    user = login["user"]
    known = {openid_of(name, user["app_id"]): name for name in ("alice", "bob", "carol", "dave", "erin")}
    code = person or known.get(user["openid"], user["openid"])  # WeChatByRespx takes an openid as a code
    return await client.request(method, f"/v1/me{path}", json={"login_code": code}, headers=bearer(login))


def _has_no_code() -> str:
    raise AssertionError("nobody has said whose codes this phone gets")


@dataclass(slots=True)
class Phone:
    """A person's phone, logged in to a mini-program."""

    client: httpx.AsyncClient
    tokens: Body = field(default_factory=dict)
    wx_login: Callable[[], str] = _has_no_code
    """Returns a new code of this person, with which they approve a login to a site."""

    @property
    def user_id(self) -> str:
        return self.tokens["user"]["id"]

    async def ask(self, method: str, path: str = "", **request: Any) -> httpx.Response:
        return await self.client.request(method, f"/v1/me{path}", headers=bearer(self.tokens), **request)

    async def claim(self, **body: Any) -> httpx.Response:
        return await self.ask("POST", "/scans", json=body)

    async def scan(self, started: Body, **body: Any) -> httpx.Response:
        """Claim the code with the camera."""
        return await self.claim(**{"scene": scene_of(started), "entry_scene": CAMERA, **body})

    async def decide(self, scan_id: str, verdict: str = "approve", *, code: str | None = None) -> httpx.Response:
        body = {"login_code": code or self.wx_login()} if verdict == "approve" else None
        return await self.ask("POST", f"/scans/{scan_id}/{verdict}", json=body)

    async def approve(self, started: Body) -> None:
        """Scan the code, and approve the login."""
        claimed = body_of(await self.scan(started))
        assert (await self.decide(claimed["id"])).status_code == 204


async def send_push(client: httpx.AsyncClient, push: SignedPush, app: Mapping[str, Any]) -> httpx.Response:
    """Send what WeChat has signed to an app."""
    path, headers = f"/v1/wechat/push/{app['app_id']}", {"Content-Type": push.content_type}
    return await client.post(path, params=dict(push.query), content=push.body, headers=headers)


@dataclass(frozen=True, slots=True)
class Stage:
    """A replica of the service with its client and parts, its database and its log.

    WeChat answers as the test sets (`wechat`), or if the test uses the fixture `simulated`, is the simulator.
    """

    client: httpx.AsyncClient
    login: LogIn
    services: Services
    wechat: WeChatByRespx
    simulator: Simulator
    secrets: Secrets
    rows: asyncpg.Connection
    log_lines: LogLines
    make_services: MakeServices
    """Returns another replica, with any settings by name."""
    make_client: MakeClient

    @property
    def clock(self) -> Clock:
        return cast(Clock, self.services.clock)

    async def make(self, **settings: object) -> httpx.AsyncClient:
        """A client of another replica, with any settings by name."""
        return (await self.replica(**settings)).client

    async def replica(self, **settings: Any) -> Self:
        """The same stage at another replica, with the same settings, or with others by name."""
        make_services = partial(self.make_services, **settings)
        services = await make_services()
        client = self.make_client(services)
        login = replace(self.login, client=client)
        return replace(self, client=client, login=login, services=services, make_services=make_services)

    def logged(self, event: str) -> list[Body]:
        """The lines of this event."""
        return [line for line in self.log_lines() if line["event"] == event]

    async def number(self, rows: str, *values: object) -> int:
        """How many rows: `await stage.number("sessions WHERE client_id = $1", "shop")`."""
        return await self.rows.fetchval(f"SELECT count(*) FROM {rows}", *values)

    async def me(self, login: Body | str) -> httpx.Response:
        return await self.client.get("/v1/me", headers=bearer(login))

    async def user(self, login: Body) -> Body:
        """The user whom `/v1/me` returns."""
        return body_of(await self.me(login))

    async def change(self, login: Body, *, method: str = "PATCH", **fields: object) -> httpx.Response:
        return await self.client.request(method, "/v1/me", json=fields, headers=bearer(login))

    async def refresh(self, login: Body | str, **how: Any) -> httpx.Response:
        """Ask for new tokens, with a login's refresh token or with this one."""
        token = login if isinstance(login, str) else login["refresh_token"]
        return await self.client.post("/v1/refresh", json={"refresh_token": token}, **how)

    async def bind(self, login: Body, code: str) -> httpx.Response:
        return await self.client.post("/v1/me/phone", json={"code": code}, headers=bearer(login))

    # With the simulator.

    def code(self, person: str = "alice", **fields: Any) -> str:
        """A code with which this person logs in."""
        return self.secrets.add(self.simulator.make_code(CodeRequest(person=person, **fields)))

    def phone_code(self, person: str = "alice", **fields: Any) -> str:
        """A code of the phone button. The number is `NUMBER` by default."""
        wanted = PhoneCodeRequest(person=person, **{"phone": NUMBER, **fields})
        return self.secrets.add(self.simulator.make_phone_code(wanted))

    def asked(self, api: Api) -> list[Body]:
        """What an API of WeChat was asked so far."""
        return [call.json for call in self.simulator.calls_of(api)]

    async def push(self, message: Mapping[str, Any], app: Mapping[str, Any], *, format: Format = "json") -> None:
        """Push a message to an app, as WeChat does. It must be taken."""
        mode: Mode = "aes" if "push_aes_key" in app else "plain"
        now = str(int(self.clock().timestamp()))
        push = sign_push(app, message, mode=mode, format=format, timestamp=now, nonce=token_hex(8))
        answer = await send_push(self.client, push, app)
        assert (answer.status_code, answer.text) == (200, "success")

    async def push_about(self, login: Body, event: str, revoke_info: str = "") -> None:
        """Push that somebody has closed the account of a mini-program, or has withdrawn something from it."""
        app = next(app for app in APPS if app["app_id"] == login["user"]["app_id"])
        now = int(self.clock().timestamp())
        await self.push(make_message(login["user"]["openid"], event, revoke_info, app_id=app["app_id"], now=now), app)


class Server:
    """A running `wxauth serve` or `wxauth-desk dev`."""

    def __init__(self, command: Running, port: int) -> None:
        self.command, self.port = command, port
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=PATIENCE, verify=False)

    @property
    def pid(self) -> int:
        return self.command.process.pid

    def get(self, path: str) -> httpx.Response:
        return self.client.get(path)

    def log_in(self, code: str, **headers: str) -> Body:
        return body_of(self.client.post("/v1/login", json={"code": code}, headers=headers))

    @property
    def has_started(self) -> int:
        """How many workers have started so far."""
        return self.command.output.count('"started"')

    def is_ready(self) -> bool:
        return self.get("/readyz").status_code == 200

    @property
    def lines(self) -> list[Body]:
        """The lines of its log."""
        return [json.loads(line) for line in self.command.output.splitlines()]

    def workers(self) -> set[int]:
        """The ids of its worker processes."""
        found = set()
        for child in children_of(self.pid):
            with suppress(OSError):  # it has just ended
                if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.add(child)
        return found


@dataclass(slots=True)
class Admin:
    """An administrator with a client, and the answer to their login."""

    client: httpx.AsyncClient
    answer: Body

    @property
    def id(self) -> str:
        return self.answer["user"]["id"]

    async def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return await self.client.request(method, f"/v1/admin{path}", headers=bearer(self.answer), **options)

    async def read(self, path: str, **query: object) -> dict[str, Any]:
        return body_of(await self.ask("GET", path, params=query))

    async def names(self, **query: object) -> list[str | None]:
        return [user["nickname"] for user in (await self.read("/users", **query))["items"]]

    async def change(self, user_id: str, **change: object) -> dict[str, Any]:
        return body_of(await self.ask("PATCH", f"/users/{user_id}", json=change))

    async def merge(self, former: str, *, into: str) -> httpx.Response:
        return await self.ask("POST", f"/users/{former}/merge", json={"into": into})

    async def events(self, **query: object) -> list[dict[str, Any]]:
        """The events, without those of logins."""
        items = (await self.read("/events", **query))["items"]
        return [event for event in items if event["type"] not in AT_LOGIN]


async def make_admin(
    client: httpx.AsyncClient, rows: asyncpg.Connection, answer: dict[str, Any], *, role: str = "admin"
) -> Admin:
    """Give somebody who has logged in this role alone."""
    await set_roles(rows, role, user_id=answer["user"]["id"])
    return Admin(client, answer)


async def recorded(
    rows: asyncpg.Connection, fields: str, where: str = "true", *values: object
) -> list[tuple[Any, ...]]:
    """These fields of the events, the oldest first: `await recorded(rows, "type, data", BESIDE_LOGINS)`."""
    found = await rows.fetch(f"SELECT {fields} FROM events WHERE {where} ORDER BY id", *values)

    def plain(name: str, value: Any) -> Any:
        return json.loads(value) if name == "data" else str(value) if name in ("user_id", "ip") and value else value

    return [tuple(plain(*field) for field in event.items()) for event in found]


async def set_roles(rows: asyncpg.Connection, *roles: str, user_id: str | UUID | None = None) -> None:
    """Set the roles of a user, or of everybody."""
    await rows.execute("UPDATE users SET roles = $1 WHERE $2::uuid IS NULL OR id = $2", roles, user_id)


@dataclass(frozen=True, slots=True)
class Site:
    """An OAuth client."""

    client: httpx.AsyncClient
    name: str
    secret: str | None

    @property
    def auth(self) -> httpx.BasicAuth | None:
        return None if self.secret is None else httpx.BasicAuth(self.name, self.secret)

    async def post(self, path: str, **form: str) -> httpx.Response:
        """Post a form with the client's credentials."""
        if self.secret is None:
            return await self.client.post(path, data={"client_id": self.name, **form})
        return await self.client.post(path, data=form, auth=(self.name, self.secret))

    async def start(self, **form: str) -> dict[str, Any]:
        return body_of(await self.post("/v1/device_authorization", **form))

    async def poll(self, started: Body, **form: str) -> httpx.Response:
        return await self.post("/v1/token", grant_type=DEVICE_CODE, device_code=started["device_code"], **form)

    async def refresh(self, tokens: Body, **form: str) -> httpx.Response:
        return await self.post("/v1/token", grant_type="refresh_token", refresh_token=tokens["refresh_token"], **form)


def scene_of(started: Body) -> str:
    return started["verification_uri_complete"].rpartition("/")[2]


async def add_client(database: Database, name: str, *, now: datetime, **options: Any) -> Credentials:
    """Add a client with a secret: `await add_client(database, "ledger", scopes=["events"], now=now)`."""
    credentials = await clients.add_client(database, build_client(name, options), now=now)
    assert credentials is not None
    return credentials


# Waiting.


def with_part(services: Services, kind: type, part: object) -> Services:
    """These services with another part of this type."""
    return replace(services, parts=Parts(services.parts | {kind: part}))


async def until(condition: Callable[[], Awaitable[object] | object]) -> None:
    """Wait until the condition is true."""
    async with asyncio.timeout(PATIENCE):
        while True:
            holds = condition()
            if await holds if isawaitable(holds) else holds:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def locked(rows: asyncpg.Connection, user_id: str | None = None) -> AsyncIterator[None]:
    """While another transaction holds this user, or all users."""
    async with rows.transaction():
        await rows.execute("SELECT FROM users WHERE $1::uuid IS NULL OR id = $1 FOR UPDATE", user_id)
        yield


async def until_locked(rows: asyncpg.Connection, number: int = 1) -> None:
    """Wait until this many transactions wait for a lock."""
    await until(lambda: rows.fetchval("SELECT count(*) >= $1 FROM pg_locks WHERE NOT granted", number))


async def behind(
    rows: asyncpg.Connection, asking: Coroutine[Any, Any, Any], hold: str, *values: object, then: str = ""
) -> Any:
    """The result of what waits for another transaction, which holds some rows, and then does more."""
    async with rows.transaction():
        await rows.execute(hold, *values)
        waiting = asyncio.create_task(asking)
        await until_locked(rows)
        if then:
            await rows.execute(then)
    return await waiting


async def unread() -> AsyncIterator[bytes]:
    """A body that fails if it is read."""
    raise AssertionError("the body was read")
    yield b""


async def later(root: Admin, clock: Clock) -> Admin:
    """The same session after an hour: its token is fresh, its login is not."""
    answer = root.answer
    for minutes in (10, 51):
        clock.advance(minutes=minutes)
        answer = (await root.client.post("/v1/refresh", json={"refresh_token": answer["refresh_token"]})).json()
    return Admin(root.client, answer)
