"""`POST /v1/refresh` and `POST /v1/logout` work as the guides describe them."""

import asyncio
import base64
import string
from datetime import timedelta
from uuid import UUID

import pytest

from tests.fakes import START
from tests.problems import problem_of
from tests.world import Client, Stage, bearer, behind
from wxauth.sessions.refresh_tokens import RefreshTokens

REFRESH_TOKEN_TTL = 2592000
SESSION_MAX_AGE = 31536000


async def test_a_refresh_token_becomes_a_new_pair(stage: Stage) -> None:
    first = await stage.login("alice", nickname="Alice")
    stage.clock.advance(minutes=20)
    answer = await stage.refresh(first)
    assert (answer.status_code, answer.headers["cache-control"]) == (200, "no-store")
    second = answer.json()
    assert second.keys() == first.keys()
    assert second["is_new_user"] is False
    assert (second["session_id"], second["user"]) == (first["session_id"], first["user"])
    assert second["refresh_token"] != first["refresh_token"]
    assert (await stage.me(second)).json() == first["user"]


@pytest.mark.parametrize("seconds", [0, 60])
async def test_a_refresh_token_used_again_within_the_grace_has_the_same_successor(stage: Stage, seconds: int) -> None:
    token = (await stage.login())["refresh_token"]
    first = (await stage.refresh(token)).json()["refresh_token"]
    stage.clock.advance(seconds=seconds)
    assert (await stage.refresh(token)).json()["refresh_token"] == first
    stage.clock.advance(minutes=1)
    assert (await stage.refresh(first)).status_code == 200


async def test_50_simultaneous_uses_of_a_refresh_token_have_one_successor(stage: Stage) -> None:
    token = (await stage.login())["refresh_token"]
    answers = await asyncio.gather(*(stage.refresh(token) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["refresh_token"] for answer in answers}) == 1


async def test_a_refresh_token_used_again_after_the_grace_ends_the_session(stage: Stage) -> None:
    token = (await stage.login())["refresh_token"]
    successor = (await stage.refresh(token)).json()
    stage.clock.advance(seconds=61)
    problem_of(await stage.refresh(token), "refresh_token_reused", 400)
    [line] = stage.logged("refresh_token_reused")
    assert (line["level"], line["session_id"]) == ("warning", successor["session_id"])
    problem_of(await stage.refresh(successor), "session_revoked", 400)
    problem_of(await stage.refresh(token), "session_revoked", 400)
    problem_of(await stage.me(successor), "invalid_token", 401)
    assert await stage.rows.fetchrow("SELECT revoked_reason, session_key FROM sessions") == ("reused", None)


async def test_only_the_immediate_predecessor_has_the_grace(stage: Stage) -> None:
    first = (await stage.login())["refresh_token"]
    second = (await stage.refresh(first)).json()["refresh_token"]
    await stage.refresh(second)
    problem_of(await stage.refresh(first), "refresh_token_reused", 400)


async def test_a_banned_user_gets_no_tokens_even_if_a_session_is_open(stage: Stage) -> None:
    login = await stage.login()
    await stage.rows.execute("UPDATE users SET status = 'disabled'")
    problem_of(await stage.refresh(login), "account_disabled", 403)
    await stage.rows.execute("UPDATE users SET status = 'active'")
    assert (await stage.refresh(login)).status_code == 200, "the refusal has not used up the token"


async def test_a_session_lasts_as_long_as_it_is_used(stage: Stage) -> None:
    answer = await stage.login()
    for _ in range(11):
        stage.clock.advance(days=30, seconds=-1)
        answer = (await stage.refresh(answer)).json()
        assert answer["refresh_expires_in"] == REFRESH_TOKEN_TTL
    stage.clock.advance(seconds=REFRESH_TOKEN_TTL)
    problem_of(await stage.refresh(answer), "refresh_token_expired", 400)


