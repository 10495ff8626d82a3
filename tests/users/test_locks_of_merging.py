"""The locks of a merge: what they prevent, and which requests wait for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest

from tests.fakes import APP, OTHER_APP
from tests.world import (
    BESIDE_LOGINS,
    Client,
    LogIn,
    MakeClient,
    MakeServices,
    Rows,
    bearer,
    leave,
    set_roles,
    until_locked,
)

pytestmark = pytest.mark.oldest_postgres

APP_ID, OTHER_APP_ID = APP["app_id"], OTHER_APP["app_id"]
UNION = "union-alice"


@pytest.fixture
async def two_users(login: LogIn) -> tuple[str, str]:
    """Alice's ids: the one in the first app, and the one that her unionid names."""
    return (await login())["user"]["id"], (await login(unionid=UNION, app=OTHER_APP))["user"]["id"]


@asynccontextmanager
async def elsewhere(database_url: str) -> AsyncIterator[asyncpg.Connection]:
    """Another transaction, committed at the end of the block."""
    connection = await asyncpg.connect(database_url)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


async def test_a_merge_notices_an_earlier_merge_of_the_same_user(
    two_users: tuple[str, str], login: LogIn, rows: Rows, database_url: str
) -> None:
    former, holder = two_users
    async with elsewhere(database_url) as other:
        await other.execute("SELECT FROM users WHERE id = $1::text::uuid FOR UPDATE", former)
        linking = asyncio.create_task(login(unionid=UNION))
        await until_locked(rows)
        await other.execute(
            "UPDATE identities SET user_id = $2::text::uuid WHERE user_id = $1::text::uuid", former, holder
        )
        await other.execute("DELETE FROM users WHERE id = $1::text::uuid", former)
    assert (await linking)["user"]["id"] == holder
    assert await rows.fetchval("SELECT count(*) FROM former_users") == 0


async def test_a_merge_beside_a_demotion_leaves_an_administrator(
    two_users: tuple[str, str], login: LogIn, rows: Rows, database_url: str
) -> None:
    former, holder = two_users
    root = (await login("root"))["user"]["id"]
    for user_id in (former, root):
        await set_roles(rows, "admin", user_id=user_id)
    await rows.execute("UPDATE users SET status = 'disabled' WHERE id = $1::text::uuid", holder)
    async with elsewhere(database_url) as other:
        await other.execute("SELECT FROM users WHERE 'admin' = ANY (roles) AND status = 'active' FOR UPDATE")
        linking = asyncio.create_task(login(unionid=UNION))
        await until_locked(rows)
        await set_roles(other, user_id=root)
    # A ban follows the person. Here it must not: nobody else is left who could lift it.
    assert (await linking)["user"]["roles"] == ["admin"]


async def test_naming_a_user_waits_for_no_administrator(login: LogIn, rows: Rows, database_url: str) -> None:
    await login("root")
    await set_roles(rows, "admin")
    await login()
    async with elsewhere(database_url) as other:
        await other.execute("SELECT FROM users WHERE 'admin' = ANY (roles) FOR UPDATE")
        assert (await login(unionid=UNION))["user"]["unionid"] == UNION


async def test_a_merge_of_users_who_do_not_administer_waits_for_no_administrator(
    two_users: tuple[str, str], login: LogIn, rows: Rows, database_url: str
) -> None:
    await login("root")
    await rows.execute("UPDATE users SET roles = '{admin}' WHERE id <> ALL ($1::text[]::uuid[])", list(two_users))
    async with elsewhere(database_url) as other:
        await other.execute("SELECT FROM users WHERE 'admin' = ANY (roles) FOR UPDATE")
        assert (await login(unionid=UNION))["user"]["id"] == two_users[1]


@pytest.mark.parametrize("act", ["ban", "erase"])
async def test_a_decision_about_somebody_waits_for_none_about_an_administrator(
    act: str, login: LogIn, rows: Rows, database_url: str, make_services: MakeServices, make_client: MakeClient
) -> None:
    root, alice = await login("root"), await login()
    await set_roles(rows, "admin", user_id=root["user"]["id"])
    other_root = await login("other-root")
    await set_roles(rows, "admin", user_id=other_root["user"]["id"])
    path = f"/v1/admin/users/{alice['user']['id']}"
    async with elsewhere(database_url) as other:
        await other.execute("SELECT FROM users WHERE id = $1::text::uuid FOR UPDATE", other_root["user"]["id"])
        if act == "ban":
            answer = await login.client.patch(path, json={"status": "disabled"}, headers=bearer(root))
        else:
            answer = await login.client.delete(path, headers=bearer(root))
        assert answer.status_code in (200, 204)


async def test_erasing_the_remaining_user_erases_the_former_ids(
    two_users: tuple[str, str], login: LogIn, client: Client, rows: Rows
) -> None:
    former, holder = two_users
    await rows.execute(
        "INSERT INTO events (id, type, at, actor, user_id, ip, data) VALUES "
        "(gen_random_uuid(), 'risk.flagged', now(), 'system', $1::text::uuid, '203.0.113.7', '{\"risk_rank\": 1}')",
        former,
    )
    merged = await login(unionid=UNION)
    assert (await leave(client, merged)).status_code == 204
    events = await rows.fetch(
        "SELECT type, user_id::text, ip, data FROM events"
        f" WHERE {BESIDE_LOGINS} AND type <> 'session.ended' ORDER BY type"
    )
    assert [tuple(event) for event in events] == [
        ("risk.flagged", former, None, "{}"),
        ("user.erased", holder, None, f'{{"former_ids": ["{former}"]}}'),
        ("user.merged", holder, None, f'{{"former_id": "{former}"}}'),
    ]
    assert await rows.fetchval("SELECT count(*) FROM former_users") == 0
