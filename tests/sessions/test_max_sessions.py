"""An app's `max_sessions` limits how many sessions a user may have in this app."""

import asyncio

import pytest

from tests.fakes import APP, OTHER_APP
from tests.problems import problem_of
from tests.world import Body, MakeServices, Stage, bearer, recorded
from wxauth.settings.settings import InvalidSettings

UNION = "union-alice"


pytestmark = [
    pytest.mark.settings(apps=[{**APP, "max_sessions": 1}, {**OTHER_APP, "max_sessions": 2}], login_rate_limit=""),
    pytest.mark.usefixtures("bystander"),
]


async def is_open(stage: Stage, session: Body) -> bool:
    return (await stage.me(session)).status_code == 200


@pytest.mark.parametrize("fields", [{}, {"nickname": "Alice"}, {"unionid": UNION}], ids=str)
async def test_a_login_ends_the_one_before(stage: Stage, fields: Body) -> None:
    former = await stage.login("alice")
    stage.clock.advance(seconds=1)
    latter = await stage.login("alice", **fields)
    assert [await is_open(stage, session) for session in (former, latter)] == [False, True]
    problem_of(await stage.client.get("/v1/verify", headers=bearer(former)), "invalid_token", 401)
    problem_of(await stage.refresh(former), "session_replaced", 400)
    [ended] = await recorded(stage.rows, "actor, user_id, data", "type = 'session.ended'")
    told = {"reason": "replaced", "session_ids": [former["session_id"]]}
    assert ended == ("system", latter["user"]["id"], told)
    assert await stage.number("sessions WHERE revoked_at IS NOT NULL AND session_key IS NULL") == 1


@pytest.mark.slow
@pytest.mark.requirement("asvs-7.1.2")
async def test_of_fifty_logins_at_once_one_session_is_left(stage: Stage) -> None:
    for _ in range(2):  # first for a new user and then for a known user
        sessions = await asyncio.gather(*(stage.login("alice") for _ in range(50)))
        assert sum([await is_open(stage, session) for session in sessions]) == 1
    ids = "SELECT jsonb_array_elements(data -> 'session_ids') FROM events WHERE type = 'session.ended'"
    ended = await stage.rows.fetch(ids)
    assert len(ended) == len(set(ended)) == 99


async def test_each_identity_has_its_own_number_and_sessions_of_websites_do_not_count(stage: Stage) -> None:
    here = await stage.login("alice", unionid=UNION)
    there = []
    for n in range(4):
        stage.clock.advance(seconds=1)
        there.append(await stage.login("alice", app=OTHER_APP, unionid=UNION))
        if n == 0:
            await stage.rows.execute("UPDATE sessions SET client_id = 'shop' WHERE id = $1", there[0]["session_id"])
    assert await is_open(stage, here)
    assert [await is_open(stage, session) for session in there] == [True, False, True, True]


async def test_an_expired_session_does_not_count(stage: Stage) -> None:
    used, _ = [await stage.login("alice", app=OTHER_APP) for _ in range(2)]
    stage.clock.advance(days=20)
    used = (await stage.refresh(used)).json()
    stage.clock.advance(days=11)
    await stage.login("alice", app=OTHER_APP)
    assert (await stage.refresh(used)).status_code == 200


async def test_a_smaller_number_counts_from_the_next_login(stage: Stage) -> None:
    unlimited = await stage.replica(apps=[APP, OTHER_APP])
    before = []
    for _ in range(3):
        before.append(await unlimited.login("alice"))
        stage.clock.advance(seconds=1)
    assert all([await is_open(stage, session) for session in before])
    await stage.login("alice")
    assert not any([await is_open(stage, session) for session in before])
    problem_of(await unlimited.refresh(before[0]), "session_revoked", 400)


async def test_who_may_not_log_in_ends_nothing(stage: Stage) -> None:
    alice = await stage.login("alice")
    await stage.rows.execute("UPDATE users SET status = 'disabled'")
    problem_of(await stage.login.ask("alice"), "account_disabled", 403)
    await stage.rows.execute("UPDATE users SET status = 'active'")
    assert await is_open(stage, alice)


@pytest.mark.parametrize("wrong", [0, 101, -1, "many", 1.5, True])
async def test_the_number_is_1_to_100(make_services: MakeServices, wrong: object) -> None:
    with pytest.raises(InvalidSettings, match="max_sessions"):
        await make_services(apps=[{**APP, "max_sessions": wrong}])
