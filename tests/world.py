"""The participants of a test: users and their phones, administrators, replicas of the service, siblings and sites."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AbstractContextManager, asynccontextmanager, suppress
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
from tests.processes import PATIENCE, Running, children_of, suspended
from wxauth.clients import clients
from wxauth.clients.clients import Credentials
from wxauth.clients.rules import build_client
from wxauth.core.database import Database
from wxauth.core.services import Parts, Services
from wxauth_desk.wechat import APPS, Api, CodeRequest, PhoneCodeRequest, Simulator
from wxauth_desk.wechat.people import openid_of
from wxauth_desk.wechat.push import Format, Mode, SignedPush, make_person_message, sign_push

Client = httpx.AsyncClient
Rows = asyncpg.Connection
"""A connection to the test's database."""
Body = dict[str, Any]
"""The body of a response."""
MakeServices = Callable[..., Awaitable[Services]]
MakeClient = Callable[[Services], httpx.AsyncClient]
AddSite = Callable[..., Awaitable["Site"]]
GetPhone = Callable[..., Awaitable["Phone"]]
AddSibling = Callable[..., Awaitable[Credentials]]
LogLines = Callable[[], list[dict[str, Any]]]

NUMBER = "+8613800138000"
AT_LOGIN = ("user.created", "identity.added", "user.profile_changed")
"""The types of events that a login records."""
BESIDE_LOGINS = f"type NOT IN {AT_LOGIN}"
"""An SQL condition that matches the events of all other types."""
HOLD_USERS = "SELECT FROM users FOR UPDATE"

NOBODY = UUID("01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17")
CALLBACK = "https://shop.example.com/callback"
DEVICE_CODE = "urn:ietf:params:oauth:grant-type:device_code"
CAMERA = 1047
OFFICE, HOME, FAR = "203.0.113.7", "203.0.113.99", "198.51.100.1"
EDGE = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0"


def body_of(answer: httpx.Response) -> Body:
    """Return the body of a successful response."""
    assert answer.status_code == 200, answer.text
    return answer.json()


@dataclass(frozen=True, slots=True)
class LogIn:
    """Logs users in.

    `await login("alice")` returns the response's body, and `await login.ask("alice")` returns any response.
    """

    client: httpx.AsyncClient
    wechat: WeChatByRespx | None = None
    """The fake WeChat that makes the codes. If it is None, the simulator accepts a user's name as a code."""

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
        """Log in. The arguments can name another replica, another app than the first, a unionid, and headers."""
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
    """Ask for the erasure of a logged-in user, with a new `wx.login` code.

    The code is the logged-in user's own, unless `person` names another user.
    """
    user = login["user"]
    known = {openid_of(name, user["app_id"]): name for name in ("alice", "bob", "carol", "dave", "erin")}
    code = person or known.get(user["openid"], user["openid"])  # WeChatByRespx accepts an openid as a code
    return await client.request(method, f"/v1/me{path}", json={"login_code": code}, headers=bearer(login))


def _has_no_code() -> str:
    raise AssertionError("nobody has said whose codes this phone gets")


@dataclass(slots=True)
class Phone:
    """A user's phone that is logged in to a mini-program."""

    client: httpx.AsyncClient
    tokens: Body = field(default_factory=dict)
    wx_login: Callable[[], str] = _has_no_code
    """A function that returns a new `wx.login` code of this user. The phone sends it to approve a login to a site."""

    @property
    def user_id(self) -> str:
        return self.tokens["user"]["id"]

    async def ask(self, method: str, path: str = "", **request: Any) -> httpx.Response:
        return await self.client.request(method, f"/v1/me{path}", headers=bearer(self.tokens), **request)

    async def claim(self, **body: Any) -> httpx.Response:
        return await self.ask("POST", "/scans", json=body)

    async def scan(self, started: Body, **body: Any) -> httpx.Response:
        """Claim the QR code with the camera."""
        return await self.claim(**{"scene": scene_of(started), "entry_scene": CAMERA, **body})

    async def decide(self, scan_id: str, verdict: str = "approve", *, code: str | None = None) -> httpx.Response:
        body = {"login_code": code or self.wx_login()} if verdict == "approve" else None
        return await self.ask("POST", f"/scans/{scan_id}/{verdict}", json=body)

    async def approve(self, started: Body) -> None:
        """Scan the QR code, and approve the login."""
        claimed = body_of(await self.scan(started))
        assert (await self.decide(claimed["id"])).status_code == 204


