"""The command `python -m benchmarks.webhooks`, which sends ten thousand events a minute to three webhooks.

One of the webhooks hangs. Each event comes from a first login, and two workers deliver the events. The command runs
without a webhook, then with three webhooks, and then with a million undelivered events in addition. Finally, one of the
workers is killed halfway. With the argument `faults`, the database fails halfway instead.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from time import perf_counter, time
from uuid import UUID

import aiohttp
import asyncpg
import click
from aiohttp import web

from benchmarks.faults import DETECTION, Replicated, private_folder
from benchmarks.processes import cpu_of_tree, environment, free_port, postmaster_of
from wxauth.core.database import Database
from wxauth.core.logs import configure_logging
from wxauth.core.migrations import migrate
from wxauth.core.statements import Statement
from wxauth.core.trail import OPERATOR
from wxauth.errors import StorageUnavailable
from wxauth.events.placing import keep_placing
from wxauth.events.webhook_deliveries import LEASE, MAX_CONCURRENT_FOR_ONE, Deliveries
from wxauth.events.webhooks import Webhooks
from wxauth.login.login_queries import Login, record_login
from wxauth.service.build import build_services
from wxauth.settings.loading import settings_from
from wxauth.settings.settings import Settings
from wxauth_desk.postgres import EmbeddedPostgres

RATE = 10_000 / 60
"""The number of events per second."""
SECONDS = 30
UNDELIVERED = 1_000_000
TAKES = 0.02
"""The number of seconds that a receiver takes, so that deliveries are in progress when a fault happens."""
GOOD, HANGING = ("orders", "ledger"), "hanging"

_UNDELIVERED = """
    INSERT INTO deliveries (receiver_id, event_id, id, type, next_at, at)
    SELECT (SELECT id FROM webhooks WHERE name = 'hanging'), gen_random_uuid(),
           ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'user.created', now(), now()
      FROM generate_series(1, $1::int) n
"""

_UNDER_WAY = Statement[int]("SELECT count(*) AS number FROM deliveries WHERE state = 'pending' AND is_leased")
_ARE_SOME_LEFT = Statement[bool]("""
    SELECT EXISTS (SELECT FROM events_unplaced) OR EXISTS (SELECT FROM deliveries WHERE state = 'pending') AS are_some
