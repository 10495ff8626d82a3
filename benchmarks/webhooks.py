"""`python -m benchmarks.webhooks`: ten thousand events a minute, three webhooks of which one hangs, two workers.

Each event is a first login's. First without a webhook, then with three, then with a million undelivered beside, and
at last one of the workers is killed in the middle.
"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from time import perf_counter, time

import aiohttp
import asyncpg
from aiohttp import web

from benchmarks.processes import cpu_of_tree, environment, free_port
from wxauth.core.database import Database
from wxauth.core.logs import configure_logging
from wxauth.core.migrations import migrate
from wxauth.core.settings import Settings, settings_from
from wxauth.core.trail import OPERATOR
from wxauth.dev.postgres import EmbeddedPostgres
from wxauth.login.login_rows import Login, record_login
from wxauth.service.build import build_services
from wxauth.siblings.feed import keep_placing
from wxauth.siblings.webhooks import add_webhook

RATE = 10_000 / 60
"""Events a second."""
SECONDS = 30
UNDELIVERED = 1_000_000
GOOD, HANGING = ("orders", "ledger"), "hanging"

_UNDELIVERED = """
    INSERT INTO deliveries (webhook_id, event_id, id, type, next_at, at)
    SELECT (SELECT id FROM webhooks WHERE name = 'hanging'), gen_random_uuid(),
           ('00000000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, 'user.created', now(), now()
      FROM generate_series(1, $1::int) n
"""

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


# The processes beside this one.


async def work(url: str) -> None:
    """Give places and deliver, as each process of the service does."""
    services = build_services(settings(url))
    keeping = asyncio.gather(keep_placing(services), services.deliveries.keep_delivering())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, keeping.cancel)
    try:
        await keeping
    except asyncio.CancelledError:
        await services.aclose()


async def receive(port: int) -> None:
    """Take what comes to /orders and /ledger, and hang at /hanging."""
    late: defaultdict[str, list[float]] = defaultdict(list)
    seen: defaultdict[str, Counter[str]] = defaultdict(Counter)

    async def take(request: web.Request) -> web.Response:
        message = json.loads(await request.read())
        at = datetime.fromisoformat(message["timestamp"]).timestamp()
        late[request.path].append(time() - at)
        seen[request.path][request.headers["webhook-id"]] += 1
        return web.Response(status=204)

    async def hang(_: web.Request) -> web.Response:
        await asyncio.sleep(3600)
        return web.Response()

    async def tell(_: web.Request) -> web.Response:
        told = {}
        for path, times in late.items():
            ordered = sorted(times)
            told[path] = {
                "events": len(seen[path]),
                "twice": sum(number > 1 for number in seen[path].values()),
                "p50": ordered[len(ordered) // 2],
                "p95": ordered[int(len(ordered) * 0.95)],
                "longest": ordered[-1],
            }
        late.clear()
        seen.clear()
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


# The load.


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
        is_judged=False,
        may_sign_up=True,
    )
    await record_login(database, login, now=datetime.now(UTC))


async def log_people_in(database: Database, seconds: float) -> list[float]:
    """How long each first login took, in milliseconds."""
    times: list[float] = []

    async def one() -> None:
        started = perf_counter()
        await log_in(database)
        times.append((perf_counter() - started) * 1000)

    started, tasks = perf_counter(), []
    while (elapsed := perf_counter() - started) < seconds:
        while len(tasks) < elapsed * RATE:
            tasks.append(asyncio.create_task(one()))
        await asyncio.sleep(0.005)
    await asyncio.gather(*tasks)
    return times


async def run(name: str, database: Database, postmaster: int, workers: list[int], port: int, *, kill: int = 0) -> None:
    before = cpu_of_tree(postmaster).total, sum(cpu_of_tree(pid).total for pid in workers)
    loading = asyncio.create_task(log_people_in(database, SECONDS))
    if kill:
        await asyncio.sleep(SECONDS / 2)
        os.kill(kill, signal.SIGKILL)
    times = sorted(await loading)
    after = cpu_of_tree(postmaster).total, sum(cpu_of_tree(pid).total for pid in workers)
    await asyncio.sleep(40 if kill else 3)
    async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/told") as answer:
        told = await answer.json()
    milliseconds = [1000 * (end - start) / len(times) for start, end in zip(before, after, strict=True)]
    took = f"median {times[len(times) // 2]:.1f} ms, p99 {times[int(len(times) * 0.99)]:.1f} ms"
    cost = f"PostgreSQL {milliseconds[0]:.2f} ms, workers {milliseconds[1]:.2f} ms"
    print(f"{name}: {len(times)} logins, {took}; CPU for each: {cost}", flush=True)
    for path, of_path in sorted(told.items()):
        print(
            f"    {path[1:]}: {of_path['events']} events, {of_path['twice']} twice; after p50 {of_path['p50']:.2f} s, "
            f"p95 {of_path['p95']:.2f} s, longest {of_path['longest']:.2f} s",
            flush=True,
        )


async def measure(url: str, postmaster: int) -> None:
    database, port = Database(url), free_port()
    await migrate(database)
    connection = await asyncpg.connect(url)
    services = build_services(settings(url))
    with process("receive", str(port)), process("work", url) as first, process("work", url) as second:
        await asyncio.sleep(5)  # until all have started
        workers = [first.pid, second.pid]
        await run("no webhook", database, postmaster, workers, port)
        for name in (*GOOD, HANGING):
            await add_webhook(services, name, url=f"http://127.0.0.1:{port}/{name}", types=(), by=OPERATOR)
        await run("three webhooks, one hangs", database, postmaster, workers, port)
        await connection.execute(_UNDELIVERED, UNDELIVERED, timeout=300)
        await connection.execute("VACUUM ANALYZE deliveries", timeout=300)
        await run("a million undelivered beside", database, postmaster, workers, port)
        await run("a worker killed in the middle", database, postmaster, [second.pid], port, kill=first.pid)
    await connection.close()
    await services.aclose()
    await database.aclose()


if __name__ == "__main__":
    configure_logging(level="error", log_format="json", stream=sys.stderr.buffer)
    match sys.argv[1:]:
        case ["receive", port]:
            asyncio.run(receive(int(port)))
        case ["work", url]:
            asyncio.run(work(url))
        case _:
            with (
                tempfile.TemporaryDirectory(prefix="wxauth-benchmarks-") as folder,
                EmbeddedPostgres(Path(folder) / "postgres", lasting=False) as postgres,
            ):
                pid = int((Path(folder) / "postgres" / "postmaster.pid").read_text().splitlines()[0])
                asyncio.run(measure(postgres.url(), pid))