async def send_push(client: httpx.AsyncClient, push: SignedPush, app: Mapping[str, Any]) -> httpx.Response:
    """Send a push that WeChat has signed to an app."""
    path, headers = f"/v1/wechat/push/{app['app_id']}", {"Content-Type": push.content_type}
    return await client.post(path, params=dict(push.query), content=push.body, headers=headers)


@dataclass(frozen=True, slots=True)
class Stage:
    """A replica of the service with its client, its services, its database and its log.

    WeChat gives the responses that the test sets (`wechat`). If the test uses the fixture `simulated`, the simulator
    gives them.
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
    """A function that returns another replica, and accepts settings by name."""
    make_client: MakeClient

    @property
    def clock(self) -> Clock:
        return cast(Clock, self.services.clock)

    async def make(self, **settings: object) -> httpx.AsyncClient:
        """Return the client of another replica, with any settings by name."""
        return (await self.replica(**settings)).client

    async def replica(self, **settings: Any) -> Self:
        """Return this stage at another replica, with this replica's settings or with others by name."""
        make_services = partial(self.make_services, **settings)
        services = await make_services()
        client = self.make_client(services)
        login = replace(self.login, client=client)
        return replace(self, client=client, login=login, services=services, make_services=make_services)

    def logged(self, event: str) -> list[Body]:
        """Return the log lines of this event."""
        return [line for line in self.log_lines() if line["event"] == event]

    async def number(self, rows: str, *values: object) -> int:
        """Count the rows. For example, call `await stage.number("sessions WHERE client_id = $1", "shop")`."""
        return await self.rows.fetchval(f"SELECT count(*) FROM {rows}", *values)

    async def me(self, login: Body | str) -> httpx.Response:
        return await self.client.get("/v1/me", headers=bearer(login))

    async def user(self, login: Body) -> Body:
        """Return the user from the response of `/v1/me`."""
        return body_of(await self.me(login))

    async def change(self, login: Body, *, method: str = "PATCH", **fields: object) -> httpx.Response:
        return await self.client.request(method, "/v1/me", json=fields, headers=bearer(login))

    async def refresh(self, login: Body | str, **how: Any) -> httpx.Response:
        """Ask for new tokens with this refresh token, or with the refresh token of this login."""
        token = login if isinstance(login, str) else login["refresh_token"]
        return await self.client.post("/v1/refresh", json={"refresh_token": token}, **how)

    async def bind(self, login: Body, code: str) -> httpx.Response:
        return await self.client.post("/v1/me/phone", json={"code": code}, headers=bearer(login))

    # The methods below need the simulator.

    def code(self, person: str = "alice", **fields: Any) -> str:
        """Return a `wx.login` code of this user."""
        return self.secrets.add(self.simulator.make_code(CodeRequest(person=person, **fields)))

    def phone_code(self, person: str = "alice", **fields: Any) -> str:
        """Return a code of the phone button. The number is `NUMBER` by default."""
        wanted = PhoneCodeRequest(person=person, **{"phone": NUMBER, **fields})
        return self.secrets.add(self.simulator.make_phone_code(wanted))

    def asked(self, api: Api) -> list[Body]:
        """Return the bodies of the requests to one of WeChat's APIs so far."""
        return [call.json for call in self.simulator.calls_of(api)]

    async def push(self, message: Mapping[str, Any], app: Mapping[str, Any], *, format: Format = "json") -> None:
        """Push a message to an app as WeChat does, and check that wxauth accepts it."""
        mode: Mode = "aes" if "push_aes_key" in app else "plain"
        now = str(int(self.clock().timestamp()))
        push = sign_push(app, message, mode=mode, format=format, timestamp=now, nonce=token_hex(8))
        answer = await send_push(self.client, push, app)
        assert (answer.status_code, answer.text) == (200, "success")

    async def push_about(self, login: Body, event: str, revoke_info: str = "") -> None:
        """Push that a user has closed their account in a mini-program, or has withdrawn a permission from it."""
        app = next(app for app in APPS if app["app_id"] == login["user"]["app_id"])
        now = int(self.clock().timestamp())
        await self.push(
            make_person_message(login["user"]["openid"], event, revoke_info, app_id=app["app_id"], now=now), app
        )


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
        """Return how many workers have started so far."""
        return self.command.output.count('"started"')

    def is_ready(self) -> bool:
        return self.get("/readyz").status_code == 200

    @property
    def lines(self) -> list[Body]:
        """Return the lines of the server's log."""
        return [json.loads(line) for line in self.command.output.splitlines()]

    def workers(self) -> set[int]:
        """Return the ids of the server's worker processes."""
        found = set()
        for child in children_of(self.pid):
            with suppress(OSError):  # the process has just ended
                if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                    found.add(child)
        return found

    def only(self, worker: int) -> AbstractContextManager[None]:
        """Suspend the other workers, so that this worker answers."""
        return suspended(self.workers() - {worker})


