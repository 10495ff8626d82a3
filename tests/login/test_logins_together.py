"""Logins, refreshes and calls that wait for PostgreSQL together get the same results as if they came alone."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace

import pytest

from tests.database_proxy import PATIENT, Proxy
from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.world import Admin, Body, Stage, body_of, until_locked
from wxauth.core.statements import BATCH_SIZES
from wxauth.service.build import Timeouts

pytestmark = pytest.mark.oldest_postgres

UNION = "union-alice"
PEOPLE = [f"person-{n}" for n in range(20)]
SETTLED = Timeouts(database=replace(PATIENT, batch_wait=60.0))
"""Timeouts with which all requests that arrive during a statement are in the next statement."""


@pytest.fixture
async def known(stage: Stage) -> Mapping[str, Body]:
    """Log in some users, and return their logins by name."""
    return {person: await stage.login(person) for person in PEOPLE}


def batches(statement: str) -> tuple[float, float]:
    """Return how many statements have run so far, and for how many callers."""
    (family,) = BATCH_SIZES[(statement,)].collect()
    found = {sample.name.rpartition("_")[2]: sample.value for sample in family.samples}
    return found["count"], found["sum"]


def user_id(answer: Body) -> str:
    return answer["user"]["id"]


async def test_returning_logins_that_wait_go_together(stage: Stage, known: Mapping[str, Body]) -> None:
    replica = await stage.replica(timeouts=SETTLED)
    statements, callers = batches("returning_login")
    answers = await asyncio.gather(*(replica.login(person) for person in PEOPLE))
    assert [user_id(answer) for answer in answers] == [user_id(known[person]) for person in PEOPLE]
    assert len({answer["session_id"] for answer in answers}) == len(PEOPLE)
    assert await stage.number("sessions") == 2 * len(PEOPLE)
    now_statements, now_callers = batches("returning_login")
    assert now_callers - callers == len(PEOPLE)
    assert now_statements - statements < len(PEOPLE) / 2


async def test_one_person_many_times_gets_a_session_each_time(stage: Stage, known: Mapping[str, Body]) -> None:
    other = await stage.replica()
    asked = [*PEOPLE[:4], *["person-0"] * 6, *PEOPLE[4:8], *["person-0"] * 6]
    answers = await asyncio.gather(
        *(replica.login(person) for replica in (stage, other) for person in asked), stage.login("somebody new")
    )
    assert [user_id(answer) for answer in answers[:-1]] == [user_id(known[person]) for person in asked] * 2
    assert len({answer["session_id"] for answer in answers}) == 2 * len(asked) + 1
    assert await stage.number("sessions WHERE id = ANY ($1)", [answer["session_id"] for answer in answers]) == len(
        answers
    )


async def test_two_identities_of_one_person_are_each_answered_as_themselves(
    stage: Stage, known: Mapping[str, Body]
) -> None:
    for app in (APP, OTHER_APP):
        await stage.login(unionid=UNION, app=app)
    answers = await asyncio.gather(
        *(stage.login(person) for person in PEOPLE[:5]),
        *(stage.login(unionid=UNION, app=app) for _ in range(3) for app in (APP, OTHER_APP)),
    )
    both = answers[5:]
    assert len({user_id(answer) for answer in both}) == 1
    assert [answer["user"]["app_id"] for answer in both] == [APP["app_id"], OTHER_APP["app_id"]] * 3
    assert await stage.number("users") == len(PEOPLE) + 1
    for answer in both:
        assert (await stage.user(answer))["openid"] == answer["user"]["openid"]


@pytest.mark.parametrize(
    ("act", "status"),
    [
        ("UPDATE users SET status = 'disabled' WHERE id = $1", 403),
        ("UPDATE users SET erase_at = now() WHERE id = $1", 403),
        ("DELETE FROM users WHERE id = $1", 200),
        ("UPDATE users SET nickname = 'Alice' WHERE id = $1", 200),
    ],
    ids=["banned", "leaving", "erased", "renamed"],
)
async def test_what_is_done_to_one_meanwhile_holds_up_nobody_else(
    stage: Stage, known: Mapping[str, Body], act: str, status: int
) -> None:
    one = user_id(known["person-3"])
    async with stage.rows.transaction():
        await stage.rows.execute("SELECT FROM users WHERE id = $1 FOR UPDATE", one)
        calls = {person: asyncio.create_task(stage.login.ask(person)) for person in PEOPLE}
        others = [person for person in PEOPLE if person != "person-3"]
        answers = [body_of(await calls[person]) for person in others]
        assert [user_id(answer) for answer in answers] == [user_id(known[person]) for person in others]
        await until_locked(stage.rows)
        await stage.rows.execute(act, one)
    assert not stage.logged("batch_failed"), "nobody has waited until the statement was given up"
    answer = await calls["person-3"]
    assert answer.status_code == status
    opened = await stage.number("sessions WHERE user_id = $1", one)
    assert opened == {403: 1, 200: 0 if act.startswith("DELETE") else 2}[status]


async def test_people_who_are_merged_meanwhile_are_one_user(
    stage: Stage, known: Mapping[str, Body], root: Admin
) -> None:
    former, into = user_id(known["person-1"]), user_id(known["person-2"])
    merging = asyncio.create_task(root.merge(former, into=into))
    answers = await asyncio.gather(*(stage.login(person) for _ in range(4) for person in PEOPLE[:6]))
    assert (await merging).status_code == 200
    renewed = [body_of(await stage.refresh(answer)) for answer in answers]
    ids = {person: user_id(login) for person, login in known.items()} | {"person-1": into}
    assert [user_id(one) for one in renewed] == [ids[person] for person in PEOPLE[:6]] * 4


async def test_a_lost_connection_costs_nobody_the_login(stage: Stage, known: Mapping[str, Body], proxy: Proxy) -> None:
    replica = await stage.replica(database_url=proxy.url, timeouts=SETTLED)
    await asyncio.gather(*(replica.login(person) for person in PEOPLE))  # both forms of the statement are prepared now
    proxy.lose_next_answer(containing=b"\x00\x00\x00")
    answers = await asyncio.gather(*(replica.login(person) for person in PEOPLE))
    assert [user_id(answer) for answer in answers] == [user_id(known[person]) for person in PEOPLE]
    assert await stage.number("sessions") == 3 * len(PEOPLE)
    assert await stage.number("sessions WHERE id = ANY ($1)", [a["session_id"] for a in answers]) == len(PEOPLE)


async def test_who_calls_together_is_told_about_themselves(stage: Stage, known: Mapping[str, Body]) -> None:
    ended = [known[person] for person in PEOPLE[::4]]
    for login in ended:
        await stage.rows.execute(
            "UPDATE sessions SET revoked_at = now(), revoked_reason = 'signed_out', session_key = NULL WHERE id = $1",
            login["session_id"],
        )
    statements, callers = batches("user_of_session")
    answers = await asyncio.gather(*(stage.me(login) for login in known.values()))
    for login, answer in zip(known.values(), answers, strict=True):
        if login in ended:
            problem_of(answer, "invalid_token", 401)
        else:
            assert answer.json() == login["user"]
    now_statements, now_callers = batches("user_of_session")
    assert (now_callers - callers, now_statements - statements < len(PEOPLE)) == (len(PEOPLE), True)


async def test_who_refreshes_together_gets_their_own_tokens(stage: Stage, known: Mapping[str, Body]) -> None:
    answers = await asyncio.gather(*(stage.refresh(login) for login in known.values()))
    tokens = [body_of(answer) for answer in answers]
    assert [(one["session_id"], user_id(one)) for one in tokens] == [
        (login["session_id"], user_id(login)) for login in known.values()
    ]
    for one in tokens:
        assert (await stage.me(one)).status_code == 200


async def test_one_token_many_times_together_has_one_successor(stage: Stage, known: Mapping[str, Body]) -> None:
    other = await stage.replica()
    logins = [*known.values(), *[known["person-0"]] * 5]
    answers = await asyncio.gather(*(replica.refresh(login) for replica in (stage, other) for login in logins))
    successors = {body_of(answer)["refresh_token"] for answer in answers}
    assert len(successors) == len(known)
    assert await stage.number("sessions WHERE generation = 1") == len(known)


async def test_a_token_that_was_stolen_ends_its_own_session_alone(stage: Stage, known: Mapping[str, Body]) -> None:
    stolen = known["person-5"]
    for _ in range(2):
        stolen = body_of(await stage.refresh(stolen))
    answers = dict(zip(known, await asyncio.gather(*(stage.refresh(login) for login in known.values())), strict=True))
    problem_of(answers.pop("person-5"), "refresh_token_reused", 400)
    assert {answer.status_code for answer in answers.values()} == {200}
    assert await stage.number("sessions WHERE revoked_reason = 'reused'") == 1


async def test_a_refresh_of_a_locked_session_holds_up_nobody_else(stage: Stage, known: Mapping[str, Body]) -> None:
    async with stage.rows.transaction():
        await stage.rows.execute("SELECT FROM sessions WHERE id = $1 FOR UPDATE", known["person-3"]["session_id"])
        calls = {person: asyncio.create_task(stage.refresh(login)) for person, login in known.items()}
        for person in PEOPLE:
            assert person == "person-3" or (await calls[person]).status_code == 200
        await until_locked(stage.rows)
    assert not stage.logged("batch_failed")
    assert (await calls["person-3"]).status_code == 200


async def test_newcomers_who_wait_go_together(stage: Stage, known: Mapping[str, Body]) -> None:
    replica = await stage.replica(timeouts=SETTLED)
    await replica.login("the first newcomer")
    statements, callers = batches("sign_up")
    newcomers = [f"newcomer-{n}" for n in range(18)]
    answers = await asyncio.gather(
        *(replica.login(person, unionid=None if n % 3 else f"union-{n}") for n, person in enumerate(newcomers)),
        *(replica.login(person) for person in PEOPLE[:5]),
        *(replica.login(person) for person in newcomers if newcomers.index(person) % 3),
    )
    assert sum(answer["is_new_user"] for answer in answers) == len({*map(user_id, answers)}) - 5 == len(newcomers)
    assert await stage.number("sessions WHERE id = ANY ($1)", [one["session_id"] for one in answers]) == len(answers)
    created = await stage.number("events WHERE type = 'user.created'")
    assert created == len(newcomers) + len(known) + 1 == await stage.number("users")
    now_statements, now_callers = batches("sign_up")
    assert now_statements - statements < now_callers - callers


async def test_a_newcomer_whose_unionid_is_being_stored_holds_up_no_other_one(
    stage: Stage, known: Mapping[str, Body]
) -> None:
    holder = user_id(known["person-1"])
    async with stage.rows.transaction():
        await stage.rows.execute("INSERT INTO unionids (unionid, user_id) VALUES ($1, $2)", UNION, holder)
        first = asyncio.create_task(stage.login("newcomer"))
        joining = asyncio.create_task(stage.login("alice", unionid=UNION, app=OTHER_APP))
        others = await asyncio.gather(*(stage.login(f"newcomer-{n}") for n in range(8)))
        assert len({*map(user_id, others), user_id(await first)}) == 9
        await until_locked(stage.rows)
        await stage.rows.execute("UPDATE users SET unionid = $1 WHERE id = $2", UNION, holder)
    assert user_id(await joining) == holder


async def test_people_of_one_new_unionid_who_come_together_are_one_user(stage: Stage) -> None:
    await stage.login("somebody")
    logins = [stage.login(f"person-{n}", unionid=f"union-{n}", app=app) for n in range(8) for app in (APP, OTHER_APP)]
    answers = await asyncio.gather(*logins)
    assert sum(answer["is_new_user"] for answer in answers) == 8
    assert await stage.number("users") == 9
