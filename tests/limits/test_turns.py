"""One person's requests wait for one another, and nobody else's for them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest
from fastapi.dependencies.models import Dependant

from tests.problems import problem_of
from tests.world import Body, LogIn, MakeClient, MakeServices, Service, bearer, until_locked
from wxauth.server.limits.turns import AT_ONCE, MAX_PRESENT
from wxauth.server.service.app import create_api
from wxauth.server.service.waits import Waits
from wxauth.server.users.callers import turn_of
from wxauth.server.web.direct import DirectRoute

Answers = list[asyncio.Task[httpx.Response]]


@asynccontextmanager
async def row_locked(rows: asyncpg.Connection, person: Body) -> AsyncIterator[None]:
    """The row of a user is locked, so that their changes wait."""
    async with rows.transaction():
        await rows.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", person["user"]["id"])
        yield


def sign_out_elsewhere(client: httpx.AsyncClient, person: Body, times: int) -> Answers:
    return [asyncio.create_task(client.delete("/v1/me/sessions", headers=bearer(person))) for _ in range(times)]


async def test_forty_connections_of_one_person_leave_transactions_for_others(
    client: httpx.AsyncClient, login: LogIn, rows: asyncpg.Connection
) -> None:
    alice, bob = await login("alice"), await login("bob")
    async with row_locked(rows, alice):
        waiting = sign_out_elsewhere(client, alice, 40)
        await until_locked(rows, AT_ONCE)
        answer = await client.patch("/v1/me", json={"nickname": "Bob"}, headers=bearer(bob))
        assert answer.status_code == 200
        assert await rows.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") == AT_ONCE
        assert not any(task.done() for task in waiting)
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {204}


async def test_ten_phone_codes_of_one_person_leave_transactions_for_others(
    service: Service, rows: asyncpg.Connection
) -> None:
    alice, bob = await service.log_in("alice"), await service.log_in("bob")
    codes = [service.phone_code() for _ in range(10)]
    async with row_locked(rows, alice):
        waiting = [asyncio.create_task(service.bind(alice, code)) for code in codes]
        await until_locked(rows, AT_ONCE)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await until_locked(rows, AT_ONCE + 1)
        assert (await service.change(bob, nickname="Bob")).status_code == 200
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}


async def test_a_request_beyond_those_that_wait_is_refused(
    client: httpx.AsyncClient, login: LogIn, rows: asyncpg.Connection
) -> None:
    alice = await login("alice")
    async with row_locked(rows, alice):
        waiting = sign_out_elsewhere(client, alice, MAX_PRESENT)
        await until_locked(rows, AT_ONCE)
        refused = await client.patch("/v1/me", json={"nickname": "Alice"}, headers=bearer(alice))
        problem_of(refused, "rate_limited", 429)
        assert refused.headers["retry-after"] == "3"
        assert (await client.get("/v1/me", headers=bearer(alice))).status_code == 200  # takes no transaction
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {204}
    answer = await client.patch("/v1/me", json={"nickname": "Alice"}, headers=bearer(alice))
    assert answer.status_code == 200


async def test_a_request_does_not_wait_for_its_turn_for_ever(
    make_services: MakeServices, make_client: MakeClient, login: LogIn, rows: asyncpg.Connection
) -> None:
    alice = await login("alice")
    client = make_client(await make_services(waits=Waits(turns=0)))
    async with row_locked(rows, alice):
        waiting = sign_out_elsewhere(client, alice, AT_ONCE)
        await until_locked(rows, AT_ONCE)
        problem_of(await client.delete("/v1/me/sessions", headers=bearer(alice)), "rate_limited", 429)
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {204}


def test_every_operation_of_mine_that_changes_something_waits_for_its_turn() -> None:
    without = {
        f"{method} {route.path}"
        for route in create_api().routes
        if isinstance(route, DirectRoute) and route.path.startswith("/v1/me")
        for method in route.methods or ()
        if method not in ("GET", "HEAD") and turn_of not in calls_of(route.dependant)
    }
    # Pictures and phone codes have bounds of their own, which are longer: they wait for the upload, and for WeChat.
    # Decrypting changes nothing.
    assert without == {"POST /v1/me/avatar", "POST /v1/me/phone", "POST /v1/me/decrypt"}


def calls_of(dependant: Dependant) -> Iterator[object]:
    """Everything that FastAPI calls for an endpoint."""
    yield dependant.call
    for each in dependant.dependencies:
        yield from calls_of(each)
