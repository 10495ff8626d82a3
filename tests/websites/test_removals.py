"""A site is removed in the moment in which a person logs in to it."""

from asyncio import create_task
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from tests.problems import problem_of
from tests.websites.browsers import House, refused
from tests.world import Admin, until_locked
from wxauth.server.clients.clients import remove_client

pytestmark = pytest.mark.own_database

Act = Callable[[], Coroutine[Any, Any, Any]]


async def both(house: House, held: str, *acts: Act) -> list[Any]:
    """Do both at once, in this order, after both have come to wait behind a lock on this table."""
    tasks = []
    async with house.rows.transaction():
        await house.rows.execute(f"SELECT FROM {held} FOR UPDATE")
        for number, act in enumerate(acts):
            tasks.append(create_task(act()))
            await until_locked(house.rows, number + 1)
    return [await task for task in tasks]


def removal_from(house: House) -> Act:
    return lambda: remove_client(house.services.database, "shop", now=house.clock())


@pytest.mark.parametrize("is_removed_first", [True, False])
async def test_an_approval_before_the_removal_leaves_no_grant_and_one_after_it_finds_no_scan(
    house: House, is_removed_first: bool
) -> None:
    _, scan_id = await house.claimed()
    acts: list[Act] = [lambda: house.phone.decide(scan_id), removal_from(house)]
    if is_removed_first:
        _, approved = await both(house, "clients", *reversed(acts))
        problem_of(approved, "scan_over", 404)
    else:
        approved, _ = await both(house, "clients", *acts)
        assert approved.status_code == 204
    assert await house.count("site_logins") == 0


@pytest.mark.parametrize("is_removed_first", [True, False])
async def test_a_session_that_is_opened_before_the_removal_ends_with_it_and_none_is_opened_after_it(
    house: House, is_removed_first: bool
) -> None:
    started = await house.approved()
    acts: list[Act] = [lambda: house.shop.poll(started), removal_from(house)]
    if is_removed_first:
        _, answer = await both(house, "site_logins", *reversed(acts))
        refused(answer, "invalid_grant")
    else:
        answer, _ = await both(house, "site_logins", *acts)
        assert answer.status_code == 200
    ended = "SELECT array_agg(revoked_reason) FROM sessions WHERE client_id IS NOT NULL"
    assert await house.rows.fetchval(ended) == (None if is_removed_first else ["administrator"])


@pytest.mark.parametrize("ban_is_first", [True, False])
async def test_a_ban_in_the_moment_of_a_removal_waits_for_it_or_it_for_the_ban(
    house: House, root: Admin, ban_is_first: bool
) -> None:
    """The ban changes the rows of what was approved in the order of their ids, the removal as it finds them."""
    first, second = [await house.browser.show(), await house.browser.show()]
    for tab in (second, first):
        assert "code" in await tab.approved_by(house.phone)
    acts = [removal_from(house), lambda: root.change(house.phone.user_id, status="disabled")]
    held = "site_logins WHERE id = (SELECT id FROM site_logins ORDER BY id DESC LIMIT 1)"
    await both(house, held, *(reversed(acts) if ban_is_first else acts))
    assert await house.count("site_logins") == 0
    assert await house.count("users WHERE status = 'disabled' AND id = $1::text::uuid", house.phone.user_id) == 1
