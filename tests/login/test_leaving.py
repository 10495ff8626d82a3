"""A user who leaves asks to be erased, and must prove to be present."""

import pytest

from tests.problems import problem_of
from tests.world import Stage, leave, set_roles


@pytest.mark.parametrize(("method", "path"), [("DELETE", ""), ("POST", "/erasure")])
async def test_who_is_present_leaves_and_a_thief_with_the_bearer_does_not(stage: Stage, method: str, path: str) -> None:
    alice = await stage.login("alice")
    key = await stage.rows.fetchval("SELECT session_key FROM sessions")
    thief, own = stage.wechat.code_for("mallory"), stage.wechat.code_for("alice")
    problem_of(await leave(stage.client, alice, method=method, path=path, person=thief), "wrong_person", 403)
    assert (await stage.me(alice)).status_code == 200
    assert await stage.rows.fetchval("SELECT session_key FROM sessions") == key
    assert (await leave(stage.client, alice, method=method, path=path, person=own)).status_code == 204
    assert await stage.number("users") == 0


async def test_the_only_administrator_is_refused_before_wechat_is_asked(stage: Stage) -> None:
    alice = await stage.login("alice")
    await set_roles(stage.rows, "admin")
    before, code = len(stage.wechat.calls), stage.wechat.code_for("alice")
    problem_of(await leave(stage.client, alice, person=code), "last_admin", 409)
    assert len(stage.wechat.calls) == before
    await set_roles(stage.rows)
    assert (await leave(stage.client, alice, person=code)).status_code == 204, "the code is not spent"
