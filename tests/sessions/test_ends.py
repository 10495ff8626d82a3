"""Tokens end with their session, also on the routes of wxauth."""

from asyncio import create_task
from collections.abc import Awaitable, Callable

import pytest
from jose import jwt

from tests.fakes import Clock, WeChatByRespx
from tests.problems import problem_of
from tests.world import AddSibling, Body, Client, LogIn, MakeClient, MakeServices, Rows, bearer, leave, until_locked
from wxauth.server.core.services import Services

pytestmark = pytest.mark.oldest_postgres

TTL = 900
MAX_AGE = 3600


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    return await make_services(access_token_ttl=TTL, session_max_age=MAX_AGE)


@pytest.fixture
def refresh(client: Client) -> Callable[[Body], Awaitable[Body]]:
    async def refresh(answer: Body) -> Body:
        again = await client.post("/v1/refresh", json={"refresh_token": answer["refresh_token"]})
        assert again.status_code == 200, again.text
        return again.json()

    return refresh


def life_of(answer: Body) -> int:
    claims = jwt.get_unverified_claims(answer["access_token"])
    life: int = claims["exp"] - claims["iat"]
    assert life == answer["expires_in"]
    return life


@pytest.mark.parametrize(("age", "life"), [(0, TTL), (MAX_AGE - TTL, TTL), (MAX_AGE - 100, 100), (MAX_AGE - 1, 1)])
async def test_an_access_token_ends_with_its_session(
    login: LogIn, refresh: Callable[[Body], Awaitable[Body]], clock: Clock, age: int, life: int
) -> None:
    answer = await login()
    clock.advance(seconds=age)
    assert life_of(await refresh(answer)) == life


async def test_a_session_that_had_expired_ends_without_an_event(
    login: LogIn, client: Client, rows: Rows, clock: Clock
) -> None:
    await login()
    clock.advance(seconds=MAX_AGE)
    assert (await client.delete("/v1/me/sessions", headers=bearer(await login()))).status_code == 204
    assert await rows.fetchval("SELECT count(*) FROM sessions WHERE revoked_at IS NOT NULL") == 1
    assert await rows.fetchval("SELECT count(*) FROM events WHERE type = 'session.ended'") == 0


async def test_a_login_token_ends_with_a_short_session(
    make_services: MakeServices, make_client: MakeClient, wechat: WeChatByRespx
) -> None:
    client = make_client(await make_services(access_token_ttl=TTL, refresh_token_ttl=60))
    answer = await client.post("/v1/login", json={"code": wechat.code_for("alice")})
    assert life_of(answer.json()) == 60


async def test_half_a_second_before_the_end_a_token_lives_one_second(
    login: LogIn, refresh: Callable[[Body], Awaitable[Body]], clock: Clock
) -> None:
    answer = await login()
    clock.advance(seconds=MAX_AGE - 0.5)
    assert life_of(await refresh(answer)) == 1


async def test_wxauths_routes_refuse_a_token_of_an_ended_session(
    client: Client, login: LogIn, add_sibling: AddSibling, clock: Clock, rows: Rows
) -> None:
    answer = await login()
    sibling = await add_sibling("orders")
    await rows.execute("UPDATE sessions SET expires_at = created_at + interval '10 seconds'")

    async def asked() -> list[int]:
        sealed = dict.fromkeys(("encrypted_data", "iv"), "A" * 22 + "==")
        answers = [
            await client.get("/v1/me", headers=bearer(answer)),
            await client.get("/v1/verify", headers=bearer(answer)),
            await client.post("/v1/me/decrypt", json=sealed, headers=bearer(answer)),
        ]
        return [answer.status_code for answer in answers]

    async def is_active() -> bool:
        reported = await client.post("/v1/introspect", data={"token": answer["access_token"]}, auth=sibling)
        return reported.json()["active"]

    clock.advance(seconds=9)
    assert (await asked())[:2] == [200, 200]
    assert await is_active()
    clock.advance(seconds=1)
    assert await asked() == [401, 401, 401]
    assert not await is_active()
    problem_of(await client.get("/v1/me", headers=bearer(answer)), "invalid_token", 401)


@pytest.mark.own_database
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/logout"), ("DELETE", "/v1/me/sessions")])
@pytest.mark.slow
async def test_a_session_signed_out_during_an_erasure_ends_once(
    client: Client,
    login: LogIn,
    rows: Rows,
    make_services: MakeServices,
    make_client: MakeClient,
    method: str,
    path: str,
) -> None:
    first, second = await login(), await login()
    other = make_client(await make_services())  # in one replica, a person's requests that end sessions take turns
    async with rows.transaction():
        await rows.execute("SELECT FROM sessions FOR UPDATE")
        signing_out = create_task(client.request(method, path, headers=bearer(first)))
        await until_locked(rows)
        kept = second if path == "/v1/logout" else first
        erasing = create_task(leave(other, kept))
        await until_locked(rows, 2)
    assert [(await answer).status_code for answer in (signing_out, erasing)] == [204, 204]
    events = await rows.fetch(
        "SELECT jsonb_array_elements_text(data -> 'session_ids') AS id FROM events WHERE type = 'session.ended'"
    )
    assert sorted(row["id"] for row in events) == sorted([first["session_id"], second["session_id"]])
