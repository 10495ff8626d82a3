"""A site with many open sessions is removed. It is refused at once, and its sessions end page by page."""

import asyncio
from dataclasses import replace
from functools import partial

import pytest

from tests.database_proxy import Proxy
from tests.problems import problem_of
from tests.sites.browsers import House, refused
from tests.world import Admin, bearer, locked, until
from wxauth.housekeeping.housekeeping import PAGE_SIZE, keep_house, sweep

PAGES = 20
# $1 is the number of people, each of whom has a session at the shop. $2 is the current time. Their sessions have the
# lowest ids, so they end before any other.
CROWD = """
WITH made AS MATERIALIZED (
    SELECT n, gen_random_uuid() AS user_id,
           overlay(gen_random_uuid()::text PLACING '00000000' FROM 1)::uuid AS session_id
      FROM generate_series(1, $1) AS n
), people AS (
    INSERT INTO users (id, created_at) SELECT user_id, $2 FROM made
), opened AS (
    INSERT INTO sessions (id, user_id, app_id, openid, created_at, last_used_at, expires_at, client_id, scope)
    SELECT session_id, user_id, 'wx', n, $2, $2, '2100-01-01', 'shop', 'openid' FROM made
)
INSERT INTO website_sessions (client_id, session_id) SELECT 'shop', session_id FROM made
"""
OPEN = "sessions WHERE client_id = 'shop' AND revoked_at IS NULL"
pytestmark = [pytest.mark.slow, pytest.mark.own_database]


async def add_crowd(house: House, pages: int) -> None:
    await house.stage.rows.execute(CROWD, pages * PAGE_SIZE, house.stage.clock())


async def assert_all_have_ended_once(house: House) -> None:
    assert await house.stage.number(OPEN) == await house.stage.number("clients WHERE name = 'shop'") == 0
    ids = "SELECT jsonb_array_elements_text(data -> 'session_ids') FROM events WHERE type = 'session.ended'"
    told = [row[0] for row in await house.stage.rows.fetch(f"{ids} AND data ->> 'reason' = 'administrator'")]
    ended = await house.stage.rows.fetch("SELECT id::text FROM sessions WHERE revoked_reason = 'administrator'")
    assert sorted(told) == sorted(row["id"] for row in ended)
    assert len(told) >= PAGE_SIZE


async def test_a_removed_site_is_refused_and_its_sessions_end_in_pages(house: House, root: Admin, proxy: Proxy) -> None:
    await add_crowd(house, PAGES)
    await house.change(backchannel_logout_uri="https://shop.example.com/logout")
    tokens, code, tab = await house.tokens(), await house.code(), await house.browser.show()
    assert (await root.ask("DELETE", "/clients/shop")).status_code == 204
    assert await house.stage.number(OPEN) >= (PAGES - 1) * PAGE_SIZE, "the rest is not the request's work"
    assert (await root.read("/clients"))["items"] == []
    assert await house.stage.number(f"{OPEN} AND user_id = '{house.phone.user_id}'") > 0
    for path in ("/v1/userinfo", "/v1/verify?websites=true"):
        problem_of(await house.stage.client.get(path, headers=bearer(tokens)), "invalid_token", 401)
    refresh = {"grant_type": "refresh_token", "refresh_token": tokens["refresh_token"]}
    refused(await house.shop.post("/v1/token", **refresh), "invalid_client", 401)
    refused(await house.redeem(code), "invalid_client", 401)
    assert (await tab.ask()).status_code == 404
    assert (await house.browser.open()).status_code == 400
    # Otherwise a new client with this name would get the remaining sessions.
    site = {"name": "shop", "redirect_uris": ["https://shop.example.com/callback"]}
    add = partial(root.ask, "POST", "/clients", json=site)
    problem_of(await add(), "name_taken", 409)

    services = await house.stage.make_services(database_url=proxy.url)
    proxy.round_trips = 0
    await sweep(services, pause=0)
    assert proxy.round_trips < 15 * PAGES + 100
    await assert_all_have_ended_once(house)
    assert await house.stage.number("deliveries") == await house.stage.number("site_logins") == 0
    house.shop = replace(house.shop, secret=(await add()).json()["client_secret"])
    refused(await house.shop.post("/v1/token", **refresh), "invalid_grant")
    refused(await house.redeem(code), "invalid_grant")
    problem_of(await house.userinfo(tokens), "invalid_token", 401)
    assert await house.is_in(await house.tokens())


async def test_a_removal_waits_for_nobody_and_locks_no_more_than_a_page_of_people(house: House, root: Admin) -> None:
    await add_crowd(house, 2)
    tokens = await house.tokens()
    async with locked(house.stage.rows, house.phone.user_id):  # an import takes such a lock
        assert (await root.ask("DELETE", "/clients/shop")).status_code == 204
        sweeping = asyncio.create_task(sweep(house.stage.services, pause=0.01))
        await until(partial(house.stage.rows.fetchval, f"SELECT count(*) = 1 FROM {OPEN}"))
        assert not await house.is_in(tokens)
    await sweeping
    replicas = (house.stage.services, await house.stage.make_services())
    keeping = [asyncio.create_task(keep_house(each, check_pause=0.01)) for each in replicas]
    await until(partial(house.stage.rows.fetchval, "SELECT count(*) = 0 FROM clients WHERE name = 'shop'"))
    for task in keeping:
        task.cancel()
    await assert_all_have_ended_once(house)


async def test_a_removed_site_whose_people_are_locked_delays_no_other(house: House, root: Admin) -> None:
    add = partial(root.ask, "POST", "/clients")
    assert (await add(json={"name": "a", "redirect_uris": ["https://a.example.com/callback"]})).status_code == 200
    await add_crowd(house, 3)
    await house.tokens()
    of_alice = "SELECT id FROM sessions WHERE client_id = 'shop' AND user_id = $1::text::uuid"
    move = f"UPDATE website_sessions SET client_id = 'a' WHERE session_id = ({of_alice})"
    await house.stage.rows.execute(move, house.phone.user_id)
    async with locked(house.stage.rows, house.phone.user_id):
        for name in ("a", "shop"):
            assert (await root.ask("DELETE", f"/clients/{name}")).status_code == 204
        await sweep(house.stage.services, pause=0)
        assert await house.stage.rows.fetch("SELECT name FROM clients WHERE removed_by IS NOT NULL") == [("a",)]
