"""A site is removed in the moment in which a person logs in to it."""

from asyncio import create_task
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from tests.fakes import Clock
from tests.problems import problem_of
from tests.websites.browsers import Browser, refused
from tests.world import AddSite, Admin, MakeClient, Phone, Rows, Site, until_locked
from wxauth.server.clients.clients import remove_client
from wxauth.server.core.services import Services

pytestmark = pytest.mark.own_database

Act = Callable[[], Coroutine[Any, Any, Any]]


async def both(rows: Rows, held: str, *acts: Act) -> list[Any]:
    """Do both at once, in this order, after both have come to wait behind a lock on this table."""
    tasks = []
    async with rows.transaction():
        await rows.execute(f"SELECT FROM {held} FOR UPDATE")
        for number, act in enumerate(acts):
            tasks.append(create_task(act()))
            await until_locked(rows, number + 1)
    return [await task for task in tasks]


@pytest.fixture
def remove(services: Services, clock: Clock) -> Act:
    return lambda: remove_client(services.database, "shop", now=clock())


async def test_an_approval_before_the_removal_is_good_and_leaves_no_grant(
    site: Site, phone: Phone, remove: Act, rows: Rows
) -> None:
    scan_id = (await phone.scan(await site.start())).json()["id"]
    approved, _ = await both(rows, "clients", lambda: phone.decide(scan_id), remove)
    assert approved.status_code == 204
    assert await rows.fetchval("SELECT count(*) FROM site_logins") == 0


async def test_an_approval_after_the_removal_finds_no_scan(site: Site, phone: Phone, remove: Act, rows: Rows) -> None:
    scan_id = (await phone.scan(await site.start())).json()["id"]
    _, approved = await both(rows, "clients", remove, lambda: phone.decide(scan_id))
    problem_of(approved, "scan_over", 404)
    assert await rows.fetchval("SELECT count(*) FROM site_logins") == 0


async def test_a_session_that_is_opened_before_the_removal_ends_with_it(
    site: Site, phone: Phone, remove: Act, rows: Rows
) -> None:
    started = await site.start()
    await phone.approve(started)
    answer, _ = await both(rows, "site_logins", lambda: site.poll(started), remove)
    assert answer.status_code == 200
    ended = "SELECT array_agg(revoked_reason) FROM sessions WHERE client_id IS NOT NULL"
    assert await rows.fetchval(ended) == ["administrator"]


async def test_no_session_is_opened_after_the_removal(site: Site, phone: Phone, remove: Act, rows: Rows) -> None:
    started = await site.start()
    await phone.approve(started)
    answer: httpx.Response
    _, answer = await both(rows, "site_logins", remove, lambda: site.poll(started))
    refused(answer, "invalid_grant")
    assert await rows.fetchval("SELECT count(*) FROM sessions WHERE client_id IS NOT NULL") == 0


@pytest.mark.parametrize("ban_is_first", [True, False])
async def test_a_ban_in_the_moment_of_a_removal_waits_for_it_or_it_for_the_ban(
    add_site: AddSite,
    make_client: MakeClient,
    services: Services,
    phone: Phone,
    root: Admin,
    remove: Act,
    rows: Rows,
    ban_is_first: bool,
) -> None:
    """The ban changes the rows of what was approved in the order of their ids, the removal as it finds them."""
    await add_site()
    browser = Browser(make_client(services))
    first, second = [await browser.show(), await browser.show()]
    for tab in (second, first):
        assert "code" in await tab.approved_by(phone)
    acts = [remove, lambda: root.change(phone.user_id, status="disabled")]
    held = "site_logins WHERE id = (SELECT id FROM site_logins ORDER BY id DESC LIMIT 1)"
    await both(rows, held, *(reversed(acts) if ban_is_first else acts))
    assert await rows.fetchval("SELECT count(*) FROM site_logins") == 0
    assert await rows.fetchval("SELECT status FROM users WHERE id = $1::text::uuid", phone.user_id) == "disabled"
