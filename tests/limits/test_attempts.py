"""Limits how often wxauth calls WeChat for one user."""

import asyncio
from datetime import timedelta
from typing import Any, Final

import httpx
import pytest

from tests.problems import problem_of
from tests.world import Body, Stage
from wxauth.limits.queries import PHONE_CODES
from wxauth_desk.wechat import APPS

MAX_PHONE_CODES: Final = PHONE_CODES.at_most
PHONE: Any = "getuserphonenumber"
TEXT: Any = "msg_sec_check"
A_SECOND = timedelta(seconds=1)

pytestmark = pytest.mark.settings(consents="privacy:2026-05,terms:3", access_token_ttl=86400)


async def send_wrong_codes(stage: Stage, login: Body, number: int = MAX_PHONE_CODES) -> None:
    # This isn't the errcode of an invalid code. For that errcode, wxauth would ask other replicas for more than a
    # second.
    stage.simulator.fail(PHONE, errcode=47001, times=number)
    for n in range(number):
        problem_of(await stage.bind(login, f"nonsense{n}"), "wechat_bad_response", 502)


def refused(answer: httpx.Response, *, retry_after: int = 3600) -> None:
    problem_of(answer, "rate_limited", 429)
    assert int(answer.headers["retry-after"]) == retry_after


# Phone codes.


@pytest.mark.slow
@pytest.mark.usefixtures("simulated")
async def test_after_twenty_refused_codes_of_a_user_in_an_app_wechat_is_not_asked_for_an_hour(stage: Stage) -> None:
    alice, bob = await stage.login(), await stage.login("bob")
    assert (await stage.bind(alice, code := stage.phone_code())).status_code == 200
    await send_wrong_codes(stage, alice, MAX_PHONE_CODES - 1)
    refused(await stage.bind(alice, "nonsense"))
    assert (await stage.bind(alice, code)).status_code == 200, "its answer is stored"
    assert len(stage.asked(PHONE)) == MAX_PHONE_CODES
    assert (await stage.bind(bob, stage.phone_code("bob"))).status_code == 200
    elsewhere = await stage.login(app_id=APPS[1]["app_id"])
    problem_of(await stage.bind(elsewhere, "nonsense"), "invalid_code", 400)
    asked = len(stage.asked(PHONE))
    stage.clock.advance(minutes=59, seconds=59)
    alice = await stage.login()
    refused(await stage.bind(alice, stage.phone_code()), retry_after=1)
    assert len(stage.asked(PHONE)) == asked
    stage.clock.advance(seconds=1)
    assert (await stage.bind(alice, stage.phone_code())).status_code == 200


@pytest.mark.slow
@pytest.mark.usefixtures("simulated")
async def test_a_limit_reached_while_the_clock_was_ahead_is_over_when_it_is_right_again(stage: Stage) -> None:
    stage.clock.advance(days=31)
    alice = await stage.login()
    await send_wrong_codes(stage, alice)
    refused(await stage.bind(alice, "nonsense"))
    stage.clock.advance(days=-31)
    answer = await stage.bind(await stage.login(), stage.phone_code())
    assert answer.status_code == 200, answer.text


@pytest.mark.slow
@pytest.mark.usefixtures("simulated")
async def test_concurrent_phone_codes_do_not_exceed_the_limit(stage: Stage) -> None:
    alice = await stage.login()
    replicas = [stage, *[await stage.replica() for _ in range(3)]]
    answers = await asyncio.gather(*(replicas[n % 4].bind(alice, f"nonsense{n}") for n in range(60)))
    assert sorted(answer.status_code for answer in answers) == [400] * MAX_PHONE_CODES + [429] * (60 - MAX_PHONE_CODES)
    assert len(stage.asked(PHONE)) == MAX_PHONE_CODES


@pytest.mark.usefixtures("simulated")
async def test_phone_codes_sent_with_a_login_are_counted_and_the_login_succeeds(stage: Stage) -> None:
    stage.simulator.fail(PHONE, errcode=47001, times=MAX_PHONE_CODES)
    for n in range(MAX_PHONE_CODES):
        assert (await stage.login(phone_code=f"nonsense{n}"))["phone_error"] == "wechat_bad_response"
    assert (await stage.login(phone_code=stage.phone_code()))["phone_error"] == "rate_limited"
    assert len(stage.asked(PHONE)) == MAX_PHONE_CODES


@pytest.mark.parametrize(
    ("fault", "status"),
    [({"errcode": 48001}, 502), ({"errcode": 45009}, 429), ({"errcode": -1}, 503), ({"garbage": True}, 502)],
    ids=str,
)
@pytest.mark.usefixtures("simulated")
async def test_a_failure_that_is_not_the_codes_fault_is_not_counted(stage: Stage, fault: Body, status: int) -> None:
    alice = await stage.login()
    stage.simulator.fail(PHONE, times=None, **fault)
    assert (await stage.bind(alice, stage.phone_code())).status_code == status
    assert await stage.rows.fetchval("SELECT number FROM attempts") == 0