@dataclass(slots=True)
class Admin:
    """An administrator with an HTTP client, and the response to their login."""

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
        """Return the events that logins don't record."""
        items = (await self.read("/events", **query))["items"]
        return [event for event in items if event["type"] not in AT_LOGIN]


async def make_admin(
    client: httpx.AsyncClient, rows: asyncpg.Connection, answer: dict[str, Any], *, role: str = "admin"
) -> Admin:
    """Give a logged-in user this role and no others."""
    await set_roles(rows, role, user_id=answer["user"]["id"])
    return Admin(client, answer)


async def recorded(
    rows: asyncpg.Connection, fields: str, where: str = "true", *values: object
) -> list[tuple[Any, ...]]:
    """Return these fields of the events, with the oldest event first.

    For example, call `await recorded(rows, "type, data", BESIDE_LOGINS)`.
    """
    found = await rows.fetch(f"SELECT {fields} FROM events WHERE {where} ORDER BY id", *values)

    def plain(name: str, value: Any) -> Any:
        return json.loads(value) if name == "data" else str(value) if name in ("user_id", "ip") and value else value

    return [tuple(plain(*field) for field in event.items()) for event in found]


async def set_roles(rows: asyncpg.Connection, *roles: str, user_id: str | UUID | None = None) -> None:
    """Set the roles of one user, or of all users."""
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
    """Add a client with a secret.

    For example, call `await add_client(database, "ledger", scopes=["events"], now=now)`.
    """
    credentials = await clients.add_client(database, build_client(name, options), now=now)
    assert credentials is not None
    return credentials


# The functions below wait for something.


def with_part(services: Services, kind: type, part: object) -> Services:
    """Return these services with another part of this type."""
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
    """Lock this user, or all users, in another transaction while the block runs."""
    async with rows.transaction():
        await rows.execute("SELECT FROM users WHERE $1::uuid IS NULL OR id = $1 FOR UPDATE", user_id)
        yield


async def until_locked(rows: asyncpg.Connection, number: int = 1) -> None:
    """Wait until this many transactions wait for a lock."""
    await until(lambda: rows.fetchval("SELECT count(*) >= $1 FROM pg_locks WHERE NOT granted", number))


async def behind(
    rows: asyncpg.Connection, asking: Coroutine[Any, Any, Any], hold: str, *values: object, then: str = ""
) -> Any:
    """Return the result of a call that waits for another transaction.

    The transaction first locks rows with `hold`. When the call waits, the transaction runs `then` and ends.
    """
    async with rows.transaction():
        await rows.execute(hold, *values)
        waiting = asyncio.create_task(asking)
        await until_locked(rows)
        if then:
            await rows.execute(then)
    return await waiting


async def make_conflicts(rows: asyncpg.Connection, event: str, *, condition: str = "true") -> None:
    """Let each such change of a row fail as if another transaction had changed the row.

    The changes fail until the test drops the trigger `clash`. `event` is, for example, `UPDATE ON public.users`.
    """
    await rows.execute(f"""
        CREATE FUNCTION clash() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
            RAISE EXCEPTION 'somebody else' USING ERRCODE = 'serialization_failure';
        END $$;
        CREATE TRIGGER clash BEFORE {event} FOR EACH ROW WHEN ({condition}) EXECUTE FUNCTION clash();
    """)


async def unread() -> AsyncIterator[bytes]:
    """Yield a request body that fails when somebody reads it."""
    raise AssertionError("the body was read")
    yield b""


async def later(root: Admin, clock: Clock) -> Admin:
    """Return the administrator's session after an hour, when some requests require a newer login."""
    answer = root.answer
    for minutes in (10, 51):
        clock.advance(minutes=minutes)
        answer = (await root.client.post("/v1/refresh", json={"refresh_token": answer["refresh_token"]})).json()
    return Admin(root.client, answer)
