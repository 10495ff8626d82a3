"""Somebody who is leaving, whose number, unionid, external id or picture comes by another way meanwhile."""

import json
from asyncio import gather
from typing import Any
from uuid import UUID

import pytest
from pydantic_core import to_json

from tests.clock import Clock
from tests.login.test_grace import number
from tests.pictures.test_picture_checks import push, trace_ids, upload
from tests.problems import problem_of
from tests.receiver import receiving
from tests.sign_up.test_hook import SECRET, saying
from tests.world import NUMBER, Body, MakeService, Rows, Service, leave
from wxauth.server.core.sealing import phone_answer_context
from wxauth.server.dev.wechat import APPS
from wxauth.server.phones.phones import Phones

GRACE = {"erasure_grace_days": 7}


async def gone(service: Service, person: str = "alice", **fields: Any) -> Body:
    """Somebody who has logged in, and has left."""
    login = await service.log_in(person, **fields)
    if "phone_code" in fields:
        assert login["user"]["phone"] == NUMBER, login
    assert (await leave(service.client, login)).status_code == 202
    return login


async def stored(rows: Rows, login: Body) -> Any:
    return await rows.fetchrow("SELECT * FROM users WHERE id = $1", UUID(login["user"]["id"]))


async def test_whoever_proves_their_number_has_it_and_they_go_on_leaving(make_service: MakeService, rows: Rows) -> None:
    service = await make_service(**GRACE)
    alice = await gone(service, phone_code=service.phone_code())
    bob = await service.log_in("bob", phone_code=service.phone_code("bob"))
    assert bob["user"]["phone"] == NUMBER
    left = await stored(rows, alice)
    assert (left["phone"], left["erase_at"] is None) == (None, False)
    assert (await service.log_in("alice", stay=True))["user"]["phone"] is None


@pytest.mark.parametrize("policy", ["link", "refuse"])
async def test_nobody_becomes_them_by_their_number(make_service: MakeService, rows: Rows, policy: str) -> None:
    service = await make_service(phone_policy=policy, **GRACE)
    alice = await gone(service, phone_code=service.phone_code())
    bob = await service.log_in("bob")
    problem_of(await service.bind(bob, service.phone_code("bob")), "phone_taken", 409)
    assert await number(rows, "users") == 2
    assert (await stored(rows, alice))["phone"] == NUMBER


async def test_a_number_that_wechat_answers_late_is_not_bound_to_them(
    make_service: MakeService, rows: Rows, clock: Clock
) -> None:
    service = await make_service(**GRACE)
    alice = await service.log_in("alice")
    code_hash, app_id = bytes(32), alice["user"]["app_id"]
    info = {"purePhoneNumber": NUMBER[3:], "countryCode": "86", "watermark": {"appid": app_id}}
    sealed = service.services.sealer.seal(to_json(info), context=phone_answer_context(code_hash))
    answer = (code_hash, app_id, alice["user"]["openid"], sealed, clock())
    await rows.execute("INSERT INTO phone_answers VALUES ($1, $2, $3, $4, $5)", *answer)  # as a crash leaves it
    assert (await leave(service.client, alice)).status_code == 202
    clock.advance(minutes=2)
    await service.services[Phones].bind_pending(size=10)
    assert (await stored(rows, alice))["phone"] is None


async def test_no_other_app_of_theirs_lets_them_in_as_somebody_new(make_service: MakeService, rows: Rows) -> None:
    service = await make_service(**GRACE)
    alice = await gone(service)
    for _ in range(2):
        is_refused = await service.log_in.ask("alice", app=APPS[1])
        assert problem_of(is_refused, "account_leaving", 403)["erase_at"]
    assert (await number(rows, "users"), await number(rows, "identities")) == (1, 1)
    back = await service.log_in("alice", app=APPS[1], stay=True)
    assert back["user"]["id"] == alice["user"]["id"]


async def test_a_hook_gives_nobody_their_external_id(make_service: MakeService, rows: Rows) -> None:
    async with receiving() as hook:
        hook.usual = saying(allow=True, external_id="10023")
        service = await make_service(sign_up_hook_url=hook.url, sign_up_hook_secret=SECRET, **GRACE)
        alice = await gone(service)
        assert (await stored(rows, alice))["external_id"] == "10023"
        assert (await service.log_in("bob"))["user"]["external_id"] is None


async def test_a_verdict_about_their_picture_keeps_nobody(make_service: MakeService, rows: Rows, clock: Clock) -> None:
    service = await make_service(avatar_check="block", **GRACE)
    alice = await service.log_in("alice")
    await upload(service, alice)
    [trace_id] = await trace_ids(rows)
    assert (await leave(service.client, alice)).status_code == 202
    await push(service, clock, trace_id, suggest="risky")
    left = await stored(rows, alice)
    assert (left["avatar_url"], left["erase_at"] is None) == (None, False)
    is_refused = await service.log_in.ask("alice")
    problem_of(is_refused, "account_leaving", 403)


async def test_of_two_who_leave_and_prove_one_number_at_once_none_comes_back(
    make_service: MakeService, rows: Rows
) -> None:
    service = await make_service(**GRACE)
    alice, bob = await service.log_in("alice"), await service.log_in("bob")
    codes = [service.phone_code(), service.phone_code("bob")]
    answers = await gather(
        leave(service.client, alice),
        leave(service.client, bob),
        service.bind(alice, codes[0]),
        service.bind(bob, codes[1]),
    )
    assert [answer.status_code for answer in answers[:2]] == [202, 202]
    assert {answer.status_code for answer in answers[2:]} <= {200, 401}
    assert await number(rows, "users WHERE erase_at IS NOT NULL") == 2
    assert await number(rows, "sessions WHERE revoked_at IS NULL") == 0
    assert await number(rows, f"users WHERE phone = '{NUMBER}'") <= 1
    assert json.loads(answers[0].text).keys() == {"erase_at"}
