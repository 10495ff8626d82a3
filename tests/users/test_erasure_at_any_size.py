"""A large account disappears at once for everybody who reads it. Its remaining rows are then erased in pages."""

import asyncio
import json

import pytest

from tests.fakes import APP, OTHER_APP
from tests.import_export.mover import Mover
from tests.world import Admin, Body, Client, Stage, bearer, leave, recorded, until
from wxauth.housekeeping.housekeeping import keep_house, sweep, sweep_now
from wxauth.users.erasure_queries import MAX_ROWS_ERASED_WITH_USER

pytestmark = pytest.mark.usefixtures("bystander")

MANY = 30_000
"""A number of rows that is thirty times what an erasure deletes at once."""
MORE_THAN_AT_ONCE = MAX_ROWS_ERASED_WITH_USER + 500

# $1 is the number of events, $2 the actor and $3 the user's id.
ADD_EVENTS = """
INSERT INTO events (id, type, at, actor, user_id, ip, data)
SELECT ('01900000-0000-7000-' || substr(md5($2 || $3), 1, 4) || '-' || lpad(to_hex(n), 12, '0'))::uuid,
       'scan.approved', now(), $2, $3::text::uuid, '203.0.113.7', '{"client_id": "Alice"}'
  FROM generate_series(1, $1) AS n
"""
# $1 is the number of consents and $2 the user's id.
ADD_CONSENTS = """
INSERT INTO consents (id, user_id, document, version, given_at, withdrawn_at, app_id, ip)
SELECT gen_random_uuid(), $2::text::uuid, 'privacy', '1', '2020-01-01'::timestamptz - make_interval(secs => n), now(),
       'wx', '203.0.113.7'
  FROM generate_series(1, $1) AS n
"""
ADDRESSES = "events WHERE host(ip) = '203.0.113.7'"


async def erase(client: Client, answer: Body) -> None:
    erased = await leave(client, answer)
    assert erased.status_code == 204, erased.text


