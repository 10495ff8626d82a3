"""What one person may have WeChat asked in vain: an app's quota is everybody's, and nobody uses it up alone."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from tests.fakes import Clock
from tests.problems import problem_of
from tests.world import LogLines, MakeClient, MakeServices, bearer
from wxauth.server.core.services import Services
from wxauth.server.dev.wechat import APPS, PhoneCodeRequest, Simulator
from wxauth.server.housekeeping.housekeeping import sweep
from wxauth.server.limits.attempts import AT_MOST
from wxauth.server.limits.rates import WINDOW

PHONE: Any = "getuserphonenumber"
TEXT: Any = "msg_sec_check"
A_SECOND = timedelta(seconds=1)

Body = dict[str, Any]


@dataclass(frozen=True)
class Replica:
    """At its front door, and the WeChat behind it."""

    client: httpx.AsyncClient
    services: Services
    simulator: Simulator

    async def log_in(self, person: str = "alice", **fields: object) -> Body:
        answer = await self.client.post("/v1/login", json={"code": person, **fields})
        assert answer.status_code == 200, answer.text
        body: Body = answer.json()
        return body

    async def bind(self, login: Body, code: str) -> httpx.Response:
        return await self.client.post("/v1/me/phone", json={"code": code}, headers=bearer(login))

    async def rename(self, login: Body, nickname: str) -> httpx.Response:
        return await self.client.patch("/v1/me", json={"nickname": nickname}, headers=bearer(login))

    def tap(self, person: str = "alice") -> str:
        """What the phone button gives."""
        return self.simulator.make_phone_code(PhoneCodeRequest(person=person, phone="+8613800138000"))

    async def send_nonsense(self, login: Body, number: int = AT_MOST) -> None:
        # Another errcode than that of a made-up code, which is looked for at other replicas, for more than a second.
        self.simulator.fail(PHONE, errcode=47001, times=number)
        for n in range(number):
            problem_of(await self.bind(login, f"nonsense{n}"), "wechat_bad_response", 502)

    def asked(self, api: Any) -> int:
        return len(self.simulator.calls_of(api))


MakeReplica = Callable[..., Awaitable[Replica]]


@pytest.fixture
def make_replica(make_simulated_services: MakeServices, make_client: MakeClient, simulator: Simulator) -> MakeReplica:
    """Any setting by name."""

    async def make(**values: object) -> Replica:
        services = await make_simulated_services(**values)
        return Replica(make_client(services), services, simulator)

    return make


@pytest.fixture
async def replica(make_replica: MakeReplica) -> Replica:
    return await make_replica()


def refused(answer: httpx.Response, *, retry_after: int = 3600) -> None:
    problem_of(answer, "rate_limited", 429)
    assert int(answer.headers["retry-after"]) == retry_after


# Phone codes.


async def test_after_twenty_codes_that_wechat_refused_it_is_not_asked_again_for_an_hour(
    replica: Replica, clock: Clock
) -> None:
    alice = await replica.log_in()
    await replica.send_nonsense(alice)
    refused(await replica.bind(alice, "nonsense"))
    clock.advance(minutes=59, seconds=59)
    alice = await replica.log_in()
    refused(await replica.bind(alice, replica.tap()), retry_after=1)
    assert replica.asked(PHONE) == AT_MOST
    clock.advance(seconds=1)
    assert (await replica.bind(alice, replica.tap())).status_code == 200


async def test_it_is_counted_over_all_replicas(replica: Replica, make_replica: MakeReplica) -> None:
    alice = await replica.log_in()
    await replica.send_nonsense(alice)
    refused(await (await make_replica()).bind(alice, "nonsense"))


async def test_at_once_there_are_no_more_of_them(replica: Replica, make_replica: MakeReplica) -> None:
    alice = await replica.log_in()
    replicas = [replica, *[await make_replica() for _ in range(3)]]
    answers = await asyncio.gather(*(replicas[n % 4].bind(alice, f"nonsense{n}") for n in range(60)))
    assert sorted(answer.status_code for answer in answers) == [400] * AT_MOST + [429] * (60 - AT_MOST)
    assert replica.asked(PHONE) == AT_MOST


async def test_at_login_it_is_counted_too_and_the_login_goes_on(replica: Replica) -> None:
    replica.simulator.fail(PHONE, errcode=47001, times=AT_MOST)
    for n in range(AT_MOST):
        assert (await replica.log_in(phone_code=f"nonsense{n}"))["phone_error"] == "wechat_bad_response"
    assert (await replica.log_in(phone_code=replica.tap()))["phone_error"] == "rate_limited"
    assert replica.asked(PHONE) == AT_MOST


async def test_others_are_not_concerned_nor_the_same_person_in_another_app(replica: Replica) -> None:
    await replica.send_nonsense(await replica.log_in())
    bob = await replica.log_in("bob")
    assert (await replica.bind(bob, replica.tap("bob"))).status_code == 200
    elsewhere = await replica.log_in(app_id=APPS[1]["app_id"])
    problem_of(await replica.bind(elsewhere, "nonsense"), "invalid_code", 400)


async def test_good_codes_count_too_because_each_number_costs_money(replica: Replica) -> None:
    alice = await replica.log_in()
    for _ in range(AT_MOST):
        assert (await replica.bind(alice, replica.tap())).status_code == 200
    refused(await replica.bind(alice, replica.tap()))
    assert replica.asked(PHONE) == AT_MOST


@pytest.mark.parametrize(
    ("fault", "status"),
    [({"errcode": 48001}, 502), ({"errcode": 45009}, 429), ({"errcode": -1}, 503), ({"garbage": True}, 502)],
    ids=str,
)
async def test_what_is_not_the_codes_fault_is_not_counted(
    replica: Replica, fault: dict[str, Any], status: int, rows: asyncpg.Connection
) -> None:
    alice = await replica.log_in()
    replica.simulator.fail(PHONE, times=None, **fault)
    assert (await replica.bind(alice, replica.tap())).status_code == status
    assert await rows.fetchval("SELECT number FROM attempts") == 0


async def test_an_erasure_begins_no_new_hour(replica: Replica) -> None:
    alice = await replica.log_in()
    await replica.send_nonsense(alice)
    assert (await replica.client.delete("/v1/me", headers=bearer(alice))).status_code == 204
    refused(await replica.bind(await replica.log_in(), "nonsense"))


async def test_what_was_answered_before_is_found_all_the_same(replica: Replica) -> None:
    alice = await replica.log_in()
    code = replica.tap()
    assert (await replica.bind(alice, code)).status_code == 200
    await replica.send_nonsense(alice, AT_MOST - 1)
    refused(await replica.bind(alice, replica.tap()))
    assert (await replica.bind(alice, code)).status_code == 200


# Names.


@pytest.mark.parametrize("policy", ["flag", "block"])
async def test_after_twenty_new_names_wechat_is_asked_about_none_for_an_hour(
    make_replica: MakeReplica, clock: Clock, policy: str
) -> None:
    replica = await make_replica(nickname_check=policy)
    alice = await replica.log_in()
    for n in range(AT_MOST):
        assert (await replica.rename(alice, f"Alice {n}")).status_code == 200
    refused(await replica.rename(alice, "Alice"))
    assert (await replica.rename(alice, f"Alice {AT_MOST - 1}")).status_code == 200, "WeChat is not asked about it"
    await replica.services.background.drain()
    assert replica.asked(TEXT) == AT_MOST
    clock.now += WINDOW
    assert (await replica.rename(await replica.log_in(), "Alice")).status_code == 200


async def test_a_login_with_one_more_name_keeps_the_former(make_replica: MakeReplica, log_lines: LogLines) -> None:
    replica = await make_replica(nickname_check="block")
    for n in range(AT_MOST):
        assert (await replica.log_in(nickname=f"Alice {n}"))["user"]["nickname"] == f"Alice {n}"
    assert (await replica.log_in(nickname="Alice"))["user"]["nickname"] == f"Alice {AT_MOST - 1}"
    assert replica.asked(TEXT) == AT_MOST
    told = [line["reason"] for line in log_lines() if line["event"] == "login_without_nickname"]
    assert told == ["rate_limited"]


async def test_names_that_nobody_checks_are_not_counted_among_them(replica: Replica) -> None:
    alice = await replica.log_in()
    for n in range(AT_MOST + 1):
        assert (await replica.rename(alice, f"Alice {n}")).status_code == 200


async def test_codes_and_names_are_counted_each_by_itself(make_replica: MakeReplica) -> None:
    replica = await make_replica(nickname_check="block")
    alice = await replica.log_in()
    await replica.send_nonsense(alice)
    assert (await replica.rename(alice, "Alice")).status_code == 200


# Kept no longer than needed.


async def test_what_was_counted_is_swept_when_its_hour_is_over(
    replica: Replica, clock: Clock, rows: asyncpg.Connection
) -> None:
    for person in ("alice", "bob", "carol"):
        await replica.send_nonsense(await replica.log_in(person), 1)
    clock.now += WINDOW
    await sweep(replica.services, page_size=1, pause=0)
    assert await rows.fetchval("SELECT count(*) FROM attempts") == 3
    clock.now += A_SECOND
    await sweep(replica.services, page_size=1, pause=0)
    assert await rows.fetchval("SELECT count(*) FROM attempts") == 0
