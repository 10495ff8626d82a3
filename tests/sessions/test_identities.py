"""A session belongs to the user of its identity, even if the identity is moved or erased at the same time."""

import asyncio
from typing import Any

import pytest

from tests.fakes import APP, OTHER_APP
from tests.world import HOLD_USERS, Stage, behind, locked, until_locked

pytestmark = pytest.mark.oldest_postgres

APP_ID, OTHER_APP_ID = APP["app_id"], OTHER_APP["app_id"]
UNION = "union-alice"

KINDS: dict[str, dict[str, Any]] = {
    "bare": {},
    "with the stored name": {"nickname": "Alice"},
    "with another name": {"nickname": "Al"},
    "with the unionid": {"unionid": UNION},
    "with another unionid": {"unionid": "union-new"},
}


HOMELESS = """sessions s WHERE NOT EXISTS (
    SELECT FROM identities i WHERE (i.app_id, i.openid, i.user_id) = (s.app_id, s.openid, s.user_id))"""
"""SQL for the sessions whose user is not the user of their identity."""


@pytest.fixture
async def alice(stage: Stage) -> str:
    """Return the id of Alice, who has an identity in each of two apps. An operator has merged them."""
    user_id: str = (await stage.login(unionid=UNION, nickname="Alice"))["user"]["id"]
    other = (await stage.login(app=OTHER_APP))["user"]["id"]
    await stage.rows.execute("UPDATE identities SET user_id = $1::text::uuid WHERE app_id = $2", user_id, OTHER_APP_ID)
    await stage.rows.execute("DELETE FROM users WHERE id::text = $1", other)
    return user_id


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
async def test_a_login_that_waits_while_its_identity_moves_moves_too(stage: Stage, alice: str, kind: str) -> None:
    async with locked(stage.rows):
        entering = asyncio.create_task(stage.login(**KINDS[kind]))
        await until_locked(stage.rows)
        add = "INSERT INTO users (id, created_at, last_login_at) VALUES (gen_random_uuid(), now(), now())"
        bob = await stage.rows.fetchval(f"{add} RETURNING id::text")
        await stage.rows.execute("UPDATE identities SET user_id = $1::text::uuid WHERE app_id = $2", bob, APP_ID)
        await stage.rows.execute("UPDATE unionids SET user_id = $1::text::uuid", bob)
        await stage.rows.execute("UPDATE users SET unionid = NULL")
    answers = [await entering, await stage.login(**KINDS[kind])]
    assert [answer["user"]["id"] for answer in answers] == [bob, bob]
    assert (await stage.login(app=OTHER_APP, nickname="Eve"))["user"]["nickname"] == "Eve"
    assert (await stage.login(app=OTHER_APP))["user"]["id"] == alice
    assert await stage.number(HOMELESS) == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_login_that_waits_while_its_identity_is_erased_renews_it(stage: Stage, alice: str, kind: str) -> None:
    erase = f"DELETE FROM identities WHERE app_id = '{APP_ID}'"
    entered = await behind(stage.rows, stage.login(**KINDS[kind]), HOLD_USERS, then=erase)
    joins = KINDS[kind].get("unionid") == UNION  # the unionid was not erased
    assert (entered["user"]["id"] == alice) is joins
    assert await stage.number(HOMELESS) == 0
    assert await stage.number(f"sessions WHERE app_id = '{APP_ID}'") == 1
