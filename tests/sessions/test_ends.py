"""Access tokens end with their session, and the end of a session is recorded once."""

from asyncio import create_task

import pytest
from jose import jwt

from tests.world import Body, Stage, bearer, leave, until_locked

TTL = 900
MAX_AGE = 3600


pytestmark = [
    pytest.mark.oldest_postgres,
    pytest.mark.settings(access_token_ttl=TTL, session_max_age=MAX_AGE),
    pytest.mark.usefixtures("bystander"),
]


def life_of(answer: Body) -> int:
    claims = jwt.get_unverified_claims(answer["access_token"])
    life: int = claims["exp"] - claims["iat"]
    assert life == answer["expires_in"]
    return life


@pytest.mark.parametrize(("left", "life"), [(MAX_AGE, TTL), (TTL, TTL), (100, 100), (1, 1), (0.5, 1)])
async def test_an_access_token_ends_with_its_session(stage: Stage, left: float, life: int) -> None:
    answer = await stage.login()
    stage.clock.advance(seconds=MAX_AGE - left)
    assert life_of((await stage.refresh(answer)).json()) == life


async def test_a_login_token_ends_with_a_short_session(stage: Stage) -> None:
    short = await stage.replica(refresh_token_ttl=60)
    assert life_of(await short.login()) == 60


@pytest.mark.own_database
@pytest.mark.parametrize(("method", "path"), [("POST", "/v1/logout"), ("DELETE", "/v1/me/sessions")])
@pytest.mark.slow
async def test_a_session_signed_out_during_an_erasure_ends_once(stage: Stage, method: str, path: str) -> None:
    first, second = await stage.login(), await stage.login()
    other = await stage.make()  # one replica would run the user's two requests in turn
    async with stage.rows.transaction():
        await stage.rows.execute("SELECT FROM sessions FOR UPDATE")
        signing_out = create_task(stage.client.request(method, path, headers=bearer(first)))
        await until_locked(stage.rows)
        kept = second if path == "/v1/logout" else first
        erasing = create_task(leave(other, kept))
        await until_locked(stage.rows, 2)
    assert [(await answer).status_code for answer in (signing_out, erasing)] == [204, 204]
    events = await stage.rows.fetch(
        "SELECT jsonb_array_elements_text(data -> 'session_ids') AS id FROM events WHERE type = 'session.ended'"
    )
    assert sorted(row["id"] for row in events) == sorted([first["session_id"], second["session_id"]])
