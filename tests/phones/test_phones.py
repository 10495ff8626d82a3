"""Users bind phone numbers with `POST /v1/me/phone`, or with `phone_code` when they log in.

wxauth never loses a response to a code, because WeChat charges for it.
"""

import asyncio
import json
from dataclasses import dataclass, replace
from datetime import timedelta
from itertools import cycle
from pathlib import Path
from typing import Any, Literal, Self

import httpx
import pytest

from tests.database_proxy import Proxy
from tests.fakes import OTHER_SECRET_KEY, SECRET_KEY, service_env
from tests.metrics import misconfigured
from tests.pictures.samples import encoded, plain
from tests.problems import problem_of
from tests.processes import PATIENCE, make_command, run
from tests.sweeps import swept
from tests.world import (
    BESIDE_LOGINS,
    NUMBER,
    Admin,
    Body,
    MakeClient,
    Stage,
    bearer,
    behind,
    leave,
    locked,
    make_conflicts,
    recorded,
    set_roles,
    until,
    until_locked,
    with_part,
)
from wxauth.core.background import RETRY_PAUSE_SECONDS
from wxauth.housekeeping.housekeeping import PHONE_ANSWERS_KEPT, Pace, keep_house, sweep
from wxauth.phones.phones import (
    FAREWELL_SECONDS,
    MAX_CALLS_IN_PROGRESS,
    MAX_IN_PROGRESS_OF_IDENTITY,
    PAUSES_FOR_OTHERS_SECONDS,
    UNTOUCHED_FOR,
    Phones,
)
from wxauth.service.build import TIMEOUTS, Timeouts
from wxauth.wechat.client import BUSY_PAUSES_SECONDS
from wxauth_desk.wechat import APPS, Api

API: Api = "getuserphonenumber"
OTHER_NUMBER = "+85291234567"
PENDING = "phone_answers WHERE sealed IS NOT NULL"
"""The stored responses whose number isn't bound yet."""
HOLDERS = f"users WHERE phone = '{NUMBER}'"
WITHDRAWN = "user_authorization_revoke", "8"
"""WeChat's push event and its field for a user who has withdrawn their phone number."""
A_SECOND = timedelta(seconds=1)
HASTE = 10
HURRIED = Timeouts(
    retries=RETRY_PAUSE_SECONDS / HASTE,
    phones_of_others=[pause / HASTE for pause in PAUSES_FOR_OTHERS_SECONDS],
    phones_farewell=FAREWELL_SECONDS / HASTE,
    wechat_busy=[pause / HASTE for pause in BUSY_PAUSES_SECONDS],
)
"""The waiting times of production, divided by `HASTE`."""

pytestmark = [pytest.mark.usefixtures("simulated", "bystander"), pytest.mark.settings(timeouts=HURRIED)]


async def asking(stage: Stage, login: Body, code: str, **fault: Any) -> asyncio.Task[httpx.Response]:
    """Start to bind a number, and return the task when WeChat has been asked. WeChat responds late."""
    stage.simulator.fail(API, **(fault or {"slow": 0.3}))
    binding = asyncio.create_task(stage.bind(login, code))
    await until(lambda: stage.asked(API))
    return binding


async def until_pending(stage: Stage, number: int = 1) -> None:
    await until(lambda: stage.rows.fetchval(f"SELECT count(*) >= $1 FROM {PENDING}", number))


async def sweep_after(stage: Stage, time: timedelta) -> None:
    stage.clock.now += time
    await sweep(stage.services)


async def events_of(stage: Stage, kinds: str = BESIDE_LOGINS) -> list[tuple[Any, ...]]:
    """Return type, actor, user and data of these events."""
    return await recorded(stage.rows, "type, actor, user_id, data", kinds)


# Binding a number.


@pytest.mark.parametrize("name", ["code", "phone_code", "phoneCode"])
async def test_the_number_behind_a_code_is_bound(stage: Stage, name: str) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    answer = await stage.client.post("/v1/me/phone", json={name: stage.phone_code()}, headers=bearer(alice))
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    assert answer.json() == {**alice["user"], "phone": NUMBER, "phone_verified": True}
    assert await stage.user(alice) == answer.json()
    assert (await stage.user(bob))["phone"] is None
    user_id = alice["user"]["id"]
    assert await events_of(stage) == [("user.phone_bound", user_id, user_id, {})]
    assert await stage.number(f"events WHERE type = 'user.phone_bound' AND app_id = '{APPS[0]['app_id']}'") == 1


@pytest.mark.parametrize("country_code", ["text", "number"])
async def test_a_number_is_kept_in_e164_and_replaces_the_former_one(
    stage: Stage, country_code: Literal["text", "number"]
) -> None:
    stage.simulator.account(APPS[0]["app_id"]).country_code = country_code
    alice = await stage.login()
    for phone, kept in (
        ("+447911123456", "+447911123456"),
        ("13800138000", NUMBER),
        *[("+85291234567", OTHER_NUMBER)] * 2,
    ):
        assert (await stage.bind(alice, stage.phone_code(phone=phone))).json()["phone"] == kept
    assert (await stage.login())["user"]["phone"] == OTHER_NUMBER


