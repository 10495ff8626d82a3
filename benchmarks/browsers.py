"""The command `python -m benchmarks.browsers`, which measures the page and the end of a browser's login.

First, the page that offers to continue and the page with a code take turns, and their CPU is compared. Then a user with
sessions of 20 sites is banned while others log in, and each site's logout token is timed, from the ban's own time.
"""

import asyncio
import json
import re
import subprocess
import sys
import tempfile
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import asyncpg
import click
import httpx
from aiohttp import web

from benchmarks.arrivals import Plan
from benchmarks.contenders import Contender, started
from benchmarks.load import HEAD, Connection
from benchmarks.processes import ROOT, cpu_of_tree, free_port, stand_in
from benchmarks.standin import code_for
from wxauth.clients.clients import ensure_own_client
from wxauth.core.database import Database
from wxauth_desk.postgres import EmbeddedPostgres

SITES: Final = [f"wxauth-site-{number}" for number in range(20)]
PAGES: Final = 500
"""The number of pages of each kind in a round."""
SECONDS: Final = 20
PROMISED: Final = 2.0
"""The number of seconds within which every site must receive its logout token."""

_CALLBACK: Final = "http://127.0.0.1/callback"
_VERIFIER: Final = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
_CHALLENGE: Final = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
_CONNECTIONS: Final = 8
_PERSON: Final = 999_999
_BANNED_AT: Final = "SELECT at FROM events WHERE type = 'user.banned'"


@click.command()
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Rounds after a first one that isn't counted.",
)
@click.option(
    "--rate", type=click.IntRange(1), default=200, show_default=True, help="Logins per second during the ban."
)
def main(rounds: int, rate: int) -> None:
    """Measure the page and the end of a login. The exit status is 1 if a site is told too late, or a login fails."""
    with (
        tempfile.TemporaryDirectory(prefix="wxauth-benchmarks-") as name,
        EmbeddedPostgres(Path(name) / "postgres", lasting=False) as postgres,
        stand_in(Path(name)) as wechat_port,
        started(
            "wxauth",
            database_url=postgres.url(),
            wechat_url=f"http://127.0.0.1:{wechat_port}",
            folder=Path(name),
            more={"SCAN_PICTURE_LIMIT": "", "SCAN_RATE_LIMIT": "900000000/minute"},
        ) as contender,
    ):
        sys.exit(0 if asyncio.run(_measure(contender, Path(name), rounds, rate)) else 1)


async def _measure(contender: Contender, folder: Path, rounds: int, rate: int) -> bool:
    port, told = free_port(), dict[str, float]()
    await _receive(port, told)
    await _add_sites(contender.database_url, port)
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{contender.port}", trust_env=False) as browser:
        user_id = await _log_in_everywhere(browser)
        cookie = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
    await _compare_pages(contender, cookie, rounds)
    return await _ban_under_load(contender, folder, user_id, told, rate)


async def _receive(port: int, told: dict[str, float]) -> None:
    """Receive logout tokens in this process, and record when each site's token arrives."""

    async def take(request: web.Request) -> web.Response:
        told[request.path] = datetime.now(UTC).timestamp()
        return web.Response()

    app = web.Application()
    app.add_routes([web.post("/{site}", take)])
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()


async def _add_sites(database_url: str, port: int) -> None:
    database = Database(database_url)
    for site in SITES:
        await ensure_own_client(
            database,
            site,
            title=site,
            redirect_uris=[_CALLBACK],
            backchannel_logout_uri=f"http://127.0.0.1:{port}/{site}",
            sso=True,
            scopes=["openid"],
            now=await database.time(),
        )
    await database.aclose()


