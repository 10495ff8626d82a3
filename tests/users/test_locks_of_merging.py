"""These tests show what the locks of a merge prevent, and which requests wait for them."""

import pytest

from tests.fakes import OTHER_APP
from tests.world import Admin, Body, LogIn, Stage, behind, locked, make_admin, set_roles

pytestmark = pytest.mark.oldest_postgres

UNION = "union-alice"
Ids = tuple[str, str]


@pytest.fixture
async def two_users(login: LogIn) -> Ids:
    """Return Alice's two ids. The first is from the first app, and the second belongs to her unionid."""
    return (await login())["user"]["id"], (await login(unionid=UNION, app=OTHER_APP))["user"]["id"]


@pytest.mark.parametrize("is_gone", [True, False])
async def test_a_merge_notices_an_earlier_merge_of_the_same_user(stage: Stage, two_users: Ids, is_gone: bool) -> None:
    former, holder = two_users
    merge = f"UPDATE identities SET user_id = '{holder}' WHERE user_id = '{former}'"
    if is_gone:
        merge += f"; DELETE FROM users WHERE id = '{former}'"
    hold = f"SELECT FROM users WHERE id = '{former}' FOR UPDATE"
    linked = await behind(stage.rows, stage.login(unionid=UNION), hold, then=merge)
    assert linked["user"]["id"] == holder
    assert await stage.number("former_users") == 0


async def test_a_merge_beside_a_demotion_leaves_an_administrator(stage: Stage, two_users: Ids) -> None:
    former, holder = two_users
    root = (await stage.login("root"))["user"]["id"]
    for user_id in (former, root):
        await set_roles(stage.rows, "admin", user_id=user_id)
    await stage.rows.execute("UPDATE users SET status = 'disabled' WHERE id = $1::text::uuid", holder)
    hold = "SELECT FROM users WHERE 'admin' = ANY (roles) AND status = 'active' FOR UPDATE"
    demote = f"UPDATE users SET roles = '{{}}' WHERE id = '{root}'"
    linked = await behind(stage.rows, stage.login(unionid=UNION), hold, then=demote)
    # A merge keeps the ban of either user. Here it must not, because nobody else could lift the ban.
    assert linked["user"]["roles"] == ["admin"]


async def test_naming_and_merging_those_who_do_not_administer_wait_for_no_administrator(
    stage: Stage, two_users: Ids
) -> None:
    root, _ = await stage.login("root"), await stage.login("bob")
    await set_roles(stage.rows, "admin", user_id=root["user"]["id"])
    async with locked(stage.rows, root["user"]["id"]):
        assert (await stage.login("bob", unionid="union-bob"))["user"]["unionid"] == "union-bob"
        assert (await stage.login(unionid=UNION))["user"]["id"] == two_users[1]


@pytest.mark.parametrize(("method", "body"), [("PATCH", {"json": {"status": "disabled"}}), ("DELETE", {})])
async def test_a_decision_about_somebody_waits_for_none_about_an_administrator(
    stage: Stage, root: Admin, method: str, body: Body
) -> None:
    alice = await stage.login()
    other = await make_admin(stage.client, stage.rows, await stage.login("other-root"))
    async with locked(stage.rows, other.id):
        assert (await root.ask(method, f"/users/{alice['user']['id']}", **body)).status_code in (200, 204)
