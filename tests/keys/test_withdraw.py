"""`wxauth keys withdraw`: a stolen signing key is good nowhere any more; and no clock stops a rotation."""

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import respx
from jose import jwt

from tests.fakes import APP, Clock, service_env
from tests.problems import problem_of
from tests.processes import PATIENCE, run
from tests.world import Client, LogIn, LogLines, MakeClient, MakeServices, Rows, bearer
from wxauth.errors import InvalidToken
from wxauth.guard import BearerGuard
from wxauth.guard.jwks import METADATA_PATH, RemoteKeys
from wxauth.server.checks.doctor import examine
from wxauth.server.core.services import Services
from wxauth.server.core.trail import OPERATOR
from wxauth.server.keys.keyring import KeyRing
from wxauth.server.keys.models import JWKS_MAX_AGE, RETIRES_AFTER, SIGNS_AFTER, NoSuchKey, key_state
from wxauth.server.keys.rows import published_keys
from wxauth.tokens.keys import SigningKey, TokenIssuer

ISSUER = "https://auth.test"
JWKS = "/.well-known/jwks.json"
MAX_AGE = 7776000
A_SECOND = timedelta(seconds=1)

WxAuth = Callable[..., Awaitable[tuple[int, str, str]]]


def kid_of(answer: dict[str, Any]) -> str:
    return str(jwt.get_unverified_header(answer["access_token"])["kid"])


async def published(client: Client) -> list[str]:
    return [key["kid"] for key in (await client.get(JWKS)).json()["keys"]]


async def states(services: Services) -> dict[str, str]:
    """The state of each key in the database."""
    now = services.clock()
    keys = await published_keys(services.database, now=now)
    return {key.kid: str(key_state(key, keys, now)) for key in keys}


def published_now(services: Services) -> httpx.Response:
    headers = {"Cache-Control": f"public, max-age={JWKS_MAX_AGE}"}
    return httpx.Response(200, content=services[KeyRing].jwks, headers=headers)


def forged(stolen: SigningKey, user: dict[str, Any], session_id: str, clock: Clock) -> str:
    """A token that a thief signs for a logged-in user."""
    return TokenIssuer(issuer=ISSUER, audience="wxauth").issue(
        stolen,
        user_id=UUID(user["id"]),
        session_id=UUID(session_id),
        app_id=user["app_id"],
        openid=user["openid"],
        roles=["admin"],
        now=int(clock().timestamp()),
        expires_in=86400,
    )


async def test_tokens_of_a_withdrawn_key_are_refused_and_sessions_live_on(
    services: Services, client: Client, login: LogIn, clock: Clock
) -> None:
    alice = await login()
    stolen = services[KeyRing].signing_key(clock())
    for token in (alice["access_token"], forged(stolen, alice["user"], alice["session_id"], clock)):
        assert (await client.get("/v1/me", headers=bearer(token))).status_code == 200  # its signature is remembered
    await services[KeyRing].withdraw(stolen.kid, by=OPERATOR)
    assert stolen.kid not in await published(client)
    for token in (alice["access_token"], forged(stolen, alice["user"], alice["session_id"], clock)):
        for path in ("/v1/me", "/v1/verify"):
            problem_of(await client.get(path, headers=bearer(token)), "invalid_token", 401)
    refreshed = (await client.post("/v1/refresh", json={"refresh_token": alice["refresh_token"]})).json()
    assert (await client.get("/v1/me", headers=bearer(refreshed))).status_code == 200
    assert refreshed["session_id"] == alice["session_id"]
    assert [kid_of(refreshed)] == await published(client)


async def test_every_replica_drops_a_withdrawn_key_at_its_next_read(
    services: Services,
    make_services: MakeServices,
    make_client: MakeClient,
    login: LogIn,
    log_lines: LogLines,
) -> None:
    alice = await login()
    other = await make_services()
    await other[KeyRing].withdraw(kid_of(alice), by=OPERATOR)
    client = make_client(services)
    assert (await client.get("/v1/me", headers=bearer(alice))).status_code == 200  # seconds, until
    await services[KeyRing].refresh()
    problem_of(await client.get("/v1/me", headers=bearer(alice)), "invalid_token", 401)
    assert services[KeyRing].jwks == other[KeyRing].jwks
    lines = [line for line in log_lines() if line["event"] == "signing_key_withdrawn"]
    assert [(line["kid"], line["level"]) for line in lines] == [(kid_of(alice), "warning")] * 2


