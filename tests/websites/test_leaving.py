"""Websites and a person who is leaving: what was approved is worth nothing."""

import pytest

from tests.problems import problem_of
from tests.world import GetPhone, LogIn, MakeServices, Phone, Site, leave
from wxauth.server.core.services import Services


@pytest.fixture
async def services(make_services: MakeServices) -> Services:
    return await make_services(erasure_grace_days=7)


@pytest.mark.slow
async def test_what_was_approved_or_claimed_is_worth_nothing(
    site: Site, phone: Phone, login: LogIn, get_phone: GetPhone
) -> None:
    tokens = await logged_in(site, phone)
    approved, claimed = await site.start(), await site.start()
    await phone.approve(approved)
    scan = (await phone.scan(claimed)).json()
    assert (await leave(phone.client, phone.tokens)).status_code == 202
    assert (await site.refresh(tokens)).json()["error"] == "invalid_grant"
    problem_of(await phone.decide(scan["id"]), "invalid_token", 401)
    problem_of(await phone.scan(await site.start()), "invalid_token", 401)
    await login("alice", stay=True)
    assert (await site.poll(approved)).json()["error"] == "access_denied"
    await logged_in(site, await get_phone("alice"))


async def logged_in(site: Site, phone: Phone) -> dict[str, str]:
    started = await site.start()
    await phone.approve(started)
    answer = await site.poll(started)
    assert answer.status_code == 200, answer.text
    return answer.json()
