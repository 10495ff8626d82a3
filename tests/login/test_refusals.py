"""Rejected logins are recorded, so that support staff can see why a phone could not log in at 10:02."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from tests.database_proxy import Proxy
from tests.fakes import APP
from tests.metrics import scrape
from tests.problems import problem_of
from tests.world import Admin, Client, Stage, bearer
from wxauth.errors import StorageUnavailable
from wxauth.housekeeping.housekeeping import sweep
from wxauth.login.count_queries import LoginCounts
from wxauth.login.refusals import MAX_NEW_ROWS, MAX_OWN_ROWS, Refusals

ADDRESS = {"X-Forwarded-For": "203.0.113.7"}


async def refused(client: Client, code: str, **headers: str) -> str:
    """Log in with a code that is rejected, and return the request id that the phone shows."""
    answer = await client.post("/v1/login", json={"code": code}, headers={**ADDRESS, **headers})
    assert answer.status_code >= 400
    return answer.json()["request_id"]


async def ban(stage: Stage, root: Admin) -> str:
    """Ban Alice, and return her id."""
    user_id: str = (await stage.login("alice"))["user"]["id"]
    await root.change(user_id, status="disabled")
    return user_id


async def listed(root: Admin, **query: object) -> list[dict[str, Any]]:
    return (await root.read("/refusals", **query))["items"]


@pytest.mark.oldest_postgres
async def test_a_refusal_is_found_by_the_request_id_that_the_phone_shows(stage: Stage, root: Admin) -> None:
    request_id = await refused(stage.client, "nonsense")
    await refused(stage.client, "nonsense-too")
    assert await listed(root, request_id=request_id) == [
        {
            "at": stage.clock().isoformat().replace("+00:00", "Z"),
            "code": "invalid_code",
            "wechat_errcode": 40029,
            "app_id": APP["app_id"],
            "user_id": None,
            "network": "203.0.113.0/24",
            "request_id": request_id,
            "count": 1,
        }
    ]


@pytest.mark.oldest_postgres
async def test_refusals_of_logins_and_refreshes_are_found_by_the_user_and_exported(stage: Stage, root: Admin) -> None:
    alice = await stage.login("alice")
    user_id = alice["user"]["id"]
    await root.change(user_id, status="disabled")
    at_login = await refused(stage.client, stage.wechat.code_for("alice"))
    at_refresh = await stage.refresh(alice)
    refusals = [("account_disabled", request_id) for request_id in (at_refresh.json()["request_id"], at_login)]
    found = await listed(root, user_id=user_id)
    assert [(each["code"], each["request_id"]) for each in found] == refusals
    await root.change(user_id, status="active")
    document = (await stage.client.get("/v1/me/export", headers=bearer(await stage.login("alice")))).json()
    assert {(each["code"], each["request_id"]) for each in document["refusals"]} == {*refusals}


async def test_another_request_or_a_refresh_after_which_the_phone_logs_in_silently_is_none(
    stage: Stage, root: Admin
) -> None:
    alice = await stage.login("alice")
    await stage.client.post("/v1/logout", json={"refresh_token": alice["refresh_token"]})
    for token in (alice["refresh_token"], "nonsense"):
        assert (await stage.client.post("/v1/refresh", json={"refresh_token": token})).status_code == 400
    for method, path in (("GET", "/v1/me"), ("GET", "/v1/login"), ("POST", "/v1/nothing")):
        await stage.client.request(method, path)
    assert await listed(root) == []


@pytest.mark.parametrize(
    ("body", "code", "app_id"),
    [
        ({}, "invalid_request", None),
        ({"code": "x", "app_id": "wxunknown"}, "unknown_app", "wxunknown"),
        ({"code": "x", "app_id": "\u0000" * 9}, "unknown_app", None),
        ({"code": "x", "app_id": "x" * 65}, "unknown_app", None),
    ],
)
async def test_a_login_without_a_code_or_with_an_unknown_app_is_a_refusal(
    client: Client, root: Admin, body: dict[str, str], code: str, app_id: str | None
) -> None:
    problem = problem_of(await client.post("/v1/login", json=body), code, 422 if code == "invalid_request" else 400)
    assert ("A new app takes effect within 15 s" in problem["detail"]) == (app_id is not None)
    assert [(each["code"], each["app_id"]) for each in await listed(root)] == [(code, app_id)]


@pytest.mark.oldest_postgres
async def test_refusals_are_found_by_code_and_time_page_by_page_the_newest_first(stage: Stage, root: Admin) -> None:
    ids = []
    for _ in range(3):
        ids.append(await refused(stage.client, "nonsense"))
        stage.clock.advance(seconds=60)
    await stage.client.post("/v1/login", json={})
    assert [each["request_id"] for each in await listed(root, code="invalid_code")] == ids[::-1]
    since = stage.clock().isoformat()
    newest = (await root.read("/refusals", since=since))["items"]
    assert [each["code"] for each in newest] == ["invalid_request"]
    earlier = await listed(root, until=since)
    assert [each["request_id"] for each in earlier] == ids[::-1]
    page = await root.read("/refusals", code="invalid_code", limit=2)
    assert [each["request_id"] for each in page["items"]] == [ids[2], ids[1]]
    rest = await root.read("/refusals", code="invalid_code", limit=2, cursor=page["next_cursor"])
    assert ([each["request_id"] for each in rest["items"]], rest["next_cursor"]) == ([ids[0]], None)


@pytest.mark.oldest_postgres
async def test_refusals_are_found_by_network_and_app(client: Client, root: Admin) -> None:
    addresses = ("203.0.113.7", "203.0.114.9", "198.51.100.1", "2001:db8:1:2::3", "2001:db8:2::1")
    for address in addresses:
        await refused(client, "nonsense", **{"X-Forwarded-For": address})
    unknown = await client.post("/v1/login", json={"code": "x", "app_id": "wxother"}, headers=ADDRESS)
    assert unknown.status_code >= 400
    for network, found in (
        ("203.0.113.0/24", ["203.0.113.0/24", "203.0.113.0/24"]),
        ("203.0.113.7", ["203.0.113.0/24", "203.0.113.0/24"]),
        ("203.0.113.99/25", ["203.0.113.0/24", "203.0.113.0/24"]),
        ("203.0.0.0/16", ["203.0.113.0/24", "203.0.114.0/24", "203.0.113.0/24"]),
        ("203.0.114.0/23", ["203.0.114.0/24"]),
        ("0.0.0.0/0", ["203.0.113.0/24", "198.51.100.0/24", "203.0.114.0/24", "203.0.113.0/24"]),
        ("2001:db8:1::/48", ["2001:db8:1::/48"]),
        ("2001:db8:1:2::3", ["2001:db8:1::/48"]),
        ("2001:db8::/32", ["2001:db8:2::/48", "2001:db8:1::/48"]),
        ("::/0", ["2001:db8:2::/48", "2001:db8:1::/48"]),
        ("192.0.2.0/24", []),
    ):
        assert [each["network"] for each in await listed(root, network=network)] == found, network
    assert len(await listed(root, network="")) == 6
    assert [each["code"] for each in await listed(root, app_id="wxother")] == ["unknown_app"]
    assert len(await listed(root, app_id=APP["app_id"])) == 5
    assert len(await listed(root, app_id=APP["app_id"], network="203.0.113.0/24", code="invalid_code")) == 1
    page = await root.read("/refusals", network="203.0.0.0/16", limit=2)
    rest = await root.read("/refusals", network="203.0.0.0/16", limit=2, cursor=page["next_cursor"])
    assert (len(page["items"]), len(rest["items"]), rest["next_cursor"]) == (2, 1, None)
    for wrong in ("203.0.113", "203.0.113.0/33", "office", "203.0.113.7/24/8", "\0"):
        answer = await root.ask("GET", "/refusals", params={"network": wrong})
        assert problem_of(answer, "invalid_request", 422)["errors"][0]["field"] == "network"


# A flood of rejected requests.


async def junk(client: Client, ip: str = "198.51.100.1") -> None:
    """Send a login request that is always invalid."""
    assert (await client.post("/v1/login", json={}, headers={"X-Forwarded-For": ip})).status_code == 422


async def test_a_flood_of_one_network_is_counted_and_hides_no_refusal_of_others(stage: Stage, root: Admin) -> None:
    await ban(stage, root)
    for number in range(200):
        await junk(stage.client, f"198.51.100.{number}")
    of_another = await refused(stage.client, "nonsense")
    of_a_user = await refused(stage.client, stage.wechat.code_for("alice"), **{"X-Forwarded-For": "198.51.100.1"})
    of_the_network = await refused(stage.client, "nonsense", **{"X-Forwarded-For": "198.51.100.1"})
    for request_id in (of_another, of_a_user, of_the_network):
        assert [each["count"] for each in await listed(root, request_id=request_id)] == [1]
    counts = [each["count"] for each in await listed(root, code="invalid_request")]
    assert counts == [200 - MAX_OWN_ROWS] + MAX_OWN_ROWS * [1]
    dropped = (await scrape(stage.client))("wxauth_refusals_dropped_total", outcome="too_many")
    assert dropped == 200 - MAX_OWN_ROWS - 1
    assert await stage.number("refusals") == MAX_OWN_ROWS + 1 + 3
    stage.clock.advance(minutes=1)
    await junk(stage.client)
    assert [each["count"] for each in await listed(root, code="invalid_request")] == [1, *counts]


async def test_a_count_grows_after_it_was_stored(client: Client, root: Admin) -> None:
    for expected in (1, 2, 3):
        for _ in range(MAX_OWN_ROWS + 1 if expected == 1 else 1):
            await junk(client)
        assert (await listed(root))[0]["count"] == expected
    assert len(await listed(root)) == MAX_OWN_ROWS + 1


async def test_a_banned_user_who_goes_on_for_ever_is_counted_and_hides_no_other(stage: Stage, root: Admin) -> None:
    alice, bob = [await stage.login(name) for name in ("alice", "bob")]
    for each in (alice, bob):
        await root.change(each["user"]["id"], status="disabled")
    for tokens, times in ((alice, 120), (bob, 1)):
        for _ in range(times):
            await stage.refresh(tokens, headers=ADDRESS)
    assert len(await listed(root, user_id=bob["user"]["id"])) == 1
    assert sum(each["count"] for each in await listed(root, user_id=alice["user"]["id"])) == 120
    assert await stage.number("refusals") == MAX_OWN_ROWS + 1 + 1


async def test_a_flood_of_many_networks_is_counted_without_one_and_hides_no_users(stage: Stage, root: Admin) -> None:
    user_id = await ban(stage, root)
    for number in range(MAX_NEW_ROWS + 5):
        await junk(stage.client, f"10.0.{number}.1")
    await refused(stage.client, stage.wechat.code_for("alice"))
    newest, *others = await listed(root, code="invalid_request")
    assert (newest["network"], newest["count"], len(others)) == (None, 5, MAX_NEW_ROWS)
    assert len(await listed(root, user_id=user_id)) == 1
    stage.clock.advance(seconds=1)
    await junk(stage.client, "10.1.0.1")
    assert (await listed(root))[0]["network"] == "10.1.0.0/24"


async def test_64_characters_of_a_request_id_are_stored_and_the_whole_id_finds_it(client: Client, root: Admin) -> None:
    shown = await refused(client, "nonsense", **{"X-Request-ID": "r" * 64 + "s" * 64})
    assert len(shown) == 128
    for request_id in (shown, shown[:64]):
        assert [each["request_id"] for each in await listed(root, request_id=request_id)] == ["r" * 64]
    assert await listed(root, request_id=shown[:63]) == []


async def test_wrong_bodies_count_towards_the_limit_of_the_address(stage: Stage) -> None:
    client = await stage.make(login_rate_limit="2/minute")
    bodies = (b"{}", b"nonsense", b"{}")
    answers = [await client.post("/v1/login", content=body, headers=ADDRESS) for body in bodies]
    assert [answer.json()["code"] for answer in answers] == ["invalid_request", "invalid_request", "rate_limited"]
    logins = (await scrape(client)).counted("wxauth_logins_total", "app_id", "errcode", "outcome")
    assert logins["unknown", "", "rate_limited"] == 1


# How rejected logins are stored.


async def test_refusals_are_stored_in_the_background_and_the_last_ones_at_shutdown(stage: Stage) -> None:
    services = await stage.make_services()
    await stage.make_client(services).post("/v1/login", json={})
    assert await stage.number("refusals") == 0
    await services.aclose()
    assert await stage.number("refusals") == 1


@pytest.mark.proxy
async def test_refusals_during_a_database_outage_are_dropped_and_counted(stage: Stage, proxy: Proxy) -> None:
    services = await stage.make_services(database_url=proxy.url)
    client = stage.make_client(services)
    await client.post("/v1/login", json={})
    await proxy.refuse()
    with pytest.raises(StorageUnavailable):
        await services[Refusals].store()
    assert (await scrape(client))("wxauth_refusals_dropped_total", outcome="storage") == 1


async def test_refusals_are_kept_for_14_days(stage: Stage, root: Admin) -> None:
    for _ in range(5):
        await refused(stage.client, "nonsense")
    await listed(root)
    stage.clock.advance(days=14)
    await sweep(stage.services, page_size=2, pause=0)
    assert await stage.number("refusals") == 5
    stage.clock.advance(seconds=1)
    await sweep(stage.services, page_size=2, pause=0)
    assert await stage.number("refusals") == 0


async def test_an_erased_persons_are_gone_and_those_not_yet_stored_are_not_stored(stage: Stage, root: Admin) -> None:
    user_id = await ban(stage, root)
    await refused(stage.client, stage.wechat.code_for("alice"))
    assert len(await listed(root, user_id=user_id)) == 1
    await refused(stage.client, stage.wechat.code_for("alice"))
    assert (await root.ask("DELETE", f"/users/{user_id}")).status_code == 204
    assert await listed(root) == []
    assert await stage.number("refusals") == 0


# Daily numbers.


async def days_of(root: Admin, **query: object) -> list[tuple[str, int, int]]:
    return [(it["date"], it["new_users"], it["logins"]) for it in (await root.read("/numbers", **query))["days"]]


@pytest.mark.own_database
async def test_a_login_is_counted_on_its_day_and_a_refresh_or_a_failure_is_none(stage: Stage, root: Admin) -> None:
    alice = await stage.login("alice")
    await stage.login("alice")
    await stage.refresh(alice)
    await stage.client.post("/v1/login", json={"code": "no-code-of-anybodys"})
    assert await root.read("/numbers", days=1) == {
        "users": 2,
        "sessions": 3,
        "active_day": 2,
        "active_week": 2,
        "active_month": 2,
        "estimated": [],
        "days": [{"date": "2026-11-20", "new_users": 2, "logins": 3}],
    }
    stage.clock.advance(hours=16)  # it is midnight in UTC
    again = Admin(stage.client, await stage.login("root"))
    await again.change(alice["user"]["id"], status="disabled")
    await refused(stage.client, stage.wechat.code_for("alice"))
    assert await days_of(again, days=3) == [("2026-11-19", 0, 0), ("2026-11-20", 2, 3), ("2026-11-21", 0, 1)]


async def test_an_active_user_is_counted_once_and_by_a_refresh_too(stage: Stage, root: Admin) -> None:
    seen = {}
    for name, days in (("alice", 20), ("bob", 1), ("carol", 6), ("bob", 2)):
        seen[name] = await stage.login(name)
        stage.clock.advance(days=days)
    await stage.refresh(seen["alice"])
    numbers = await Admin(stage.client, await stage.login("root")).read("/numbers")
    assert [numbers[f"active_{range}"] for range in ("day", "week", "month")] == [2, 3, 4]


@pytest.mark.own_database
async def test_numbers_of_large_tables_are_called_estimates_and_miss_nobody_of_today(stage: Stage, root: Admin) -> None:
    many = 30_000  # a page has ten, so these are too many pages for an exact count
    await stage.rows.execute("ALTER TABLE users SET (fillfactor = 10)")
    add = "INSERT INTO users (id, created_at) SELECT gen_random_uuid(), $2 FROM generate_series(1, $1)"
    await stage.rows.execute(add, many, stage.clock() - timedelta(days=400))
    names = ("alice", "bob", "carol")
    for name in names:
        await stage.login(name)
    numbers = await root.read("/numbers")
    assert numbers["estimated"] == ["users", "active_day", "active_week", "active_month"]
    assert (numbers["users"], numbers["sessions"]) == (pytest.approx(many, rel=0.1), len(names) + 1)
    assert min(numbers["active_day"], numbers["active_week"], numbers["active_month"]) >= len(names) + 1


async def test_thirty_days_by_default_begin_where_the_reader_is(stage: Stage, root: Admin) -> None:
    days = await days_of(root)
    assert (len(days), days[0][0], days[-1][0]) == (30, "2026-10-22", "2026-11-20")
    assert len(await days_of(root, days=366)) == 366
    stage.clock.advance(hours=7, minutes=59)  # one minute before midnight in China
    await stage.login("alice")
    stage.clock.advance(minutes=1)
    again = Admin(stage.client, await stage.login("root"))
    assert await days_of(again, days=2, utc_offset=480) == [("2026-11-20", 2, 2), ("2026-11-21", 0, 1)]
    assert await days_of(again, days=2, utc_offset=-720) == [("2026-11-19", 1, 1), ("2026-11-20", 1, 2)]
    assert await days_of(again, days=1) == [("2026-11-20", 2, 3)]


async def test_replicas_count_together_and_none_waits_for_anothers_row(stage: Stage, root: Admin) -> None:
    replicas = [await stage.make_services() for _ in range(3)]
    clients = [stage.make_client(replica) for replica in replicas]
    async with stage.rows.transaction():
        await stage.rows.execute("LOCK TABLE hourly_numbers IN ACCESS EXCLUSIVE MODE")
        for client in clients * 2:
            assert (await stage.login.ask("alice", at=client)).status_code == 200
    for replica in replicas:
        await replica[LoginCounts].store()
        await replica[LoginCounts].store()
    assert await days_of(root, days=1) == [("2026-11-20", 2, 7)]


async def test_counts_during_an_outage_are_stored_after_the_outage(stage: Stage, proxy: Proxy, root: Admin) -> None:
    replica = await stage.make_services(database_url=proxy.url)
    replica[LoginCounts].count_login(is_new=True, at=stage.clock())
    await proxy.refuse()
    with pytest.raises(Exception, match="doesn't respond"):
        await replica[LoginCounts].store()
    await proxy.accept()
    await replica[LoginCounts].store()
    assert await days_of(root, days=1) == [("2026-11-20", 2, 2)]


async def test_the_rows_of_an_old_hour_are_merged_and_the_numbers_stay_the_same(stage: Stage) -> None:
    for _ in range(4):
        replica = await stage.make_services()
        replica[LoginCounts].count_login(is_new=True, at=stage.clock())
        await replica[LoginCounts].store()
    stage.clock.advance(days=8)
    for _ in range(2):
        await asyncio.gather(*(stage.services[LoginCounts].merge_hours() for _ in range(3)))
        stored = await stage.rows.fetch("SELECT new_users, logins FROM hourly_numbers")
        assert [tuple(row) for row in stored] == [(4, 4)]