async def test_a_guard_refuses_a_withdrawn_keys_tokens_after_reading_the_keys_again(
    services: Services, client: Client, login: LogIn, clock: Clock
) -> None:
    alice = await login()
    with respx.mock() as router:
        router.get(ISSUER + METADATA_PATH).respond(json={"issuer": ISSUER, "jwks_uri": ISSUER + JWKS})
        router.get(ISSUER + JWKS).mock(side_effect=lambda _: published_now(services))
        keys = RemoteKeys(ISSUER, timer=lambda: clock().timestamp())
        guard = BearerGuard(ISSUER, "wxauth", keys=keys, clock=lambda: clock().timestamp())
        await guard.verify(alice["access_token"])
        await services[KeyRing].withdraw(kid_of(alice), by=OPERATOR)
        clock.advance(seconds=JWKS_MAX_AGE)
        await keys.find(kid_of(alice))  # a thread reads them again, perhaps before this has its answer
        for thread in threading.enumerate():
            if thread.name == f"read the keys of {ISSUER}":
                await asyncio.to_thread(thread.join, PATIENCE)
        with pytest.raises(InvalidToken):
            await guard.verify(alice["access_token"])


async def test_a_waiting_key_replaces_a_withdrawn_one_at_once(services: Services, login: LogIn, clock: Clock) -> None:
    signing = kid_of(await login())
    waiting = await services[KeyRing].rotate()
    await services[KeyRing].withdraw(signing, by=OPERATOR)
    assert kid_of(await login()) == waiting.kid
    assert await states(services) == {waiting.kid: "signing"}
    clock.now += RETIRES_AFTER + SIGNS_AFTER
    assert await states(services) == {waiting.kid: "signing"}, "it does not retire"


async def test_without_a_waiting_key_a_new_one_signs_at_once_and_a_former_one_does_not(
    services: Services, login: LogIn, clock: Clock
) -> None:
    former = kid_of(await login())
    signing = await services[KeyRing].rotate()
    clock.now = signing.activates_at
    await services[KeyRing].withdraw(signing.kid, by=OPERATOR)
    new = kid_of(await login())
    assert new not in (former, signing.kid)
    assert await states(services) == {former: "former", new: "signing"}


async def test_a_withdrawn_waiting_key_is_replaced(services: Services, login: LogIn, clock: Clock, rows: Rows) -> None:
    signing = kid_of(await login())
    waiting = await services[KeyRing].rotate()
    clock.now = waiting.activates_at - A_SECOND
    await services[KeyRing].withdraw(waiting.kid, by=OPERATOR)
    [(first, one), (other, two)] = (await states(services)).items()
    assert ((first, one), two) == ((signing, "signing"), "next")
    assert other != waiting.kid
    clock.now += SIGNS_AFTER
    assert kid_of(await login()) == other
    # The tokens that were signed until now are good for as long as any token.
    assert await rows.fetchval("SELECT retires_at FROM signing_keys WHERE kid = $1", signing) == (
        clock.now + RETIRES_AFTER
    )


async def test_a_former_key_is_withdrawn_and_nothing_else_happens(
    services: Services, login: LogIn, clock: Clock
) -> None:
    former = await login()
    clock.now = (signing := await services[KeyRing].rotate()).activates_at
    await services[KeyRing].withdraw(kid_of(former), by=OPERATOR)
    assert await states(services) == {signing.kid: "signing"}


async def test_withdrawals_of_one_key_at_the_same_time_make_one_successor(
    make_services: MakeServices, login: LogIn, rows: Rows
) -> None:
    kid = kid_of(await login())
    replicas = [await make_services() for _ in range(5)]
    done = await asyncio.gather(
        *(replica[KeyRing].withdraw(kid, by=OPERATOR) for replica in replicas), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in done) == ["NoSuchKey"] * 4 + ["StoredSigningKey"]
    assert await rows.fetchval("SELECT count(*) FROM signing_keys") == 1
    assert await rows.fetchval("SELECT count(*) FROM events WHERE type = 'signing_key.withdrawn'") == 1


async def test_a_key_that_is_unknown_changes_nothing(services: Services, rows: Rows) -> None:
    with pytest.raises(NoSuchKey):
        await services[KeyRing].withdraw("nothing", by=OPERATOR)
    assert await rows.fetchval("SELECT count(*) FROM events") == 0
    assert await rows.fetchval("SELECT count(*) FROM signing_keys") == 1


# A clock that is ahead.


async def made_by_a_clock_ahead(services: Services, clock: Clock, **ahead: float) -> str:
    clock.advance(**ahead)
    kid = (await services[KeyRing].rotate()).kid
    clock.advance(**{name: -value for name, value in ahead.items()})
    await services[KeyRing].refresh()
    return kid


@pytest.mark.parametrize("ahead", [{"hours": 1}, {"days": 400}], ids=str)
async def test_a_key_that_a_clock_ahead_has_dated_is_the_next_one_when_the_keys_are_rotated(
    services: Services, login: LogIn, clock: Clock, rows: Rows, ahead: dict[str, float]
) -> None:
    first = kid_of(await login())
    early = await made_by_a_clock_ahead(services, clock, **ahead)
    rotated = await services[KeyRing].rotate()
    assert (rotated.kid, rotated.activates_at) == (early, clock() + SIGNS_AFTER)
    assert (await services[KeyRing].rotate()).kid == early
    clock.now += SIGNS_AFTER
    assert kid_of(await login()) == early
    clock.now += RETIRES_AFTER
    assert await states(services) == {early: "signing"}
    assert first not in await states(services)