""")
_STORED = Statement[UUID]("SELECT id FROM events WHERE type = 'user.created'")

_numbers = count()


def settings(url: str) -> Settings:
    return settings_from(
        Settings,
        _env_file=None,
        database_url=url,
        secret_key="AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        app_id="wx",
        app_secret="0" * 32,
        issuer="http://127.0.0.1:1",
    )


# These functions run the processes of a run.


async def work(url: str) -> None:
    """Assign places and deliver, like each process of the service."""
    services = build_services(settings(url))
    keeping = asyncio.gather(keep_placing(services), services[Deliveries].keep_delivering())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, keeping.cancel)
    try:
        await keeping
    except asyncio.CancelledError:
        await services.aclose()


async def receive(port: int) -> None:
    """Accept messages at /orders and /ledger, and hang at /hanging."""
    came: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))

    async def take(request: web.Request) -> web.Response:
        message = json.loads(await request.read())
        at = datetime.fromisoformat(message["timestamp"]).timestamp()
        came[request.path][request.headers["webhook-id"]].append(time() - at)
        await asyncio.sleep(float(request.query.get("takes", 0)))
        return web.Response(status=204)

    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        return web.Response()

    async def tell(_: web.Request) -> web.Response:
        told = {path.removeprefix("/"): events for path, events in came.items()}
        came.clear()
        return web.json_response(told)

    app = web.Application()
    app.add_routes([web.post("/hanging", hang), web.get("/told", tell), web.post("/{name}", take)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    await asyncio.Event().wait()


@contextmanager
def process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    started = subprocess.Popen([sys.executable, "-m", "benchmarks.webhooks", *arguments], env=environment())
    try:
        yield started
    finally:
        started.terminate()
        started.wait(20)


# These functions generate the load.


async def log_in(database: Database) -> None:
    number = next(_numbers)
    login = Login(
        app_id="wx",
        openid=f"openid-{number}",
        unionid=None,
        nickname=None,
        avatar_url=None,
        session_key=bytes(49),
        ip="192.0.2.1",
        user_agent="micromessenger",
        expires_in=3600,
        may_sign_up=True,
    )
    await record_login(database, login, now=datetime.now(UTC))


async def log_people_in(database: Database, seconds: float) -> list[float]:
    """Return the durations of first logins, in milliseconds."""
    times: list[float] = []

    async def one() -> None:
        started = perf_counter()
        await log_in(database)
        times.append((perf_counter() - started) * 1000)

    await load(one, seconds)
    return times


async def load(one: Callable[[], Awaitable[None]], seconds: float) -> None:
    """Start `RATE` calls per second, no matter how long each takes."""
    started = perf_counter()
    tasks: list[asyncio.Future[None]] = []
    while (elapsed := perf_counter() - started) < seconds:
        while len(tasks) < elapsed * RATE:
            tasks.append(asyncio.ensure_future(one()))
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)


async def run(name: str, database: Database, postmaster: int, workers: list[int], port: int, *, kill: int = 0) -> None:
    before = cpu_of_tree(postmaster).total, sum(cpu_of_tree(pid).total for pid in workers)
    loading = asyncio.create_task(log_people_in(database, SECONDS))
    if kill:
        await asyncio.sleep(SECONDS / 2)
        os.kill(kill, signal.SIGKILL)
    times = sorted(await loading)
    after = cpu_of_tree(postmaster).total, sum(cpu_of_tree(pid).total for pid in workers)
    await asyncio.sleep(40 if kill else 3)
    told = await what_came(port)
    milliseconds = [1000 * (end - start) / len(times) for start, end in zip(before, after, strict=True)]
    took = f"median {times[len(times) // 2]:.1f} ms, p99 {times[int(len(times) * 0.99)]:.1f} ms"
    cost = f"PostgreSQL {milliseconds[0]:.2f} ms, workers {milliseconds[1]:.2f} ms"
    print(f"{name}: {len(times)} logins, {took}; CPU for each: {cost}", flush=True)
    for name, came in sorted(told.items()):
        print(f"    {name}: {spread_of(came)}", flush=True)


async def what_came(port: int) -> dict[str, dict[str, list[float]]]:
    """Return the delay of each message by webhook and event, since the last request."""
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/told") as answer:
        told: dict[str, dict[str, list[float]]] = await answer.json()
    return told


def spread_of(came: dict[str, list[float]]) -> str:
    late = sorted(each for times in came.values() for each in times)
    twice = sum(len(times) > 1 for times in came.values())
    p50, p95 = late[len(late) // 2], late[int(len(late) * 0.95)]
    return f"{len(came)} events, {twice} twice; after p50 {p50:.2f} s, p95 {p95:.2f} s, longest {late[-1]:.2f} s"


async def measure(url: str, postmaster: int) -> None:
    database, port = Database(url), free_port()
    await migrate(database)
    connection = await asyncpg.connect(url)
    services = build_services(settings(url))
    with process("receive", str(port)), process("work", url) as first, process("work", url) as second:
        await asyncio.sleep(5)  # until all workers have started
        workers = [first.pid, second.pid]
        await run("no webhook", database, postmaster, workers, port)
        for name in (*GOOD, HANGING):
            await services[Webhooks].add(name, url=f"http://127.0.0.1:{port}/{name}", types=(), by=OPERATOR)
        await run("three webhooks, one hangs", database, postmaster, workers, port)
        await connection.execute(_UNDELIVERED, UNDELIVERED, timeout=300)
        await connection.execute("VACUUM ANALYZE deliveries", timeout=300)
        await run("a million undelivered beside", database, postmaster, workers, port)
        await run("a worker killed in the middle", database, postmaster, [second.pid], port, kill=first.pid)
    await connection.close()
    await services.aclose()
    await database.aclose()


# These functions break something halfway.


async def suffer(
    name: str, postgres: Replicated, fault: Callable[[list[subprocess.Popen[bytes]]], Awaitable[None]]
) -> bool:
    """Log people in and deliver, break something halfway, and compare the stored events with the received messages.

    Return whether nothing was lost, and nothing came twice within the time for which a process owns a delivery.
    """
    database, port, services = Database(postgres.url), free_port(), build_services(settings(postgres.url))
    await migrate(database)
    failed = 0

    async def log_in_or_fail() -> None:
        nonlocal failed
        try:
            await log_in(database)
        except StorageUnavailable:
            failed += 1

    with process("receive", str(port)), process("work", postgres.url) as first, process("work", postgres.url) as second:
        await asyncio.sleep(5)  # until all workers have started
        for webhook in GOOD:
            await services[Webhooks].add(
                webhook, url=f"http://127.0.0.1:{port}/{webhook}?takes={TAKES}", types=(), by=OPERATOR
            )
        loading = asyncio.create_task(load(log_in_or_fail, SECONDS))
        await asyncio.sleep(SECONDS / 3)
        await until_delivering(database)
        await fault([first, second])
        await loading
        await until_delivered(database)
        told = await what_came(port)
    stored = {str(event_id) for event_id in await database.values(_STORED)}
    await services.aclose()
    await database.aclose()
    print(f"{name}: {len(stored)} events, {failed} logins failed", flush=True)
    is_well = True
    for webhook in GOOD:
        came = told[webhook]
        gaps = [times[1] - times[0] for times in came.values() if len(times) > 1]
        lost, soonest = len(stored - came.keys()), min(gaps, default=None)
        again = "" if soonest is None else f", the soonest after {soonest:.1f} s"
        print(f"    {webhook}: {spread_of(came)}; {lost} lost{again}", flush=True)
        # The limit is a second less than the lease, which begins a little before the first message arrives.
        is_well &= lost == 0 and (soonest is None or soonest > LEASE.total_seconds() - 1)
        is_well &= all(len(times) < 3 for times in came.values())
    return is_well


async def until_delivering(database: Database) -> None:
    """Wait until both workers have deliveries in progress. Many begin at once every half second."""
    async with asyncio.timeout(60):
        while True:
            if (await database.value(_UNDER_WAY) or 0) > 2 * MAX_CONCURRENT_FOR_ONE:
                return
            await asyncio.sleep(0.005)


async def until_delivered(database: Database) -> None:
    """Wait until no delivery is pending, through the rest of an outage."""
    async with asyncio.timeout(180):
        while True:
            await asyncio.sleep(1)
            with suppress(StorageUnavailable):
                if not await database.value(_ARE_SOME_LEFT):
                    return


async def break_things() -> bool:
    outcomes = []
    for name, fault in FAULTS.items():
        with private_folder() as folder, Replicated(folder, is_synchronous=True) as postgres:
            outcomes.append(await suffer(name, postgres, partial(fault, postgres)))
    return all(outcomes)


async def stop_and_start(postgres: Replicated, _: list[subprocess.Popen[bytes]]) -> None:
    await postgres.servers[0].end(signal.SIGQUIT)  # an immediate stop, like a power failure
    postgres.servers[0].start()


async def stop_and_start_late(postgres: Replicated, _: list[subprocess.Popen[bytes]]) -> None:
    await postgres.servers[0].end(signal.SIGQUIT)
    await asyncio.sleep(LEASE.total_seconds() + 5)
    postgres.servers[0].start()


async def fail_over(postgres: Replicated, _: list[subprocess.Popen[bytes]]) -> None:
    postgres.servers[0].kill()
    await asyncio.sleep(DETECTION)
    await asyncio.to_thread(postgres.promote)


async def fail_over_and_kill(postgres: Replicated, workers: list[subprocess.Popen[bytes]]) -> None:
    workers[0].kill()
    await fail_over(postgres, workers)


FAULTS = {
    "PostgreSQL stopped at once, and started": stop_and_start,
    "the same, and started after 35 s": stop_and_start_late,
    "primary killed, standby promoted after 5 s": fail_over,
    "the same, and a worker killed": fail_over_and_kill,
}


@click.group(invoke_without_command=True)
@click.pass_context
def main(context: click.Context) -> None:
    """Deliver ten thousand events a minute to three webhooks of which one hangs."""
    configure_logging(level="error", log_format="json", stream=sys.stderr.buffer)
    if context.invoked_subcommand is not None:
        return
    with (
        tempfile.TemporaryDirectory(prefix="wxauth-benchmarks-") as folder,
        EmbeddedPostgres(Path(folder) / "postgres", lasting=False) as postgres,
    ):
        pid = postmaster_of(Path(folder) / "postgres")
        asyncio.run(measure(postgres.url(), pid))


@main.command("faults")
def lose_the_database() -> None:
    """Let the database fail halfway instead. The exit status is 1 if an event is lost."""
    sys.exit(0 if asyncio.run(break_things()) else 1)


@main.command("receive", hidden=True)
@click.argument("port", type=int)
def start_receiver(port: int) -> None:
    """Receive events at this port, in a process of its own."""
    asyncio.run(receive(port))


@main.command("work", hidden=True)
@click.argument("url")
def start_worker(url: str) -> None:
    """Deliver the events of this database, in a process of its own."""
    asyncio.run(work(url))


if __name__ == "__main__":
    main()
