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
from tests.world import Rows, Server, Stage, until
from wxauth.core.clock import FIRST_ID
from wxauth.core.connecting import DEADLINES
from wxauth.core.sealing import CannotOpen, Sealer, session_key_context
from wxauth.core.services import Services
from wxauth.keys.keyring import REFRESH_PAUSE_SECONDS, KeyRing
from wxauth.keys.models import JWKS_MAX_AGE_SECONDS, LONGEST_TOKEN_TTL_SECONDS, RETIRES_AFTER
from wxauth.service.resealing import Resealed, SealedCounts, forget, reseal
from wxauth.session_keys.queries import replace_session_keys, session_keys_sealed_otherwise

pytestmark = pytest.mark.no_signing_key

JWKS = "/.well-known/jwks.json"
SEEN_WITHIN = 15
CLOCKS_APART = 30
MAX_AGE = 7776000


async def kids(services: Services) -> list[str]:
    await services[KeyRing].refresh()
    return [key["kid"] for key in json.loads(services[KeyRing].jwks)["keys"]]


# Signing keys.


async def test_a_rotated_key_is_published_at_once_and_signs_when_caches_have_had_time(stage: Stage) -> None:
    first = kid_of(await stage.login("alice"))
    rotated = await stage.services[KeyRing].rotate()
    assert await kids(stage.services) == [first, rotated.kid]
    stage.clock.advance(seconds=SEEN_WITHIN + JWKS_MAX_AGE_SECONDS + CLOCKS_APART)
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
    stage.clock.advance(seconds=MAX_AGE - 1)
    await asyncio.gather(*(replica[KeyRing].refresh() for replica in replicas))
    assert await stage.number("signing_keys") == 1
    stage.clock.advance(seconds=1)
    for _ in range(2):
        await asyncio.gather(*(replica[KeyRing].refresh() for replica in replicas))
        assert await stage.number("signing_keys") == 2
    assert len({replica[KeyRing].jwks for replica in replicas}) == 1


# The commands.


@pytest.mark.process
async def test_keys_rotate_says_when_the_new_key_signs_and_list_shows_it(wxauth: WxAuth) -> None:
    assert (await wxauth("keys", "list", "--json"))[:2] == (0, '{"items":[],"next_cursor":null}\n')
    first = json.loads((await wxauth("keys", "rotate", "--json"))[1])["kid"]  # no key existed before
    before = datetime.now(UTC)
    status, output, _ = await wxauth("keys", "rotate")
    kid, signs_from = output.strip().split(" signs from ")
    assert status == 0
    assert datetime.fromisoformat(signs_from) - before >= timedelta(seconds=JWKS_MAX_AGE_SECONDS + SEEN_WITHIN)
    listed = json.loads((await wxauth("keys", "list", "--json"))[1])["items"]
    assert [(key["kid"], key["state"]) for key in listed] == [(first, "signing"), (kid, "next")]
    assert (listed[1]["signs_from"], listed[1]["published_until"]) == (signs_from, None)
    table = (await wxauth("keys", "list"))[1].splitlines()
    assert [line.split()[:3] for line in table] == [
        ["KID", "ALG", "STATE"],
        [first, "ES256", "signing"],
        [kid, "ES256", "next"],
    ]


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
