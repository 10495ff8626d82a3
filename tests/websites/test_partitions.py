"""Sessions of websites in partitions."""

from datetime import timedelta

import asyncpg
import pytest

from tests.fakes import Clock
from tests.world import AddSite, GetPhone
from wxauth.server.core.services import Services
from wxauth.server.housekeeping.housekeeping import keep_session_partitions
from wxauth.server.sessions.partitions import begin_partitions

pytestmark = [pytest.mark.own_database, pytest.mark.oldest_postgres]


async def test_an_end_in_any_week_is_queued_for_the_site_and_its_rows_go_with_the_week(
    add_site: AddSite, get_phone: GetPhone, services: Services, rows: asyncpg.Connection, clock: Clock
) -> None:
    shop = await add_site(device=True, backchannel_logout_uri="https://shop.example.com/out")
    await begin_partitions(services.database, now=clock())
    clock.advance(weeks=2)
    phone = await get_phone("alice")
    started = await shop.start(scope="openid")
    await phone.approve(started)
    assert (await shop.poll(started)).status_code == 200
    week = f"sessions_{clock() - timedelta(days=clock().weekday()):%Y%m%d}"
    assert await rows.fetchval(f"SELECT count(*) FROM {week} WHERE client_id = 'shop'") == 1
    assert (await phone.ask("DELETE", "/sessions")).status_code == 204
    assert await rows.fetchval("SELECT count(*) FROM backchannel_logouts") == 1
    clock.advance(days=400)
    await keep_session_partitions(services, page_size=2, pause=0)
    assert await rows.fetchval("SELECT to_regclass($1)", week) is None
    assert await rows.fetchval("SELECT count(*) FROM website_sessions") == 0
