"""In `examples/sibling`, orders follow the events of their users, which come by webhook or from the feed."""

import asyncio
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest

from examples.sibling import feed
from examples.sibling.orders import Orders
from tests.fakes import OTHER_APP, Secrets
from tests.serving import serving
from tests.siblings.sample_events import event
from tests.world import AddSibling, Stage, leave
from wxauth.clients.models import Scope
from wxauth.core.trail import OPERATOR
from wxauth.events.placing import place_events
from wxauth.events.webhook_deliveries import Deliveries
from wxauth.events.webhooks import Webhooks
from wxauth.service.app import create_app


@pytest.fixture
def orders(tmp_path: Path) -> Orders:
    return Orders(tmp_path / "orders.sqlite")


@pytest.fixture
def receiver(orders: Orders, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """Run the receiver of webhooks, and yield its URL."""
    monkeypatch.setenv("ORDERS", str(tmp_path / "unused.sqlite"))
    from examples.sibling.webhooks import app

    app.state.orders = orders
    with serving(app) as url:
        yield f"{url}/webhooks/wxauth"


def test_an_event_that_comes_twice_changes_nothing_twice(orders: Orders) -> None:
    orders.add("alice", "oolong")
    merged = event(1, "user.merged", "alice", former_id="al")
    orders.follow(merged)
    orders.add("al", "jasmine")  # with a token that still contains the former id
    assert orders.of("alice") == ["oolong", "jasmine"]
    orders.follow(event(2, "user.erased", "alice", former_ids=["al"]))
    orders.add("alice", "pu'er")
    orders.follow(event(2, "user.erased", "alice", former_ids=["al"]))
    assert orders.of("alice") == ["pu'er"]


def test_merges_in_the_wrong_order_lead_to_the_remaining_user(orders: Orders) -> None:
    orders.add("a", "oolong")
    orders.follow(event(2, "user.merged", "c", former_id="b"))
    orders.follow(event(1, "user.merged", "b", former_id="a"))
    assert (orders.of("b"), orders.of("c")) == ([], ["oolong"])


def test_what_is_stored_stays_with_the_user_of_whom_an_identity_was_taken_out(orders: Orders) -> None:
    for user_id in ("a", "b"):
        orders.add(user_id, f"of {user_id}")
    orders.follow(event(1, "user.merged", "b", former_id="a"))
    orders.follow(event(2, "user.split", "b", new_user_id="c"))
    orders.add("a", "by a former token")
    assert (orders.of("b"), orders.of("c")) == (["of a", "of b", "by a former token"], [])


def test_a_merge_that_was_missed_is_made_up_for(orders: Orders) -> None:
    for user_id in ("a", "b"):
        orders.add(user_id, f"of {user_id}")
    orders.catch_up({"a": {"id": "b"}, "b": {"id": "b"}}, orders.user_ids())
    assert (orders.of("a"), orders.of("b"), orders.user_ids()) == ([], ["of a", "of b"], ["b"])


def test_an_erasure_received_before_its_merge_deletes_the_former_users_orders(orders: Orders) -> None:
    orders.add("al", "oolong")
    orders.follow(event(2, "user.erased", "alice", former_ids=["al"]))
    orders.follow(event(1, "user.merged", "alice", former_id="al"))
    assert (orders.of("al"), orders.of("alice")) == ([], [])


@pytest.mark.process
async def test_the_receiver_forgets_an_erased_users_orders(
    stage: Stage, orders: Orders, receiver: str, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage.clock.advance(seconds=(datetime.now().astimezone() - stage.clock()).total_seconds())
    added = await stage.services[Webhooks].add("orders", url=receiver, types=(), by=OPERATOR)
    monkeypatch.setenv("WEBHOOK_SECRET", secrets.add(added.secret))
    alice = await stage.login("alice")
    orders.add(alice["user"]["id"], "oolong")
    assert (await leave(stage.client, alice)).status_code == 204
    await place_events(stage.services)
    await stage.services[Deliveries].start_due()
    await stage.services[Deliveries].drain()
    assert orders.of(alice["user"]["id"]) == []
    async with aiohttp.ClientSession() as stranger, stranger.post(receiver, data=b"{}") as refused:
        assert refused.status == 401


@pytest.fixture
async def reader(add_sibling: AddSibling) -> httpx.BasicAuth:
    return httpx.BasicAuth(*await add_sibling("orders", Scope.EVENTS, Scope.USERS))


@pytest.mark.process
async def test_the_reader_follows_merges_and_starts_over(stage: Stage, orders: Orders, reader: httpx.BasicAuth) -> None:
    transport = Through(create_app(stage.services))
    with httpx.Client(base_url="https://auth.test", auth=reader, transport=transport) as wxauth:

        async def read_on(read: Callable[[httpx.Client, Orders], None] = feed.read_on) -> None:
            await place_events(stage.services)
            await asyncio.to_thread(read, wxauth, orders)

        await read_on()
        former = (await stage.login())["user"]["id"]
        holder = (await stage.login(app=OTHER_APP, unionid="union-alice"))["user"]["id"]
        orders.add(former, "oolong")
        last = await stage.login(unionid="union-alice")
        await read_on()
        assert (orders.of(former), orders.of(holder)) == ([], ["oolong"])

        bob = (await stage.login("bob"))["user"]["id"]
        orders.add(bob, "jasmine")
        await leave(stage.client, last)
        await place_events(stage.services)
        await stage.rows.execute("DELETE FROM feed WHERE position > 1")  # as if a backup without them was restored
        await read_on()
        assert (orders.of(holder), orders.of(bob)) == ([], ["jasmine"])
        cursor = orders.cursor
        await read_on()
        assert orders.cursor == cursor


class Through(httpx.BaseTransport):
    """A transport with which threads send requests to an app that runs on the tests' event loop."""

    def __init__(self, app: Any) -> None:
        self._loop = asyncio.get_running_loop()
        self._app = httpx.ASGITransport(app)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        async def ask() -> httpx.Response:
            answer = await self._app.handle_async_request(
                httpx.Request(request.method, request.url, headers=request.headers, content=request.content)
            )
            return httpx.Response(answer.status_code, headers=answer.headers, content=await answer.aread())

        return asyncio.run_coroutine_threadsafe(ask(), self._loop).result(10)
