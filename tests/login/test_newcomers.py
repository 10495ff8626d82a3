"""`RISK_POLICY` with simultaneous logins, and with a WeChat that is slow to answer."""

import asyncio
from typing import Any

import httpx
import pytest

from tests.problems import problem_of
from tests.world import MakeService, Rows, Service, make_admin, until
from wxauth.server.core.background import Background
from wxauth.server.dev.wechat import Simulator

RISK: Any = "getuserriskrank"
SHORT = 1.0
"""A WECHAT_TIMEOUT for calls that hang."""

flag_or_block = pytest.mark.parametrize("policy", ["flag", "block"])


async def log_in(service: Service, person: str = "risky-4") -> httpx.Response:
    return await service.log_in.ask(person)


def asked(simulator: Simulator) -> int:
    return len(simulator.calls_of(RISK))


async def test_a_new_user_gets_no_token_while_wechat_is_still_asked(
    make_service: MakeService, simulator: Simulator
) -> None:
    service = await make_service(risk_policy="block")
    simulator.fail(RISK, slow=0.5)
    answers = await asyncio.gather(*(log_in(service) for _ in range(3)))
    for answer in answers:
        problem_of(answer, "wechat_user_blocked", 403)
    assert asked(simulator) == 1


@pytest.mark.slow
async def test_simultaneous_first_logins_at_several_replicas_are_all_blocked(
    make_service: MakeService, simulator: Simulator
) -> None:
    replicas = [await make_service(risk_policy="block") for _ in range(3)]
    simulator.fail(RISK, slow=0.5, times=None)
    answers = await asyncio.gather(*(log_in(service) for service in replicas for _ in range(2)))
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) in [(403, "wechat_user_blocked"), (403, "account_disabled")]


async def test_a_harmless_user_waits_for_the_shared_verdict_and_logs_in(
    make_service: MakeService, simulator: Simulator
) -> None:
    service = await make_service(risk_policy="block")
    simulator.fail(RISK, slow=0.5)
    answers = await asyncio.gather(*(log_in(service, "alice") for _ in range(3)))
    assert {answer.status_code for answer in answers} == {200}
    assert (await log_in(service, "alice")).status_code == 200
    assert asked(simulator) == 1


@pytest.mark.slow
async def test_a_replica_without_a_verdict_checks_for_another_replicas(
    make_service: MakeService, simulator: Simulator
) -> None:
    one, other = [await make_service(risk_policy="block", wechat_timeout=2) for _ in range(2)]
    simulator.fail(RISK, hang=True)  # whoever asks first
    waiting = asyncio.create_task(log_in(one))
    await until(lambda: asked(simulator))
    problem_of(await log_in(other), "wechat_user_blocked", 403)
    problem_of(await waiting, "account_disabled", 403)


@pytest.mark.slow
async def test_a_user_who_passed_because_wechat_was_slow_is_checked_at_the_next_login(
    make_service: MakeService, simulator: Simulator, rows: Rows
) -> None:
    service = await make_service(risk_policy="block", wechat_timeout=SHORT)
    simulator.fail(RISK, hang=True)
    first = await log_in(service)
    assert first.status_code == 200, "WeChat's silence keeps nobody out"
    problem_of(await log_in(service), "wechat_user_blocked", 403)
    assert asked(simulator) == 2
    assert await rows.fetchval("SELECT array_agg(DISTINCT revoked_reason) FROM sessions") == ["banned"]


@flag_or_block
async def test_wechat_is_asked_until_it_has_given_a_verdict_and_never_again(
    make_service: MakeService, simulator: Simulator, policy: str
) -> None:
    service = await make_service(risk_policy=policy)
    simulator.fail(RISK, errcode=48001, times=2)
    for number in (1, 2, 3, 3, 3):
        assert (await log_in(service, "risky-2")).status_code == 200
        await service.services[Background].drain()
        assert asked(simulator) == number


async def test_several_logins_at_once_flag_a_user_once(
    make_service: MakeService, simulator: Simulator, rows: Rows
) -> None:
    service = await make_service(risk_policy="flag")
    simulator.fail(RISK, slow=0.3)
    await asyncio.gather(*(log_in(service, "risky-2") for _ in range(5)))
    await service.services[Background].drain()
    assert asked(simulator) == 1
    assert await rows.fetchval("SELECT count(*) FROM events WHERE type = 'risk.flagged'") == 1


@pytest.mark.slow
async def test_the_next_process_asks_again_for_a_verdict_lost_with_its_process(
    make_service: MakeService, simulator: Simulator
) -> None:
    killed, other = [await make_service(risk_policy="block") for _ in range(2)]
    simulator.fail(RISK, hang=True)
    login = asyncio.create_task(log_in(killed))
    await until(lambda: asked(simulator))
    await killed.services[Background].aclose()
    await asyncio.gather(login, return_exceptions=True)
    problem_of(await log_in(other), "wechat_user_blocked", 403)


@pytest.mark.parametrize(
    ("policy", "person", "event"), [("block", "risky-4", "user.banned"), ("flag", "risky-2", "risk.flagged")]
)
async def test_a_newcomer_who_is_merged_while_wechat_is_asked_is_judged_as_the_user_who_remains(
    make_service: MakeService, simulator: Simulator, rows: Rows, policy: str, person: str, event: str
) -> None:
    service = await make_service()
    root, alice = await make_admin(service.client, rows, await service.log_in("root")), await service.log_in("alice")
    judging = await make_service(risk_policy=policy)
    simulator.fail(RISK, slow=1.0)
    login = asyncio.create_task(log_in(judging, person))
    await until(lambda: asked(simulator))
    known = [root.id, alice["user"]["id"]]
    newcomer = await rows.fetchval("SELECT id::text FROM users WHERE NOT (id::text = ANY ($1))", known)
    assert (await root.merge(newcomer, into=alice["user"]["id"])).status_code == 200
    await login
    await judging.services[Background].drain()
    told = await rows.fetch("SELECT type, user_id::text FROM events WHERE type IN ('user.banned', 'risk.flagged')")
    assert [tuple(row) for row in told] == [(event, alice["user"]["id"])]


async def test_a_user_from_before_the_policy_is_not_checked(make_service: MakeService, simulator: Simulator) -> None:
    former = await make_service()
    assert (await log_in(former)).status_code == 200
    service = await make_service(risk_policy="block")
    assert (await log_in(service)).status_code == 200
    assert asked(simulator) == 0


@pytest.mark.slow
async def test_while_the_policy_is_off_nobody_is_asked_about(make_service: MakeService, simulator: Simulator) -> None:
    service = await make_service(risk_policy="block", wechat_timeout=SHORT)
    simulator.fail(RISK, hang=True)
    assert (await log_in(service)).status_code == 200
    off = await make_service()
    assert (await log_in(off)).status_code == 200
    assert asked(simulator) == 1
