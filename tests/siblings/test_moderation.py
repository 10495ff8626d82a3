"""A sibling can ban users and clear names with `/v1/users/{user_id}/ban`, `/unban`, `/sessions` and `/profile`."""

import asyncio
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import httpx
import pytest
from PIL import Image

from tests.fakes import APP
from tests.headers import bearer
from tests.problems import problem_of
from tests.sweeps import swept
from tests.world import NOBODY, AddSibling, Admin, Body, Stage, set_roles
from wxauth.clients.clients import Credentials
from wxauth.clients.models import Scope
from wxauth.events.placing import place_events

ACTS = [("POST", "/ban"), ("POST", "/unban"), ("DELETE", "/sessions"), ("PATCH", "/profile")]


@dataclass(frozen=True, slots=True)
class Moderator:
    """A sibling with the scope `moderate`, and an administrator who sees the sibling's actions."""

    stage: Stage
    root: Admin
    auth: Credentials

    async def act(self, method: str, path: str, user_id: object, body: Body | None = None) -> httpx.Response:
        body = {"nickname": None} if path == "/profile" and body is None else body
        return await self.stage.client.request(method, f"/v1/users/{user_id}{path}", auth=self.auth, json=body)

    async def ban(self, user_id: object, **body: object) -> httpx.Response:
        return await self.act("POST", "/ban", user_id, body)


@pytest.fixture
async def moderator(stage: Stage, root: Admin, add_sibling: AddSibling) -> Moderator:
    return Moderator(stage, root, await add_sibling("risk", Scope.MODERATE))


async def test_a_ban_is_like_anothers_and_names_the_client(moderator: Moderator, add_sibling: AddSibling) -> None:
    alice = await moderator.stage.login()
    user_id = alice["user"]["id"]
    reader = await add_sibling("ledger", Scope.EVENTS)
    assert (await moderator.ban(user_id, reason="stolen card", until="2026-12-01T00:00:00+08:00")).status_code == 204
    problem_of(await moderator.stage.me(alice), "invalid_token", 401)
    refused = problem_of(await moderator.stage.login.ask("alice"), "account_disabled", 403)
    until = "2026-11-30T16:00:00Z"
    assert refused["until"] == until
    user = await moderator.root.read(f"/users/{user_id}")
    assert (user["status"], user.get("reason"), user.get("until")) == ("disabled", "stolen card", until)
    ended, banned = await moderator.root.events(user_id=user_id, actor="client:risk")
    assert (banned["type"], ended["type"]) == ("user.banned", "session.ended")
    assert {banned["ip"], ended["ip"]} == {"127.0.0.1"}
    assert ended["data"] == {"session_ids": [alice["session_id"]], "reason": "banned"}
    await place_events(moderator.stage.services)
    feed = (await moderator.stage.client.get("/v1/events?type=user.banned", auth=reader)).json()["items"]
    assert [(event["actor"], event["data"]) for event in feed] == [("client:risk", {})]


async def test_a_ban_may_come_again_and_replaces_the_former_one(moderator: Moderator) -> None:
    user_id = (await moderator.stage.login())["user"]["id"]
    assert (await moderator.act("POST", "/ban", user_id)).status_code == 204
    assert (await moderator.root.read(f"/users/{user_id}")).get("reason") is None
    for body in ({"reason": "spam"}, {"reason": "spam"}, {}, {"until": "2027-01-01T00:00:00Z"}):
        assert (await moderator.ban(user_id, **body)).status_code == 204
    user = await moderator.root.read(f"/users/{user_id}")
    assert (user.get("reason"), user.get("until")) == (None, "2027-01-01T00:00:00Z")
    assert len(await moderator.root.events(user_id=user_id, type="user.banned")) == 4


async def test_an_unban_lets_in_again_and_may_come_again(moderator: Moderator) -> None:
    user_id = (await moderator.stage.login())["user"]["id"]
    await moderator.root.change(user_id, status="disabled", reason="by a person")
    for _ in range(2):
        assert (await moderator.act("POST", "/unban", user_id)).status_code == 204
    assert (await moderator.stage.login())["user"]["id"] == user_id
    [event] = await moderator.root.events(user_id=user_id, type="user.unbanned")
    assert event["actor"] == "client:risk"


async def test_who_is_signed_out_may_log_in_again(moderator: Moderator) -> None:
    sessions = [await moderator.stage.login() for _ in range(2)]
    user_id = sessions[0]["user"]["id"]
    for _ in range(2):
        assert (await moderator.act("DELETE", "/sessions", user_id)).status_code == 204
    for session in sessions:
        problem_of(await moderator.stage.me(session), "invalid_token", 401)
    [event] = await moderator.root.events(user_id=user_id, type="session.ended")
    assert (event["actor"], event["data"]["reason"]) == ("client:risk", "administrator")
    assert set(event["data"]["session_ids"]) == {session["session_id"] for session in sessions}
    assert (await moderator.stage.login())["user"]["id"] == user_id


