"""What somebody does to a user who is being merged, or split, at that moment is done to the right user, or refused."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial

import httpx
import pytest

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.world import Admin, Body, Phone, Rows, Stage, make_admin, until_locked

Act = Callable[[], Awaitable[httpx.Response]]


@dataclass(frozen=True, slots=True)
class House:
    """Alice and Bob, each with an app, and an administrator."""

    rows: Rows
    root: Admin
    alice: Phone
    bob: Phone

    async def after(self, first: Act, act: Act) -> httpx.Response:
        """The answer to an act that has begun while Bob's user was about to be changed by another one."""
        async with self.rows.transaction():
            held = "SELECT FROM users JOIN identities ON user_id = users.id WHERE openid = $1 FOR UPDATE OF users"
            await self.rows.execute(held, self.bob.tokens["user"]["openid"])
            changing = asyncio.ensure_future(first())
            await until_locked(self.rows)
            acting = asyncio.ensure_future(act())
            await until_locked(self.rows, 2)
        assert (await changing).status_code == 200
        return await acting

    async def merge(self) -> httpx.Response:
        return await self.root.merge(self.bob.user_id, into=self.alice.user_id)

    async def split(self) -> httpx.Response:
        identity = {"app_id": OTHER_APP["app_id"], "openid": self.bob.tokens["user"]["openid"]}
        return await self.root.ask("POST", f"/users/{self.alice.user_id}/split", json=identity)


@pytest.fixture
async def house(stage: Stage) -> House:
    stage = await stage.replica(apps=[APP, OTHER_APP], login_rate_limit="", consents="privacy:1")
    client, login = stage.client, stage.login
    root = await make_admin(client, stage.rows, await login("root"))
    phones = [Phone(client, await login("alice")), Phone(client, await login("bob", app=OTHER_APP))]
    return House(stage.rows, root, *phones)


async def test_a_ban_of_who_is_being_merged_is_a_ban_of_the_user_who_remains(house: House) -> None:
    ban = partial(house.root.ask, "PATCH", f"/users/{house.bob.user_id}", json={"status": "disabled", "reason": "spam"})
    banned = await house.after(house.merge, ban)
    assert (banned.status_code, banned.json()["id"], banned.json()["status"]) == (200, house.alice.user_id, "disabled")
    assert (await house.alice.ask("GET")).status_code == 401


async def test_the_sessions_of_who_is_being_merged_end_with_those_of_the_user_who_remains(house: House) -> None:
    end = partial(house.root.ask, "DELETE", f"/users/{house.bob.user_id}/sessions")
    assert (await house.after(house.merge, end)).status_code == 204
    assert (await house.root.read(f"/users/{house.alice.user_id}"))["sessions"] == []


async def test_one_session_of_who_is_being_merged_ends(house: House) -> None:
    session_id = house.bob.tokens["session_id"]
    end = partial(house.root.ask, "DELETE", f"/users/{house.bob.user_id}/sessions/{session_id}")
    assert (await house.after(house.merge, end)).status_code == 204
    sessions = (await house.root.read(f"/users/{house.alice.user_id}"))["sessions"]
    assert [session["id"] for session in sessions] == [house.alice.tokens["session_id"]]


async def test_an_erasure_of_who_is_being_merged_erases_the_user_who_remains(house: House) -> None:
    erase = partial(house.root.ask, "DELETE", f"/users/{house.bob.user_id}")
    assert (await house.after(house.merge, erase)).status_code == 204
    assert await house.rows.fetchval("SELECT count(*) FROM users WHERE id::text <> $1", house.root.id) == 0


async def test_a_ban_of_who_is_being_split_off_leaves_the_other_one(house: House) -> None:
    assert (await house.merge()).status_code == 200
    ban = partial(house.root.ask, "PATCH", f"/users/{house.bob.user_id}", json={"status": "disabled"})
    banned = await house.after(house.split, ban)
    assert (banned.status_code, banned.json()["id"]) == (200, house.bob.user_id)
    assert (await house.root.read(f"/users/{house.alice.user_id}"))["status"] == "active"


# The person's own token is refused after a merge, until it is refreshed. So what comes with it is not done, and said to
# be not done: `wxauth.js` refreshes, and sends it again.


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
    house: House, method: str, path: str, options: Body
) -> None:
    refused = await house.after(house.merge, partial(house.bob.ask, method, path, **options))
    problem_of(refused, "invalid_token", 401)
