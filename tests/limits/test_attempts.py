"""Limits on calls to WeChat for one user."""

import asyncio
from datetime import timedelta
from typing import Any

import httpx
import pytest

from tests.fakes import Clock
from tests.problems import problem_of
from tests.world import Body, LogLines, MakeService, Rows, Service, leave
from wxauth.server.core.background import Background
from wxauth.server.dev.wechat import APPS
from wxauth.server.housekeeping.housekeeping import sweep
from wxauth.server.limits.rows import MAX_ATTEMPTS, WINDOW

PHONE: Any = "getuserphonenumber"
TEXT: Any = "msg_sec_check"
A_SECOND = timedelta(seconds=1)


async def send_wrong_codes(service: Service, login: Body, number: int = MAX_ATTEMPTS) -> None:
    # Another errcode than that of a made-up code, which is looked for at other replicas, for more than a second.
    service.simulator.fail(PHONE, errcode=47001, times=number)
    for n in range(number):
        problem_of(await service.bind(login, f"nonsense{n}"), "wechat_bad_response", 502)


def refused(answer: httpx.Response, *, retry_after: int = 3600) -> None:
    problem_of(answer, "rate_limited", 429)
    assert int(answer.headers["retry-after"]) == retry_after


# Phone codes.


async def test_after_twenty_refused_codes_wechat_is_not_asked_again_for_an_hour(service: Service, clock: Clock) -> None:
    alice = await service.log_in()
    await send_wrong_codes(service, alice)
    refused(await service.bind(alice, "nonsense"))
    clock.advance(minutes=59, seconds=59)
    alice = await service.log_in()
    refused(await service.bind(alice, service.phone_code()), retry_after=1)
    assert len(service.asked(PHONE)) == MAX_ATTEMPTS
    clock.advance(seconds=1)
    assert (await service.bind(alice, service.phone_code())).status_code == 200


@pytest.mark.slow
async def test_concurrent_phone_codes_do_not_exceed_the_limit(service: Service, make_service: MakeService) -> None:
    alice = await service.log_in()
    replicas = [service, *[await make_service() for _ in range(3)]]
    answers = await asyncio.gather(*(replicas[n % 4].bind(alice, f"nonsense{n}") for n in range(60)))
    assert sorted(answer.status_code for answer in answers) == [400] * MAX_ATTEMPTS + [429] * (60 - MAX_ATTEMPTS)
    assert len(service.asked(PHONE)) == MAX_ATTEMPTS


async def test_phone_codes_sent_with_a_login_are_counted_and_the_login_succeeds(service: Service) -> None:
    service.simulator.fail(PHONE, errcode=47001, times=MAX_ATTEMPTS)
    for n in range(MAX_ATTEMPTS):
        assert (await service.log_in(phone_code=f"nonsense{n}"))["phone_error"] == "wechat_bad_response"
    assert (await service.log_in(phone_code=service.phone_code()))["phone_error"] == "rate_limited"
    assert len(service.asked(PHONE)) == MAX_ATTEMPTS


@pytest.mark.slow
async def test_the_limit_is_per_user_and_app(service: Service) -> None:
    await send_wrong_codes(service, await service.log_in())
    bob = await service.log_in("bob")
    assert (await service.bind(bob, service.phone_code("bob"))).status_code == 200
    elsewhere = await service.log_in(app_id=APPS[1]["app_id"])
    problem_of(await service.bind(elsewhere, "nonsense"), "invalid_code", 400)


@pytest.mark.parametrize(
    ("fault", "status"),
    [({"errcode": 48001}, 502), ({"errcode": 45009}, 429), ({"errcode": -1}, 503), ({"garbage": True}, 502)],
    ids=str,
)
async def test_a_failure_that_is_not_the_codes_fault_is_not_counted(
    service: Service, fault: dict[str, Any], status: int, rows: Rows
) -> None:
    alice = await service.log_in()
    service.simulator.fail(PHONE, times=None, **fault)
    assert (await service.bind(alice, service.phone_code())).status_code == status
    assert await rows.fetchval("SELECT number FROM attempts") == 0


async def test_an_erasure_does_not_reset_the_limit(service: Service) -> None:
    alice = await service.log_in()
    await send_wrong_codes(service, alice)
    assert (await leave(service.client, alice)).status_code == 204
    refused(await service.bind(await service.log_in(), "nonsense"))


async def test_a_stored_answer_is_found_even_after_too_many_attempts(service: Service) -> None:
    alice = await service.log_in()
    code = service.phone_code()
    assert (await service.bind(alice, code)).status_code == 200
    await send_wrong_codes(service, alice, MAX_ATTEMPTS - 1)
    refused(await service.bind(alice, service.phone_code()))
    assert (await service.bind(alice, code)).status_code == 200


# Names.


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["flag", "block"])
async def test_after_twenty_new_names_wechat_is_asked_about_none_for_an_hour(
    make_service: MakeService, clock: Clock, policy: str
) -> None:
    service = await make_service(nickname_check=policy)
    alice = await service.log_in()
    for n in range(MAX_ATTEMPTS):
        assert (await service.change(alice, nickname=f"Alice {n}")).status_code == 200
    refused(await service.change(alice, nickname="Alice"))
    assert (await service.change(alice, nickname=f"Alice {MAX_ATTEMPTS - 1}")).status_code == 200, (
        "WeChat is not asked about it"
    )
    await service.services[Background].drain()
    assert len(service.asked(TEXT)) == MAX_ATTEMPTS
    clock.now += WINDOW
    assert (await service.change(await service.log_in(), nickname="Alice")).status_code == 200


@pytest.mark.slow
async def test_a_login_with_a_name_beyond_the_limit_keeps_the_former_name(
    make_service: MakeService, log_lines: LogLines
) -> None:
    service = await make_service(nickname_check="block")
    for n in range(MAX_ATTEMPTS):
        assert (await service.log_in(nickname=f"Alice {n}"))["user"]["nickname"] == f"Alice {n}"
    assert (await service.log_in(nickname="Alice"))["user"]["nickname"] == f"Alice {MAX_ATTEMPTS - 1}"
    assert len(service.asked(TEXT)) == MAX_ATTEMPTS
    lines = [line["reason"] for line in log_lines() if line["event"] == "login_without_nickname"]
    assert lines == ["rate_limited"]


# Kept no longer than needed.


async def test_attempts_are_swept_when_their_hour_is_over(service: Service, clock: Clock, rows: Rows) -> None:
    for person in ("alice", "bob", "carol"):
        await send_wrong_codes(service, await service.log_in(person), 1)
    clock.now += WINDOW
    await sweep(service.services, page_size=1, pause=0)
    assert await rows.fetchval("SELECT count(*) FROM attempts") == 3
    clock.now += A_SECOND
    await sweep(service.services, page_size=1, pause=0)
    assert await rows.fetchval("SELECT count(*) FROM attempts") == 0
