"""Keys change without an interruption. Age or a command rotates signing keys, and resealing rotates the secret key."""

import asyncio
import json
import sys
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.fakes import OTHER_SECRET_KEY, SECRET_KEY, Clock
from tests.keys.conftest import WxAuth, kid_of
from tests.problems import problem_of
from tests.processes import WXAUTH, Running, free_port
from tests.world import Rows, Server, Stage, add_client, make_admin, until
from wxauth.core.clock import FIRST_ID
from wxauth.core.connecting import DEADLINES
from wxauth.core.sealing import CannotOpen, Sealer, session_key_context
from wxauth.core.services import Services
from wxauth.core.trail import OPERATOR
from wxauth.keys.keyring import REFRESH_PAUSE_SECONDS, KeyRing
from wxauth.keys.models import JWKS_MAX_AGE_SECONDS, LONGEST_TOKEN_TTL_SECONDS, RETIRES_AFTER, StoredSigningKey
from wxauth.keys.queries import PUBLISHED
from wxauth.service.resealing import Resealed, SealedCounts, forget, reseal
from wxauth.session_keys.queries import replace_session_keys, session_keys_sealed_otherwise

pytestmark = pytest.mark.no_signing_key

JWKS = "/.well-known/jwks.json"
SEEN_WITHIN = 15
CLOCKS_APART = 30
MAX_AGE = 7776000
LEAD = 86400
SOON = timedelta(minutes=6)


async def kids(services: Services) -> list[str]:
    await services[KeyRing].refresh()
    return [key["kid"] for key in json.loads(services[KeyRing].jwks)["keys"]]


async def add_site(stage: Stage) -> None:
    uris = ["https://shop.example.com/callback"]
    await add_client(stage.services.database, "shop", now=stage.clock.now, redirect_uris=uris)
    await stage.services[KeyRing].refresh()


# Signing keys.


async def test_a_rotated_key_is_published_at_once_and_signs_when_caches_have_had_time(stage: Stage) -> None:
    first = kid_of(await stage.login("alice"))
    rotated = await stage.services[KeyRing].rotate()
    assert await kids(stage.services) == [first, rotated.kid]
    stage.clock.advance(seconds=LEAD - 1)
    assert kid_of(await stage.login("alice")) == first
    stage.clock.now = rotated.activates_at
    assert kid_of(await stage.login("alice")) == rotated.kid


async def test_a_former_key_is_published_until_the_last_token_of_any_lifetime_has_expired(stage: Stage) -> None:
    [first], alice = await kids(stage.services), await stage.login()
    rotated = await stage.services[KeyRing].rotate()
    stage.clock.now = rotated.activates_at + timedelta(
        seconds=LONGEST_TOKEN_TTL_SECONDS + SEEN_WITHIN + 2 * CLOCKS_APART
    )
    assert await kids(stage.services) == [first, rotated.kid]
    problem_of(await stage.me(alice), "token_expired", 401)
    stage.clock.now = rotated.activates_at + RETIRES_AFTER
    assert await kids(stage.services) == [rotated.kid]
    problem_of(await stage.me(alice), "invalid_token", 401)


async def test_rotations_at_the_same_time_make_one_key(stage: Stage) -> None:
    replicas = [await stage.make_services() for _ in range(10)]
    assert len({key.kid for key in await asyncio.gather(*(replica[KeyRing].rotate() for replica in replicas))}) == 1
    assert await stage.number("signing_keys") == 2
    assert [line["event"] for line in stage.log_lines()].count("signing_key_rotated") == 1


async def test_while_a_key_waits_to_sign_no_other_is_made(services: Services, clock: Clock) -> None:
    waiting = await services[KeyRing].rotate()
    clock.now = waiting.activates_at - timedelta(seconds=1)
    assert (await services[KeyRing].rotate()).kid == waiting.kid
    clock.advance(seconds=1)
    assert (await services[KeyRing].rotate()).kid != waiting.kid


