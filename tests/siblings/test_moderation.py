"""`/v1/users/{user_id}/ban`, `/unban`, `/sessions`: a sibling shuts somebody out."""

import asyncio

import httpx
import pytest

from tests.clock import Clock
from tests.problems import problem_of
from tests.world import (
    NOBODY,
    AddSibling,
    Admin,
    Body,
    Client,
    LogIn,
    Rows,
    bearer,
    set_roles,
)
from wxauth.server.clients.clients import Credentials
from wxauth.server.clients.models import Scope
from wxauth.server.core.services import Services
from wxauth.server.events.webhook_deliveries import place_events

ACTS = [("POST", "/ban"), ("POST", "/unban"), ("DELETE", "/sessions")]


class Moderator:
    """A sibling with the scope `moderate`."""

    def __init__(self, client: Client, auth: Credentials) -> None:
        self.client = client
        self.auth = auth

    async def act(self, method: str, path: str, user_id: object, body: Body | None = None) -> httpx.Response:
        return await self.client.request(method, f"/v1/users/{user_id}{path}", auth=self.auth, json=body)

    async def ban(self, user_id: object, **body: object) -> httpx.Response:
        return await self.act("POST", "/ban", user_id, body)


@pytest.fixture
async def moderator(client: Client, add_sibling: AddSibling) -> Moderator:
    return Moderator(client, await add_sibling("risk", Scope.MODERATE))


async def test_a_ban_is_as_an_administrators_and_names_the_client(
    moderator: Moderator, client: Client, login: LogIn, root: Admin, services: Services, add_sibling: AddSibling
) -> None:
    alice = await login()
    user_id = alice["user"]["id"]
    reader = await add_sibling("ledger", Scope.EVENTS)
    assert (await moderator.ban(user_id, reason="stolen card", until="2026-12-01T00:00:00+08:00")).status_code == 204
    problem_of(await client.get("/v1/me", headers=bearer(alice)), "invalid_token", 401)
    refused = problem_of(await login.ask("alice"), "account_disabled", 403)
    assert refused["until"] == "2026-11-30T16:00:00Z"
    user = await root.read(f"/users/{user_id}")
    assert (user["status"], user.get("reason"), user.get("until")) == (
        "disabled",
        "stolen card",
        "2026-11-30T16:00:00Z",
    )
    ended, banned = await root.events(user_id=user_id, actor="client:risk")
    assert [(event["type"], event["ip"]) for event in (banned, ended)] == [
        ("user.banned", "127.0.0.1"),
        ("session.ended", "127.0.0.1"),
    ]
    assert ended["data"] == {"session_ids": [alice["session_id"]], "reason": "banned"}
    await place_events(services)
    feed = (await client.get("/v1/events?type=user.banned", auth=reader)).json()["items"]
    assert [(event["actor"], event["data"]) for event in feed] == [("client:risk", {})]


async def test_a_ban_may_come_again_and_replaces_the_former_one(
    moderator: Moderator, login: LogIn, root: Admin
) -> None:
    user_id = (await login())["user"]["id"]
    assert (await moderator.act("POST", "/ban", user_id)).status_code == 204
    assert (await root.read(f"/users/{user_id}")).get("reason") is None
    for body in ({"reason": "spam"}, {"reason": "spam"}, {}, {"until": "2027-01-01T00:00:00Z"}):
        assert (await moderator.ban(user_id, **body)).status_code == 204
    user = await root.read(f"/users/{user_id}")
    assert (user.get("reason"), user.get("until")) == (None, "2027-01-01T00:00:00Z")
    assert len(await root.events(user_id=user_id, type="user.banned")) == 4


async def test_an_unban_lets_in_again_and_may_come_again(moderator: Moderator, login: LogIn, root: Admin) -> None:
    user_id = (await login())["user"]["id"]
    await root.change(user_id, status="disabled", reason="by a person")
    for _ in range(2):
        assert (await moderator.act("POST", "/unban", user_id)).status_code == 204
    assert (await login())["user"]["id"] == user_id
    [event] = await root.events(user_id=user_id, type="user.unbanned")
    assert event["actor"] == "client:risk"


async def test_who_is_signed_out_may_log_in_again(moderator: Moderator, login: LogIn, root: Admin) -> None:
    sessions = [await login() for _ in range(2)]
    user_id = sessions[0]["user"]["id"]
    for _ in range(2):
        assert (await moderator.act("DELETE", "/sessions", user_id)).status_code == 204
    for session in sessions:
        problem_of(await root.client.get("/v1/me", headers=bearer(session)), "invalid_token", 401)
    [event] = await root.events(user_id=user_id, type="session.ended")
    assert (event["actor"], event["data"]["reason"]) == ("client:risk", "administrator")
    assert set(event["data"]["session_ids"]) == {session["session_id"] for session in sessions}
    assert (await login())["user"]["id"] == user_id


@pytest.mark.parametrize(("method", "path"), ACTS)
async def test_a_former_id_means_who_remains_and_an_unknown_one_nobody(
    moderator: Moderator, login: LogIn, root: Admin, method: str, path: str
) -> None:
    bob, alice = await login("bob"), await login("alice")
    await root.merge(bob["user"]["id"], into=alice["user"]["id"])
    assert (await moderator.act(method, path, bob["user"]["id"])).status_code == 204
    problem_of(await moderator.act(method, path, NOBODY), "not_found", 404)
    problem_of(await moderator.act(method, path, "alice"), "invalid_request", 422)


@pytest.mark.slow
@pytest.mark.parametrize("role", ["admin", "support"])
@pytest.mark.parametrize("is_banned", [False, True])
async def test_staff_cannot_be_touched_banned_or_not(
    moderator: Moderator, login: LogIn, rows: Rows, root: Admin, role: str, is_banned: bool
) -> None:
    user_id = (await login("other"))["user"]["id"]
    await set_roles(rows, role, user_id=user_id)
    if is_banned:
        await root.change(user_id, status="disabled")
    before = await root.read(f"/users/{user_id}")
    for method, path in ACTS:
        problem_of(await moderator.act(method, path, user_id), "insufficient_role", 403)
    assert await root.read(f"/users/{user_id}") == before
    assert not await root.events(actor="client:risk")


async def test_a_client_has_a_hundred_acts_a_second_wrong_ones_too(
    moderator: Moderator, client: Client, add_sibling: AddSibling, clock: Clock
) -> None:
    both = Moderator(client, await add_sibling("both", Scope.MODERATE, Scope.SIGN))
    kinds = [both.act(*ACTS[number % 3], NOBODY if number % 2 else "alice") for number in range(100)]
    assert {answer.status_code for answer in await asyncio.gather(*kinds)} == {404, 422}
    limited = await both.act("DELETE", "/sessions", NOBODY)
    problem_of(limited, "rate_limited", 429)
    assert limited.headers["retry-after"] == "1"
    signed = await client.post(
        "/v1/apps/wxtest0000000000a1/signatures", auth=both.auth, json={"openid": "o", "data": ""}
    )
    problem_of(signed, "not_found", 404)  # each scope is counted for itself
    assert (await moderator.act("POST", "/unban", NOBODY)).status_code == 404
    clock.advance(seconds=1)
    assert (await both.act("POST", "/unban", NOBODY)).status_code == 404


async def test_the_longest_name_of_a_client_can_be_searched_in_the_trail(
    client: Client, add_sibling: AddSibling, login: LogIn, root: Admin
) -> None:
    moderator = Moderator(client, await add_sibling("r" * 64, Scope.MODERATE))
    await moderator.ban((await login())["user"]["id"])
    assert len(await root.events(actor=f"client:{'r' * 64}")) == 2
