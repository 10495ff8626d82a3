"""Phone numbers that people remove, or staff, and names and pictures that staff clears."""

import asyncio
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.clock import Clock
from tests.phones.test_phones import API, OTHER_NUMBER
from tests.problems import problem_of
from tests.processes import make_command
from tests.sweeps import swept
from tests.world import BESIDE_LOGINS, NUMBER, Admin, Body, Rows, Service, bearer, make_admin, set_roles, until
from wxauth.server.housekeeping.housekeeping import sweep
from wxauth.server.phones.phones import UNTOUCHED_FOR


@pytest.fixture
async def alice(service: Service) -> Body:
    """Alice, with a number."""
    return await service.log_in("alice", phone_code=service.phone_code(), nickname="Alice")


@pytest.fixture
async def root(service: Service, rows: Rows) -> Admin:
    return await make_admin(service.client, rows, await service.log_in("root"))


async def removals(rows: Rows) -> list[tuple[Any, ...]]:
    events = await rows.fetch("SELECT actor, user_id::text, app_id, data FROM events WHERE type = 'user.phone_removed'")
    return [tuple(event) for event in events]


async def test_people_remove_their_own_number(service: Service, alice: Body, rows: Rows) -> None:
    for _ in range(2):
        assert (await service.client.delete("/v1/me/phone", headers=bearer(alice))).status_code == 204
    shown = await service.me(alice)
    assert (shown["phone"], shown["phone_verified"], shown["nickname"]) == (None, None, "Alice")
    user = alice["user"]
    assert await removals(rows) == [(user["id"], user["id"], user["app_id"], "{}")]
    assert (await service.bind(alice, service.phone_code())).json()["phone"] == NUMBER


@pytest.mark.parametrize("method", ["PATCH", "POST"])
async def test_null_removes_the_number_and_the_answer_shows_it(
    service: Service, alice: Body, rows: Rows, method: str
) -> None:
    answer = await service.change(alice, method=method, phone=None, nickname="Al")
    assert (answer.json()["phone"], answer.json()["phone_verified"], answer.json()["nickname"]) == (None, None, "Al")
    assert (await service.change(alice, method=method, phone=None)).status_code == 200
    assert len(await removals(rows)) == 1


@swept("value", [NUMBER, "", 0, False, [], {}])
async def test_a_number_cannot_be_set_by_hand(service: Service, alice: Body, value: Any) -> None:
    answer = await service.change(alice, phone=value, nickname="Al")
    assert problem_of(answer, "invalid_request", 422)["errors"][0]["field"] == "phone"
    assert (await service.me(alice))["nickname"] == "Alice"


async def test_a_removed_number_does_not_come_back_from_an_earlier_tap(
    service: Service, alice: Body, clock: Clock, rows: Rows
) -> None:
    service.simulator.fail(API, slow=0.2)
    binding = asyncio.create_task(service.bind(alice, service.phone_code(phone=OTHER_NUMBER)))
    await until(lambda: len(service.asked(API)) == 2)
    clock.advance(seconds=1)
    assert (await service.client.delete("/v1/me/phone", headers=bearer(alice))).status_code == 204
    problem_of(await binding, "invalid_code", 400)
    clock.now += UNTOUCHED_FOR
    await sweep(service.services)
    assert (await service.me(await service.log_in("alice")))["phone"] is None


async def test_staff_remove_a_number(service: Service, alice: Body, root: Admin, rows: Rows) -> None:
    await set_roles(rows, "support", user_id=root.id)
    user_id = alice["user"]["id"]
    for _ in range(2):
        assert (await root.ask("DELETE", f"/users/{user_id}/phone")).status_code == 204
    assert await removals(rows) == [(root.id, user_id, None, "{}")]
    assert (await service.me(alice))["phone"] is None
    problem_of(await root.ask("DELETE", f"/users/{root.id}/phone"), "insufficient_role", 403)
    problem_of(await root.ask("DELETE", "/users/01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17/phone"), "not_found", 404)


async def test_staff_clear_a_name_and_a_picture(service: Service, alice: Body, root: Admin, rows: Rows) -> None:
    await set_roles(rows, "support", user_id=root.id)
    picture = BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    uploaded = await service.client.post(
        "/v1/me/avatar", files={"file": ("a.png", picture.getvalue(), "image/png")}, headers=bearer(alice)
    )
    path = uploaded.json()["avatar_url"].partition("/v1/")[2]
    assert (await service.client.get(f"/v1/{path}")).status_code == 200
    user_id = alice["user"]["id"]
    shown = await root.change(user_id, nickname=None)
    assert (shown["nickname"], shown["avatar_url"] is None, shown["phone"] is None) == (None, False, False)
    shown = await root.change(user_id, nickname=None, avatar_url=None)
    assert (shown["nickname"], shown["avatar_url"]) == (None, None)
    assert (await service.client.get(f"/v1/{path}")).status_code == 404, "the stored picture is gone"
    by_root = "SELECT type, data FROM events WHERE actor = $1 AND user_id = $2 ORDER BY id"
    assert [tuple(event) for event in await rows.fetch(by_root, root.id, user_id)] == [
        ("user.profile_changed", '{"fields": ["nickname"]}'),
        ("user.profile_changed", '{"fields": ["avatar_url"]}'),
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "change",
    [
        {"nickname": "Mallory"},
        {"nickname": ""},
        {"avatar_url": "https://a.test/1.png"},
        {"phone": None},
        {"shoe_size": 43},
        {"status": "disabled", "nicknames": None},
    ],
    ids=str,
)
async def test_staff_set_nothing_of_another_persons_and_no_unknown_field(
    alice: Body, root: Admin, change: Body, rows: Rows
) -> None:
    answer = await root.ask("PATCH", f"/users/{alice['user']['id']}", json=change)
    assert problem_of(answer, "invalid_request", 422)["errors"][0]["field"] == list(change)[-1]
    assert (await root.read(f"/users/{alice['user']['id']}"))["status"] == "active"
    assert await rows.fetchval(f"SELECT count(*) FROM events WHERE {BESIDE_LOGINS} AND actor = $1", root.id) == 0


@pytest.mark.process
async def test_an_operator_removes_a_number(alice: Body, database_url: str, tmp_path: Path, rows: Rows) -> None:
    users = make_command("users", cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url})
    user_id = alice["user"]["id"]
    done = await users("set", user_id, "--no-phone")
    assert done.returncode == 0, done.stderr
    assert await removals(rows) == [("operator", user_id, None, "{}")]
