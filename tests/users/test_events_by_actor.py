"""`GET /v1/admin/events` shows what a colleague did yesterday, and what has happened to a user."""

import pytest

from tests.clock import Clock
from tests.world import NOBODY, Admin, Rows, Stage


async def types(root: Admin, **query: object) -> list[str]:
    return [event["type"] for event in (await root.read("/events", **query))["items"]]


@pytest.fixture
async def alice_id(stage: Stage, root: Admin) -> str:
    """Return the id of Alice, whom the administrator has banned and unbanned."""
    user_id = (await stage.login("alice", nickname="Alice"))["user"]["id"]
    stage.clock.advance(minutes=1)
    await root.change(user_id, status="disabled")
    stage.clock.advance(minutes=1)
    await root.change(user_id, status="active")
    return str(user_id)


@pytest.mark.oldest_postgres
async def test_events_are_found_by_actor_user_and_type_the_newest_first(
    root: Admin, alice_id: str, clock: Clock
) -> None:
    by_root = ["user.unbanned", "session.ended", "user.banned", "user.created"]
    assert await types(root, actor=root.id) == by_root, "what they did to themselves, too"
    assert await types(root, actor=root.id.upper()) == by_root
    assert await types(root, actor=alice_id) == ["user.created"]
    assert await types(root, actor="nobody") == []
    assert await types(root, actor="") == await types(root)
    assert await types(root, actor=root.id, type=["user.banned", "user.created"]) == ["user.banned", "user.created"]
    assert await types(root, actor=root.id, user_id=alice_id) == by_root[:3]
    assert await types(root, actor=root.id, user_id=alice_id, type="user.banned") == ["user.banned"]
    assert await types(root, actor=root.id, since=clock().isoformat()) == ["user.unbanned"]
    assert await types(root, user_id=alice_id) == [*by_root[:3], "user.created"]
    assert await types(root, type="user.created") == ["user.created"] * 2
    assert await types(root, type="user.banned", user_id=alice_id) == ["user.banned"]
    assert await types(root, type="user.banned", user_id=root.id) == []
    assert await types(root, type="unheard_of") == await types(root, user_id=NOBODY) == []
    assert await types(root, type="", user_id="") == await types(root)
    for of_whom in ({}, {"user_id": alice_id}):
        several = ["user.banned", "session.ended", "", "unheard_of"]
        assert await types(root, type=several, **of_whom) == ["session.ended", "user.banned"]


@pytest.mark.parametrize("searched", ["ledger", "client:ledger", "Ledger", " CLIENT:ledger "])
@pytest.mark.parametrize("about_alice", [False, True])
async def test_a_service_is_found_however_the_trail_names_it(
    root: Admin, rows: Rows, alice_id: str, searched: str, about_alice: bool
) -> None:
    for name, kind in (
        ("ledger", "user.roles_changed"),
        ("client:ledger", "user.banned"),
        ("ledgers", "user.unbanned"),
    ):
        await rows.execute(
            "INSERT INTO events (id, type, at, actor, user_id)"
            " VALUES (gen_random_uuid(), $1, now(), $2, $3::text::uuid)",
            kind,
            name,
            alice_id,
        )
    filters = {"user_id": alice_id} if about_alice else {}
    assert sorted(await types(root, actor=searched, **filters)) == ["user.banned", "user.roles_changed"]
    assert await types(root, actor=searched, type="user.roles_changed", **filters) == ["user.roles_changed"]


@pytest.mark.parametrize("filters", [{"actor": "{root}"}, {"type": ["user.banned", "user.unbanned", "user.created"]}])
async def test_events_come_page_by_page(root: Admin, alice_id: str, filters: dict[str, object]) -> None:
    if "actor" in filters:
        filters = {"actor": root.id}
    found: list[str] = []
    cursor = ""
    while cursor is not None:
        page = await root.read("/events", **filters, limit=1, cursor=cursor)
        found += [event["type"] for event in page["items"]]
        cursor = page["next_cursor"]
    assert found == await types(root, **filters)
    assert len(found) == 4


@pytest.mark.parametrize("actor", ["system", "operator", "wechat", "ledger"])
async def test_actors_who_are_nobody_are_found_by_name(root: Admin, rows: Rows, actor: str) -> None:
    await rows.execute(
        "INSERT INTO events (id, type, at, actor) VALUES (gen_random_uuid(), 'app.changed', now(), $1)", actor
    )
    assert await types(root, actor=actor) == ["app.changed"]
    assert "app.changed" not in await types(root, actor=root.id)
