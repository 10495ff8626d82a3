"""All replicas share the service's signing keys, which survive restarts and outages."""

import asyncio
import json
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any
from uuid import UUID

import httpx
import pytest

from tests.database_proxy import Proxy
from tests.fakes import OTHER_SECRET_KEY, Clock
from tests.keys.conftest import WxAuth, kid_of
from tests.problems import problem_of
from tests.world import Client, LogIn, MakeServices, Rows, Stage, bearer, make_admin, recorded, until_locked
from wxauth.core.sealing import CannotOpen
from wxauth.core.services import Services
from wxauth.core.trail import OPERATOR
from wxauth.keys.keyring import KeyRing
from wxauth.keys.models import RETIRES_AFTER, key_state
from wxauth.keys.queries import PUBLISHED
from wxauth.service.build import build_services
from wxauth.tokens import AccessClaims, SigningKey, TokenIssuer

JWKS = "/.well-known/jwks.json"
MAX_AGE = 7776000
LEAD = timedelta(days=1)

pytestmark = pytest.mark.no_signing_key


async def published_kids(client: Client) -> list[str]:
    return [key["kid"] for key in (await client.get(JWKS)).json()["keys"]]


async def test_twenty_replicas_that_start_at_once_agree_on_one_key(make_services: MakeServices, rows: Rows) -> None:
    replicas = await asyncio.gather(*(make_services() for _ in range(20)))
    assert len({replica[KeyRing].jwks for replica in replicas}) == 1
    assert await rows.fetchval("SELECT count(*) FROM signing_keys") == 1


@pytest.mark.parametrize("age", [0, MAX_AGE])
async def test_an_unrelated_secret_key_decrypts_nothing_and_creates_no_key(stage: Stage, age: int) -> None:
    stored = await stage.rows.fetch("SELECT * FROM signing_keys")
    stage.clock.advance(seconds=age)
    with pytest.raises(CannotOpen):
        await stage.make_services(secret_key=OTHER_SECRET_KEY)
    assert await stage.rows.fetch("SELECT * FROM signing_keys") == stored


@pytest.mark.requirement("asvs-16.5.3")
async def test_before_the_first_key_is_read_nothing_is_signed_or_published(stage: Stage) -> None:
    token = (await stage.login("alice"))["access_token"]
    unread = build_services(stage.services.settings, clock=stage.clock, wechat_transport=stage.wechat.transport)
    client = stage.make_client(unread)
    refused = {
        "jwks": await client.get(JWKS),
        "me": await client.get("/v1/me", headers=bearer(token)),
        "login": await stage.login.ask("alice", at=client),
    }
    for name, answer in refused.items():
        problem_of(answer, "storage_unavailable" if name == "login" else "keys_unavailable", 503)
        assert int(answer.headers["Retry-After"]) > 0
    assert len(stage.wechat.calls) == 1  # the second code hasn't been used up
    assert (await client.get("/readyz")).json()["checks"]["signing_key"] != "ok"

    await unread[KeyRing].refresh()
    assert (await client.get("/v1/me", headers=bearer(token))).status_code == 200
    await unread.aclose()


async def test_a_key_that_another_replica_added_is_published_at_the_next_look(stage: Stage) -> None:
    [first] = await published_kids(stage.client)
    etag = (await stage.client.get(JWKS)).headers["ETag"]
    added = (await (await stage.make_services())[KeyRing].rotate()).kid
    assert await published_kids(stage.client) == [first]
    await stage.services[KeyRing].refresh()
    assert await published_kids(stage.client) == [first, added]
    assert (await stage.client.get(JWKS, headers={"If-None-Match": etag})).status_code == 200
    assert kid_of(await stage.login("alice")) == first


async def test_a_replica_whose_clock_is_behind_signs_with_the_only_key(clock: Clock, login: LogIn) -> None:
    clock.advance(seconds=-5)
    await login("alice")


async def test_keys_outlive_an_outage_of_the_database(stage: Stage, proxy: Proxy) -> None:
    services = await stage.make_services(database_url=proxy.url)
    client = stage.make_client(services)
    kids = await published_kids(client)
    await proxy.refuse()
    await services[KeyRing].try_refresh()
    assert await published_kids(client) == kids
    await proxy.accept()
    kids.append((await stage.services[KeyRing].rotate()).kid)
    await services[KeyRing].try_refresh()
    assert await published_kids(client) == kids