@pytest.mark.slow
@pytest.mark.own_database
async def test_a_large_account_is_erased_in_part_at_once_and_completely_by_the_sweep(stage: Stage, root: Admin) -> None:
    alice = await stage.login("alice")
    user_id = alice["user"]["id"]
    await stage.rows.execute(ADD_EVENTS, MANY // 2, user_id, user_id)
    await stage.rows.execute(ADD_EVENTS, MANY // 2, user_id, root.id)
    await stage.rows.execute(ADD_CONSENTS, MANY, user_id)
    left = await stage.number(ADDRESSES)
    await erase(stage.client, alice)
    assert await stage.number(ADDRESSES) >= left - MAX_ROWS_ERASED_WITH_USER, "the rest is not the request's work"
    assert (await stage.login("alice"))["is_new_user"]

    await sweep(stage.services, page_size=10_000, pause=0)
    assert (await stage.number(ADDRESSES), await stage.number("consents")) == (0, 0)
    about = await stage.rows.fetch("SELECT DISTINCT data FROM events WHERE user_id = $1::text::uuid", user_id)
    assert "Alice" not in str(about)
    assert not await stage.rows.fetch("SELECT FROM erasures")


@pytest.mark.slow
async def test_data_that_waits_for_erasure_is_shown_to_nobody(stage: Stage, root: Admin) -> None:
    alice = await stage.login("alice")
    user_id = alice["user"]["id"]
    await stage.rows.execute(ADD_EVENTS, MORE_THAN_AT_ONCE, "system", user_id)
    await stage.rows.execute(ADD_EVENTS, MORE_THAN_AT_ONCE, user_id, root.id)
    assert (await root.ask("DELETE", f"/users/{user_id}")).status_code == 204
    for _ in ("while it waits", "when it is erased"):
        about = await root.read("/events", user_id=user_id, limit=200)
        erased, ended, *flagged = about["items"]
        assert (erased["type"], erased["ip"]) == ("user.erased", "127.0.0.1"), "who has erased, and from where, is kept"
        assert ended["data"] == {"session_ids": [alice["session_id"]], "reason": "erased"}
        assert {(event["ip"], json.dumps(event["data"])) for event in flagged} == {(None, "{}")}
        by = (await root.read("/events", user_id=root.id, type="scan.approved", limit=200))["items"]
        assert {(event["ip"], json.dumps(event["data"])) for event in by} == {(None, '{"client_id": "Alice"}')}
        await sweep(stage.services, pause=0)
    assert await stage.number(ADDRESSES) == 0


async def test_waiting_erasures_are_shown_to_operators(stage: Stage) -> None:
    alice = await stage.login("alice")
    await stage.rows.execute(ADD_EVENTS, MORE_THAN_AT_ONCE, "system", alice["user"]["id"])
    await erase(stage.client, alice)
    for waiting in ("1.0", "0.0"):
        assert f"wxauth_erasures_waiting {waiting}" in (await stage.client.get("/metrics")).text
        await sweep(stage.services, pause=0)
        stage.clock.advance(minutes=1)


@pytest.mark.slow
async def test_replicas_that_erase_at_the_same_time_leave_nothing(stage: Stage) -> None:
    for person in ("alice", "bob"):
        answer = await stage.login(person)
        await stage.rows.execute(ADD_EVENTS, MORE_THAN_AT_ONCE, "system", answer["user"]["id"])
        await stage.rows.execute(ADD_CONSENTS, MORE_THAN_AT_ONCE, answer["user"]["id"])
        await erase(stage.client, answer)
    replicas = [await stage.make_services() for _ in range(3)]
    await asyncio.gather(*(sweep_now(replica, page_size=100) for replica in replicas))
    assert (await stage.number(ADDRESSES), await stage.number("consents")) == (0, 0)


@pytest.mark.slow
async def test_an_interrupted_erasure_is_continued_by_another_worker(stage: Stage) -> None:
    alice = await stage.login("alice")
    await stage.rows.execute(ADD_EVENTS, 3 * MAX_ROWS_ERASED_WITH_USER, "system", alice["user"]["id"])
    await erase(stage.client, alice)
    left = await stage.number(ADDRESSES)
    stopped = asyncio.create_task(sweep(await stage.make_services(), page_size=500, pause=3600))
    await until(lambda: stage.rows.fetchval(f"SELECT count(*) < $1 FROM {ADDRESSES}", left))  # then it pauses
    stopped.cancel()
    assert await stage.number(ADDRESSES) > 0
    keeping = asyncio.create_task(keep_house(await stage.make_services(), check_pause=0.01))
    await until(lambda: stage.rows.fetchval(f"SELECT count(*) = 0 FROM {ADDRESSES}"))
    keeping.cancel()


@pytest.mark.oldest_postgres
async def test_a_login_after_the_erasure_keeps_its_new_consent(stage: Stage) -> None:
    client = await stage.make(consents="privacy:1")
    alice = await stage.login("alice")
    await stage.rows.execute(ADD_EVENTS, MORE_THAN_AT_ONCE, "system", alice["user"]["id"])
    await erase(client, alice)
    again = await stage.login("alice")
    await client.post("/v1/me/consents", json={"privacy": "1"}, headers=bearer(again))
    await sweep(stage.services, pause=0)
    assert await stage.number("consents") == 1
    events = await stage.rows.fetch("SELECT host(ip) FROM events WHERE user_id = $1::text::uuid", again["user"]["id"])
    assert {row["host"] for row in events} == {"127.0.0.1"}


@pytest.mark.slow
@pytest.mark.parametrize("as_former", [False, True], ids=["as they were", "as a former id"])
async def test_a_user_restored_while_the_erasure_waits_keeps_the_restored_data(stage: Stage, as_former: bool) -> None:
    alice = await stage.login("alice")
    user_id = alice["user"]["id"]
    await stage.rows.execute(ADD_CONSENTS, MORE_THAN_AT_ONCE, user_id)
    await erase(stage.client, alice)
    consent = {"document": "privacy", "version": "1", "given_at": "2025-01-01T00:00:00Z", "ip": "198.51.100.1"}
    line = {"app_id": APP["app_id"], "openid": "openid-a1-alice", "consents": [consent]}
    line |= {"former_ids": [user_id]} if as_former else {"user_id": user_id}
    assert await Mover(stage).import_lines(line, restores_erased=True) == (1, 0, 0, 0)
    await sweep(stage.services, pause=0)
    again = await stage.login("alice")
    listed = (await stage.client.get("/v1/me/consents", headers=bearer(again))).json()["items"]
    assert [item["ip"] for item in listed] == ["198.51.100.1"]


@pytest.mark.slow
async def test_a_merge_leaves_a_long_history_of_consents_in_place(stage: Stage) -> None:
    stage = await stage.replica(apps=[APP, OTHER_APP], consents="privacy:1,terms:1")
    former_id = (await stage.login(consents={"privacy": "1"}))["user"]["id"]
    await stage.rows.execute(ADD_CONSENTS, MORE_THAN_AT_ONCE, former_id)
    written = await stage.rows.fetchval("SELECT max(xmin::text::bigint) FROM public.consents")
    await stage.login(app=OTHER_APP, unionid="union-alice", consents={"terms": "1"})
    alice = await stage.login(unionid="union-alice")
    assert alice["user"]["id"] != former_id
    assert alice["user"]["consents_due"] == [], "the former user's consents hold"
    assert await stage.number(f"consents WHERE user_id = '{former_id}'") == MORE_THAN_AT_ONCE + 1
    assert await stage.number(f"public.consents WHERE xmin::text::bigint > {written}") == 1

    headers = bearer(alice)
    assert (await stage.client.delete("/v1/me/consents/privacy", headers=headers)).status_code == 204
    listed = (await stage.client.get("/v1/me/consents", headers=headers)).json()["items"]
    held = {item["document"] for item in listed if item["withdrawn_at"] is None}
    assert (held, len(listed)) == ({"terms"}, 100)
    await erase(stage.client, alice)
    await sweep(stage.services, pause=0)
    assert await stage.number("consents") == 0


@pytest.mark.slow
async def test_a_merged_user_is_erased_under_every_former_id(stage: Stage, root: Admin) -> None:
    ids = [(await stage.login(person))["user"]["id"] for person in ("alice", "bob", "carol")]
    for user_id in ids:
        await stage.rows.execute(ADD_EVENTS, MORE_THAN_AT_ONCE, "system", user_id)
    for user_id in ids[:2]:
        await root.merge(user_id, into=ids[2])
    await erase(stage.client, await stage.login("alice"))
    for user_id in ids:
        shown = (await root.read("/events", user_id=user_id, type="scan.approved", limit=200))["items"]
        assert {(event["ip"], json.dumps(event["data"])) for event in shown} == {(None, "{}")}
    kept = await recorded(stage.rows, "user_id, data", "type IN ('user.merged', 'user.erased')")
    merged = [{"by": "operator", "former_id": former_id} for former_id in ids[:2]]
    assert kept == [(ids[2], data) for data in (*merged, {"former_ids": ids[:2]})]
    assert await stage.number("former_users") == 0
    await sweep(stage.services, pause=0)
    assert await stage.number(ADDRESSES) == 0


async def test_an_administrator_who_erases_themselves_leaves_no_address(stage: Stage, root: Admin) -> None:
    await root.change((await stage.login("alice"))["user"]["id"], roles=["admin"])
    assert (await root.ask("DELETE", f"/users/{root.id}")).status_code == 204
    assert not await stage.rows.fetch("SELECT FROM events WHERE actor = $1 AND ip IS NOT NULL", root.id)
