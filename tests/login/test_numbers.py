"""Daily numbers are counted by every process, and are complete when each process has stored its counts."""

import asyncio

import pytest

from tests.database_proxy import Proxy
from tests.fakes import Clock, WeChatByRespx
from tests.problems import problem_of
from tests.world import Admin, Client, LogIn, MakeClient, MakeServices, Rows
from wxauth.server.core.services import Services
from wxauth.server.login.records import Numbers


async def days_of(root: Admin, **query: object) -> list[tuple[str, int, int]]:
    return [(it["date"], it["new_users"], it["logins"]) for it in (await root.read("/numbers", **query))["days"]]


@pytest.mark.own_database
async def test_a_login_is_counted_on_its_day_and_a_refresh_or_a_failure_is_none(
    root: Admin, client: Client, login: LogIn, clock: Clock
) -> None:
    alice = await login("alice")
    await login("alice")
    await client.post("/v1/refresh", json={"refresh_token": alice["refresh_token"]})
    await client.post("/v1/login", json={"code": "no-code-of-anybodys"})
    assert await root.read("/numbers", days=1) == {
        "users": 2,
        "sessions": 3,
        "active_day": 2,
        "active_week": 2,
        "active_month": 2,
        "days": [{"date": "2026-11-20", "new_users": 2, "logins": 3}],
    }
    clock.advance(hours=16)  # midnight in UTC
    again = Admin(client, await login("root"))
    assert await days_of(again, days=3) == [("2026-11-19", 0, 0), ("2026-11-20", 2, 3), ("2026-11-21", 0, 1)]


async def test_an_active_user_is_counted_once_and_by_a_refresh_too(
    root: Admin, client: Client, login: LogIn, clock: Clock
) -> None:
    seen = {}
    for name, days in (("alice", 20), ("bob", 1), ("carol", 6), ("bob", 2)):
        seen[name] = await login(name)
        clock.advance(days=days)
    await client.post("/v1/refresh", json={"refresh_token": seen["alice"]["refresh_token"]})
    numbers = await Admin(client, await login("root")).read("/numbers")
    assert [numbers[f"active_{range}"] for range in ("day", "week", "month")] == [2, 3, 4]


async def test_the_numbers_cover_thirty_days_by_default(root: Admin) -> None:
    days = await days_of(root)
    assert (len(days), days[0][0], days[-1][0]) == (30, "2026-10-22", "2026-11-20")
    assert len(await days_of(root, days=366)) == 366
    for wrong in ("0", "367", "many"):
        problem = problem_of(await root.ask("GET", "/numbers", params={"days": wrong}), "invalid_request", 422)
        assert problem["errors"][0]["field"] == "days"


async def test_days_begin_where_the_reader_is(root: Admin, client: Client, login: LogIn, clock: Clock) -> None:
    clock.advance(hours=7, minutes=59)  # one minute to midnight in China
    await login("alice")
    clock.advance(minutes=1)
    again = Admin(client, await login("root"))
    assert await days_of(again, days=2, utc_offset=480) == [("2026-11-20", 2, 2), ("2026-11-21", 0, 1)]
    assert await days_of(again, days=2, utc_offset=-720) == [("2026-11-19", 1, 1), ("2026-11-20", 1, 2)]
    assert await days_of(again, days=1) == [("2026-11-20", 2, 3)]
    for wrong in ("-721", "841", "Asia/Shanghai"):
        problem = problem_of(await again.ask("GET", "/numbers", params={"utc_offset": wrong}), "invalid_request", 422)
        assert problem["errors"][0]["field"] == "utc_offset"


async def test_a_login_refused_because_of_a_ban_is_not_counted(
    root: Admin, login: LogIn, wechat: WeChatByRespx
) -> None:
    alice = await login("alice")
    await root.change(alice["user"]["id"], status="disabled")
    await root.client.post("/v1/login", json={"code": wechat.code_for("alice")})
    assert await days_of(root, days=1) == [("2026-11-20", 2, 2)]


async def test_replicas_count_together_and_none_waits_for_anothers_row(
    root: Admin, make_services: MakeServices, make_client: MakeClient, wechat: WeChatByRespx, rows: Rows
) -> None:
    replicas = [await make_services() for _ in range(3)]
    clients = [make_client(replica) for replica in replicas]
    async with rows.transaction():
        await rows.execute("LOCK TABLE hourly_numbers IN ACCESS EXCLUSIVE MODE")
        for client in clients * 2:
            answer = await client.post("/v1/login", json={"code": wechat.code_for("alice")})
            assert answer.status_code == 200
    for replica in replicas:
        await replica[Numbers].store()
        await replica[Numbers].store()
    assert await days_of(root, days=1) == [("2026-11-20", 2, 7)]


async def test_counts_during_an_outage_are_stored_after_the_outage(
    database_url: str, make_services: MakeServices, root: Admin, clock: Clock
) -> None:
    async with Proxy(database_url) as proxy:
        replica = await make_services(database_url=proxy.url)
        replica[Numbers].count_login(is_new=True, at=clock())
        await proxy.refuse()
        with pytest.raises(Exception, match="does not answer"):
            await replica[Numbers].store()
        await proxy.accept()
        await replica[Numbers].store()
    assert await days_of(root, days=1) == [("2026-11-20", 2, 2)]


async def test_the_last_counts_are_stored_at_shutdown(make_services: MakeServices, root: Admin, clock: Clock) -> None:
    replica = await make_services()
    for _ in range(5):
        replica[Numbers].count_login(is_new=False, at=clock())
    await replica.aclose()
    assert await days_of(root, days=1) == [("2026-11-20", 1, 6)]


async def test_the_rows_of_an_old_hour_are_merged_and_the_numbers_stay_the_same(
    make_services: MakeServices, services: Services, rows: Rows, clock: Clock
) -> None:
    for _ in range(4):
        replica = await make_services()
        replica[Numbers].count_login(is_new=True, at=clock())
        await replica[Numbers].store()
    clock.advance(days=8)
    for _ in range(2):
        await asyncio.gather(*(services[Numbers].merge_hours() for _ in range(3)))
        stored = await rows.fetch("SELECT new_users, logins FROM hourly_numbers")
        assert [tuple(row) for row in stored] == [(4, 4)]