async def test_a_key_that_cannot_be_decrypted_leaves_the_other_keys_in_use(stage: Stage) -> None:
    kids = await published_kids(stage.client)
    await (await stage.make_services())[KeyRing].rotate()
    await stage.rows.execute("UPDATE signing_keys SET private_key = '\\x00' WHERE kid <> $1", kids[0])
    await stage.services[KeyRing].try_refresh()
    assert await published_kids(stage.client) == kids
    assert [line["event"] for line in stage.log_lines()][-1] == "signing_keys_not_opened"


async def test_the_private_half_is_stored_sealed(services: Services, rows: Rows) -> None:
    stored = await rows.fetchrow("SELECT private_key, public_jwk::jsonb ? 'd' AS has_d FROM signing_keys")
    assert stored["has_d"] is False
    with pytest.raises(ValueError, match="deserialize"):
        SigningKey.from_der(stored["private_key"])


# Withdrawn keys.


ISSUER = "https://auth.test"
A_SECOND = timedelta(seconds=1)


async def states(services: Services) -> dict[str, str]:
    """Return the state of each key in the database."""
    now = services.clock()
    keys = await services.database.rows(PUBLISHED, now=now)
    return {key.kid: str(key_state(key, keys, now)) for key in keys}


def forged(stolen: SigningKey, user: dict[str, Any], session_id: str, clock: Clock) -> str:
    """Return a token that a thief signs for a logged-in user with a stolen key."""
    return TokenIssuer(issuer=ISSUER, audience="wxauth").issue(
        stolen,
        AccessClaims(
            user_id=UUID(user["id"]),
            session_id=UUID(session_id),
            app_id=user["app_id"],
            openid=user["openid"],
            roles=["admin"],
            issued_at=int(clock().timestamp()),
            expires_in=86400,
        ),
    )


async def test_tokens_of_a_withdrawn_key_are_refused_and_sessions_live_on(stage: Stage) -> None:
    alice = await stage.login()
    stolen = stage.services[KeyRing].signing_key(stage.clock())
    for token in (alice["access_token"], forged(stolen, alice["user"], alice["session_id"], stage.clock)):
        assert (await stage.me(token)).status_code == 200  # the service caches the token's signature
    await stage.services[KeyRing].withdraw(stolen.kid, by=OPERATOR)
    assert stolen.kid not in await published_kids(stage.client)
    for token in (alice["access_token"], forged(stolen, alice["user"], alice["session_id"], stage.clock)):
        for path in ("/v1/me", "/v1/verify"):
            problem_of(await stage.client.get(path, headers=bearer(token)), "invalid_token", 401)
    refreshed = (await stage.refresh(alice)).json()
    assert (await stage.me(refreshed)).status_code == 200
    assert refreshed["session_id"] == alice["session_id"]
    assert [kid_of(refreshed)] == await published_kids(stage.client)


@pytest.mark.parametrize("ends", ["withdrawn", "retired"])
async def test_a_key_that_was_withdrawn_or_has_retired_needs_no_withdrawal(stage: Stage, ends: str) -> None:
    key_ring = stage.services[KeyRing]
    kid = key_ring.signing_key(stage.clock()).kid
    if ends == "withdrawn":
        await key_ring.withdraw(kid, by=OPERATOR)
    else:
        await key_ring.rotate(by=OPERATOR)
        stage.clock.advance(seconds=(LEAD + RETIRES_AFTER).total_seconds() + 1)
        await key_ring.refresh()
    root = await make_admin(stage.client, stage.rows, await stage.login("root"))
    problem = problem_of(await root.ask("POST", f"/keys/{kid}/withdraw"), "not_found", 404)
    assert "tokens of a withdrawn or retired key are already refused" in problem["detail"]


async def test_every_replica_drops_a_withdrawn_key_at_its_next_read(stage: Stage) -> None:
    alice = await stage.login()
    other = await stage.make_services()
    await other[KeyRing].withdraw(kid_of(alice), by=OPERATOR)
    assert (await stage.me(alice)).status_code == 200  # the token stays valid for the seconds until the next read
    await stage.services[KeyRing].refresh()
    problem_of(await stage.me(alice), "invalid_token", 401)
    assert stage.services[KeyRing].jwks == other[KeyRing].jwks
    lines = stage.logged("signing_key_withdrawn")
    assert [(line["kid"], line["level"]) for line in lines] == [(kid_of(alice), "warning")] * 2


