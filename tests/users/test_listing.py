"""Staff can list logins, and look up the names of the users whose ids are in events and refusals."""

from datetime import datetime
from typing import Any, Final

import pytest

from tests.clock import Clock
from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.world import NOBODY, Admin, LogIn, Stage, bearer

IPHONE: Final = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) MicroMessenger/8.0.44"


async def people(root: Admin, **query: object) -> list[str | None]:
    return [login["nickname"] for login in (await root.read("/logins", **query))["items"]]


def later(clock: Clock) -> datetime:
    clock.advance(minutes=3)
    return clock()


@pytest.mark.oldest_postgres
async def test_a_login_is_listed_with_who_and_from_where_also_when_it_has_ended(stage: Stage, root: Admin) -> None:
    at = stage.clock()
    alice = await stage.login("alice", nickname="Alice", headers={"User-Agent": IPHONE})
    later(stage.clock)
    await stage.client.post("/v1/logout", headers=bearer(alice))
    (listed,) = (await root.read("/logins", user_id=alice["user"]["id"]))["items"]
    assert listed.pop("session_id")
    assert listed == {
        "at": at.isoformat().replace("+00:00", "Z"),
        "user_id": alice["user"]["id"],
        "nickname": "Alice",
        "app_id": APP["app_id"],
        "client_id": None,
        "device": "iOS 17.1, WeChat 8.0.44",
        "ip": "127.0.0.1",
        "ended_at": stage.clock().isoformat().replace("+00:00", "Z"),
    }


async def test_logins_are_found_by_app_network_and_time_the_newest_first(stage: Stage, root: Admin) -> None:
    since = later(stage.clock)
    await stage.login("alice", nickname="Alice")
    await stage.login("bob", nickname="Bob", app=OTHER_APP)
    until = later(stage.clock)
    await stage.login("carol", nickname="Carol")
    assert await people(root, since=since.isoformat()) == ["Carol", "Bob", "Alice"]
    assert await people(root, since=since.isoformat(), until=until.isoformat()) == ["Bob", "Alice"]
    assert await people(root, app_id=OTHER_APP["app_id"]) == ["Bob"]
    assert await people(root, network="127.0.0.0/24", since=since.isoformat()) == ["Carol", "Bob", "Alice"]
    assert await people(root, network="127.0.0.1", app_id=OTHER_APP["app_id"]) == ["Bob"]
    assert await people(root, network="198.51.100.0/24") == []
    page = await root.read("/logins", network="127.0.0.0/24", since=since.isoformat(), limit=2)
    assert page["incomplete_results"] is False
    assert await people(root, network="127.0.0.0/24", since=since.isoformat(), cursor=page["next_cursor"]) == ["Alice"]


async def test_a_search_of_logins_stops_and_goes_on(stage: Stage, root: Admin, monkeypatch: pytest.MonkeyPatch) -> None:
    await stage.login("alice", nickname="Alice", app=OTHER_APP)
    for name in ("bob", "carol"):
        await stage.login(name)
    monkeypatch.setattr("wxauth.users.history_queries.WINDOWS", (1, 1))
    monkeypatch.setattr("wxauth.users.history_queries.SEARCH_SECONDS", 0)
    found: list[Any] = []
    cursor, stops = "", -1
    while cursor is not None:
        page = await root.read("/logins", app_id=OTHER_APP["app_id"], cursor=cursor)
        found += page["items"]
        cursor, stops = page["next_cursor"], stops + 1
        assert page["incomplete_results"] is (cursor is not None)
    assert stops > 1
    assert [each["nickname"] for each in found] == ["Alice"]


async def test_names_of_a_hundred_ids_at_most_are_read_without_a_trace_in_the_trail(root: Admin, login: LogIn) -> None:
    alice = await login("alice", nickname="Alice")
    nameless = await login("bob", app=OTHER_APP, headers={"User-Agent": IPHONE})
    ids = [alice["user"]["id"], nameless["user"]["id"], NOBODY]
    items = {each["id"]: each for each in (await root.read("/names", user_id=ids))["items"]}
    assert items.keys() == set(ids[:2])
    assert items[ids[0]]["nickname"] == "Alice"
    assert items[ids[1]] == {
        "id": ids[1],
        "nickname": None,
        "avatar_url": None,
        "app_id": OTHER_APP["app_id"],
        "device": "iOS 17.1, WeChat 8.0.44",
        "ip": "127.0.0.1",
        "last_login_at": items[ids[0]]["last_login_at"],
    }
    assert (await root.read("/events", type=["staff.read", "staff.searched"]))["items"] == []
    for wrong in ([str(NOBODY)] * 101, []):
        problem_of(await root.ask("GET", "/names", params={"user_id": wrong}), "invalid_request", 422)
