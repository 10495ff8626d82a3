"""The town where a history happens, with two replicas, their database, WeChat, people, administrators and sites."""

import asyncio
import os
import re
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit
from uuid import UUID

import asyncpg
import httpx
from jose.jwt import get_unverified_claims

from tests.declared import check_declared
from tests.fakes import service_env
from tests.histories.plan import DOCUMENTS, Fault, Plan, Step
from tests.processes import WXAUTH, Running, free_port
from tests.serving import serving
from tests.sites.browsers import ASKED as ASKED_BY_THE_SHOP, VERIFIER
from tests.world import DEVICE_CODE, Body, LogIn, Server, add_client, bearer, scene_of, until
from wxauth.clients.models import Scope
from wxauth.core.clock import utc_now
from wxauth.core.database import Database
from wxauth.core.trail import OPERATOR
from wxauth.users.admin import UserChange, change_user
from wxauth_desk.wechat import APPS, CodeRequest, PhoneCodeRequest, Simulator, create_simulator
from wxauth_desk.wechat.people import openid_of
from wxauth_desk.wechat.push import REVOKED, Mode, make_person_message, sign_push

ADMINISTRATORS: Final = ("administrator-1", "administrator-2")
OK: Final = range(200, 300)
BACK: Final = "https://cafe.example.com/back"
ASKED: Final = {**ASKED_BY_THE_SHOP, "client_id": "cafe", "redirect_uri": BACK, "scope": "openid"}
"""The request of a site that shares the browser's login."""
IN_DOUBT: Final = range(500, 600)
"""Statuses after which the change might have been made, or might still be made later."""
REVOKE_CODES: Final = {"nickname": "1", "phone": "6"}
REQUEST_SECONDS: Final = 30.0
OF_A_PERSON: Final = {
    "log_out": ("POST", "/v1/logout"),
    "sign_out_elsewhere": ("DELETE", "/v1/me/sessions"),
    "change_name": ("PATCH", "/v1/me"),
    "give_consent": ("POST", "/v1/me/consents"),
    "withdraw_consent": ("DELETE", "/v1/me/consents/{document}"),
    "bind_number": ("POST", "/v1/me/phone"),
    "remove_number": ("DELETE", "/v1/me/phone"),
    "leave": ("DELETE", "/v1/me"),
    "export": ("GET", "/v1/me/export"),
}
"""The steps that a person takes with one request and their own tokens."""
BY_STAFF: Final = {
    "ban": ("PATCH", ""),
    "unban": ("PATCH", ""),
    "give_roles": ("PATCH", ""),
    "merge": ("POST", "/merge"),
    "split": ("POST", "/split"),
    "erase": ("DELETE", ""),
    "keep": ("PATCH", ""),
    "clear_number": ("DELETE", "/phone"),
    "end_sessions": ("DELETE", "/sessions"),
    "export_user": ("GET", "/export"),
}
"""The steps that an administrator takes, with their paths below the path of a user."""


@dataclass(slots=True)
class Asked:
    """A request with its response.

    `began` and `ended` are numbers from a counter of everything that all participants have sent and received so far.
    """

    who: str
    what: str
    person: str | None
    app_id: str | None
    user_id: str | None
    """The user that the request concerns, with the id that was known when it was sent."""
    value: Any
    began: int
    ended: int | None = None
    """None if no response has arrived."""
    status: int | None = None
    answer: Body = field(default_factory=dict)

    @property
    def is_done(self) -> bool:
        """Return whether the change was acknowledged."""
        return self.status in OK

    @property
    def is_in_doubt(self) -> bool:
        """Return whether the change might have been made, although it wasn't acknowledged."""
        return self.status is None or self.status in IN_DOUBT

    @property
    def may_be_done(self) -> bool:
        return self.is_done or self.is_in_doubt

    def precedes(self, other: "Asked") -> bool:
        """Return whether this request had ended before the other one began."""
        return self.ended is not None and not self.is_in_doubt and self.ended < other.began

    def __str__(self) -> str:
        when = f"{self.began:>5}-{'' if self.ended is None else self.ended:<5}"
        code = self.answer.get("code") or self.answer.get("error") or ""
        value = "" if self.value is None else f" {self.value}"
        return (
            f"{when} {self.who}: {self.what}{value} of {self.user_id or self.person} -> {self.status} {code}".rstrip()
        )


