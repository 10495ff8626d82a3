"""Large accounts are erased at once for readers, and the rest in pages."""

import asyncio
import json
from typing import Any

import pytest

from tests.clock import Clock
from tests.fakes import APP, OTHER_APP, WeChatByRespx
from tests.moving.mover import Mover
from tests.world import Admin, Client, LogIn, MakeClient, MakeServices, Rows, bearer, leave, until
from wxauth.server.core.services import Services
from wxauth.server.housekeeping.housekeeping import keep_erasing, sweep, sweep_now
from wxauth.server.users.erasure_rows import MAX_ROWS_ERASED_WITH_USER

MANY = 30_000
"""Thirty times as many as an erasure erases at once."""
MORE_THAN_AT_ONCE = MAX_ROWS_ERASED_WITH_USER + 500

# $1 how many  $2 actor  $3 user id
ADD_EVENTS = """
INSERT INTO events (id, type, at, actor, user_id, ip, data)
SELECT ('01900000-0000-7000-' || substr(md5($2 || $3), 1, 4) || '-' || lpad(to_hex(n), 12, '0'))::uuid,
       'nickname.flagged', now(), $2, $3::text::uuid, '203.0.113.7', '{"label": "Alice"}'
  FROM generate_series(1, $1) AS n
"""
# $1 how many  $2 user id
ADD_CONSENTS = """
INSERT INTO consents (id, user_id, document, version, given_at, withdrawn_at, app_id, ip)
SELECT gen_random_uuid(), $2::text::uuid, 'privacy', '1', '2020-01-01'::timestamptz - make_interval(secs => n), now(),
       'wx', '203.0.113.7'
  FROM generate_series(1, $1) AS n
"""
ADDRESSES = "SELECT count(*) FROM events WHERE host(ip) = '203.0.113.7'"
CONSENTS = "SELECT count(*) FROM consents"


async def erase(client: Client, answer: dict[str, Any]) -> None:
    erased = await leave(client, answer)
    assert erased.status_code == 204, erased.text


