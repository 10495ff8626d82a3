"""The requests of one user wait for each other, but other users' requests don't wait for them."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import httpx
import pytest
from fastapi.dependencies.models import Dependant

from tests.clock import PATIENCE
from tests.problems import problem_of
from tests.world import Body, Client, Stage, bearer, locked, until_locked
from wxauth.limits.concurrency import AT_ONCE, MAX_PRESENT
from wxauth.service.app import create_api
from wxauth.service.build import Timeouts
from wxauth.users.callers import caller_ending_sessions_of, caller_in_turn_of
from wxauth.web.direct import DirectRoute

Answers = list[asyncio.Task[httpx.Response]]


def sign_out_elsewhere(client: Client, person: Body, times: int) -> Answers:
    return [asyncio.create_task(client.delete("/v1/me/sessions", headers=bearer(person))) for _ in range(times)]


def change_name(client: Client, person: Body, times: int) -> Answers:
    ask = partial(client.patch, "/v1/me", json={"nickname": "Eve"}, headers=bearer(person))
    return [asyncio.create_task(ask()) for _ in range(times)]


@pytest.mark.usefixtures("simulated")
async def test_changes_ends_and_phone_codes_of_one_person_leave_a_transaction_for_others(stage: Stage) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    other_device = await stage.login("alice")
    codes = [stage.phone_code() for _ in range(3)]
    async with locked(stage.rows, alice["user"]["id"]):
        waiting = [
            *change_name(stage.client, alice, 3),
            *change_name(stage.client, other_device, 3),
            *sign_out_elsewhere(stage.client, other_device, 1),
            *(asyncio.create_task(stage.bind(alice, code)) for code in codes),
        ]
        await until_locked(stage.rows, 4)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.5):
                await until_locked(stage.rows, 5)
        assert (await stage.change(bob, nickname="Bob")).status_code == 200
        assert await stage.number("pg_locks WHERE NOT granted") == 4
    await asyncio.gather(*waiting)


async def test_a_request_beyond_those_that_wait_is_refused(stage: Stage) -> None:
    alice = await stage.login("alice")
    async with locked(stage.rows, alice["user"]["id"]):
        waiting = change_name(stage.client, alice, MAX_PRESENT)
        await until_locked(stage.rows, AT_ONCE)
        refused = await stage.client.patch("/v1/me", json={"nickname": "Alice"}, headers=bearer(alice))
        problem_of(refused, "rate_limited", 429)
        assert refused.headers["retry-after"] == "3"
        assert (await stage.me(alice)).status_code == 200  # this request needs no transaction
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {200}
    answer = await stage.client.patch("/v1/me", json={"nickname": "Alice"}, headers=bearer(alice))
    assert answer.status_code == 200


async def test_a_stolen_token_that_fills_its_lines_does_not_keep_its_owner_from_ending_it(stage: Stage) -> None:
    alice = await stage.login("alice")
    async with locked(stage.rows, alice["user"]["id"]):
        waiting = [
            *change_name(stage.client, alice, MAX_PRESENT),
            *sign_out_elsewhere(stage.client, alice, MAX_PRESENT),
        ]
        await until_locked(stage.rows, AT_ONCE + 1)
        path = f"/v1/me/sessions/{alice['session_id']}"
        ending = asyncio.create_task(stage.client.delete(path, headers=bearer(alice)))
        await asyncio.sleep(0)
    assert (await ending).status_code == 204
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} <= {200, 204, 401}


async def test_a_request_does_not_wait_for_its_turn_for_ever(stage: Stage) -> None:
    alice = await stage.login("alice")
    client = await stage.make(timeouts=Timeouts(concurrency=0))
    async with locked(stage.rows, alice["user"]["id"]):
        waiting = sign_out_elsewhere(client, alice, 1)
        await until_locked(stage.rows, 1)
        problem_of(await client.delete("/v1/me/sessions", headers=bearer(alice)), "rate_limited", 429)
    assert {answer.status_code for answer in await asyncio.gather(*waiting)} == {204}


@asynccontextmanager
async def two_slow_requests(client: Client, method: str, path: str, headers: dict[str, str]) -> AsyncIterator[None]:
    """Open two connections with one session's token. Each sends one byte of its body and then waits."""
    begun, rest = asyncio.Barrier(3), asyncio.Event()

    async def body() -> AsyncIterator[bytes]:
        yield b"-"
        await begun.wait()
        await rest.wait()
        yield b"-"

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for _ in range(2):
            group.create_task(client.request(method, path, content=body(), headers=headers))
        await begun.wait()
        yield
        rest.set()