@pytest.mark.requirement("asvs-7.1.1")
async def test_a_session_never_passes_its_greatest_age(stage: Stage) -> None:
    answer = await stage.login()
    for _ in range(12):
        stage.clock.advance(days=29)
        answer = (await stage.refresh(answer)).json()
    age = 12 * 29 * 86400
    assert answer["refresh_expires_in"] == SESSION_MAX_AGE - age
    stage.clock.advance(seconds=SESSION_MAX_AGE - age)
    problem_of(await stage.refresh(answer), "refresh_token_expired", 400)


@pytest.mark.parametrize("ahead", [{"days": 31}, {"days": 4000}, {"minutes": 1}])
async def test_a_session_opened_while_the_clock_was_ahead_lasts_as_long_as_one_opened_now(
    stage: Stage, ahead: dict[str, float]
) -> None:
    stage.clock.advance(**ahead)
    alice = await stage.login()
    stage.clock.advance(**{unit: -number for unit, number in ahead.items()})
    for _ in range(400):
        answer = await stage.refresh(alice)
        if answer.status_code != 200:
            break
        alice = answer.json()
        assert alice["refresh_expires_in"] <= 30 * 86400
        stage.clock.advance(days=1)
    problem_of(answer, "refresh_token_expired", 400)
    assert stage.clock() - START == timedelta(days=365)


async def test_a_token_rotated_while_the_clock_was_ahead_has_no_grace(stage: Stage) -> None:
    alice = await stage.login()
    stage.clock.advance(days=20)
    rotated = (await stage.refresh(alice)).json()
    stage.clock.advance(days=-20)
    problem_of(await stage.refresh(alice), "refresh_token_reused", 400)
    problem_of(await stage.refresh(rotated), "session_revoked", 400)


async def test_a_forged_token_is_refused_without_a_query(offline_client: Client) -> None:
    forged = RefreshTokens([b"x" * 32]).issue(UUID(int=1), 0)
    for token in (forged, forged[:-1]):
        answer = await offline_client.post("/v1/refresh", json={"refresh_token": token})
        problem_of(answer, "invalid_refresh_token", 400)


async def test_a_token_survives_the_rotation_of_the_secret_key(stage: Stage) -> None:
    token = (await stage.login())["refresh_token"]
    former = base64.b64encode(bytes(range(32))).decode()
    rotated = await stage.replica(secret_key=base64.b64encode(b"n" * 32).decode(), secret_key_previous=[former])
    assert (await rotated.refresh(token)).status_code == 200


async def test_a_restored_database_accepts_a_token_newer_than_its_session(stage: Stage) -> None:
    answer = await stage.login()
    ahead = stage.services[RefreshTokens].issue(UUID(answer["session_id"]), 7)
    successor = (await stage.refresh(ahead)).json()["refresh_token"]
    assert stage.services[RefreshTokens].parse(successor) == (UUID(answer["session_id"]), 8)


@pytest.mark.usefixtures("bystander")
async def test_logging_out_by_refresh_token_ends_the_session(stage: Stage) -> None:
    answer = await stage.login()
    for _ in range(2):
        gone = await stage.client.post("/v1/logout", json={"refresh_token": answer["refresh_token"]})
        assert (gone.status_code, gone.content) == (204, b"")
    problem_of(await stage.refresh(answer), "session_revoked", 400)
    problem_of(await stage.me(answer), "invalid_token", 401)
    assert await stage.rows.fetchrow("SELECT revoked_reason, session_key FROM sessions") == ("signed_out", None)


@pytest.mark.parametrize("body", [b"", b"{}", b'{"refresh_token": null}'])
async def test_logging_out_by_bearer_ends_its_own_session(stage: Stage, body: bytes) -> None:
    answer, other = await stage.login(), await stage.login()
    for _ in range(2):
        assert (await stage.client.post("/v1/logout", headers=bearer(answer), content=body)).status_code == 204
    problem_of(await stage.refresh(answer), "session_revoked", 400)
    assert (await stage.refresh(other)).status_code == 200