@pytest.mark.oldest_postgres
async def test_a_number_is_bound_in_the_app_of_the_session(stage: Stage) -> None:
    app_id = APPS[1]["app_id"]
    alice = await stage.login(app_id=app_id)
    answer = await stage.bind(alice, stage.phone_code(app_id=app_id))
    assert answer.json() == {**alice["user"], "phone": NUMBER, "phone_verified": True}
    # the code belongs to the other app
    problem_of(await stage.bind(alice, stage.phone_code()), "wechat_misconfigured", 502)
    [line] = [line for line in stage.log_lines() if line["level"] == "error"]
    assert (line["errcode"], "phone number code" in line["what_to_change"]) == (40013, True)
    without = await stage.replica(apps=APPS[:1])
    problem_of(await without.bind(alice, stage.phone_code()), "unknown_app", 400)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("code", "problem", "status"),
    [
        ("errcode-40029", "invalid_code", 400),
        ("errcode-40163", "code_used", 400),
        *((f"errcode-{number}", "wechat_misconfigured", 502) for number in (40230, 40240, 48001, 89501, 89507)),
        ("status-502", "wechat_unavailable", 503),
        ("drop", "wechat_unavailable", 503),
    ],
)
async def test_a_code_that_wechat_refuses_binds_nothing(stage: Stage, code: str, problem: str, status: int) -> None:
    alice, before = await stage.login(), await misconfigured(stage.client)
    answer = problem_of(await stage.bind(alice, code), problem, status)
    if code.startswith("errcode"):
        assert answer["wechat_errcode"] == int(code.removeprefix("errcode-"))
    assert (await stage.user(alice))["phone"] is None
    assert await stage.number(PENDING) == 0
    login = await stage.login(phone_code=code)
    assert login["phone_error"] == problem
    assert login["user"]["phone"] is None
    told = 2 if problem == "wechat_misconfigured" else 0
    assert await misconfigured(stage.client) - before == told, "what the alert sees, of a 200 too"


async def test_a_code_of_another_person_is_refused_without_waiting_for_another_process(stage: Stage) -> None:
    stage = await stage.replica(timeouts=replace(HURRIED, phones_of_others=(3600.0,)))
    alice, bob = await stage.login("alice"), await stage.login("bob")
    assert alice["user"]["id"] != bob["user"]["id"]
    async with asyncio.timeout(PATIENCE):
        answer = await stage.bind(bob, stage.phone_code("alice"))
    assert problem_of(answer, "invalid_code", 400)["wechat_errcode"] == 43104
    assert (await stage.user(bob))["phone"] is None


async def test_the_openid_goes_along_unless_it_is_switched_off(stage: Stage) -> None:
    for switch, expected in (("true", {"code", "openid"}), ("false", {"code"})):
        stage = await stage.replica(phone_check_openid=switch)
        stage.simulator.account(APPS[0]["app_id"]).openid_check = "on" if switch == "true" else "refused"
        alice = await stage.login()
        assert (await stage.bind(alice, stage.phone_code())).status_code == 200
        sent = stage.simulator.calls_of(API)[-1].json
        assert sent.keys() == expected
        assert sent.get("openid", alice["user"]["openid"]) == alice["user"]["openid"]


@pytest.mark.parametrize(
    "answer",
    [
        {"watermark_app_id": APPS[1]["app_id"]},
        {"phone": "no number"},
        {"phone": "+86213800138000000"},
        {"phone": "+49301234567890123"},
    ],
)
async def test_an_answer_that_makes_no_sense_is_refused_and_kept(stage: Stage, answer: dict[str, str]) -> None:
    alice = await stage.login()
    code = stage.phone_code(**answer)
    for _ in range(2):
        problem_of(await stage.bind(alice, code), "wechat_bad_response", 502)
    assert len(stage.asked(API)) == 1
    assert (await stage.user(alice))["phone"] is None
    assert await stage.number(PENDING) == 1
    assert [line["event"] for line in stage.log_lines()].count("phone_answer_unusable") == 2


# Binding a number at login.


@pytest.mark.parametrize("name", ["phone_code", "phoneCode"])
async def test_a_login_may_bind_the_phone_number_and_succeeds_if_its_code_fails(stage: Stage, name: str) -> None:
    first = await stage.login(**{name: stage.phone_code()})
    again = await stage.login(**{name: stage.phone_code(phone=OTHER_NUMBER)})
    assert (first["is_new_user"], again["is_new_user"]) == (True, False)
    assert (first["user"]["phone"], again["user"]["phone"]) == (NUMBER, OTHER_NUMBER)
    assert "phone_error" not in first
    failed = await stage.login(**{name: "errcode-40029"})
    assert (failed["phone_error"], failed["user"]["phone"]) == ("invalid_code", OTHER_NUMBER)
    assert (await stage.user(failed))["phone"] == OTHER_NUMBER
    assert "phone_error" not in (await stage.refresh(failed)).json()


@pytest.mark.parametrize("fields", [{}, {"phone_code": None}, {"phone_code": ""}])
async def test_a_login_without_a_phone_code_keeps_the_number(stage: Stage, fields: dict[str, Any]) -> None:
    await stage.login(phone_code=stage.phone_code())
    asked = len(stage.simulator.calls)
    again = await stage.login(**fields)
    assert again["user"]["phone"] == NUMBER
    assert "phone_error" not in again
    assert len(stage.simulator.calls) == asked + 1


@pytest.mark.own_database
async def test_a_login_succeeds_although_binding_its_number_fails_internally(stage: Stage) -> None:
    await stage.rows.execute("ALTER TABLE public.phone_answers ADD CHECK (app_id = '') NOT VALID")
    alice = await stage.login(phone_code=stage.phone_code())
    assert (alice["phone_error"], alice["user"]["phone"]) == ("internal_error", None)
    assert (await stage.user(alice))["phone"] is None


# A number that another user has.


