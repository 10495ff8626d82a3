"""The command `python -m benchmarks.keeper`, for the cost of signatures and forwarded messages against a login."""

import asyncio
import json
import sys
import tempfile
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import count, cycle
from pathlib import Path
from statistics import median
from time import time
from typing import Any, Final
from urllib.parse import urlencode

import asyncpg
import click
import uvloop

from benchmarks.contenders import Contender, started
from benchmarks.load import HEAD, Connection, login, post
from benchmarks.processes import cpu_of_tree, stand_in
from benchmarks.standin import code_for, openid_of
from wxauth.clients.clients import Credentials, add_client
from wxauth.clients.models import Scope
from wxauth.clients.rules import build_client
from wxauth.core.clock import utc_now
from wxauth.core.database import Database
from wxauth_desk.postgres import EmbeddedPostgres
from wxauth_desk.wechat.push import Mode, sign_push

CONNECTIONS: Final = 32
CLIENTS: Final = 200
"""The number of clients, each limited to 100 signatures a second, which together are more than are made."""
PLAIN: Final = {"app_id": "wxbench00000000001", "app_secret": "0" * 32, "push_token": "PushTokenOfTheFirst"}
SEALED: Final = {**PLAIN, "app_id": "wxbench00000000002", "push_token": "PushTokenOfAnother", "push_aes_key": "k" * 43}
PAID: Final = {
    "ToUserName": "gh_1a2b3c4d5e6f",
    "FromUserName": openid_of(1).decode(),
    "CreateTime": 1_795_161_600,
    "MsgType": "event",
    "Event": "xpay_goods_deliver_notify",
    "OpenId": openid_of(1).decode(),
    "OutTradeNo": "2026112008000012345678",
    "GoodsInfo": {"ProductId": "membership", "Quantity": 1, "OrigPrice": 990, "ActualPrice": 990, "Attach": ""},
}
TARGETS: Final = {"signature": ("me", 1.2), "sealed message": ("login", 2.0), "plain message": ("login", 2.0)}
"""The maximum cost of each kind, as a multiple of the cost of another kind."""


@dataclass
class Load:
    """The requests of each kind, from people who have logged in and clients that were added."""

    service: Contender
    clients: list[Credentials]
    numbers: "count[int]"

    async def run(self, kind: str, requests: int) -> float:
        """Send this number of requests, over `CONNECTIONS` at once. Return the service's CPU time for each, in µs.

        Raises: WrongAnswer.
        """
        loop = asyncio.get_running_loop()
        connections = [
            (await loop.create_connection(Connection, "127.0.0.1", self.service.port))[1] for _ in range(CONNECTIONS)
        ]
        people = [json.loads(await it.ask(self._login())) for it in connections]
        sent = iter(list(self._requests(kind, requests, people)))
        before = cpu_of_tree(self.service.pid)

        async def send(connection: Connection) -> None:
            for request in sent:
                await connection.ask(request)

        await asyncio.gather(*(send(it) for it in connections))
        return (cpu_of_tree(self.service.pid) - before).total / requests * 1e6

    def _login(self) -> bytes:
        number = next(self.numbers)
        return login(number % 1000, code_for(number % 1000, number))

    def _requests(self, kind: str, requests: int, people: list[Any]) -> Iterator[bytes]:
        clients = cycle(self.clients)
        for _, person in zip(range(requests), cycle(people), strict=False):
            number = next(self.numbers)
            if kind == "login":
                yield self._login()
            elif kind == "me":
                yield b"GET /v1/me HTTP/1.1\r\n%bAuthorization: Bearer %b\r\n\r\n" % (
                    HEAD,
                    person["access_token"].encode(),
                )
            elif kind == "signature":
                body = json.dumps({"openid": person["user"]["openid"], "data": json.dumps(PAID)}).encode()
                basic = b"Authorization: Basic %b\r\n" % b64encode(":".join(next(clients)).encode())
                yield post(f"/v1/apps/{PLAIN['app_id']}/signatures".encode(), body, basic)
            else:
                app = SEALED if kind == "sealed message" else PLAIN
                mode: Mode = "aes" if app is SEALED else "plain"
                pushed = sign_push(
                    app,
                    PAID,
                    mode=mode,
                    format="json",
                    timestamp=str(int(time())),
                    nonce=str(number),
                )
                path = f"/v1/wechat/push/{app['app_id']}?{urlencode(pushed.query)}"
                yield post(path.encode(), pushed.body)


@click.command()
@click.option(
    "--rounds",
    type=click.IntRange(1),
    default=5,
    show_default=True,
    help="Rounds after a first one that isn't counted.",
)
@click.option(
    "--requests", type=click.IntRange(100), default=3000, show_default=True, help="Requests of each kind in each round."
)
@click.option("--strict", is_flag=True, help="Exit with status 1 if a target is missed.")
def main(rounds: int, requests: int, strict: bool) -> None:
    """Measure CPU µs per request in the service's one process, with the kinds in turn."""
    samples: dict[str, list[float]] = {
        kind: [] for kind in ("me", "signature", "login", "sealed message", "plain message")
    }
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="wxauth-benchmarks-")))
        postgres = stack.enter_context(EmbeddedPostgres(folder / "postgres", lasting=False))
        asyncio.run(_create_database(postgres.url()))
        url = f"http://127.0.0.1:{stack.enter_context(stand_in(folder))}"
        apps = json.dumps([{**app, "push_forward": f"{url}/pushed"} for app in (PLAIN, SEALED)])
        more = {"APPS": apps, "APP_ID": "", "APP_SECRET": ""}
        service = stack.enter_context(
            started("wxauth", database_url=postgres.url("wxauth"), wechat_url=url, folder=folder, more=more)
        )
        clients = asyncio.run(_add_clients(service))
        load = Load(service, clients, count(1))
        for number in range(rounds + 1):
            for kind, costs in samples.items():
                used = uvloop.run(load.run(kind, requests))
                click.echo(f"round {number}: {kind}: {used:.0f} µs", err=True)
                if number:
                    costs.append(used)
    click.echo("| request | CPU µs | times | at most |\n|---|--:|--:|--:|")
    missed = False
    for kind, costs in samples.items():
        other, most = TARGETS.get(kind, (kind, None))
        times = median(cost / base for cost, base in zip(costs, samples[other], strict=True))
        missed |= most is not None and times > most
        click.echo(f"| {kind} | {median(costs):.0f} | {times:.2f} {other} | {most or ''} |")
    sys.exit(1 if strict and missed else 0)


async def _create_database(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE DATABASE wxauth")
    await connection.close()


async def _add_clients(service: Contender) -> list[Credentials]:
    database = Database(service.database_url)
    found = [
        await add_client(database, build_client(f"shop-{number}", {"scopes": [Scope.SIGN]}), now=utc_now())
        for number in range(CLIENTS)
    ]
    await database.aclose()
    return [credentials for credentials in found if credentials is not None]


if __name__ == "__main__":
    main()