@dataclass(slots=True)
class Login:
    """A session as a phone or a site knows it."""

    person: str
    app_id: str
    tokens: Body
    former_refresh_token: str | None = None

    @property
    def user_id(self) -> str:
        return self.tokens["user"]["id"]


@dataclass(slots=True)
class Computer:
    """A person's browser on a computer, with its cookies and the site's last id_token."""

    cookies: dict[str, str] = field(default_factory=dict)
    id_token: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        return {"Cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())}

    def take(self, answer: httpx.Response) -> None:
        """Keep the cookies of a response, although they are `Secure` and the replicas use plain HTTP here."""
        for line in answer.headers.get_list("set-cookie"):
            name, _, value = line.partition(";")[0].partition("=")
            if "max-age=0" in line.lower():
                self.cookies.pop(name, None)
            else:
                self.cookies[name] = value


@dataclass(slots=True, eq=False)
class Town:
    """Carries out a plan, and records the requests and their responses."""

    servers: list[Server]
    clients: list[httpx.AsyncClient]
    simulator: Simulator
    database_url: str
    grace_days: int
    asked: list[Asked] = field(default_factory=list)
    logins: dict[tuple[str, str], list[Login]] = field(default_factory=lambda: defaultdict(list))
    """The logins by person and app, with the newest one last."""
    sites: list[Login] = field(default_factory=list)
    computers: dict[str, Computer] = field(default_factory=lambda: defaultdict(Computer))
    """The computers by person."""
    site: tuple[str, str] = ("", "")
    shared_site: tuple[str, str] = ("", "")
    """The credentials of a site with `--sso`."""
    ledger: tuple[str, str] = ("", "")
    administrators: dict[str, Body] = field(default_factory=dict)
    faults_done: list[Fault] = field(default_factory=list)
    _is_known: dict[str, asyncio.Event] = field(default_factory=lambda: defaultdict(asyncio.Event))
    """An event for each person, which is set after they have logged in, or when they won't log in any more."""
    _now: Iterator[int] = field(default_factory=lambda: count(1))
    _markers: Iterator[int] = field(default_factory=lambda: count(1))
    _waiting_faults: list[Fault] = field(default_factory=list)
    _troubles: list[asyncio.Task[None]] = field(default_factory=list)

    async def carry_out(self, plan: Plan) -> None:
        """Run all steps at once. Then end the faults."""
        self._waiting_faults = list(plan.faults)
        await asyncio.gather(*(self._live(who, steps) for who, steps in plan.steps.items()))
        await asyncio.gather(*self._troubles)
        self.simulator.faults.clear()

    async def _live(self, who: str, steps: Sequence[Step]) -> None:
        person = ""
        for step in steps:
            given: dict[str, Any] = {**step.arguments}
            person = given["person"]
            if step.what in BY_STAFF:
                await self._administer(who, step.what, **given)
            elif step.what in ("log_in", "refresh_a_site", "push"):
                await getattr(self, step.what)(who, **given)
            elif login := self._login_of(given.pop("person"), given.pop("app")):
                act = partial(self._act, step.what) if step.what in OF_A_PERSON else getattr(self, step.what)
                await act(who, login, **given)
        if who.startswith(f"{person}'s"):
            self._is_known[str(person)].set()

    async def ask(
        self,
        who: str,
        what: str,
        method: str,
        path: str,
        *,
        replica: int = 0,
        person: str | None = None,
        app_id: str | None = None,
        user_id: str | None = None,
        value: Any = None,
        **request: Any,
    ) -> Asked:
        """Send a request, and record it with its response."""
        asked = Asked(who, what, person, app_id, user_id, value, next(self._now))
        self.asked.append(asked)
        try:
            answer = await self.clients[replica].request(method, path, **request)
        except httpx.TransportError:  # the replica was killed
            answer = None
        asked.ended = next(self._now)
        if answer is not None:
            asked.status = answer.status_code
            if answer.headers.get("content-type", "").startswith("application/") and answer.content:
                asked.answer = answer.json()
            elif answer.status_code not in OK or method == "POST":
                asked.answer = {"text": answer.text}
        await self._let_faults_happen(asked.ended)
        return asked

    # The steps of people.

    async def log_in(
        self,
        who: str,
        *,
        person: str,
        app: int,
        replica: int,
        has_unionid: bool = True,
        number: str | None = None,
        consents: bool = False,
        is_named: bool = False,
        stays: bool = False,
    ) -> None:
        app_id = APPS[app]["app_id"]
        body: Body = {"code": self._code_of(person, app_id, has_unionid=has_unionid), "app_id": app_id}
        value: Body = {"unionid": True} if has_unionid else {}
        if number is not None:
            value["number"] = number
            body["phone_code"] = self._phone_code_of(person, app_id, number)
        if consents:
            value["consents"] = body["consents"] = DOCUMENTS
        if stays:
            value["stays"] = body["stay"] = True
        if is_named:
            value["nickname"] = body["nickname"] = f"name {next(self._markers)}"
        asked = await self.ask(
            who, "log in", "POST", "/v1/login", replica=replica, person=person, app_id=app_id, value=value, json=body
        )
        if asked.is_done:
            asked.user_id = asked.answer["user"]["id"]
            self.logins[person, app_id].append(Login(person, app_id, asked.answer))
            self._is_known[person].set()

    async def refresh(self, who: str, login: Login, *, replica: int, how: str) -> None:
        token = login.tokens["refresh_token"]
        if how == "again" and login.former_refresh_token is not None:
            token = login.former_refresh_token
        own: dict[str, Any] = {"person": login.person, "user_id": login.user_id, "value": login.tokens["session_id"]}
        own["json"] = {"refresh_token": token}
        replicas = [replica, 1 - replica] if how == "twice at once" else [replica]
        asking = [self.ask(who, "refresh", "POST", "/v1/refresh", replica=each, **own) for each in replicas]
        for asked in await asyncio.gather(*asking):
            if asked.is_done and login.tokens["refresh_token"] == token:
                login.tokens, login.former_refresh_token = asked.answer, token

    async def _act(self, step: str, who: str, login: Login, *, replica: int, **how: str) -> None:
        """Carry out one of the steps in `OF_A_PERSON`."""
        method, path = OF_A_PERSON[step]
        what, value = step.replace("_", " "), how.get("document") or how.get("number")
        body: Body | None = None
        match step:
            case "log_out":
                value, body = login.tokens["session_id"], {"refresh_token": login.tokens["refresh_token"]}
            case "sign_out_elsewhere":
                value = login.tokens["session_id"]
            case "change_name":
                value = f"name {next(self._markers)}"
                body = {"nickname": value}
            case "give_consent":
                body = {how["document"]: DOCUMENTS[how["document"]]}
            case "bind_number":
                body = {"code": self._phone_code_of(login.person, login.app_id, how["number"])}
            case "leave":
                body = {"login_code": self._code_of(login.person, login.app_id)}
                what = "leave" if self.grace_days else "erase"
        await self._ask_as(login, who, what, method, path.format(**how), replica=replica, value=value, json=body)

    async def log_in_to_a_site(self, who: str, login: Login, *, replica: int) -> None:
        site: dict[str, Any] = {"replica": replica, "person": login.person, "auth": self.site}
        started = await self.ask(who, "start a scan", "POST", "/v1/device_authorization", **site, data={"scope": ""})
        if not started.is_done:
            return
        if not await self._approve(login, who, scene_of(started.answer), replica=replica):
            return
        form = {"grant_type": DEVICE_CODE, "device_code": started.answer["device_code"]}
        redeemed = await self.ask(who, "log in to a site", "POST", "/v1/token", **site, data=form)
        if redeemed.is_done:
            redeemed.user_id = login.user_id
            tokens = {"user": {"id": login.user_id}, **redeemed.answer}
            self.sites.append(Login(login.person, login.app_id, tokens))

    async def _approve(self, login: Login, who: str, scene: str, *, replica: int) -> bool:
        """Scan a QR code and approve the login. Return False if the scan is refused."""
        body: Body = {"scene": scene, "entry_scene": 1047}
        claimed = await self._ask_as(login, who, "claim", "POST", "/v1/me/scans", replica=replica, json=body)
        if not claimed.is_done:
            return False
        path = f"/v1/me/scans/{claimed.answer['id']}/approve"
        body = {"login_code": self._code_of(login.person, login.app_id)}
        await self._ask_as(login, who, "approve", "POST", path, replica=1 - replica, json=body)
        return True

    async def refresh_a_site(self, who: str, *, person: str, app: int, replica: int) -> None:
        login = next((site for site in reversed(self.sites) if site.person == person), None)
        if login is None:
            return
        form = {"grant_type": "refresh_token", "refresh_token": login.tokens["refresh_token"]}
        asked = await self.ask(
            who, "refresh a site", "POST", "/v1/token", replica=replica, person=person, auth=self.site, data=form
        )
        if asked.is_done:
            login.tokens = {"user": {"id": login.user_id}, **asked.answer}

    # The steps of people at a computer.

    async def log_in_in_a_browser(self, who: str, login: Login, *, replica: int) -> None:
        """Log in with the button if the browser has a login. Otherwise log in with a scan."""
        computer, what = self.computers[login.person], "log in in a browser"
        asked = Asked(who, what, login.person, login.app_id, login.user_id, None, next(self._now))
        self.asked.append(asked)
        page = await self._browse(computer, "GET", f"/v1/authorize?{urlencode(ASKED)}", replica=replica)
        onward: tuple[str, str] | None = None
        if page is not None and (pressed := re.search(r'action="(/v1/authorize/[\w-]+/continue)"', page.text)):
            onward = "POST", pressed[1]
        elif page is not None and (shown := re.search(r"/v1/scans/([\w-]{22})/code", page.text)):
            following = re.search(r"/v1/authorize/[\w-]{22}/next", page.text)
            if following and await self._approve(login, who, shown[1], replica=replica):
                onward = "GET", following[0]
        if onward is None:
            asked.status = 400  # no session was opened
        elif back := await self._browse(computer, *onward, replica=1 - replica):
            tokens = await self._redeem(back, replica=replica)
            if tokens is not None:
                computer.id_token = tokens["id_token"]
                asked.status, asked.user_id = 200, get_unverified_claims(tokens["id_token"])["sub"]
        asked.ended = next(self._now)

    async def sign_out_of_the_browser(self, who: str, login: Login, *, replica: int) -> None:
        computer = self.computers[login.person]
        if computer.id_token is not None:
            path = f"/v1/end_session?{urlencode({'id_token_hint': computer.id_token})}"
            user_id = get_unverified_claims(computer.id_token)["sub"]
            own: dict[str, Any] = {"person": login.person, "user_id": user_id, "headers": computer.headers}
            await self.ask(who, "sign out of the browser", "GET", path, replica=replica, **own)

    async def enter_silently(self, person: str) -> str | None:
        """Return the user whom a person's browser logs in without a page, or None if it has no login."""
        query = urlencode({**ASKED, "prompt": "none"})
        answer = await self._browse(self.computers[person], "GET", f"/v1/authorize?{query}", replica=0)
        tokens = None if answer is None else await self._redeem(answer, replica=0)
        return None if tokens is None else get_unverified_claims(tokens["id_token"])["sub"]

    async def _browse(self, computer: Computer, method: str, path: str, *, replica: int) -> httpx.Response | None:
        try:
            answer = await self.clients[replica].request(method, path, headers=computer.headers)
        except httpx.TransportError:  # the replica was killed
            return None
        computer.take(answer)
        return answer

    async def _redeem(self, answer: httpx.Response, *, replica: int) -> Body | None:
        """Return the tokens for the authorization code, or None if the response doesn't redirect to the site."""
        code = parse_qs(urlsplit(answer.headers.get("location", "")).query).get("code")
        if code is None:
            return None
        form = {"grant_type": "authorization_code", "code": code[0], "redirect_uri": BACK, "code_verifier": VERIFIER}
        with suppress(httpx.TransportError):
            redeemed = await self.clients[replica].post("/v1/token", data=form, auth=self.shared_site)
            if redeemed.status_code == 200:
                return redeemed.json()
        return None

    # The steps of administrators.

    async def _administer(self, who: str, step: str, *, person: str, replica: int, **how: Any) -> None:
        """Carry out one of the steps in `BY_STAFF`."""
        for known in (person, *([how["into"]] if "into" in how else [])):
            await self._is_known[known].wait()
        user_id = self._user_of(person)
        method, path = BY_STAFF[step]
        value: Any = None
        body: Body | None = None
        match step:
            case "ban":
                value = f"ban {next(self._markers)}"
                body = {"status": "disabled", "reason": value}
            case "unban":
                body = {"status": "active"}
            case "give_roles":
                value = f"role-{next(self._markers)}"
                body = {"roles": [value]}
            case "merge":
                value = self._user_of(how["into"])
                body = {"into": value}
            case "split":
                value = APPS[how["app"]]["app_id"]
                body = {"app_id": value, "openid": openid_of(person, value)}
            case "keep":
                body = {"erase_at": None}
        if user_id is None or (step == "merge" and value is None):
            return
        own: dict[str, Any] = {"person": person, "user_id": user_id, "headers": bearer(self.administrators[who])}
        what, path = step.replace("_", " "), f"/v1/admin/users/{user_id}{path}"
        await self.ask(who, what, method, path, replica=replica, value=value, json=body, **own)

    # The steps of WeChat.

    async def push(self, who: str, *, person: str, app: int, replica: int, withdrawn: str) -> None:
        own, is_whole = APPS[app], withdrawn == "everything"
        event = "user_authorization_cancellation" if is_whole else REVOKED
        message = make_person_message(
            openid_of(person, own["app_id"]),
            event,
            REVOKE_CODES.get(withdrawn),
            app_id=own["app_id"],
            now=int(time.time()) + next(self._markers),  # each message is different
        )
        mode: Mode = "aes" if "push_aes_key" in own else "plain"
        nonce = str(next(self._markers))
        signed = sign_push(own, message, mode=mode, format="json", timestamp=str(int(time.time())), nonce=nonce)
        await self.ask(
            who,
            "withdraw everything" if is_whole else "withdraw in WeChat",
            "POST",
            f"/v1/wechat/push/{own['app_id']}",
            replica=replica,
            person=person,
            app_id=own["app_id"],
            user_id=self._user_of(person),
            value=withdrawn,
            params=dict(signed.query),
            content=signed.body,
            headers={"Content-Type": signed.content_type},
        )

    # The faults.

    async def _let_faults_happen(self, now: int) -> None:
        while self._waiting_faults and 2 * self._waiting_faults[0].after < now:
            fault = self._waiting_faults.pop(0)
            self.faults_done.append(fault)
            self._troubles.append(asyncio.create_task(getattr(self, fault.what)(**fault.arguments)))

    async def kill_a_replica(self, *, replica: int) -> None:
        for worker in self.servers[replica].workers():
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGKILL)

    async def crash_the_database(self) -> None:
        """Crash PostgreSQL, as `pg_ctl restart -m immediate` does.

        It ends all connections at once, and recovers from its log.
        """
        for pid in await self._connections("SELECT pid FROM"):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return

    async def end_connections(self) -> None:
        await self._connections("SELECT pg_terminate_backend(pid)::int FROM")

    async def let_days_pass(self) -> None:
        """Make the erasure of all leaving users due. Housekeeping then erases them, unless they stay before it runs."""
        due = await self._query("UPDATE users SET erase_at = now() WHERE erase_at IS NOT NULL RETURNING id")
        for row in due:
            # This erasure is in doubt, because nothing reports whether and when it happens.
            self.asked.append(Asked("time", "erase", None, None, str(row[0]), None, next(self._now)))

    async def trouble_wechat(self, *, api: Any, **fault: Any) -> None:
        self.simulator.fail(api, **fault)

    async def _connections(self, query: str) -> list[int]:
        others = "pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return [row[0] for row in await self._query(f"{query} {others}")]

    async def _query(self, query: str) -> list[asyncpg.Record]:
        """Return the rows of a query, or no rows while PostgreSQL recovers."""
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            rows = await asyncpg.connect(self.database_url)
            found = await rows.fetch(query)
            await rows.close()
            return found
        return []

    # The participants by name.

    def _login_of(self, person: str, app: int) -> Login | None:
        logins = self.logins[person, APPS[app]["app_id"]]
        return logins[-1] if logins else None

    def _user_of(self, person: str) -> str | None:
        logins = [self.logins[person, app["app_id"]][-1:] for app in APPS]
        return next((login.user_id for [login] in filter(None, logins)), None)

    async def _ask_as(self, login: Login, who: str, what: str, method: str, path: str, **more: Any) -> Asked:
        own: dict[str, Any] = {"person": login.person, "app_id": login.app_id, "user_id": login.user_id}
        return await self.ask(who, what, method, path, **own, headers=bearer(login.tokens), **more)

    def _code_of(self, person: str, app_id: str, *, has_unionid: bool = True) -> str:
        return self.simulator.make_code(CodeRequest(person=person, app_id=app_id, has_unionid=has_unionid))

    def _phone_code_of(self, person: str, app_id: str, number: str) -> str:
        return self.simulator.make_phone_code(PhoneCodeRequest(person=person, app_id=app_id, phone=number))


