"""Nobody whom wxauth refuses gets in by sending a service more requests at once than its guard can ask about."""

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import asyncpg
import httpx
import pytest

from tests.docs import ROOT
from tests.foreign.conftest import Front, Issuer
from tests.processes import PATIENCE, Running, free_port
from tests.programs import needs, output_of
from tests.world import set_roles

pytestmark = [pytest.mark.process, pytest.mark.node]

FLOOD = str(Path(__file__).with_name("flood.py"))
NODE_SERVICE = Path(__file__).parents[2] / "clients/node/test/refunds.js"
GO_SERVICE = Path(__file__).with_name("refunds")
JAVA_SERVICE = Path(__file__).with_name("Refunds.java")
# A service whose refunds need a guard with `or_offline`, in an event loop, in threads or in green threads.
SERVICE = """
import sys

kind, issuer, internal_url, port = sys.argv[1:]
if kind == "gevent":
    from gevent import monkey

    monkey.patch_all()

import json
import resource
import socketserver
from typing import Annotated, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

import uvicorn
from fastapi import Depends, FastAPI

from wxauth_guard import BearerGuard, BearerWSGIMiddleware, Principal

_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
guard = BearerGuard(issuer, or_offline=True, internal_url=internal_url or None)
app = FastAPI()

@app.post("/refund")
async def refund(user: Annotated[Principal, Depends(guard.current.require_role("clerk"))]) -> dict[str, Any]:
    return {"current": user.is_current}

def refund_in_thread(environ: Any, start_response: Any) -> list[bytes]:
    body = json.dumps({"current": environ["wxauth.user"].is_current}).encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]

guarded = BearerWSGIMiddleware(refund_in_thread, guard.current, roles=["clerk"])

class Threads(socketserver.ThreadingMixIn, WSGIServer):
    request_queue_size = 1024
    daemon_threads = True

class Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None:
        pass

if kind == "uvicorn":
    uvicorn.run(app, host="127.0.0.1", port=int(port), access_log=False)
elif kind == "threads":
    server = Threads(("127.0.0.1", int(port)), Quiet)
    server.set_app(guarded)
    print("running", flush=True)
    server.serve_forever()
else:
    from gevent.pywsgi import WSGIServer as GreenServer

    green = GreenServer(("127.0.0.1", int(port)), guarded, log=None, backlog=1024)
    green.start()
    print("running", flush=True)
    green.serve_forever()
"""


@pytest.fixture
async def clerk(issuer: Issuer, database_of_issuer: str) -> str:
    """The token of a clerk, who has been banned since."""
    code = f"n{uuid4().hex[:30]}"
    rows = await asyncpg.connect(database_of_issuer)
    try:
        async with httpx.AsyncClient(base_url=issuer.url, trust_env=False) as client:
            user_id = (await client.post("/v1/login", json={"code": code})).json()["user"]["id"]
            await set_roles(rows, "clerk", user_id=user_id)
            token: str = (await client.post("/v1/login", json={"code": code})).json()["access_token"]
        await rows.execute("UPDATE users SET status = 'disabled' WHERE id = $1", user_id)
    finally:
        await rows.close()
    return token


@contextmanager
def service(kind: str, issuer: str, internal_url: str, folder: Path) -> Iterator[int]:
    port = free_port()
    command = [sys.executable, "-c", SERVICE, kind]
    if kind == "node":
        command = [needs("node"), str(NODE_SERVICE)]
    if kind == "go":
        program = folder / "refunds"
        output_of(needs("go"), "build", "-C", str(GO_SERVICE), "-o", str(program))
        command = [str(program)]
    if kind == "java":
        sources = [*(ROOT / "clients/java/guard/src/main/java/wxauth/guard").glob("*.java"), JAVA_SERVICE]
        output_of(needs("javac"), "-Xlint:-options", "--release", "8", "-d", str(folder), *map(str, sources))
        command = [needs("java"), "-cp", str(folder), "Refunds"]
    with Running(*command, issuer, internal_url, str(port), cwd=folder) as running:
        running.wait_for("running")
        yield port


async def flood(port: int, number: int, token: str) -> dict[str, int]:
    """Return how often each status came back. A 200 is followed by whether wxauth has confirmed the user."""
    command = (sys.executable, FLOOD, str(port), str(number), token)
    return json.loads(await asyncio.to_thread(output_of, *command))


async def settle(port: int, token: str, outcome: str) -> None:
    """Ask until the outcome is this one. A busy machine may refuse with 503 before."""
    async with asyncio.timeout(PATIENCE):
        while (counts := await flood(port, 1, token)) != {outcome: 1}:
            assert counts == {"503": 1}


@pytest.mark.parametrize(
    ("kind", "numbers"),
    [
        ("uvicorn", (1000, 2500, 5000)),
        ("threads", (1000,)),
        ("gevent", (2500,)),
        ("node", (1000, 2500, 5000)),
        ("go", (1000, 2500, 5000)),
        ("java", (1000, 2500, 5000)),
    ],
)
async def test_no_flood_lets_a_banned_clerk_refund(
    issuer: Issuer, clerk: str, tmp_path: Path, kind: str, numbers: tuple[int, ...]
) -> None:
    with service(kind, issuer.url, "", tmp_path) as port:
        await settle(port, clerk, "401")
        for number in numbers:
            counts = await flood(port, number, clerk)
            assert counts.keys() <= {"401", "503"}, number
        await settle(port, clerk, "401")


@pytest.mark.parametrize("kind", ["uvicorn", "node", "go", "java"])
async def test_during_an_outage_everybody_gets_in_who_did_not_wait_for_its_finding(
    issuer: Issuer, clerk: str, tmp_path: Path, kind: str
) -> None:
    with Front(issuer.url) as front, service(kind, issuer.url, front.url, tmp_path) as port:
        await settle(port, clerk, "401")
        for outage in ("closes", "hangs", "status"):
            front.is_away, front.status = outage == "closes", 503 if outage == "status" else None
            (front.answers.clear if outage == "hangs" else front.answers.set)()
            counts = await flood(port, 500, clerk)
            assert counts.keys() <= {"200 False", "503"}, outage
            await settle(port, clerk, "200 False")
        front.status = None
        async with asyncio.timeout(PATIENCE):
            while await flood(port, 1, clerk) != {"401": 1}:
                pass  # the last finding counts for a second