async def test_a_number_moves_to_who_verifies_it_last(stage: Stage) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    await stage.bind(alice, code := stage.phone_code("alice"))
    stage.clock.now += A_SECOND
    assert (await stage.bind(bob, stage.phone_code("bob"))).json()["phone"] == NUMBER
    shown = await stage.user(alice)
    assert shown == {**alice["user"], "phone": None, "phone_verified": None}, "nothing else has changed"
    alice_id, bob_id = alice["user"]["id"], bob["user"]["id"]
    assert await events_of(stage) == [
        ("user.phone_bound", alice_id, alice_id, {}),
        ("user.phone_bound", bob_id, bob_id, {}),
        ("user.phone_removed", "system", alice_id, {"reason": "moved"}),
    ]
    assert (await stage.bind(alice, code)).json()["phone"] is None, "an earlier tap takes nothing back"
    stage.clock.now += A_SECOND
    assert (await stage.bind(alice, stage.phone_code("alice"))).json()["phone"] == NUMBER
    assert (await stage.user(bob))["phone"] is None
    await stage.rows.execute("UPDATE users SET status = 'disabled', roles = '{support}' WHERE id = $1", alice_id)
    stage.clock.now += A_SECOND
    assert (await stage.bind(bob, stage.phone_code("bob"))).json()["phone"] == NUMBER, "who is banned keeps none"
    assert await stage.rows.fetchval("SELECT phone_verified_at FROM users WHERE id = $1", alice_id) is None


async def test_a_tap_from_before_the_holders_does_not_move_the_number(stage: Stage) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    early = await asking(stage, bob, stage.phone_code("bob"), slow=0.2)
    stage.clock.now += A_SECOND
    assert (await stage.bind(alice, stage.phone_code("alice"))).json()["phone"] == NUMBER
    problem_of(await early, "phone_taken", 409)
    assert (await stage.user(alice))["phone"] == NUMBER


async def test_a_number_that_a_merge_moves_meanwhile_is_taken_from_who_has_it_then(stage: Stage) -> None:
    alice, bob, carol = [await stage.login(person) for person in ("alice", "bob", "carol")]
    await stage.bind(alice, stage.phone_code("alice"))
    async with stage.rows.transaction():  # like a merge of Alice into Carol
        await stage.rows.execute("UPDATE users SET phone = NULL, phone_verified_at = NULL WHERE phone IS NOT NULL")
        give = "UPDATE users SET phone = $1, phone_verified_at = '2020-01-01Z' WHERE id = $2"
        await stage.rows.execute(give, NUMBER, carol["user"]["id"])
        binding = asyncio.create_task(stage.bind(bob, stage.phone_code("bob")))
        await until_locked(stage.rows)
    assert (await binding).json()["phone"] == NUMBER
    assert await stage.number(HOLDERS) == 1


async def test_whoever_has_another_number_meanwhile_keeps_it_when_their_former_one_moves(stage: Stage) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    await stage.bind(alice, stage.phone_code("alice"))
    stage.clock.now += A_SECOND
    change = "UPDATE users SET phone = $1 WHERE id = $2"  # like another tap by Alice
    binding = stage.bind(bob, stage.phone_code("bob"))
    answer = await behind(stage.rows, binding, change, OTHER_NUMBER, alice["user"]["id"])
    assert answer.json()["phone"] == NUMBER
    assert (await stage.user(alice))["phone"] == OTHER_NUMBER


async def test_who_has_lost_a_number_to_its_next_owner_gets_the_one_that_they_gave_before(stage: Stage) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    await stage.bind(alice, stage.phone_code("alice"))
    await leave_half_way(stage, alice, stage.phone_code("alice", phone=OTHER_NUMBER))
    stage.clock.now += A_SECOND
    assert (await stage.bind(bob, stage.phone_code("bob"))).json()["phone"] == NUMBER
    assert (await stage.user(alice))["phone"] is None
    await sweep_after(stage, UNTOUCHED_FOR + A_SECOND)
    assert (await stage.user(alice))["phone"] == OTHER_NUMBER, "only the system has removed the former one"


async def test_a_number_of_another_users_is_refused_until_they_are_gone(stage: Stage) -> None:
    stage = await stage.replica(phone_policy="refuse")
    alice, bob = await stage.login("alice"), await stage.login("bob")
    await stage.bind(alice, stage.phone_code("alice"))
    code = stage.phone_code("bob")
    for _ in range(2):
        problem_of(await stage.bind(bob, code), "phone_taken", 409)
    assert (await stage.user(bob))["phone"] is None
    again = stage.phone_code("alice")
    assert (await stage.bind(alice, again)).json()["phone"] == NUMBER, "who has it may verify it again"
    await leave(stage.client, alice)
    assert (await stage.bind(bob, code)).json()["phone"] == NUMBER
    assert len(stage.asked(API)) == 3
    assert await stage.number(PENDING) == 0


@pytest.mark.slow
@pytest.mark.parametrize(("policy", "winners"), [("refuse", 1), ("share", 12), ("move", 12)])
async def test_the_policy_decides_between_many_who_bind_one_number(stage: Stage, policy: str, winners: int) -> None:
    replicas = [await stage.replica(phone_policy=policy) for _ in range(3)]
    stage = replicas[0]
    people = [f"person-{n}" for n in range(12)]
    taps = [(await stage.login(person), stage.phone_code(person)) for person in people]
    answers = await asyncio.gather(*(replica.bind(*tap) for replica, tap in zip(cycle(replicas), taps, strict=False)))
    assert sorted(answer.status_code for answer in answers) == [200] * winners + [409] * (12 - winners)
    holders = 1 if policy == "move" else winners
    assert await stage.number(HOLDERS) == holders
    assert await stage.number("events WHERE type = 'user.phone_bound'") == winners
    assert await stage.number("events WHERE type = 'user.phone_removed'") == winners - holders