async def test_a_replica_takes_at_once_what_the_key_signs_that_has_replaced_a_withdrawn_one(stage: Stage) -> None:
    alice = await stage.login()
    other = await stage.replica()
    await other.services[KeyRing].withdraw(kid_of(alice), by=OPERATOR)
    refreshed = (await other.refresh(alice)).json()
    answers = await asyncio.gather(*(stage.me(refreshed) for _ in range(20)))
    assert [answer.status_code for answer in answers] == [200] * 20
    problem_of(await stage.me(alice), "invalid_token", 401)


async def test_keys_that_are_made_up_cost_one_read_a_second(stage: Stage) -> None:
    alice = await stage.login()

    def made_up() -> list[asyncio.Task[httpx.Response]]:
        tokens = [forged(SigningKey.generate(), alice["user"], alice["session_id"], stage.clock) for _ in range(50)]
        return [asyncio.create_task(stage.me(token)) for token in tokens]

    for _ in range(2):
        async with stage.rows.transaction():
            await stage.rows.execute("LOCK TABLE signing_keys")
            asking = made_up()
            await until_locked(stage.rows)
            assert (await stage.me(alice)).status_code == 200, "nobody else waits"
            assert await stage.number("pg_locks WHERE NOT granted") == 1
        for answer in await asyncio.gather(*asking):
            problem_of(answer, "invalid_token", 401)
        async with stage.rows.transaction():
            await stage.rows.execute("LOCK TABLE signing_keys")
            assert {answer.status_code for answer in await asyncio.gather(*made_up())} == {401}, "without a read"
        stage.clock.advance(seconds=1)


async def test_a_waiting_key_replaces_a_withdrawn_one_at_once(stage: Stage) -> None:
    signing = kid_of(await stage.login())
    waiting = await stage.services[KeyRing].rotate()
    await stage.services[KeyRing].withdraw(signing, by=OPERATOR)
    assert kid_of(await stage.login()) == waiting.kid
    assert await states(stage.services) == {waiting.kid: "signing"}
    stage.clock.now += RETIRES_AFTER + LEAD
    assert await states(stage.services) == {waiting.kid: "signing"}, "it does not retire"


async def test_without_a_waiting_key_a_new_one_signs_at_once_and_a_former_one_does_not(stage: Stage) -> None:
    former = kid_of(await stage.login())
    signing = await stage.services[KeyRing].rotate()
    stage.clock.now = signing.activates_at
    await stage.services[KeyRing].withdraw(signing.kid, by=OPERATOR)
    new = kid_of(await stage.login())
    assert new not in (former, signing.kid)
    assert await states(stage.services) == {former: "former", new: "signing"}


async def test_a_withdrawn_waiting_key_is_replaced(stage: Stage) -> None:
    signing = kid_of(await stage.login())
    waiting = await stage.services[KeyRing].rotate()
    stage.clock.now = waiting.activates_at - A_SECOND
    await stage.services[KeyRing].withdraw(waiting.kid, by=OPERATOR)
    [(first, one), (other, two)] = (await states(stage.services)).items()
    assert ((first, one), two) == ((signing, "signing"), "next")
    assert other != waiting.kid
    stage.clock.now += LEAD
    assert kid_of(await stage.login()) == other
    # The tokens that this key has signed so far keep their usual lifetime.
    assert await stage.rows.fetchval("SELECT retires_at FROM signing_keys WHERE kid = $1", signing) == (
        stage.clock.now + RETIRES_AFTER
    )


async def test_a_former_key_is_withdrawn_and_nothing_else_happens(stage: Stage) -> None:
    former = await stage.login()
    stage.clock.now = (signing := await stage.services[KeyRing].rotate()).activates_at
    await stage.services[KeyRing].withdraw(kid_of(former), by=OPERATOR)
    assert await states(stage.services) == {signing.kid: "signing"}


