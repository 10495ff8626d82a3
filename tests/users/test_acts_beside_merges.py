"""Requests about a user who is being merged or split at that moment change the right user, or are rejected."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import httpx
import pytest

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.world import NUMBER, Admin, Body, Phone, Rows, Stage, make_admin, until_locked

pytestmark = pytest.mark.usefixtures("bystander")

Act = Callable[[], Awaitable[httpx.Response]]


@dataclass(frozen=True, slots=True)
class Couple:
    """Alice and Bob, each with an app, and an administrator."""

    rows: Rows
    root: Admin
    alice: Phone
    bob: Phone

    async def after(self, first: Act, act: Act) -> httpx.Response:
        """Return the response to `act`, which starts while `first` is about to change Bob's user."""
        async with self.rows.transaction():
            held = "SELECT FROM users JOIN identities ON user_id = users.id WHERE openid = $1 FOR UPDATE OF users"
            await self.rows.execute(held, self.bob.tokens["user"]["openid"])
            changing = asyncio.ensure_future(first())
            await until_locked(self.rows)
            acting = asyncio.ensure_future(act())
            await until_locked(self.rows, 2)
        # The response is read after the commit, so it is 404 if the user has been erased in between.
        assert (await changing).status_code in (200, 204, 404)
        return await acting

    async def merge(self) -> httpx.Response:
        return await self.root.merge(self.bob.user_id, into=self.alice.user_id)

    async def split(self) -> httpx.Response:
        identity = {"app_id": OTHER_APP["app_id"], "openid": self.bob.tokens["user"]["openid"]}
        return await self.root.ask("POST", f"/users/{self.alice.user_id}/split", json=identity)


@pytest.fixture
async def couple(stage: Stage) -> Couple:
    stage = await stage.replica(apps=[APP, OTHER_APP], login_rate_limit="", consents="privacy:1")
    client, login = stage.client, stage.login
    root = await make_admin(client, stage.rows, await login("root"))
    phones = [Phone(client, await login("alice")), Phone(client, await login("bob", app=OTHER_APP))]
    return Couple(stage.rows, root, *phones)


async def test_a_ban_of_who_is_being_merged_is_a_ban_of_the_user_who_remains(couple: Couple) -> None:
    disabled = {"status": "disabled", "reason": "spam"}
    ban = partial(couple.root.ask, "PATCH", f"/users/{couple.bob.user_id}", json=disabled)
    banned = await couple.after(couple.merge, ban)
    assert (banned.status_code, banned.json()["id"], banned.json()["status"]) == (200, couple.alice.user_id, "disabled")
    assert (await couple.alice.ask("GET")).status_code == 401


@pytest.mark.parametrize("ends", ["all", "one"])
async def test_sessions_of_who_is_being_merged_end_as_those_of_the_user_who_remains(couple: Couple, ends: str) -> None:
    one = f"/{couple.bob.tokens['session_id']}" if ends == "one" else ""
    end = partial(couple.root.ask, "DELETE", f"/users/{couple.bob.user_id}/sessions{one}")
    assert (await couple.after(couple.merge, end)).status_code == 204
    sessions = (await couple.root.read(f"/users/{couple.alice.user_id}"))["sessions"]
    assert [session["id"] for session in sessions] == [couple.alice.tokens["session_id"]] * (ends == "one")


async def test_an_erasure_of_who_is_being_merged_erases_the_user_who_remains(couple: Couple) -> None:
    erase = partial(couple.root.ask, "DELETE", f"/users/{couple.bob.user_id}")
    assert (await couple.after(couple.merge, erase)).status_code == 204
    assert await couple.rows.fetchval("SELECT count(*) FROM users WHERE id::text <> $1", couple.root.id) == 0


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_ban_beside_a_split_is_of_both_if_it_came_first(couple: Couple, is_first: bool) -> None:
    assert (await couple.merge()).status_code == 200
    ban = partial(couple.root.ask, "PATCH", f"/users/{couple.bob.user_id}", json={"status": "disabled"})
    second = await (couple.after(ban, couple.split) if is_first else couple.after(couple.split, ban))
    assert second.status_code == 200
    users = "SELECT user_id, status FROM identities JOIN users ON users.id = user_id WHERE openid = ANY ($1)"
    openids = [phone.tokens["user"]["openid"] for phone in (couple.alice, couple.bob)]
    found = {str(user_id): status for user_id, status in await couple.rows.fetch(users, openids)}
    assert found.pop(couple.alice.user_id) == "disabled"
    assert list(found.values()) == ["disabled" if is_first else "active"]


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [("POST", "/erasure", {"json": {"login_code": "openid-b2-bob"}}), ("DELETE", "/phone", {})],
    ids=["erasure", "number"],
)
async def test_what_waits_behind_a_sign_out_is_not_done(couple: Couple, method: str, path: str, options: Body) -> None:
    await couple.rows.execute("UPDATE users SET phone = $1 WHERE id::text = $2", NUMBER, couple.bob.user_id)
    sign_out = partial(couple.root.ask, "DELETE", f"/users/{couple.bob.user_id}/sessions")
    refused = await couple.after(sign_out, partial(couple.bob.ask, method, path, **options))
    problem_of(refused, "invalid_token", 401)
    assert (await couple.root.read(f"/users/{couple.bob.user_id}"))["phone"] == NUMBER


# After a merge, wxauth rejects the merged user's access token until it is refreshed. A request with this token changes
# nothing and fails, so `wxauth.js` refreshes the token and repeats the request.


@pytest.mark.parametrize(
    ("method", "path", "options"),
    [
        ("DELETE", "", {"json": {"login_code": "openid-b2-bob"}}),
        ("DELETE", "/sessions", {}),
        ("PATCH", "", {"json": {"nickname": "Bob"}}),
        ("POST", "/consents", {"json": {"privacy": "1"}}),
    ],
    ids=str,
)
@pytest.mark.slow
async def test_what_a_person_does_who_is_being_merged_is_refused_as_with_any_old_token(
    couple: Couple, method: str, path: str, options: Body
) -> None:
    refused = await couple.after(couple.merge, partial(couple.bob.ask, method, path, **options))
    problem_of(refused, "invalid_token", 401)
