"""`examples/express` follows the events of users, both with webhooks and with the feed of a running service."""

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
from pydantic_core import to_json

from tests.fakes import SECRET_KEY, Secrets
from tests.foreign.conftest import Issuer
from tests.processes import Running, free_port, run
from tests.programs import EXPRESS, needs, needs_node
from tests.siblings.sample_events import event
from tests.world import Body, add_client, leave, until
from wxauth.clients.models import Scope
from wxauth.core.clock import utc_now
from wxauth.core.database import Database
from wxauth.outbound.signatures import new_webhook_secret, shown_secret, signed_headers
from wxauth_desk.postgres import EmbeddedPostgres

pytestmark = [pytest.mark.process, pytest.mark.node]


class Shop:
    """The orders in the example's database."""

    def __init__(self, url: str, connection: asyncpg.Connection) -> None:
        self.url = url
        self._connection = connection

    async def add(self, user_id: str, item: str) -> None:
        await self._connection.execute("INSERT INTO orders VALUES ($1, $2, $1)", user_id, item)

    async def of(self, user_id: str) -> list[str]:
        rows = await self._connection.fetch("SELECT item FROM orders WHERE user_id = $1 ORDER BY item", user_id)
        return [row["item"] for row in rows]

    async def cursor(self) -> str | None:
        return await self._connection.fetchval("SELECT cursor FROM feed")


@pytest.fixture
async def shop(postgres: EmbeddedPostgres, admin: asyncpg.Connection) -> AsyncIterator[Shop]:
    await admin.execute("CREATE DATABASE express_orders")
    connection = await asyncpg.connect(postgres.url("express_orders"))
    yield Shop(postgres.url("express_orders"), connection)
    await connection.close()
    await admin.execute("DROP DATABASE express_orders WITH (FORCE)")


@contextmanager
def started(script: str, says: str, shop: Shop, folder: Path, **env: str) -> Iterator[None]:
    """Start a part of the example with the command from its README."""
    needs_node(EXPRESS)
    command = (needs("npm"), "run", script, "--prefix", str(EXPRESS))
    with Running(*command, cwd=folder, env={"DATABASE_URL": shop.url, **env}) as process:
        process.wait_for(says)
        yield


async def test_orders_follow_webhooks_once_and_in_any_order(shop: Shop, tmp_path: Path) -> None:
    secret, port = new_webhook_secret(), free_port()
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as wxauth:

        async def send(event: Body, key: bytes = secret) -> int:
            body = to_json({"type": event["type"], "timestamp": "2026-11-20T08:00:00Z", "data": event})
            headers = {**signed_headers(event["id"], body, [key], now=utc_now()), "content-type": "application/json"}
            return (await wxauth.post("/webhooks/wxauth", content=body, headers=headers)).status_code

        env = {"WEBHOOK_SECRET": shown_secret(secret), "PORT": str(port)}
        with started("webhooks", "Webhooks: ", shop, tmp_path, **env):
            for user_id in ("a", "alice", "al"):
                await shop.add(user_id, "oolong")
            erased = event(1, "user.erased", "alice", former_ids=["al"])
            assert await send(erased, new_webhook_secret()) == 401
            assert (await wxauth.post("/webhooks/wxauth")).status_code == 401
            assert await shop.of("alice") == ["oolong"], "which a stranger cannot erase"

            assert await send(erased) == 204
            assert (await shop.of("alice"), await shop.of("al")) == ([], []), "before the event of the merge, too"
            await shop.add("alice", "pu'er")
            assert await send(erased) == 204
            assert await shop.of("alice") == ["pu'er"], "an event that comes twice changes nothing twice"

            assert await send(event(3, "user.merged", "c", former_id="b")) == 204
            assert await send(event(2, "user.merged", "b", former_id="a")) == 204
            assert (await shop.of("b"), await shop.of("c")) == ([], ["oolong"]), "merges in the wrong order"

            assert await send(event(4, "user.split", "c", new_user_id="d")) == 204
            assert (await shop.of("c"), await shop.of("d")) == (["oolong"], []), "all stays with the user"


async def test_a_running_service_makes_both_forget_an_erased_users_orders(
    shop: Shop, issuer: Issuer, database_of_issuer: str, secrets: Secrets, tmp_path: Path
) -> None:
    port, settings = free_port(), {"WXAUTH_DATABASE_URL": database_of_issuer, "WXAUTH_SECRET_KEY": SECRET_KEY}
    command = ("webhooks", "add", "express", f"http://127.0.0.1:{port}/webhooks/wxauth", "--json")
    webhook = httpx.Response(200, text=run(*command, cwd=tmp_path, env=settings).stdout).json()
    database = Database(database_of_issuer)
    credentials = await add_client(database, "express", scopes=[Scope.EVENTS, Scope.USERS], now=utc_now())
    await database.aclose()
    reader = {
        "WXAUTH_ISSUER": issuer.url,
        "CLIENT_ID": credentials.client_id,
        "CLIENT_SECRET": secrets.add(credentials.client_secret),
    }
    rows = await asyncpg.connect(database_of_issuer)
    async with httpx.AsyncClient(base_url=issuer.url, trust_env=False) as phone:

        async def log_in(person: str) -> Body:
            answer: Body = (await phone.post("/v1/login", json={"code": person})).json()
            await shop.add(answer["user"]["id"], "oolong")
            return answer

        async def erase(login: Body) -> None:
            assert (await leave(phone, login)).status_code == 204

        async def are_orders_erased(login: Body) -> bool:
            return await shop.of(login["user"]["id"]) == []

        receiver = {"WEBHOOK_SECRET": secrets.add(webhook["secret"]), "PORT": str(port)}
        with started("webhooks", "Webhooks: ", shop, tmp_path, **receiver):
            erased = await log_in("bob")
            await erase(erased)
            await until(lambda: are_orders_erased(erased))
        run("webhooks", "remove", "express", cwd=tmp_path, env=settings)

        with started("feed", "Reading", shop, tmp_path, **reader):
            await until(shop.cursor)
            erased = await log_in("carol")
            await erase(erased)
            await until(lambda: are_orders_erased(erased))
        kept, gone = await log_in("dave"), await log_in("erin")
        await erase(gone)
        await until(lambda: rows.fetchval("SELECT NOT EXISTS (SELECT FROM events_unplaced)"))
        await rows.execute("DELETE FROM feed WHERE position > 1")  # a restored backup lacks these events
        with started("feed", "Reading", shop, tmp_path, **reader):
            await until(lambda: are_orders_erased(gone))
        assert await shop.of(kept["user"]["id"]) == ["oolong"]
    await rows.close()