@pytest.mark.no_signing_key
async def test_a_key_made_by_a_clock_ahead_does_not_stop_the_rotation(
    make_services: MakeServices, login: LogIn, clock: Clock
) -> None:
    services = await make_services(signing_key_max_age=MAX_AGE)
    early = await made_by_a_clock_ahead(services, clock, days=400)
    clock.advance(seconds=MAX_AGE)
    await services[KeyRing].refresh()
    clock.now += SIGNS_AFTER
    assert (await states(services))[early] == "signing"


async def test_keys_all_created_by_a_clock_ahead_can_be_rotated(
    services: Services, clock: Clock, login: LogIn, rows: Rows
) -> None:
    ahead = "created_at = created_at + interval '1 year', activates_at = activates_at + interval '1 year'"
    await rows.execute(f"UPDATE signing_keys SET {ahead}")
    await services[KeyRing].refresh()
    first = kid_of(await login())
    rotated = await services[KeyRing].rotate()
    assert kid_of(await login()) == first
    clock.now = rotated.activates_at
    assert kid_of(await login()) == rotated.kid != first
    clock.now += RETIRES_AFTER
    assert await states(services) == {rotated.kid: "signing"}


async def test_a_wrong_clock_here_takes_no_key_from_those_that_are_right(
    services: Services, clock: Clock, login: LogIn
) -> None:
    answer = await login()
    clock.now = (await services[KeyRing].rotate()).activates_at
    signed_now = await login()
    clock.advance(hours=-1)
    await services[KeyRing].rotate()
    clock.advance(hours=1)
    await services[KeyRing].refresh()
    assert {kid_of(answer), kid_of(signed_now)} <= set(await states(services))


async def test_check_reports_a_key_made_by_a_clock_ahead(services: Services, clock: Clock) -> None:
    early = await made_by_a_clock_ahead(services, clock, days=400)
    [reported] = [result for result in await examine(services.settings, clock=clock) if result.name == "signing_keys"]
    assert reported.level == "note"
    assert early in reported.message
    assert "wxauth keys rotate" in reported.message


# The command.


@pytest.fixture
def wxauth(database_url: str, tmp_path: Path) -> WxAuth:
    """Run a command; its status, output and errors."""
    env = service_env(database_url, apps=[APP])

    async def call(*arguments: str, **changed: str) -> tuple[int, str, str]:
        done = await asyncio.to_thread(run, *arguments, cwd=tmp_path, env={**env, **changed})
        return done.returncode, done.stdout, done.stderr

    return call


async def answered(done: Awaitable[tuple[int, str, str]]) -> Any:
    status, output, errors = await done
    assert (status, errors) == (0, "")
    return json.loads(output)


@pytest.mark.process
@pytest.mark.no_signing_key
async def test_the_command_says_which_key_signs_now(wxauth: WxAuth, rows: Rows) -> None:
    first, second = [(await answered(wxauth("keys", "rotate", "--json")))["kid"] for _ in range(2)]
    assert await answered(wxauth("keys", "withdraw", first, "--json")) == {"kid": first, "signing": second}
    status, output, _ = await wxauth("keys", "withdraw", second)
    [left] = [key["kid"] for key in await answered(wxauth("keys", "list", "--json"))]
    assert (status, output) == (0, f"{second} is withdrawn; {left} signs now\n")
    events = await rows.fetch("SELECT type, actor, data FROM events WHERE type = 'signing_key.withdrawn' ORDER BY id")
    assert [(event["type"], event["actor"], json.loads(event["data"])) for event in events] == [
        ("signing_key.withdrawn", "operator", {"kid": first}),
        ("signing_key.withdrawn", "operator", {"kid": second}),
    ]


@pytest.mark.process
async def test_the_command_fails_for_a_key_that_is_not_published_and_for_another_secret_key(
    wxauth: WxAuth, rows: Rows
) -> None:
    for unknown in "nothing", "-hBeginsLikeAnOption":
        status, output, errors = await wxauth("keys", "withdraw", unknown)
        assert (status, output) == (1, "")
        assert "wxauth keys list" in errors
        kid = (await answered(wxauth("keys", "rotate", "--json")))["kid"]
    other = "b3RoZXJvdGhlcm90aGVyb3RoZXJvdGhlcm90aGVyISE="
    status, _, errors = await wxauth("keys", "withdraw", kid, WXAUTH_SECRET_KEY=other)
    assert (status, errors.partition(":")[0]) == (1, "WXAUTH_SECRET_KEY")
    assert await rows.fetchval("SELECT count(*) FROM signing_keys") == 2
