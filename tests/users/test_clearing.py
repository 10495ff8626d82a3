"""Each field of a profile can be cleared by the user, by staff, by a service with `moderate`, and by the operator."""

import subprocess
import sys
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import pytest

from tests.processes import Command
from tests.world import AddSibling, Body, Stage, bearer, make_admin
from wxauth.clients.models import Scope
from wxauth.core.users import PROFILE_FIELDS

VALUE = "https://example.com/1.png"

Clearing = Callable[[Body, str], Awaitable[Any]]


@pytest.fixture
async def clearing(request: pytest.FixtureRequest, stage: Stage, users: Command, add_sibling: AddSibling) -> Clearing:
    async def as_staff(role: str, alice: Body, name: str) -> object:
        staff = await make_admin(stage.client, stage.rows, await stage.login("staff"), role=role)
        return await staff.change(alice["user"]["id"], **{name: None})

    async def as_service(alice: Body, name: str) -> None:
        auth = await add_sibling("risk", Scope.MODERATE)
        path = f"/v1/users/{alice['user']['id']}/profile"
        assert (await stage.client.patch(path, auth=auth, json={name: None})).status_code == 204

    async def as_operator(alice: Body, name: str) -> None:
        done = await users("set", alice["user"]["id"], "--clear", name)
        assert (done.returncode, done.stderr) == (0, "")

    async def as_user(alice: Body, name: str) -> None:
        assert (await stage.client.patch("/v1/me", headers=bearer(alice), json={name: None})).status_code == 200

    ways: dict[str, Clearing] = {
        "admin": partial(as_staff, "admin"),
        "support": partial(as_staff, "support"),
        "a service": as_service,
        "the operator": as_operator,
        "the user": as_user,
    }
    return ways[request.param]


@pytest.mark.parametrize("name", PROFILE_FIELDS)
@pytest.mark.parametrize(
    "clearing",
    ["admin", "support", "a service", "the user", pytest.param("the operator", marks=pytest.mark.process)],
    indirect=True,
)
async def test_each_field_of_a_profile_is_cleared(stage: Stage, clearing: Clearing, name: str) -> None:
    alice = await stage.login("alice")
    await stage.rows.execute(f"UPDATE users SET {', '.join(f'{each} = $1' for each in PROFILE_FIELDS)}", VALUE)
    await clearing(alice, name)
    user = await stage.user(alice)
    assert {each: user[each] for each in PROFILE_FIELDS} == {**dict.fromkeys(PROFILE_FIELDS, VALUE), name: None}
    changed = "SELECT data ->> 'fields' FROM events WHERE type = 'user.profile_changed'"
    assert [row[0] for row in await stage.rows.fetch(changed)] == [f'["{name}"]']


@pytest.mark.process
@pytest.mark.no_database
def test_a_new_field_of_the_profile_is_cleared_without_another_line() -> None:
    code = """if True:
        from wxauth.core import users
        users.PROFILE_FIELDS += ("bio",)
        from wxauth.cli.users import set_command
        from wxauth.siblings.user_routes import ProfileRemoval
        from wxauth.users.schemas import UserChangeRequest
        for body in (UserChangeRequest, ProfileRemoval):
            assert body(bio=None).model_fields_set == {"bio"}
        [clear] = (each for each in set_command.params if each.name == "cleared_fields")
        assert "bio" in clear.type.choices
        print("cleared")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False, text=True)
    assert (done.stdout, done.stderr) == ("cleared\n", "")