SLOW = {
    "a change": ("PATCH", "/v1/me"),
    "consents": ("POST", "/v1/me/consents"),
    "ends of sessions": ("DELETE", "/v1/me/sessions"),
    "an erasure": ("POST", "/v1/me/erasure"),
    "a picture": ("POST", "/v1/me/avatar"),
    "an authorization": ("POST", "/v1/me/authorizations"),
    "an export": ("GET", "/v1/me/export"),
}


@pytest.mark.parametrize("slow", SLOW)
async def test_two_slow_connections_of_a_stolen_bearer_delay_nothing_of_its_owner(stage: Stage, slow: str) -> None:
    client = await stage.make(timeouts=Timeouts(concurrency=0))
    alice, elsewhere = await stage.login("alice"), await stage.login("alice")
    picture = {"content-type": "multipart/form-data; boundary=12345678"} if slow == "a picture" else {}
    async with two_slow_requests(client, *SLOW[slow], headers={**bearer(alice), **picture}):
        for person in (alice, elsewhere):
            changed = await client.patch("/v1/me", json={"nickname": "Alice"}, headers=bearer(person))
            assert changed.status_code == 200
        assert (await client.delete("/v1/me/sessions", headers=bearer(elsewhere))).status_code == 204
    problem_of(await client.get("/v1/me", headers=bearer(alice)), "invalid_token", 401)


async def test_two_erasures_that_wait_for_wechat_delay_nothing_of_the_person(stage: Stage) -> None:
    asked, answered = asyncio.Semaphore(0), asyncio.Event()

    async def answer_late(_: httpx.Request) -> httpx.Response:
        asked.release()
        await answered.wait()
        return httpx.Response(200, json={"errcode": 40029})

    alice = await stage.login("alice")
    client = await stage.make(timeouts=Timeouts(concurrency=0))
    stage.wechat.route.mock(side_effect=answer_late)
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for code in ("one", "two"):
            group.create_task(client.post("/v1/me/erasure", json={"login_code": code}, headers=bearer(alice)))
            await asked.acquire()
        assert (await client.delete("/v1/me/sessions", headers=bearer(alice))).status_code == 204
        answered.set()


async def test_64_requests_of_one_session_leave_turns_to_the_others_of_its_person(stage: Stage) -> None:
    stolen, own = await stage.login("alice"), await stage.login("alice")
    async with asyncio.timeout(PATIENCE), locked(stage.rows, own["user"]["id"]):
        waiting = change_name(stage.client, stolen, MAX_PRESENT)
        await until_locked(stage.rows, AT_ONCE)
        [mine] = change_name(stage.client, own, 1)
        await until_locked(stage.rows, AT_ONCE + 1)
        [ended] = sign_out_elsewhere(stage.client, own, 1)
        await until_locked(stage.rows, AT_ONCE + 2)
        problem_of(await stage.client.post("/v1/me", json={}, headers=bearer(stolen)), "rate_limited", 429)
    answers = await asyncio.gather(mine, ended, *waiting)
    assert [answer.status_code for answer in answers[:2]] == [200, 204]


def test_every_operation_of_mine_that_changes_something_waits_for_its_turn() -> None:
    without = {
        f"{method} {route.path}"
        for route in create_api().routes
        if isinstance(route, DirectRoute) and route.path.startswith("/v1/me")
        for method in route.methods or ()
        if method not in ("GET", "HEAD")
        and {caller_in_turn_of, caller_ending_sessions_of}.isdisjoint(calls_of(route.dependant))
    }
    # Pictures and phone codes have their own, longer limits, because they wait for the upload and for WeChat. An
    # erasure takes a turn before wxauth asks WeChat, and another turn afterwards. Decrypting changes nothing.
    assert without == {
        "POST /v1/me/avatar",
        "POST /v1/me/phone",
        "DELETE /v1/me",
        "POST /v1/me/erasure",
        "POST /v1/me/decrypt",
    }


def calls_of(dependant: Dependant) -> Iterator[object]:
    """Yield every callable that FastAPI calls for an endpoint."""
    yield dependant.call
    for each in dependant.dependencies:
        yield from calls_of(each)