@pytest.mark.slow
@pytest.mark.own_database
async def test_a_large_account_is_erased_in_part_at_once_and_completely_by_the_sweep(
    root: Admin, client: Client, services: Services, login: LogIn, rows: Rows
) -> None:
    alice = await login("alice")
    user_id = alice["user"]["id"]
    await rows.execute(ADD_EVENTS, MANY // 2, user_id, user_id)
    await rows.execute(ADD_EVENTS, MANY // 2, user_id, root.id)
    await rows.execute(ADD_CONSENTS, MANY, user_id)
    left = await rows.fetchval(ADDRESSES)
    await erase(client, alice)
    assert await rows.fetchval(ADDRESSES) >= left - MAX_ROWS_ERASED_WITH_USER, "the rest is not the request's work"
    again = await login("alice")
    assert again["is_new_user"]

    await sweep(services, page_size=10_000, pause=0)
    assert (await rows.fetchval(ADDRESSES), await rows.fetchval(CONSENTS)) == (0, 0)
    about = await rows.fetch("SELECT DISTINCT data FROM events WHERE user_id = $1::text::uuid", user_id)
    assert "Alice" not in str(about)
    assert not await rows.fetch("SELECT FROM erasures")


@pytest.mark.slow
async def test_data_that_waits_for_erasure_is_shown_to_nobody(
    root: Admin, client: Client, services: Services, login: LogIn, rows: Rows
) -> None:
    alice = await login("alice")
    user_id = alice["user"]["id"]
    await rows.execute(ADD_EVENTS, MORE_THAN_AT_ONCE, "system", user_id)
    await rows.execute(ADD_EVENTS, MORE_THAN_AT_ONCE, user_id, root.id)
    assert (await root.ask("DELETE", f"/users/{user_id}")).status_code == 204
    for _ in ("while it waits", "when it is erased"):
        about = await root.read("/events", user_id=user_id, limit=200)
        erased, ended, *flagged = about["items"]
        assert (erased["type"], erased["ip"]) == ("user.erased", "127.0.0.1"), "who has erased, and from where, is kept"
        assert ended["data"] == {"session_ids": [alice["session_id"]], "reason": "erased"}
        assert {(event["ip"], json.dumps(event["data"])) for event in flagged} == {(None, "{}")}
        by = (await root.read("/events", user_id=root.id, type="nickname.flagged", limit=200))["items"]
        assert {(event["ip"], json.dumps(event["data"])) for event in by} == {(None, '{"label": "Alice"}')}
        await sweep(services, pause=0)
    assert await rows.fetchval(ADDRESSES) == 0


async def test_waiting_erasures_are_shown_to_operators(
    client: Client, services: Services, login: LogIn, rows: Rows, clock: Clock
) -> None:
    alice = await login("alice")
    await rows.execute(ADD_EVENTS, MORE_THAN_AT_ONCE, "system", alice["user"]["id"])
    await erase(client, alice)
    for waiting in ("1.0", "0.0"):
        assert f"wxauth_erasures_waiting {waiting}" in (await client.get("/metrics")).text
        await sweep(services, pause=0)
        clock.advance(minutes=1)


@pytest.mark.slow
async def test_replicas_that_erase_at_the_same_time_leave_nothing(
    client: Client, make_services: MakeServices, login: LogIn, rows: Rows
) -> None:
    for person in ("alice", "bob"):
        answer = await login(person)
        await rows.execute(ADD_EVENTS, MORE_THAN_AT_ONCE, "system", answer["user"]["id"])
        await rows.execute(ADD_CONSENTS, MORE_THAN_AT_ONCE, answer["user"]["id"])
        await erase(client, answer)
    replicas = [await make_services() for _ in range(3)]
    await asyncio.gather(*(sweep_now(replica, page_size=100) for replica in replicas))
    assert (await rows.fetchval(ADDRESSES), await rows.fetchval(CONSENTS)) == (0, 0)


@pytest.mark.slow
async def test_an_interrupted_erasure_is_continued_by_another_worker(
    client: Client, make_services: MakeServices, login: LogIn, rows: Rows
) -> None:
    alice = await login("alice")
    await rows.execute(ADD_EVENTS, 3 * MAX_ROWS_ERASED_WITH_USER, "system", alice["user"]["id"])
    await erase(client, alice)
    stopped = asyncio.create_task(sweep(await make_services(), page_size=500, pause=3600))
    left = await rows.fetchval(ADDRESSES)
    await until(lambda: rows.fetchval(f"SELECT ({ADDRESSES}) < $1", left))  # it is in its pause then
    stopped.cancel()
    assert await rows.fetchval(ADDRESSES) > 0
    keeping = asyncio.create_task(keep_erasing(await make_services(), check_pause=0.01))
    await until(lambda: rows.fetchval(f"SELECT ({ADDRESSES}) = 0"))
    keeping.cancel()


@pytest.mark.oldest_postgres
async def test_a_login_after_the_erasure_keeps_its_new_consent(
    services: Services, make_services: MakeServices, make_client: MakeClient, login: LogIn, rows: Rows
) -> None:
    client = make_client(await make_services(consents="privacy:1"))
    alice = await login("alice")
    await rows.execute(ADD_EVENTS, MORE_THAN_AT_ONCE, "system", alice["user"]["id"])
    await erase(client, alice)
    again = await login("alice")
    await client.post("/v1/me/consents", json={"privacy": "1"}, headers=bearer(again))
    await sweep(services, pause=0)
    assert await rows.fetchval(CONSENTS) == 1
    events = await rows.fetch("SELECT host(ip) FROM events WHERE user_id = $1::text::uuid", again["user"]["id"])
    assert {row["host"] for row in events} == {"127.0.0.1"}


@pytest.mark.slow
@pytest.mark.parametrize("as_former", [False, True], ids=["as they were", "as a former id"])
async def test_a_user_restored_while_the_erasure_waits_keeps_the_restored_data(
    client: Client, services: Services, login: LogIn, rows: Rows, as_former: bool
) -> None:
    alice = await login("alice")
    user_id = alice["user"]["id"]
    await rows.execute(ADD_CONSENTS, MORE_THAN_AT_ONCE, user_id)
    await erase(client, alice)
    consent = {"document": "privacy", "version": "1", "given_at": "2025-01-01T00:00:00Z", "ip": "198.51.100.1"}
    line = {"app_id": APP["app_id"], "openid": "openid-a1-alice", "consents": [consent]}
    line |= {"former_ids": [user_id]} if as_former else {"user_id": user_id}
    assert await Mover(services, rows).import_lines(line, restore=True) == (1, 0, 0, 0)
    await sweep(services, pause=0)
    again = await login("alice")
    listed = (await client.get("/v1/me/consents", headers=bearer(again))).json()["items"]
    assert [item["ip"] for item in listed] == ["198.51.100.1"]


@pytest.mark.slow
async def test_a_merge_leaves_a_long_history_of_consents_in_place(
    make_services: MakeServices, make_client: MakeClient, wechat: WeChatByRespx, rows: Rows
) -> None:
    services = await make_services(apps=[APP, OTHER_APP], consents="privacy:1,terms:1")
    client = make_client(services)

    login = LogIn(client, wechat)
    former = await login(consents={"privacy": "1"})
    await rows.execute(ADD_CONSENTS, MORE_THAN_AT_ONCE, former["user"]["id"])
    former_place = "SELECT count(*) FROM consents WHERE user_id = $1::text::uuid"
    written = await rows.fetchval("SELECT max(xmin::text::bigint) FROM consents")
    await login(app=OTHER_APP, unionid="union-alice", consents={"terms": "1"})
    alice = await login(unionid="union-alice")
    assert alice["user"]["id"] != former["user"]["id"]
    assert alice["user"]["consents_due"] == [], "the former user's consents hold"
    kept = await rows.fetchval(former_place, former["user"]["id"])
    assert kept == MORE_THAN_AT_ONCE + 1
    assert await rows.fetchval("SELECT count(*) FROM consents WHERE xmin::text::bigint > $1", written) == 1

    assert (await client.delete("/v1/me/consents/privacy", headers=bearer(alice))).status_code == 204
    listed = (await client.get("/v1/me/consents", headers=bearer(alice))).json()["items"]
    held = {item["document"] for item in listed if item["withdrawn_at"] is None}
    assert (held, len(listed)) == ({"terms"}, 100)
    await erase(client, alice)
    await sweep(services, pause=0)
    assert await rows.fetchval(CONSENTS) == 0


@pytest.mark.slow
async def test_a_merged_user_is_erased_under_every_former_id(
    root: Admin, services: Services, client: Client, login: LogIn, rows: Rows
) -> None:
    ids = [(await login(person))["user"]["id"] for person in ("alice", "bob", "carol")]
    for user_id in ids:
        await rows.execute(ADD_EVENTS, MORE_THAN_AT_ONCE, "system", user_id)
    for user_id in ids[:2]:
        await root.ask("POST", f"/users/{user_id}/merge", json={"into": ids[2]})
    await erase(client, await login("alice"))
    for user_id in ids:
        shown = (await root.read("/events", user_id=user_id, type="nickname.flagged", limit=200))["items"]
        assert {event["ip"] for event in shown} == {None}
    await sweep(services, pause=0)
    assert await rows.fetchval(ADDRESSES) == 0


async def test_an_administrator_who_erases_themselves_leaves_no_address(root: Admin, login: LogIn, rows: Rows) -> None:
    other = await login("alice")
    await root.change(other["user"]["id"], roles=["admin"])
    assert (await root.ask("DELETE", f"/users/{root.id}")).status_code == 204
    assert not await rows.fetch("SELECT FROM events WHERE actor = $1 AND ip IS NOT NULL", root.id)