async def test_a_key_of_the_highest_age_is_rotated_once_by_whichever_worker(stage: Stage) -> None:
    replicas = [await stage.make_services(signing_key_max_age=MAX_AGE) for _ in range(8)]
    began = stage.clock.now
    stage.clock.advance(seconds=MAX_AGE - LEAD - 1)
    await asyncio.gather(*(replica[KeyRing].refresh() for replica in replicas))
    assert await stage.number("signing_keys") == 1
    stage.clock.advance(seconds=1)
    for _ in range(2):
        await asyncio.gather(*(replica[KeyRing].refresh() for replica in replicas))
        assert await stage.number("signing_keys") == 2
    assert len({replica[KeyRing].jwks for replica in replicas}) == 1
    newest = "SELECT max(activates_at) FROM signing_keys"
    assert await stage.rows.fetchval(newest) == began + timedelta(seconds=MAX_AGE), "no key signs for longer"
    stage.clock.advance(seconds=MAX_AGE)
    await replicas[0][KeyRing].refresh()
    assert await stage.rows.fetchval(newest) == began + timedelta(seconds=2 * MAX_AGE)


@pytest.mark.parametrize("lead", [360, 86400, 604800])
async def test_a_successor_of_each_kind_waits_for_the_lead(stage: Stage, lead: int) -> None:
    await add_site(stage)
    services = await stage.make_services(signing_key_max_age=MAX_AGE, signing_key_lead=lead)
    waiting = (
        "SELECT alg, activates_at - $1 FROM signing_keys WHERE activates_at > $1 AND retires_at IS NULL ORDER BY alg"
    )

    async def assert_both_wait() -> None:
        found = await stage.rows.fetch(waiting, stage.clock.now)
        assert found == [("ES256", timedelta(seconds=lead)), ("RS256", timedelta(seconds=lead))]

    assert await stage.rows.fetch(waiting, stage.clock.now) == [], "the first keys sign at once"
    await services[KeyRing].rotate()
    await assert_both_wait()
    for kid in (await kids(services))[1::2]:
        await services[KeyRing].withdraw(kid, by=OPERATOR)
    await assert_both_wait()
    stage.clock.advance(seconds=MAX_AGE)
    await services[KeyRing].refresh()
    await assert_both_wait()


async def test_a_waiting_key_can_be_brought_forward_to_six_minutes_from_now(stage: Stage) -> None:
    await add_site(stage)
    first, former_of_id_tokens = await kids(stage.services)
    root = await make_admin(stage.client, stage.rows, await stage.login("root"))
    waiting = (await root.ask("POST", "/keys/rotate")).json()
    stage.clock.advance(minutes=10)
    for body in (None, {}, {"at_once": False}):
        assert (await root.ask("POST", "/keys/rotate", json=body)).json() == waiting
    hastened = (await root.ask("POST", "/keys/rotate", json={"at_once": True})).json()
    signs_from = stage.clock.now + SOON
    assert hastened == {"kid": waiting["kid"], "signs_from": signs_from.isoformat().replace("+00:00", "Z")}
    dates = await stage.rows.fetch("SELECT kid, activates_at, retires_at FROM signing_keys WHERE kid <> $1", first)
    by_kid = {kid: times for kid, *times in dates}
    assert by_kid.pop(former_of_id_tokens)[1] == signs_from + RETIRES_AFTER
    assert list(by_kid.values()) == [[signs_from, None]] * 2
    stage.clock.advance(minutes=1)
    assert (await root.ask("POST", "/keys/rotate", json={"at_once": True})).json() == hastened
    stage.clock.now = signs_from
    assert kid_of(await stage.login()) == waiting["kid"]
    assert await stage.rows.fetchval("SELECT retires_at FROM signing_keys WHERE kid = $1", first) == (
        signs_from + RETIRES_AFTER
    )


async def test_a_new_key_signs_in_six_minutes_if_it_is_asked_for_at_once(stage: Stage) -> None:
    rotated = await stage.services[KeyRing].rotate(at_once=True)
    assert rotated.activates_at == stage.clock.now + SOON
    assert SOON.total_seconds() >= JWKS_MAX_AGE_SECONDS + SEEN_WITHIN + CLOCKS_APART


def previous_version_adds_or_moves_a_key(keys: list[StoredSigningKey], now: datetime) -> bool:
    """The rule of the version before leads, which every replica of that version applies every five seconds."""
    signing = next((key for key in reversed(keys) if key.activates_at <= now), keys[0])
    waits = now < keys[-1].activates_at <= now + 2 * SOON
    return not waits and abs(now - signing.created_at) >= timedelta(seconds=MAX_AGE)