async def test_withdrawals_of_one_key_at_the_same_time_make_one_successor(stage: Stage) -> None:
    kid = kid_of(await stage.login())
    replicas = [await stage.make_services() for _ in range(5)]
    done = await asyncio.gather(
        *(replica[KeyRing].withdraw(kid, by=OPERATOR) for replica in replicas), return_exceptions=True
    )
    assert sorted(type(result).__name__ for result in done) == ["NotFound"] * 4 + ["StoredSigningKey"]
    assert await stage.number("signing_keys") == 1
    assert await stage.number("events WHERE type = 'signing_key.withdrawn'") == 1


# Clocks that are ahead.


async def made_by_a_clock_ahead(services: Services, clock: Clock, **ahead: float) -> str:
    clock.advance(**ahead)
    kid = (await services[KeyRing].rotate()).kid
    clock.advance(**{name: -value for name, value in ahead.items()})
    await services[KeyRing].refresh()
    return kid


@pytest.mark.parametrize("ahead", [{"days": 8}, {"days": 400}], ids=str)
async def test_a_key_that_a_clock_ahead_has_dated_is_the_next_one(stage: Stage, ahead: dict[str, float]) -> None:
    first = kid_of(await stage.login())
    early = await made_by_a_clock_ahead(stage.services, stage.clock, **ahead)
    rotated = await stage.services[KeyRing].rotate()
    assert (rotated.kid, rotated.activates_at) == (early, stage.clock() + LEAD)
    assert (await stage.services[KeyRing].rotate()).kid == early
    stage.clock.now += LEAD
    assert kid_of(await stage.login()) == early
    stage.clock.now += RETIRES_AFTER
    assert await states(stage.services) == {early: "signing"}
    assert first not in await states(stage.services)


async def test_keys_all_created_by_a_clock_ahead_can_be_rotated(stage: Stage) -> None:
    ahead = "created_at = created_at + interval '1 year', activates_at = activates_at + interval '1 year'"
    await stage.rows.execute(f"UPDATE signing_keys SET {ahead}")
    await stage.services[KeyRing].refresh()
    assert await stage.number("signing_keys") == 2, "an age that cannot be trusted counts as the highest"
    first = kid_of(await stage.login())
    rotated = await stage.services[KeyRing].rotate()
    assert kid_of(await stage.login()) == first
    stage.clock.now = rotated.activates_at
    assert kid_of(await stage.login()) == rotated.kid != first
    stage.clock.now += RETIRES_AFTER
    assert await states(stage.services) == {rotated.kid: "signing"}


async def test_a_wrong_clock_here_takes_no_key_from_those_that_are_right(stage: Stage) -> None:
    answer = await stage.login()
    stage.clock.now = (await stage.services[KeyRing].rotate()).activates_at
    signed_now = await stage.login()
    stage.clock.advance(hours=-1)
    await stage.services[KeyRing].rotate()
    stage.clock.advance(hours=1)
    await stage.services[KeyRing].refresh()
    assert {kid_of(answer), kid_of(signed_now)} <= set(await states(stage.services))


# The command `wxauth keys`.


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
    [left] = [key["kid"] for key in (await answered(wxauth("keys", "list", "--json")))["items"]]
    assert (status, output) == (0, f"withdrew {second}. {left} signs now\n")
    withdrawn = [("operator", {"kid": kid}) for kid in (first, second)]
    assert await recorded(rows, "actor, data", "type = 'signing_key.withdrawn'") == withdrawn


@pytest.mark.process
async def test_the_command_fails_for_an_unpublished_key_and_another_secret_key(wxauth: WxAuth, rows: Rows) -> None:
    for unknown in "nothing", "-hBeginsLikeAnOption":
        status, output, errors = await wxauth("keys", "withdraw", unknown)
        assert (status, output) == (1, "")
        assert "wxauth keys list" in errors
        kid = (await answered(wxauth("keys", "rotate", "--json")))["kid"]
    status, output, errors = await wxauth("keys", "withdraw", kid, WXAUTH_SECRET_KEY=OTHER_SECRET_KEY)
    assert (status, output) == (1, "")
    assert errors.startswith("WXAUTH_SECRET_KEY: must be the key that encrypted the stored values")
    assert "'wxauth secret forget'" in errors, "what to do if it is lost"
    assert await rows.fetchval("SELECT count(*) FROM signing_keys") == 2