@asynccontextmanager
async def town_of(plan: Plan, database_url: str, folder: Path) -> AsyncIterator[Town]:
    """Start a town whose replicas are separate processes."""
    simulator = Simulator()
    async with AsyncExitStack() as stack:
        wechat_url = stack.enter_context(serving(create_simulator(simulator)))
        env = service_env(
            database_url,
            wechat_base_url=wechat_url,
            issuer="https://auth.test",
            phone_policy=plan.phone_policy,
            erasure_grace_days=plan.grace_days,
            consents=",".join(f"{name}:{version}" for name, version in DOCUMENTS.items()),
            login_rate_limit="",
            scan_rate_limit="",
            refresh_reuse_grace=1,
        )
        servers, clients = [], []
        for _ in range(2):
            port = free_port()
            running = stack.enter_context(Running(WXAUTH, "serve", cwd=folder, env=env | {"WXAUTH_PORT": str(port)}))
            server = Server(running, port)
            stack.callback(server.client.close)
            servers.append(server)
            client = httpx.AsyncClient(
                base_url=f"http://127.0.0.1:{port}",
                timeout=REQUEST_SECONDS,
                event_hooks={"response": [check_declared]},
                limits=httpx.Limits(max_connections=100),
            )
            clients.append(await stack.enter_async_context(client))
        await until(lambda: all(server.has_started for server in servers))
        town = Town(servers, clients, simulator, database_url, plan.grace_days)
        await _settle(town)
        yield town


async def _settle(town: Town) -> None:
    """Add the administrators, the sites, and the service that reads the feed."""
    for number, name in enumerate(ADMINISTRATORS, 1):
        code = town._code_of(name, APPS[0]["app_id"])
        town.administrators[f"administrator {number}"] = await LogIn(town.clients[0])(code)
    database = Database(town.database_url)
    try:
        for administrator in town.administrators.values():
            user_id, change = UUID(administrator["user"]["id"]), UserChange(granted_role="admin")
            await change_user(database, user_id, change, by=OPERATOR, now=utc_now())
        town.ledger = await _add(database, "ledger", scopes=[Scope.EVENTS])
        town.site = await _add(
            database, "shop", title="Shop", redirect_uris=["https://shop.example.com/back"], device=True
        )
        town.shared_site = await _add(database, ASKED["client_id"], title="Café", redirect_uris=[BACK], sso=True)
    finally:
        await database.aclose()


async def _add(database: Database, name: str, **options: Any) -> tuple[str, str]:
    credentials = await add_client(database, name, now=utc_now(), **options)
    return credentials.client_id, credentials.client_secret