@pytest.mark.parametrize("age", [MAX_AGE - LEAD, MAX_AGE - LEAD // 2, MAX_AGE + LEAD])
async def test_a_replica_of_the_previous_version_leaves_a_waiting_key_alone(stage: Stage, age: int) -> None:
    services = await stage.make_services(signing_key_max_age=MAX_AGE)
    stage.clock.advance(seconds=age)
    for _ in range(2):
        await services[KeyRing].refresh()
        keys = list(await services.database.rows(PUBLISHED, now=stage.clock.now))
        signs_from = keys[-1].activates_at
        assert signs_from == stage.clock.now + timedelta(seconds=LEAD)
        while stage.clock.now < signs_from + timedelta(seconds=MAX_AGE - LEAD):
            assert not previous_version_adds_or_moves_a_key(keys, stage.clock.now)
            stage.clock.advance(seconds=LEAD // 4)


# The commands.


@pytest.mark.process
async def test_keys_rotate_says_when_the_new_key_signs_and_list_shows_it(wxauth: WxAuth) -> None:
    assert (await wxauth("keys", "list", "--json"))[:2] == (0, '{"items":[],"next_cursor":null}\n')
    first = json.loads((await wxauth("keys", "rotate", "--json"))[1])["kid"]  # no key existed before
    before = datetime.now(UTC)
    status, output, _ = await wxauth("keys", "rotate")
    kid, signs_from = output.strip().split(" signs from ")
    assert status == 0
    assert datetime.fromisoformat(signs_from) - before >= timedelta(seconds=LEAD - 1)  # whole seconds are shown
    assert await wxauth("keys", "rotate") == (0, output, ""), "nothing changes"
    listed = json.loads((await wxauth("keys", "list", "--json"))[1])["items"]
    assert [(key["kid"], key["state"]) for key in listed] == [(first, "signing"), (kid, "next")]
    assert (listed[1]["signs_from"], listed[1]["published_until"]) == (signs_from, None)
    table = (await wxauth("keys", "list"))[1].splitlines()
    assert [line.split()[:3] for line in table] == [
        ["KID", "ALG", "STATE"],
        [first, "ES256", "signing"],
        [kid, "ES256", "next"],
    ]
    hastened = json.loads((await wxauth("keys", "rotate", "--at-once", "--json"))[1])
    assert hastened["kid"] == kid
    assert timedelta() < datetime.fromisoformat(hastened["signs_from"]) - before <= SOON + timedelta(minutes=1)


def test_a_worker_reads_the_keys_often_enough_to_know_a_change_within_15_seconds() -> None:
    assert REFRESH_PAUSE_SECONDS + DEADLINES.total <= SEEN_WITHIN


@pytest.mark.skipif(sys.platform != "linux", reason="looks for processes under /proc")
@pytest.mark.process
async def test_every_worker_soon_publishes_a_key_that_a_command_has_made(
    wxauth: WxAuth, env: dict[str, str], tmp_path: Path
) -> None:
    port = free_port()
    env |= {"WXAUTH_PORT": str(port), "WXAUTH_WORKERS": "2"}

    with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as command:
        service = Server(command, port)

        def kids_of(worker: int) -> list[str]:
            with service.only(worker):
                keys = service.client.get(JWKS, headers={"Connection": "close"}).json()["keys"]
            return [key["kid"] for key in keys]

        with service.client:
            await until(lambda: service.has_started == 2)
            kid = json.loads((await wxauth("keys", "rotate", "--json"))[1])["kid"]
            first, second = service.workers()
            await until(lambda: kid in kids_of(first) and kid in kids_of(second))
            assert kids_of(first) == kids_of(second)


# The secret key.


ROTATED = Sealer([b64decode(OTHER_SECRET_KEY), b64decode(SECRET_KEY)])
"""The sealer of a service whose secret key has been rotated."""


async def session_keys(rows: Rows, sealer: Sealer) -> list[bytes]:
    found = await rows.fetch("SELECT app_id, openid, session_key FROM sessions ORDER BY id")
    return [sealer.open(sealed, context=session_key_context(app_id, openid)) for app_id, openid, sealed in found]


@pytest.mark.process
async def test_after_a_reseal_the_former_secret_key_can_go(stage: Stage, wxauth: WxAuth) -> None:
    alice, *_ = [await stage.login(person) for person in ("alice", "bob", "carol")]
    stored = await session_keys(stage.rows, Sealer([b64decode(SECRET_KEY)]))
    rotated = {"WXAUTH_SECRET_KEY": OTHER_SECRET_KEY, "WXAUTH_SECRET_KEY_PREVIOUS": SECRET_KEY}
    assert await wxauth("secret", "reseal", **rotated) == (
        0,
        "encrypted again: 1 signing keys, 3 session keys, 0 phone number responses, 0 webhook secrets, 0 apps\n",
        "",
    )
    services = await stage.make_services(secret_key=OTHER_SECRET_KEY)
    assert await services[KeyRing].find(kid_of(alice))
    assert await session_keys(stage.rows, services[Sealer]) == stored
    again = json.loads((await wxauth("secret", "reseal", "--json", **rotated))[1])
    kinds = ("signing_keys", "session_keys", "phone_answers", "webhook_secrets", "apps", "not_opened")
    assert again == dict.fromkeys(kinds, 0)


@pytest.mark.slow
@pytest.mark.parametrize("page_size", [1, 2, 3, 4, 1000])
async def test_page_by_page_nobody_is_missed(stage: Stage, page_size: int) -> None:
    for person in ("alice", "bob", "carol"):
        await stage.login(person)
    database, now = stage.services.database, stage.clock.now
    for resealed in (Resealed(signing_keys=1, session_keys=3), Resealed()):
        assert await reseal(database, ROTATED, now=now, page_size=page_size) == resealed
    for given_up in (SealedCounts(signing_keys=1, session_keys=3), SealedCounts()):
        assert await forget(database, Sealer([bytes(32)]), now=now, page_size=page_size) == given_up


async def test_a_value_that_has_changed_since_it_was_read_is_left_unchanged(stage: Stage) -> None:
    await stage.login("alice")
    [read], _ = await session_keys_sealed_otherwise(
        stage.services.database, prefix=ROTATED.prefix, after=FIRST_ID, size=1
    )
    await stage.rows.execute("UPDATE sessions SET session_key = 'changed'")
    assert await replace_session_keys(stage.services.database, [read], [b"anew"]) == 0
    assert await stage.rows.fetchval("SELECT session_key FROM sessions") == b"changed"


async def test_after_a_reseal_that_is_killed_no_service_starts_without_the_former_secret_key(stage: Stage) -> None:
    for person in ("alice", "bob"):
        await stage.login(person)
    sealed_anew = "SELECT count(*) FROM sessions WHERE session_key IS NOT NULL AND substring(session_key FOR 5) = $1"
    async with stage.rows.transaction():
        await stage.rows.execute("SELECT FROM sessions ORDER BY id LIMIT 1 FOR UPDATE")
        resealing = asyncio.create_task(reseal(stage.services.database, ROTATED, now=stage.clock.now))
        await until(lambda: stage.rows.fetchval(sealed_anew, ROTATED.prefix))  # resealing skips the locked session
        resealing.cancel()
        await asyncio.gather(resealing, return_exceptions=True)
    with pytest.raises(CannotOpen):
        await stage.make_services(secret_key=OTHER_SECRET_KEY)


async def test_a_session_that_ends_meanwhile_does_not_get_its_key_back(stage: Stage) -> None:
    """Resealing reads the page with this session twice, and counts a value that it can't open only once."""
    ending, other, lost = [(await stage.login(person))["session_id"] for person in ("alice", "bob", "carol")]
    await stage.rows.execute("UPDATE sessions SET session_key = '\\x0102' WHERE id = $1", lost)
    former = await stage.rows.fetchval("SELECT session_key FROM sessions WHERE id = $1", other)
    async with stage.rows.transaction():
        await stage.rows.execute(
            "UPDATE sessions SET session_key = NULL, revoked_at = $2, revoked_reason = 'signed_out' WHERE id = $1",
            ending,
            stage.clock.now,
        )
        resealing = asyncio.create_task(reseal(stage.services.database, ROTATED, now=stage.clock.now))
        changed = "SELECT session_key <> $2 FROM sessions WHERE id = $1"
        await until(lambda: stage.rows.fetchval(changed, other, former))  # resealing skips the locked session
    done = await resealing
    assert (done.session_keys, done.not_opened) == (1, 1)
    assert await stage.rows.fetchval("SELECT session_key FROM sessions WHERE id = $1", ending) is None