# The same code again.


async def test_about_a_persons_code_at_once_and_again_wechat_is_asked_once(stage: Stage) -> None:
    alice, code = await stage.login(), stage.phone_code()
    stage.simulator.fail(API, slow=0.1)
    answers = await asyncio.gather(*(stage.bind(alice, code) for _ in range(5)))
    answers += [await stage.bind(alice, code), await (await stage.replica()).bind(alice, code)]
    assert [answer.json() for answer in answers] == [{**alice["user"], "phone": NUMBER, "phone_verified": True}] * 7
    assert len(stage.asked(API)) == 1
    assert len(await events_of(stage)) == 1
    bob = await stage.login("bob")
    problem_of(await stage.bind(bob, code), "code_used", 400)
    assert len(stage.asked(API)) == 2
    assert (await stage.user(bob))["phone"] is None


@pytest.mark.slow
@pytest.mark.parametrize("work_is_done", [True, False])
async def test_the_later_of_two_simultaneous_taps_finds_the_stored_answer(stage: Stage, work_is_done: bool) -> None:
    alice, code = await stage.login(), stage.phone_code()
    replica = await stage.replica(timeouts=TIMEOUTS)
    first = await asking(stage, alice, code, slow=0.3, work_is_done=work_is_done)
    second = await replica.bind(alice, code)
    assert [answer.json()["phone"] for answer in (await first, second)] == [NUMBER] * 2
    assert len(await events_of(stage)) == 1


async def test_the_second_of_two_simultaneous_binds_of_one_answer_changes_nothing(stage: Stage) -> None:
    alice, code, replica = await stage.login(), stage.phone_code(), await stage.replica()
    async with locked(stage.rows):
        first = asyncio.create_task(stage.bind(alice, code))
        await until_pending(stage)
        second = asyncio.create_task(replica.bind(alice, code))
        await until_locked(stage.rows, 2)
    assert [answer.json()["phone"] for answer in (await first, await second)] == [NUMBER] * 2
    assert len(await events_of(stage)) == 1


async def test_a_user_who_is_erased_meanwhile_gets_no_number(stage: Stage) -> None:
    binding = stage.bind(await stage.login(), stage.phone_code())
    problem_of(await behind(stage.rows, binding, "DELETE FROM users"), "invalid_token", 401)
    assert await stage.number("phone_answers") == 0


# Changes by the user since they gave the number.


@pytest.mark.oldest_postgres
async def test_a_number_that_is_withdrawn_while_wechat_answers_is_not_bound(stage: Stage) -> None:
    alice, code = await stage.login(), stage.phone_code()
    binding = await asking(stage, alice, code)
    stage.clock.now += A_SECOND
    await stage.push_about(alice, *WITHDRAWN)
    problem_of(await binding, "invalid_code", 400)
    assert (await stage.user(alice))["phone"] is None
    assert await stage.number("phone_answers") == 0
    assert (await stage.bind(alice, stage.phone_code())).json()["phone"] == NUMBER, "which was given later"


async def test_whoever_withdraws_something_else_while_wechat_answers_gets_their_number(stage: Stage) -> None:
    alice = await stage.login()
    binding = await asking(stage, alice, stage.phone_code())
    stage.clock.now += A_SECOND
    await stage.push_about(alice, WITHDRAWN[0], "6")
    revoked = await recorded(stage.rows, "data", "type = 'user.authorization_revoked'")
    assert revoked == [({"fields": ["nickname", "avatar_url"]},)]
    assert (await binding).json()["phone"] == NUMBER


async def test_a_number_is_bound_to_an_identity_that_was_made_while_the_databases_clock_was_ahead(stage: Stage) -> None:
    alice = await stage.login()
    await stage.rows.execute("UPDATE identities SET created_at = created_at + interval '1 day'")
    assert (await stage.bind(alice, stage.phone_code())).json()["phone"] == NUMBER


async def test_a_number_of_an_erased_user_is_not_bound_to_the_persons_next_user(stage: Stage) -> None:
    alice, code = await stage.login(), stage.phone_code()
    binding = await asking(stage, alice, code)
    await leave(stage.client, alice)
    stage.clock.now += A_SECOND
    again = await stage.login()
    problem_of(await binding, "invalid_token", 401)
    assert (await stage.user(again))["phone"] is None
    assert await stage.number("phone_answers") == 0


async def test_a_number_that_comes_late_does_not_replace_that_of_a_later_tap(stage: Stage) -> None:
    alice = await stage.login()
    binding = await asking(stage, alice, stage.phone_code())
    binding.cancel()
    stage.clock.now += A_SECOND
    await stage.bind(alice, stage.phone_code(phone=OTHER_NUMBER))
    await until_pending(stage)
    await sweep_after(stage, UNTOUCHED_FOR + A_SECOND)
    assert (await stage.user(await stage.login()))["phone"] == OTHER_NUMBER


# Too many requests at once.


