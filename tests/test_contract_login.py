"""`POST /v1/login`, as the contract has it."""

import asyncio
from uuid import UUID

import asyncpg
import httpx

from tests.fakes import APP, LoginAnswer, WeChatByRespx


async def test_a_code_becomes_a_user_and_tokens(login: LoginAnswer) -> None:
    answer = await login("alice", nickname="Alice")
    assert answer["token_type"] == "Bearer"
    assert answer["expires_in"] == 900
    assert answer["refresh_expires_in"] == 2592000
    assert answer["is_new_user"] is True
    assert UUID(answer["user"]["id"]).version == 7
    assert answer["user"]["app_id"] == APP["app_id"]
    assert answer["user"]["nickname"] == "Alice"


async def test_a_returning_user_is_the_same_user(login: LoginAnswer) -> None:
    first, second = await login("alice"), await login("alice")
    assert second["is_new_user"] is False
    assert second["user"]["id"] == first["user"]["id"]
    assert second["session_id"] != first["session_id"]


async def test_the_access_token_opens_me(client: httpx.AsyncClient, login: LoginAnswer) -> None:
    answer = await login("alice")
    me = await client.get("/v1/me", headers={"Authorization": f"Bearer {answer['access_token']}"})
    assert me.status_code == 200
    assert me.json() == answer["user"]


async def test_200_simultaneous_first_logins_of_one_openid_make_one_user(
    client: httpx.AsyncClient, wechat: WeChatByRespx, rows: asyncpg.Connection
) -> None:
    codes = [wechat.code_for("alice") for _ in range(200)]
    answers = await asyncio.gather(*(client.post("/v1/login", json={"code": code}) for code in codes))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["user"]["id"] for answer in answers}) == 1
    assert sum(answer.json()["is_new_user"] for answer in answers) == 1
    assert await rows.fetchrow("SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM sessions)") == (1, 200)