async def test_if_body_and_bearer_differ_the_body_counts(stage: Stage) -> None:
    mine, other = await stage.login(), await stage.login()
    await stage.client.post("/v1/logout", headers=bearer(mine), json={"refresh_token": other["refresh_token"]})
    assert (await stage.refresh(mine)).status_code == 200
    problem_of(await stage.refresh(other), "session_revoked", 400)


@pytest.mark.parametrize("token", ["", "forged", RefreshTokens([bytes(range(32))]).issue(UUID(int=1), 0)])
async def test_any_refresh_token_logs_out(client: Client, token: str) -> None:
    assert (await client.post("/v1/logout", json={"refresh_token": token})).status_code == 204


@pytest.mark.parametrize("body", [b"", b"{}"])
async def test_logging_out_of_nothing_needs_a_token(offline_client: Client, body: bytes) -> None:
    problem_of(await offline_client.post("/v1/logout", content=body), "missing_token", 401)


async def test_a_refresh_that_waits_for_a_link_succeeds(stage: Stage) -> None:
    answer, other = await stage.login("alice"), await stage.login("bob")
    link = "UPDATE identities SET user_id = $1::text::uuid WHERE openid = $2"
    ids = other["user"]["id"], answer["user"]["openid"]
    linked = await behind(stage.rows, stage.refresh(answer), link, *ids)
    assert (linked.status_code, linked.json()["user"]["id"]) == (200, other["user"]["id"])


async def test_a_lowered_maximum_age_applies_to_existing_sessions(stage: Stage) -> None:
    token = (await stage.login())["refresh_token"]
    stage.clock.advance(days=2)
    stricter = await stage.replica(session_max_age=86400)
    problem_of(await stricter.refresh(token), "refresh_token_expired", 400)


# The form of refresh tokens.


KEY = bytes(32)
SESSION = UUID("01933c5e-8f1b-7d20-a4c5-93b1f0a7e6d2")
TOKENS = RefreshTokens([KEY])
TOKEN = TOKENS.issue(SESSION, 7)


def test_a_token_that_another_version_has_issued_is_read() -> None:
    """Read a token that is written here and not made by the code, because the form of tokens must never change."""
    token = "wxr_AZM8Xo8afD6bHS9qTowNFwAAAAOd2y7lUIYt_lFRl3lL_3QAaZuDOoBBcVz0poiTJGuMyg"
    assert TOKENS.parse(token) == (UUID("01933c5e-8f1a-7c3e-9b1d-2f6a4e8c0d17"), 3)


@pytest.mark.parametrize("generation", [0, 1, 2**31 - 1, 2**32 - 1])
def test_a_token_can_hold_any_generation(generation: int) -> None:
    assert TOKENS.parse(TOKENS.issue(SESSION, generation)) == (SESSION, generation)


@pytest.mark.parametrize(
    "token",
    [
        "",
        TOKEN[4:],
        TOKEN + "A",
        TOKEN + "=",
        TOKEN + "\n",
        "wxa_" + TOKEN[4:],
        TOKEN[:20] + "é" + TOKEN[21:],
        TOKEN[:20] + "\ud800" + TOKEN[21:],
        TOKEN[:20] + "٣" + TOKEN[21:],
        TOKEN * 1000,
    ],
    ids=len,
)
def test_text_of_another_form_is_no_refresh_token(token: str) -> None:
    assert TOKENS.parse(token) is None


def test_a_refresh_token_with_any_altered_character_is_refused() -> None:
    alphabet = string.ascii_letters + string.digits + "-_"
    for position in range(4, len(TOKEN)):
        for character in set(alphabet) - {TOKEN[position]}:
            assert TOKENS.parse(TOKEN[:position] + character + TOKEN[position + 1 :]) is None


def test_the_repr_of_the_tokens_hides_the_key() -> None:
    assert repr(KEY)[2:-1] not in repr(TOKENS)