@pytest.mark.slow
async def test_of_one_persons_codes_a_few_are_asked_about_at_once(stage: Stage) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    stage.simulator.fail(API, slow=0.2, times=None)
    answers = await asyncio.gather(*(stage.bind(alice, f"wrong-code-{n}") for n in range(100)))
    refused = [answer for answer in answers if answer.status_code == 429]
    asked = len(stage.asked(API))
    # Each code that wxauth asks WeChat about takes a second place, so later requests may find no place.
    assert MAX_IN_PROGRESS_OF_IDENTITY // 2 <= asked <= MAX_IN_PROGRESS_OF_IDENTITY
    assert len(refused) == 100 - asked
    problem_of(refused[0], "rate_limited", 429)
    assert int(refused[0].headers["retry-after"]) > 0
    assert (await stage.bind(bob, stage.phone_code("bob"))).json()["phone"] == NUMBER


@pytest.mark.slow
async def test_of_the_codes_of_all_so_many_are_asked_about_at_once(stage: Stage) -> None:
    stage = await stage.replica(wechat_timeout=1, timeouts=Timeouts(phones_farewell=0))
    stage.simulator.fail(API, hang=True, times=None)
    of_one = MAX_IN_PROGRESS_OF_IDENTITY // 2
    logins = [await stage.login(f"person-{n}") for n in range(MAX_CALLS_IN_PROGRESS // of_one)]
    for answer in await asyncio.gather(*(stage.bind(login, stage.phone_code()) for login in logins * of_one)):
        problem_of(answer, "wechat_timeout", 504)
    bob, code = await stage.login("bob"), stage.phone_code("bob")
    problem_of(await stage.bind(bob, code), "rate_limited", 429)
    assert (await stage.login("bob", phone_code=code))["phone_error"] == "rate_limited"
    assert len(stage.asked(API)) == MAX_CALLS_IN_PROGRESS


# No response that WeChat has charged for is lost.


@dataclass(frozen=True, slots=True)
class Outage:
    """An outage of the database that begins after WeChat has responded to Alice's code."""

    stage: Stage
    proxy: Proxy
    alice: Body
    tapped: str
    """Alice's phone code."""

    @classmethod
    async def of(cls, stage: Stage, proxy: Proxy) -> Self:
        alice, code = await stage.login(), stage.phone_code()
        binding = await asking(stage, alice, code)
        await proxy.refuse()
        problem_of(await binding, "storage_unavailable", 503)
        return cls(stage, proxy=proxy, alice=alice, tapped=code)


@pytest.fixture
async def outage(stage: Stage, proxy: Proxy) -> Outage:
    return await Outage.of(await stage.replica(database_url=proxy.url), proxy)


async def test_an_answer_that_cannot_be_stored_is_found_by_a_retry(outage: Outage) -> None:
    problem_of(await outage.stage.bind(outage.alice, outage.tapped), "storage_unavailable", 503)
    await outage.proxy.accept()
    assert (await outage.stage.bind(outage.alice, outage.tapped)).json()["phone"] == NUMBER
    assert len(outage.stage.asked(API)) == 1


async def test_an_answer_that_cannot_be_stored_is_stored_when_the_database_is_back(outage: Outage) -> None:
    outage.stage.clock.advance(days=1)  # wxauth loses no response, however long the outage takes
    await asyncio.sleep(2.5 * HURRIED.retries)  # the storing is tried again twice
    await outage.proxy.accept()
    await until_pending(outage.stage)
    replica = await outage.stage.replica()
    assert (await replica.bind(await replica.login(), outage.tapped)).json()["phone"] == NUMBER
    assert len(outage.stage.asked(API)) == 1


async def test_an_answer_that_cannot_be_stored_is_stored_at_the_latest_when_the_service_ends(outage: Outage) -> None:
    await outage.proxy.accept()
    await outage.stage.services.aclose()
    assert await outage.stage.number(PENDING) == 1


async def test_an_answer_waits_for_no_database_for_ever(stage: Stage, make_client: MakeClient, proxy: Proxy) -> None:
    stage = await stage.replica(database_url=proxy.url)
    its = stage.services
    phones = replace(its[Phones], kept_in_memory_seconds=0.0)
    await Outage.of(replace(stage, client=make_client(with_part(its, Phones, phones))), proxy)
    await until(lambda: [line["what"] for line in stage.logged("retry_lost")] == ["phone_answer"])


async def test_a_number_withdrawn_while_it_waits_for_the_database_is_not_bound(outage: Outage, stage: Stage) -> None:
    replica = await stage.replica()
    replica.clock.now += A_SECOND
    await replica.push_about(outage.alice, *WITHDRAWN)
    await outage.proxy.accept()
    await until_pending(replica)
    await sweep_after(replica, UNTOUCHED_FOR)
    assert (await replica.user(outage.alice))["phone"] is None
    assert await replica.number("phone_answers") == 0


async def test_an_answer_that_comes_some_time_after_the_service_ends_is_stored(stage: Stage) -> None:
    alice, code = await stage.login(), stage.phone_code()
    binding = await asking(stage, alice, code, slow=3.5 / HASTE)
    binding.cancel()
    await stage.services.aclose()
    assert await stage.number(PENDING) == 1


async def test_an_answer_still_missing_at_shutdown_is_logged(stage: Stage) -> None:
    stage = await stage.replica(timeouts=Timeouts(phones_farewell=0.1))
    alice, code = await stage.login(), stage.phone_code()
    binding = await asking(stage, alice, code, hang=True)
    binding.cancel()
    await stage.services[Phones].aclose()
    assert [line["answers"] for line in stage.logged("phone_answers_lost")] == [1]


async def test_an_answer_whose_user_is_erased_during_the_outage_is_dropped(outage: Outage) -> None:
    await outage.stage.rows.execute("DELETE FROM users")
    await outage.proxy.accept()
    problem_of(await outage.stage.bind(outage.alice, "x"), "invalid_token", 401)
    await outage.stage.services.aclose()
    assert await outage.stage.number("phone_answers") == 0


async def test_without_a_database_no_code_is_spent(stage: Stage, proxy: Proxy) -> None:
    stage = await stage.replica(database_url=proxy.url)
    alice = await stage.login()
    await proxy.refuse()
    problem_of(await stage.bind(alice, stage.phone_code()), "storage_unavailable", 503)
    assert len(stage.asked(API)) == 0


@pytest.mark.slow
async def test_an_answer_that_comes_too_late_is_found_by_the_same_code(stage: Stage) -> None:
    stage = await stage.replica(wechat_timeout=1)
    alice, code = await stage.login(), stage.phone_code()
    stage.simulator.fail(API, slow=1.5)
    problem_of(await stage.bind(alice, code), "wechat_timeout", 504)

    async def is_bound() -> bool:
        return (await stage.bind(alice, code)).status_code == 200

    await until(is_bound)
    assert (await stage.user(alice))["phone"] == NUMBER
    assert len(stage.asked(API)) == 1


# The sweep.


async def leave_half_way(stage: Stage, login: Body, code: str) -> None:
    """Let WeChat respond to a code, and leave its number unbound."""
    before = await stage.number(PENDING)
    async with locked(stage.rows, login["user"]["id"]):
        binding = asyncio.create_task(stage.bind(login, code))
        await until_pending(stage, before + 1)
        binding.cancel()
        await asyncio.gather(binding, return_exceptions=True)


async def test_a_number_that_was_left_half_way_is_bound_though_the_phone_never_comes_back(stage: Stage) -> None:
    alice = await stage.login()
    await leave_half_way(stage, alice, stage.phone_code())
    await sweep_after(stage, UNTOUCHED_FOR)
    # the client that sent the code may still be about to bind the number
    assert (await stage.user(alice))["phone"] is None
    await sweep_after(stage, A_SECOND)
    assert (await stage.user(alice))["phone"] == NUMBER
    assert await stage.number(PENDING) == 0
    assert len(stage.asked(API)) == 1
    assert await stage.rows.fetchval(f"SELECT actor FROM events WHERE {BESIDE_LOGINS}") == alice["user"]["id"]
    await sweep_after(stage, UNTOUCHED_FOR + A_SECOND)  # finds no number to bind


@pytest.mark.own_database
async def test_a_number_whose_user_keeps_changing_delays_no_other(stage: Stage) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    await leave_half_way(stage, alice, stage.phone_code("alice"))
    await leave_half_way(stage, bob, stage.phone_code("bob", phone=OTHER_NUMBER))
    await make_conflicts(stage.rows, "UPDATE ON public.users", condition=f"NEW.phone = '{NUMBER}'")
    await sweep_after(stage, UNTOUCHED_FOR + A_SECOND)
    assert (await stage.user(bob))["phone"] == OTHER_NUMBER
    assert await stage.number(PENDING) == 1
    await stage.rows.execute("DROP TRIGGER clash ON public.users")
    await sweep(stage.services)
    assert (await stage.user(alice))["phone"] == NUMBER


async def test_a_number_that_was_left_half_way_does_not_replace_one_that_was_given_later(stage: Stage) -> None:
    alice = await stage.login()
    left = stage.phone_code()
    await leave_half_way(stage, alice, left)
    stage.clock.now += UNTOUCHED_FOR + A_SECOND
    alice = await stage.login(phone_code=stage.phone_code(phone=OTHER_NUMBER))
    await sweep(stage.services)
    assert (await stage.user(alice))["phone"] == OTHER_NUMBER
    assert (await stage.bind(alice, left)).json()["phone"] == NUMBER  # the user sends this code again


async def test_an_answer_sealed_by_an_unknown_secret_key_is_left_to_a_process_with_that_key(stage: Stage) -> None:
    rotated = await stage.replica(secret_key=OTHER_SECRET_KEY, secret_key_previous=SECRET_KEY)
    alice, code = await rotated.login(), stage.phone_code()
    await leave_half_way(rotated, alice, code)
    stored = "".join(repr(tuple(row)) for row in await stage.rows.fetch("SELECT * FROM phone_answers"))
    assert [secret for secret in (code, NUMBER[3:]) if secret in stored] == []
    stage.clock.now += UNTOUCHED_FOR + A_SECOND
    for _ in range(3):
        await sweep(stage.services)
    assert len(stage.logged("phone_answer_not_unsealed")) == 1
    assert (await stage.user(alice))["phone"] is None
    await sweep(rotated.services)
    assert (await stage.user(alice))["phone"] == NUMBER


async def test_a_number_left_half_way_is_bound_to_the_later_user_into_whom_its_own_is_merged(
    stage: Stage, root: Admin
) -> None:
    alice = await stage.login("alice")
    await leave_half_way(stage, alice, stage.phone_code("alice"))
    stage.clock.now += A_SECOND
    bob = await stage.login("bob")
    assert (await root.merge(alice["user"]["id"], into=bob["user"]["id"])).status_code == 200
    await sweep_after(stage, UNTOUCHED_FOR + A_SECOND)
    assert (await stage.user(bob))["phone"] == NUMBER


async def test_a_refused_number_is_not_bound_later(stage: Stage) -> None:
    stage = await stage.replica(phone_policy="refuse")
    await stage.login("alice", phone_code=stage.phone_code("alice"))
    bob = await stage.login("bob", phone_code=stage.phone_code("bob"))
    assert bob["phone_error"] == "phone_taken"
    await stage.rows.execute("UPDATE users SET phone = NULL")
    await sweep_after(stage, UNTOUCHED_FOR + A_SECOND)
    assert (await stage.user(bob))["phone"] is None


async def test_a_number_left_half_way_by_someone_banned_since_is_not_bound(stage: Stage) -> None:
    alice = await stage.login()
    await leave_half_way(stage, alice, stage.phone_code())
    await stage.rows.execute("UPDATE users SET status = 'disabled'")
    await sweep_after(stage, UNTOUCHED_FOR + A_SECOND)
    assert await stage.rows.fetchval("SELECT phone FROM users") is None
    assert await stage.number(PENDING) == 1


async def test_a_number_left_half_way_by_someone_who_leaves_is_not_taken_from_its_holder(stage: Stage) -> None:
    stage = await stage.replica(erasure_grace_days=7)
    bob, alice = await stage.login("bob"), await stage.login("alice")
    await stage.bind(bob, stage.phone_code("bob"))
    stage.clock.now += A_SECOND
    await leave_half_way(stage, alice, left := stage.phone_code("alice"))
    assert (await leave(stage.client, alice)).status_code == 202
    await sweep_after(stage, UNTOUCHED_FOR + A_SECOND)
    assert (await stage.user(bob))["phone"] == NUMBER
    assert await stage.number(PENDING) == 1
    alice = await stage.login("alice", stay=True)
    assert alice["user"]["phone"] is None
    assert (await stage.bind(alice, left)).json()["phone"] == NUMBER  # the user sends this code again


async def test_a_number_on_its_way_when_its_user_leaves_is_not_bound(stage: Stage) -> None:
    stage = await stage.replica(erasure_grace_days=7)
    alice = await stage.login("alice")
    binding = await asking(stage, alice, stage.phone_code("alice"))
    assert (await leave(stage.client, alice)).status_code == 202
    problem_of(await binding, "invalid_token", 401)
    assert (await stage.login("alice", stay=True))["user"]["phone"] is None


async def test_answers_are_swept_when_they_have_been_kept_for_their_time(stage: Stage) -> None:
    code = stage.phone_code()
    await stage.login("alice", phone_code=code)
    await stage.login("bob", phone_code=stage.phone_code("bob", phone=OTHER_NUMBER))
    stage.clock.now += PHONE_ANSWERS_KEPT
    await sweep(stage.services, page_size=1, pause=0)
    assert await stage.number("phone_answers") == 2
    alice = await stage.login()
    stage.clock.now += A_SECOND
    await sweep(stage.services, page_size=1, pause=0)
    assert await stage.number("phone_answers") == 0
    problem_of(await stage.bind(alice, code), "invalid_code", 400)
    assert (await stage.user(alice))["phone"] == NUMBER


@pytest.mark.process
async def test_after_a_reseal_answers_need_only_the_new_key(stage: Stage, database_url: str, tmp_path: Path) -> None:
    alice, bob = await stage.login("alice"), await stage.login("bob")
    codes = stage.phone_code("alice"), stage.phone_code("bob")
    await leave_half_way(stage, alice, codes[0])
    await leave_half_way(stage, bob, codes[1])
    await stage.rows.execute("UPDATE phone_answers SET sealed = '\\x0102' WHERE openid = $1", bob["user"]["openid"])
    env = service_env(database_url, secret_key=OTHER_SECRET_KEY, secret_key_previous=SECRET_KEY)
    done = await asyncio.to_thread(run, "secret", "reseal", "--json", cwd=tmp_path, env=env)
    assert json.loads(done.stdout) == {
        "signing_keys": 1,
        "session_keys": 2,
        "phone_answers": 1,
        "webhook_secrets": 0,
        "apps": 0,
        "not_opened": 1,
    }
    assert (done.returncode, done.stderr) == (
        1,
        "WXAUTH_SECRET_KEY_PREVIOUS: must contain the key that encrypted 1 of the stored values\n",
    )
    replica = await stage.replica(secret_key=OTHER_SECRET_KEY)
    assert (await replica.bind(alice, codes[0])).json()["phone"] == NUMBER
    problem_of(await replica.bind(bob, codes[1]), "invalid_code", 400)
    assert len(stage.asked(API)) == 2


# Removing a number.

REMOVALS = "type = 'user.phone_removed'"


@pytest.fixture
async def alice(stage: Stage) -> Body:
    """Alice, who has a phone number."""
    return await stage.login("alice", phone_code=stage.phone_code(), nickname="Alice")


async def test_people_remove_their_own_number(stage: Stage, alice: Body) -> None:
    for _ in range(2):
        assert (await stage.client.delete("/v1/me/phone", headers=bearer(alice))).status_code == 204
    shown = await stage.user(alice)
    assert (shown["phone"], shown["phone_verified"], shown["nickname"]) == (None, None, "Alice")
    user = alice["user"]
    assert await events_of(stage, REMOVALS) == [("user.phone_removed", user["id"], user["id"], {})]
    assert (await stage.bind(alice, stage.phone_code())).json()["phone"] == NUMBER


@pytest.mark.parametrize("method", ["PATCH", "POST"])
async def test_null_removes_the_number_and_the_answer_shows_it(stage: Stage, alice: Body, method: str) -> None:
    answer = await stage.change(alice, method=method, phone=None, nickname="Al")
    assert (answer.json()["phone"], answer.json()["phone_verified"], answer.json()["nickname"]) == (None, None, "Al")
    assert (await stage.change(alice, method=method, phone=None)).status_code == 200
    assert len(await events_of(stage, REMOVALS)) == 1


async def test_a_removed_number_does_not_come_back_from_an_earlier_tap(stage: Stage, alice: Body) -> None:
    stage.simulator.fail(API, slow=0.2)
    binding = asyncio.create_task(stage.bind(alice, stage.phone_code(phone=OTHER_NUMBER)))
    await until(lambda: len(stage.asked(API)) == 2)
    stage.clock.advance(seconds=1)
    assert (await stage.client.delete("/v1/me/phone", headers=bearer(alice))).status_code == 204
    problem_of(await binding, "invalid_code", 400)
    await sweep_after(stage, UNTOUCHED_FOR)
    assert (await stage.user(await stage.login("alice")))["phone"] is None


async def test_staff_remove_a_number(stage: Stage, alice: Body, root: Admin) -> None:
    await set_roles(stage.rows, "support", user_id=root.id)
    user_id = alice["user"]["id"]
    for _ in range(2):
        assert (await root.ask("DELETE", f"/users/{user_id}/phone")).status_code == 204
    assert await events_of(stage, REMOVALS) == [("user.phone_removed", root.id, user_id, {})]
    assert len(stage.logged("phone_removed")) == 1
    assert (await stage.user(alice))["phone"] is None


async def test_staff_clear_a_name_and_a_picture(stage: Stage, alice: Body, root: Admin) -> None:
    await set_roles(stage.rows, "support", user_id=root.id)
    files = {"file": ("a.png", encoded(plain(), "PNG"))}
    uploaded = await stage.client.post("/v1/me/avatar", files=files, headers=bearer(alice))
    url, user_id = uploaded.json()["avatar_url"], alice["user"]["id"]
    assert (await stage.client.get(url)).status_code == 200
    shown = await root.change(user_id, nickname=None)
    assert (shown["nickname"], shown["avatar_url"] is None, shown["phone"] is None) == (None, False, False)
    shown = await root.change(user_id, nickname=None, avatar_url=None)
    assert (shown["nickname"], shown["avatar_url"]) == (None, None)
    assert (await stage.client.get(url)).status_code == 404, "the stored picture is gone"
    assert await events_of(stage, f"actor = '{root.id}' AND user_id = '{user_id}'") == [
        ("user.profile_changed", root.id, user_id, {"fields": ["nickname"]}),
        ("user.profile_changed", root.id, user_id, {"fields": ["avatar_url"]}),
    ]


@swept(
    "change",
    [
        {"nickname": "Mallory"},
        {"nickname": ""},
        {"avatar_url": "https://a.test/1.png"},
        {"phone": None},
        {"shoe_size": 43},
        {"status": "disabled", "nicknames": None},
    ],
)
async def test_staff_set_nothing_of_another_persons(stage: Stage, alice: Body, root: Admin, change: Body) -> None:
    answer = await root.ask("PATCH", f"/users/{alice['user']['id']}", json=change)
    assert problem_of(answer, "invalid_request", 422)["errors"][0]["field"] == list(change)[-1]
    assert (await root.read(f"/users/{alice['user']['id']}"))["status"] == "active"
    assert await events_of(stage, f"actor = '{root.id}' AND {BESIDE_LOGINS}") == []


@pytest.mark.process
async def test_an_operator_removes_a_number(stage: Stage, alice: Body, database_url: str, tmp_path: Path) -> None:
    users = make_command("users", cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url})
    user_id = alice["user"]["id"]
    done = await users("set", user_id, "--no-phone")
    assert done.returncode == 0, done.stderr
    assert await events_of(stage, REMOVALS) == [("user.phone_removed", "operator", user_id, {})]


@pytest.mark.process
@pytest.mark.own_database
async def test_a_failed_removal_is_not_reported_as_done(
    stage: Stage, alice: Body, database_url: str, tmp_path: Path
) -> None:
    await stage.rows.execute("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'not now'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON public.events FOR EACH ROW WHEN (NEW.type = 'user.phone_removed')
            EXECUTE FUNCTION refuse()""")
    users = make_command("users", cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url})
    failed = await users("set", alice["user"]["id"], "--no-phone")
    assert (failed.returncode, failed.stdout) == (1, ""), failed
    assert await events_of(stage, REMOVALS) == []


@pytest.mark.slow
@pytest.mark.parametrize("comes", ["before", "meanwhile"])
async def test_a_pending_number_is_bound_while_the_sweep_is_still_running(stage: Stage, comes: str) -> None:
    for person in ("alice", "bob", "carol"):
        await stage.login(person)
    stage.clock.advance(days=365)
    alice = await stage.login("alice")

    async def disconnect_half_way() -> None:
        (await asking(stage, alice, stage.phone_code(), slow=0.2)).cancel()
        await until_pending(stage)
        stage.clock.now += 2 * UNTOUCHED_FOR

    if comes == "before":
        await disconnect_half_way()
    house = asyncio.create_task(keep_house(stage.services, Pace(1, 3600.0), check_pause=0.05))
    # The sweep deletes one session, and then waits an hour before the next one.
    await until(lambda: stage.rows.fetchval("SELECT count(*) = 3 FROM sessions"))
    if comes == "meanwhile":
        await disconnect_half_way()
    await until(lambda: stage.number(HOLDERS))
    assert await stage.number("sessions") == 3
    house.cancel()
    await asyncio.gather(house, return_exceptions=True)