async def _log_in_everywhere(browser: httpx.AsyncClient) -> str:
    """Log in to the first site by a scan, and continue at the others. Return the user's id."""
    login = (await browser.post("/v1/login", json={"code": code_for(_PERSON, 1).decode()})).json()
    phone = {"Authorization": f"Bearer {login['access_token']}"}
    for number, site in enumerate(SITES):
        page = (await browser.get(_authorize(site))).text
        if number:
            [path] = re.findall(r'action="(/v1/authorize/[\w-]{22}/continue)"', page)
            onward = await browser.post(path)
        else:
            scene = re.findall(r"/v1/scans/([\w-]{22})/code", page)[0]
            claimed = await browser.post("/v1/me/scans", json={"scene": scene, "entry_scene": 1047}, headers=phone)
            proof = {"login_code": code_for(_PERSON, 2).decode()}
            await browser.post(f"/v1/me/scans/{claimed.json()['id']}/approve", json=proof, headers=phone)
            onward = await browser.get(re.findall(r'href="(/v1/authorize/[\w-]{22}/next)"', page)[0])
        [code] = parse_qs(urlsplit(onward.headers["location"]).query)["code"]
        form = {"grant_type": "authorization_code", "code": code, "redirect_uri": _CALLBACK, "client_id": site}
        tokens = await browser.post("/v1/token", data={**form, "code_verifier": _VERIFIER})
        tokens.raise_for_status()
    user_id: str = login["user"]["id"]
    return user_id


def _authorize(site: str) -> str:
    parameters = {
        "client_id": site,
        "redirect_uri": _CALLBACK,
        "response_type": "code",
        "scope": "openid",
        "state": "s-1",
        "code_challenge": _CHALLENGE,
        "code_challenge_method": "S256",
    }
    return f"/v1/authorize?{urlencode(parameters)}"


async def _compare_pages(contender: Contender, cookie: str, rounds: int) -> None:
    loop = asyncio.get_running_loop()
    connections = [
        (await loop.create_connection(Connection, "127.0.0.1", contender.port))[1] for _ in range(_CONNECTIONS)
    ]
    kinds = {"with a code": ("", b"/code"), "to continue": (f"Cookie: {cookie}\r\n", b"/continue")}
    costs: dict[str, list[float]] = {name: [] for name in kinds}
    for number in range(rounds + 1):
        for name, (field, mark) in kinds.items():
            request = b"GET %b HTTP/1.1\r\n%b%b\r\n" % (_authorize(SITES[0]).encode(), HEAD, field.encode())

            async def ask(connection: Connection, request: bytes = request, mark: bytes = mark) -> None:
                for _ in range(PAGES // _CONNECTIONS):
                    assert mark in await connection.ask(request)

            before = cpu_of_tree(contender.pid).total
            await asyncio.gather(*map(ask, connections))
            if number:
                costs[name].append((cpu_of_tree(contender.pid).total - before) / PAGES * 1e6)
    code, onward = costs.values()
    ratio = median(b / a for a, b in zip(code, onward, strict=True))
    click.echo(f"page with a code {median(code):.0f} µs CPU, page to continue {median(onward):.0f} µs: {ratio:.2f} ×")


async def _ban_under_load(contender: Contender, folder: Path, user_id: str, told: dict[str, float], rate: int) -> bool:
    people = 1000
    await _load(Plan("first", contender.port, 32, 0, people, 0, 10, ""))
    loading = asyncio.create_task(
        _load(Plan("returning", contender.port, 64, rate, rate * SECONDS, people, people + 10, ""))
    )
    await asyncio.sleep(SECONDS / 2)
    command = [sys.executable, "-m", "wxauth", "users", "ban", user_id]
    await asyncio.to_thread(
        subprocess.run, command, env=contender.env, cwd=folder, check=True, stdout=subprocess.DEVNULL
    )
    result = await loading
    connection = await asyncpg.connect(contender.database_url)
    banned_at = (await connection.fetchval(_BANNED_AT)).timestamp()
    await connection.close()
    late = sorted(at - banned_at for at in told.values())
    click.echo(
        f"a ban beside {result['finished'] / result['seconds']:.0f} logins/s (p99 {result['p99_ms']:.1f} ms, "
        f"{sum(result['errors'].values())} wrong): {len(late)} of {len(SITES)} sites told, "
        f"the first after {late[0]:.2f} s, the last after {late[-1]:.2f} s"
    )
    return len(late) == len(SITES) and late[-1] <= PROMISED and not result["errors"]


async def _load(plan: Plan) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "benchmarks.arrivals", json.dumps(asdict(plan))),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
    )
    assert process.stdout is not None
    assert await process.stdout.readline() == b"ready\n"
    output, _ = await process.communicate(b"go\n")
    result: dict[str, Any] = json.loads(output)
    return result


if __name__ == "__main__":
    main()