@pytest.mark.parametrize("cleared", [{"nickname"}, {"avatar_url"}, {"nickname", "avatar_url"}])
async def test_a_name_or_picture_is_cleared_and_may_be_cleared_again(moderator: Moderator, cleared: set[str]) -> None:
    alice = await moderator.stage.login(nickname="Alice")
    Image.new("RGB", (8, 8), (200, 0, 0)).save(picture := BytesIO(), "PNG")
    user_id, files = alice["user"]["id"], {"file": ("a.png", picture.getvalue(), "image/png")}
    shown = await moderator.stage.client.post("/v1/me/avatar", files=files, headers=bearer(alice))
    url = shown.json()["avatar_url"]
    for _ in range(2):
        answer = await moderator.act("PATCH", "/profile", user_id, dict.fromkeys(cleared))
        assert (answer.status_code, answer.content) == (204, b"")
    user = (await moderator.stage.me(alice)).json()
    kept = {"nickname": "Alice", "avatar_url": url}
    assert {name: user[name] for name in kept} == {**kept, **dict.fromkeys(cleared)}
    is_there = (await moderator.stage.client.get(url)).status_code == 200
    assert is_there is ("avatar_url" not in cleared)
    [event] = (await moderator.root.read("/events", user_id=user_id, actor="client:risk"))["items"]
    assert (event["type"], set(event["data"]["fields"])) == ("user.profile_changed", cleared)


@swept(
    "body",
    [
        {},
        [],
        "x",
        None,
        {"nickname": "Bob"},
        {"nickname": ""},
        {"nickname": False},
        {"avatar_url": "https://example.com/a.png"},
        {"nickname": None, "avatar_url": ""},
        {"nickname": None, "phone": None},
        {"nickName": None},
        {"roles": None},
        {"nickname": None, "x": 1},
    ],
)
async def test_a_service_clears_and_never_sets(moderator: Moderator, body: Any) -> None:
    alice = await moderator.stage.login("alice", nickname="Alice")
    path = f"/v1/users/{alice['user']['id']}/profile"
    problem_of(await moderator.stage.client.patch(path, auth=moderator.auth, json=body), "invalid_request", 422)
    assert (await moderator.stage.me(alice)).json()["nickname"] == "Alice"


@pytest.mark.parametrize(("method", "path"), ACTS)
async def test_a_former_id_means_the_user_who_remains(moderator: Moderator, method: str, path: str) -> None:
    bob, alice = await moderator.stage.login("bob"), await moderator.stage.login("alice")
    await moderator.root.merge(bob["user"]["id"], into=alice["user"]["id"])
    assert (await moderator.act(method, path, bob["user"]["id"])).status_code == 204


@pytest.mark.slow
@pytest.mark.parametrize("role", ["admin", "support"])
@pytest.mark.parametrize("is_banned", [False, True])
async def test_staff_cannot_be_touched_banned_or_not(moderator: Moderator, role: str, is_banned: bool) -> None:
    user_id = (await moderator.stage.login("other"))["user"]["id"]
    await set_roles(moderator.stage.rows, role, user_id=user_id)
    if is_banned:
        await moderator.root.change(user_id, status="disabled")
    before = await moderator.root.read(f"/users/{user_id}")
    for method, path in ACTS:
        problem_of(await moderator.act(method, path, user_id), "insufficient_role", 403)
    assert await moderator.root.read(f"/users/{user_id}") == before
    assert not await moderator.root.events(actor="client:risk")


@pytest.mark.parametrize(("scopes", "statuses"), [([Scope.MODERATE], {404, 422}), ([], {403})])
async def test_a_client_has_a_hundred_acts_a_second_even_wrong(
    moderator: Moderator, add_sibling: AddSibling, scopes: list[Scope], statuses: set[int]
) -> None:
    both = Moderator(moderator.stage, moderator.root, await add_sibling("both", *scopes, Scope.SIGN))
    kinds = [both.act(*ACTS[number % len(ACTS)], NOBODY if number % 2 else "alice") for number in range(100)]
    assert {answer.status_code for answer in await asyncio.gather(*kinds)} == statuses
    limited = await both.act("DELETE", "/sessions", NOBODY)
    problem_of(limited, "rate_limited", 429)
    assert limited.headers["retry-after"] == "1"
    unsigned = {"openid": "o", "data": ""}
    signed = await both.stage.client.post(f"/v1/apps/{APP['app_id']}/signatures", auth=both.auth, json=unsigned)
    problem_of(signed, "not_found", 404)  # each scope has its own rate limit
    assert (await moderator.act("POST", "/unban", NOBODY)).status_code == 404
    moderator.stage.clock.advance(seconds=1)
    assert (await both.act("POST", "/unban", NOBODY)).status_code in statuses


async def test_a_clients_longest_name_can_be_searched(stage: Stage, add_sibling: AddSibling, root: Admin) -> None:
    moderator = Moderator(stage, root, await add_sibling("r" * 64, Scope.MODERATE))
    await moderator.ban((await stage.login())["user"]["id"])
    assert len(await root.events(actor=f"client:{'r' * 64}")) == 2
