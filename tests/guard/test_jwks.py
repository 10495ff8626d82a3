"""The issuer's keys in a sibling's hands: read once, kept, renewed, and done without."""

import asyncio
import gzip
import logging
import os
import signal
import socket
import ssl
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx

from tests.certificates import Authority
from tests.clock import PATIENCE
from tests.guard.fakes import BELIEVES_NOBODY, ISSUER, FakeIssuer, Gate, Timer
from tests.sweeps import swept
from tests.upstream import Behaviour, Upstream, abort, answer, endless, hang, raw
from wxauth.errors import KeysUnavailable
from wxauth.guard.jwks import METADATA_PATH, RemoteKeys
from wxauth.tokens.keys import SigningKey

DAY = 86400


@pytest.fixture
def keys(issuer: FakeIssuer, timer: Timer) -> RemoteKeys:
    return RemoteKeys(ISSUER, timer=timer, ssl_context=BELIEVES_NOBODY)


@pytest.fixture
def gate(issuer: FakeIssuer) -> Gate:
    """Intercepts requests for the issuer's key set."""
    return issuer.gated()


async def settled() -> None:
    """Wait for a fetch in the background."""
    for thread in threading.enumerate():
        if thread.name == f"read the keys of {ISSUER}":
            await asyncio.to_thread(thread.join, PATIENCE)


# Reading.


async def test_keys_are_read_again_in_the_background_after_their_max_age(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer
) -> None:
    await keys.find(issuer.key.kid)
    gate = issuer.gated()
    timer.seconds += 300
    assert all([await keys.find(issuer.key.kid) for _ in range(20)])  # none of them waits
    await gate.reached()
    gate.opened.set()
    await settled()
    assert issuer.fetches == (2, 2)


async def is_fetched_again_after(seconds: float, keys: RemoteKeys, issuer: FakeIssuer, timer: Timer) -> None:
    await keys.find(issuer.key.kid)
    timer.seconds += seconds - 0.1
    await keys.find(issuer.key.kid)
    await settled()
    assert issuer.fetches == (1, 1)
    timer.seconds += 0.1
    await keys.find(issuer.key.kid)
    await settled()
    assert issuer.fetches == (2, 2)


@pytest.mark.parametrize(
    ("cache_control", "age", "seconds"),
    [
        ("public, max-age=60", "0", 60),
        ("max-age = 60", "-5", 60),
        ('s-maxage=5, Max-Age="60"', "soon", 60),
        ("max-age=0", "0", 1),
        ("max-age=999999999", "0", DAY),
        ("max-age=-5", "0", 300),
        ("max-age=soon", "0", 300),
        ("x-max-age=5", "0", 300),
        ("no-store", "0", 300),
        ("", "0", 300),
        ("max-age=60", "50", 10),
        ("max-age=60", "50, 20", 10),
        ("max-age=60", "59", 1),
        ("max-age=60", "60", 1),
        ("max-age=60", "999999999", 1),
        ("max-age=60", "5.5", 60),
    ],
)
async def test_the_max_age_is_the_key_sets_own_without_its_age_in_a_cache_on_the_way(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer, cache_control: str, age: str, seconds: int
) -> None:
    issuer.headers = {"Cache-Control": cache_control, "Age": age}
    await is_fetched_again_after(seconds, keys, issuer, timer)


async def test_a_request_that_is_given_up_leaves_the_others_their_answer(
    keys: RemoteKeys, issuer: FakeIssuer, gate: Gate
) -> None:
    given_up, waiting = (asyncio.create_task(keys.find(issuer.key.kid)) for _ in range(2))
    await gate.reached()
    given_up.cancel()
    await asyncio.wait([given_up])
    gate.opened.set()
    assert given_up.cancelled()
    assert await waiting
    assert issuer.fetches == (1, 1)


async def test_a_key_set_is_shared_by_event_loops(keys: RemoteKeys, issuer: FakeIssuer) -> None:
    found = await asyncio.to_thread(asyncio.run, keys.find(issuer.key.kid))
    assert found
    assert await keys.find(issuer.key.kid) is found
    assert issuer.fetches == (1, 1)


async def test_event_loops_and_threads_wait_for_one_fetch(keys: RemoteKeys, issuer: FakeIssuer, gate: Gate) -> None:
    waiting = [asyncio.create_task(keys.find(issuer.key.kid))]
    await gate.reached()
    waiting += [asyncio.create_task(asyncio.to_thread(asyncio.run, keys.find(issuer.key.kid))) for _ in range(3)]
    waiting += [asyncio.create_task(asyncio.to_thread(keys.find_sync, issuer.key.kid)) for _ in range(3)]
    gate.opened.set()
    assert len({id(key) for key in await asyncio.gather(*waiting) if key}) == 1
    assert issuer.fetches == (1, 1)


async def test_a_loop_that_ended_amid_a_fetch_does_no_harm(keys: RemoteKeys, issuer: FakeIssuer, gate: Gate) -> None:
    async def cancel_reader() -> None:
        waiting = asyncio.create_task(keys.find(issuer.key.kid))
        await gate.reached()
        assert not waiting.done()

    await asyncio.to_thread(asyncio.run, cancel_reader())
    gate.opened.set()
    assert await keys.find(issuer.key.kid)
    assert issuer.fetches == (1, 1)


# In threads, without an event loop.


def test_a_thread_needs_no_event_loop(keys: RemoteKeys, issuer: FakeIssuer) -> None:
    assert keys.find_sync(issuer.key.kid) is keys.find_sync(issuer.key.kid)
    assert keys.find_sync("unknown") is None
    assert issuer.fetches == (2, 2)


async def test_a_thread_with_a_running_event_loop_can_look_up_keys(keys: RemoteKeys, issuer: FakeIssuer) -> None:
    assert keys.find_sync(issuer.key.kid)


def test_threads_that_want_a_new_key_while_it_is_read_are_not_told_that_it_is_unknown(
    keys: RemoteKeys, issuer: FakeIssuer
) -> None:
    keys.find_sync(issuer.key.kid)
    new = SigningKey.generate()
    issuer.keys.append(new.public_jwk)

    def ask(_: int) -> bool:
        try:
            return keys.find_sync(new.kid) is not None
        except KeysUnavailable:
            return True

    with ThreadPoolExecutor(32) as threads:
        assert all(threads.map(ask, range(1000)))
    assert keys.find_sync(new.kid)
    assert issuer.fetches == (2, 2)


async def test_of_threads_with_unknown_keys_only_the_first_waits_for_an_issuer_that_hangs(
    issuer: FakeIssuer, timer: Timer
) -> None:
    keys = RemoteKeys(ISSUER, timer=timer, timeout=1, ssl_context=BELIEVES_NOBODY)
    keys.find_sync(issuer.key.kid)
    gate = issuer.gated()
    first = asyncio.create_task(asyncio.to_thread(keys.find_sync, "unknown"))
    await gate.reached()
    for number in range(20):  # in this very thread, which opens the gate: waiting for the fetch would never end
        with pytest.raises(KeysUnavailable, match="are being read"):
            keys.find_sync(f"unknown-{number}")
    timer.seconds += 3600  # no longer fresh, and kept
    assert keys.find_sync(issuer.key.kid)
    with pytest.raises(KeysUnavailable, match="are being read"):
        await first  # a fifth of the timeout, and not to the end
    gate.opened.set()
    await settled()


async def test_threads_wait_again_for_a_fetch_that_the_server_has_not_run(issuer: FakeIssuer, timer: Timer) -> None:
    keys = RemoteKeys(ISSUER, timer=timer, timeout=20, ssl_context=BELIEVES_NOBODY)
    keys.find_sync(issuer.key.kid)
    new = SigningKey.generate()
    issuer.keys.append(new.public_jwk)
    gate = issuer.gated()
    waiting = [asyncio.create_task(asyncio.to_thread(keys.find_sync, new.kid))]
    await gate.reached()
    timer.seconds += 20.1
    waiting.append(asyncio.create_task(asyncio.to_thread(keys.find_sync, new.kid)))
    await asyncio.sleep(0)
    gate.opened.set()
    assert all(await asyncio.gather(*waiting))
    assert issuer.fetches == (2, 2)


async def test_threads_without_any_key_wait_together_for_the_first_fetch_alone(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer
) -> None:
    issuer.fails()
    with pytest.raises(KeysUnavailable, match="no connection"):
        keys.find_sync(issuer.key.kid)
    timer.seconds += 1
    issuer.works()
    gate = issuer.gated()
    first = asyncio.create_task(asyncio.to_thread(keys.find_sync, issuer.key.kid))
    await gate.reached()
    with pytest.raises(KeysUnavailable):
        keys.find_sync(issuer.key.kid)
    gate.opened.set()
    assert await first


async def test_of_threads_the_first_waits_for_a_renewal_and_no_other(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer
) -> None:
    keys.find_sync(issuer.key.kid)
    gate = Gate(lambda: httpx.Response(200, json={"keys": []}))
    issuer.jwks.mock(side_effect=gate)
    timer.seconds += 300
    first = asyncio.create_task(asyncio.to_thread(keys.find_sync, issuer.key.kid))
    await gate.reached()
    assert all([await asyncio.to_thread(keys.find_sync, issuer.key.kid) for _ in range(20)])
    gate.opened.set()
    with pytest.raises(KeysUnavailable, match="no usable key"):
        await first
    assert issuer.fetches == (2, 2)


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("moment", ["before a fetch", "during a fetch"])
def test_a_process_forked_while_a_thread_needs_the_keys_fetches_them_itself(issuer: FakeIssuer, moment: str) -> None:
    gate = issuer.gated() if moment == "during a fetch" else Gate(lambda: httpx.Response(200))
    times = count()

    def time() -> float:
        if next(times) == 1 and moment == "before a fetch":  # the second question is whether to fetch, under a lock
            gate(httpx.Request("GET", ISSUER))
        return 1000

    keys = RemoteKeys(ISSUER, timer=time, ssl_context=BELIEVES_NOBODY)
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(keys.find_sync, issuer.key.kid)
        asyncio.run(gate.reached())
        child = os.fork()
        if child == 0:
            found = None
            try:
                signal.alarm(round(PATIENCE))  # a lock that was held at the fork would be waited for forever
                issuer.works()
                found = keys.find_sync(issuer.key.kid)
            finally:
                os._exit(0 if found else 1)
        gate.opened.set()
        assert os.waitpid(child, 0)[1] == 0
        assert waiting.result()


# An outage.


async def test_keys_are_kept_through_an_outage_of_a_day(keys: RemoteKeys, issuer: FakeIssuer, timer: Timer) -> None:
    await keys.find(issuer.key.kid)
    issuer.fails()
    for _ in range(24):
        timer.seconds += DAY / 24
        assert await keys.find(issuer.key.kid)
        await settled()
    timer.seconds += 1
    with pytest.raises(KeysUnavailable):
        await keys.find(issuer.key.kid)
    issuer.works()
    timer.seconds += 5
    assert await keys.find(issuer.key.kid)


async def test_in_an_outage_the_issuer_is_asked_after_ten_seconds_and_then_ever_more_rarely(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer
) -> None:
    await keys.find(issuer.key.kid)
    issuer.fails()
    timer.seconds += 300
    asked_at = []
    for second in range(200):
        count = issuer.metadata.call_count
        await keys.find(issuer.key.kid)
        await settled()
        assert await keys.find("unknown") is None
        if issuer.metadata.call_count > count:
            asked_at.append(second)
        timer.seconds += 1
    assert asked_at == [0, 10, 30, 70, 130, 190]
    issuer.works()
    timer.seconds += 60
    new = SigningKey.generate()
    issuer.keys.append(new.public_jwk)
    assert await keys.find(new.kid)


async def test_in_an_outage_a_pause_delays_only_the_first_request(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer
) -> None:
    await keys.find(issuer.key.kid)
    issuer.fails()
    timer.seconds += 3600
    assert await keys.find(issuer.key.kid)
    assert issuer.metadata.call_count == 2
    assert all([await keys.find(issuer.key.kid) for _ in range(20)])
    await settled()
    assert issuer.metadata.call_count == 2


async def test_without_any_key_the_issuer_is_asked_after_a_second_and_then_more_rarely(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer
) -> None:
    issuer.fails()
    asked_at = []
    for second in range(20):
        count = issuer.metadata.call_count
        for _ in range(50):
            with pytest.raises(KeysUnavailable) as failure:
                await keys.find(issuer.key.kid)
            assert failure.value.headers()["Retry-After"] == "5"
        if issuer.metadata.call_count > count:
            asked_at.append(second)
        timer.seconds += 1
    assert asked_at == [0, 1, 3, 7, 12, 17]
    issuer.works()
    timer.seconds += 5
    assert await keys.find(issuer.key.kid)


# Keys that come and go.


async def test_an_unknown_key_is_looked_for_at_once_and_then_every_ten_seconds(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer
) -> None:
    assert await keys.find("unknown") is None  # the first load, which does not count
    assert await keys.find("unknown") is None
    assert issuer.fetches == (2, 2)
    for seconds in (0, 5, 4.9):
        timer.seconds += seconds
        assert [await keys.find(f"unknown-{number}") for number in range(50)] == [None] * 50
    assert issuer.fetches == (2, 2)
    timer.seconds += 0.1
    await keys.find("unknown")
    assert issuer.fetches == (3, 3)


async def test_an_unknown_key_is_looked_for_as_soon_as_the_keys_are_due(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer
) -> None:
    issuer.headers = {"Cache-Control": "max-age=1"}
    await keys.find(issuer.key.kid)
    await keys.find("unknown")
    issuer.keys.append((new := SigningKey.generate()).public_jwk)
    timer.seconds += 1
    assert await keys.find(new.kid)


async def test_a_new_key_is_found_by_all_who_ask_for_it_at_once(keys: RemoteKeys, issuer: FakeIssuer) -> None:
    await keys.find(issuer.key.kid)
    new = SigningKey.generate()
    issuer.keys.append(new.public_jwk)
    found = await asyncio.gather(*(keys.find(new.kid) for _ in range(200)))
    assert all(found)
    assert issuer.fetches == (2, 2)


@pytest.mark.parametrize("pause", [0, 3600])
async def test_an_unknown_key_is_looked_for_once_and_does_not_delay_a_known_key(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer, pause: int
) -> None:
    await keys.find(issuer.key.kid)
    timer.seconds += pause
    gate = issuer.gated()
    asking = asyncio.create_task(keys.find("unknown"))
    await gate.reached()
    assert await keys.find(issuer.key.kid)
    gate.opened.set()
    assert await asking is None
    assert issuer.fetches == (2, 2)


async def test_an_unknown_key_in_an_outage_leaves_the_known_key_fresh(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer
) -> None:
    await keys.find(issuer.key.kid)
    issuer.fails()
    assert await keys.find("unknown") is None
    for _ in range(29):  # nearly to their max-age
        timer.seconds += 10
        assert await keys.find(issuer.key.kid)
        await settled()
    assert issuer.metadata.call_count == 2


async def test_a_key_that_a_fresh_set_no_longer_has_stops_working(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer
) -> None:
    await keys.find(issuer.key.kid)
    issuer.keys = [SigningKey.generate().public_jwk]
    timer.seconds += 300
    await keys.find(issuer.key.kid)
    await settled()
    assert await keys.find(issuer.key.kid) is None


async def test_a_key_withdrawn_while_nobody_asked_is_not_used_once_the_new_set_is_read(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer
) -> None:
    await keys.find(issuer.key.kid)
    new = SigningKey.generate()
    issuer.keys = [new.public_jwk]
    timer.seconds += 300 + 300
    gate = issuer.gated()
    first = asyncio.create_task(keys.find(issuer.key.kid))
    await gate.reached()
    gate.opened.set()
    assert await first is None
    assert await keys.find(new.kid)
    assert issuer.fetches == (2, 2)


async def test_a_key_that_has_taken_the_name_of_another_is_the_one_that_counts(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer
) -> None:
    await keys.find(issuer.key.kid)
    successor = SigningKey.generate()
    issuer.keys = [successor.public_jwk | {"kid": issuer.key.kid}]
    timer.seconds += 300
    await keys.find(issuer.key.kid)
    await settled()
    found = await keys.find(issuer.key.kid)
    assert found
    assert found.key.to_dict()["x"] == successor.public_jwk["x"]


@pytest.mark.parametrize("left", [[], [{"kty": "RSA", "kid": "other", "n": "AQAB", "e": "AQAB"}]])
async def test_a_new_key_set_without_a_usable_key_ends_all_known_keys(
    keys: RemoteKeys, issuer: FakeIssuer, timer: Timer, left: list[Any]
) -> None:
    await keys.find(issuer.key.kid)
    issuer.keys = left
    timer.seconds += 300
    with suppress(KeysUnavailable):  # where the reading is the faster one
        await keys.find(issuer.key.kid)
    await settled()
    with pytest.raises(KeysUnavailable):
        await keys.find(issuer.key.kid)


@pytest.mark.parametrize(
    "change",
    [
        {"kty": "RSA"},
        {"kty": "ec"},
        {"kty": None},
        {"crv": "P-384"},
        {"crv": "secp256k1"},
        {"use": "enc"},
        {"use": None},
        {"alg": "ES384"},
        {"alg": "none"},
        {"alg": ["ES256"]},
        {"kid": ["a"]},
        {"x": "AA"},
        {"x": 7},
        {"x": "A" * 43},
        {"y": None},
        {"y": "+" * 43},
        {"x": "_" * 43, "y": "_" * 43},
    ],
    ids=str,
)
async def test_a_key_that_is_not_for_es256_is_passed_over(
    keys: RemoteKeys, issuer: FakeIssuer, change: dict[str, Any]
) -> None:
    issuer.keys = [SigningKey.generate().public_jwk, issuer.key.public_jwk | change, None, [], "key"]
    assert await keys.find(issuer.key.kid) is None


@pytest.mark.parametrize("absent", ["use", "alg"])
async def test_use_and_alg_may_be_absent(keys: RemoteKeys, issuer: FakeIssuer, absent: str) -> None:
    issuer.keys = [{name: value for name, value in issuer.key.public_jwk.items() if name != absent}]
    assert await keys.find(issuer.key.kid)


async def test_two_usable_keys_with_the_same_kid_are_both_refused(keys: RemoteKeys, issuer: FakeIssuer) -> None:
    other, twin = SigningKey.generate(), SigningKey.generate()
    issuer.keys += [other.public_jwk, twin.public_jwk | {"kid": issuer.key.kid}]
    assert await keys.find(issuer.key.kid) is None
    assert await keys.find(other.kid)


async def test_a_key_of_another_kind_may_share_a_kid(keys: RemoteKeys, issuer: FakeIssuer) -> None:
    issuer.keys.append(issuer.key.public_jwk | {"use": "enc"})
    assert await keys.find(issuer.key.kid)


async def test_a_set_may_have_very_many_keys(keys: RemoteKeys, issuer: FakeIssuer) -> None:
    issuer.keys = [issuer.key.public_jwk | {"kid": f"key-{number}"} for number in range(1000)]
    assert await keys.find("key-0")
    assert await keys.find("key-999")
    assert issuer.fetches == (1, 1)


async def test_a_keys_private_part_is_not_kept(keys: RemoteKeys, issuer: FakeIssuer) -> None:
    private = {
        name: text.decode() if isinstance(text, bytes) else text for name, text in issuer.key.signer.to_dict().items()
    }
    assert "d" in private
    issuer.keys = [issuer.key.public_jwk | private]
    found = await keys.find(issuer.key.kid)
    assert found
    assert "d" not in found.key.to_dict()


# Documents that are not to be believed.


async def refused(keys: RemoteKeys) -> str:
    with pytest.raises(KeysUnavailable) as failure:
        await keys.find("any")
    return failure.value.detail


@pytest.mark.parametrize("named", ["https://evil.test", f"{ISSUER}/", ISSUER.upper(), None, [ISSUER]])
async def test_metadata_that_names_another_issuer_is_refused(
    keys: RemoteKeys, issuer: FakeIssuer, named: object
) -> None:
    issuer.document["issuer"] = named
    reason = f"the metadata names another issuer, {str(named)!r}, in place of {ISSUER!r}"
    assert await refused(keys) == f"the issuer's keys cannot be read: {reason}"
    assert issuer.fetches == (1, 0)


async def test_another_issuer_is_named_without_its_password(
    keys: RemoteKeys, issuer: FakeIssuer, caplog: pytest.LogCaptureFixture
) -> None:
    issuer.document["issuer"] = "https://operator:p@ss?word@auth.example.com/\n" + "x" * 10_000
    with caplog.at_level(logging.WARNING, "wxauth"):
        reported = [await refused(keys), caplog.text]
    for text in reported:
        assert "the metadata names another issuer, 'auth.example.com/\\nx" in text
        assert len(text) < 1000
        assert not any(secret in text for secret in ("operator", "p@ss", "word"))


# Inside the operator's network.


INTERNAL = "http://wxauth:8000"


@pytest.fixture
def inside(respx_mock: respx.MockRouter) -> FakeIssuer:
    """An issuer that answers only at its internal URL."""
    return FakeIssuer(respx_mock, at=INTERNAL)


def keys_inside(internal_url: str = INTERNAL) -> RemoteKeys:
    return RemoteKeys(ISSUER, internal_url=internal_url, ssl_context=BELIEVES_NOBODY)


async def test_keys_are_read_at_an_internal_url_and_the_issuer_stays_public(inside: FakeIssuer) -> None:
    assert await keys_inside().find(inside.key.kid)
    assert inside.fetches == (1, 1)


async def test_an_internal_url_and_an_issuer_may_each_have_a_path(respx_mock: respx.MockRouter) -> None:
    key, issuer = SigningKey.generate(), f"{ISSUER}/wx"
    metadata = {"issuer": issuer, "jwks_uri": f"{issuer}/.well-known/jwks.json"}
    respx_mock.get(f"https://mesh.test/auth{METADATA_PATH}").respond(json=metadata)
    respx_mock.get("https://mesh.test/auth/.well-known/jwks.json").respond(json={"keys": [key.public_jwk]})
    keys = RemoteKeys(issuer, internal_url="https://mesh.test/auth", ssl_context=BELIEVES_NOBODY)
    assert await keys.find(key.kid)


async def test_inside_the_metadata_must_name_the_public_issuer(inside: FakeIssuer) -> None:
    inside.document = {"issuer": INTERNAL, "jwks_uri": f"{INTERNAL}/.well-known/jwks.json"}
    assert f"another issuer, '{INTERNAL}', in place of '{ISSUER}'" in await refused(keys_inside())
    assert inside.fetches == (1, 0)


@pytest.mark.parametrize(
    "jwks_uri",
    [
        f"{INTERNAL}/.well-known/jwks.json",
        "https://keys.test/set",
        ISSUER,
        f"{ISSUER}/",
        f"{ISSUER}.evil.test/keys",
        f"{ISSUER}@evil.test/keys",
        f"{ISSUER}/../keys",
        f"{ISSUER}/a/%2e%2e/keys",
        f"{ISSUER}/a/..",
        f"{ISSUER}//evil.test/keys",
        f"{ISSUER}/keys?at=evil.test",
        f"{ISSUER}/keys\n",
        "",
        None,
        7,
    ],
)
async def test_inside_a_jwks_uri_that_is_not_below_the_issuer_is_refused(inside: FakeIssuer, jwks_uri: object) -> None:
    inside.document["jwks_uri"] = jwks_uri
    assert (await refused(keys_inside())).endswith("the metadata's jwks_uri is not below the issuer")
    assert inside.fetches == (1, 0)


@pytest.mark.parametrize(
    "url",
    ["wxauth:8000", "http://wxauth:8000/", "http://operator:secret@wxauth", ""],
)
def test_an_internal_url_is_a_host_and_perhaps_a_path(url: str) -> None:
    with pytest.raises(ValueError, match="internal_url must be an http or https URL without user") as refusal:
        keys_inside(url)
    assert "secret" not in str(refusal.value)


# Failures of a fetch.


async def test_a_host_without_an_address_is_named_as_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    reported = await refused(keys_inside("http://wxauth.invalid:8000"))
    assert "the host's name could not be resolved: " in reported
    assert "wxauth.invalid" not in reported
    assert f"The keys of {ISSUER} could not be read at http://wxauth.invalid:8000: the host's name" in caplog.text


async def test_a_refused_connection_is_named_as_the_cause() -> None:
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        port = nobody_listens.getsockname()[1]
        assert (await refused(keys_inside(f"http://127.0.0.1:{port}"))).endswith("no connection: Connection refused")


@pytest.mark.parametrize(
    ("host", "days", "reason"),
    [("127.0.0.1", -1, "certificate has expired"), ("wxauth.internal", 2, "IP address mismatch")],
)
async def test_an_invalid_certificate_is_named_as_the_cause(tmp_path: Path, host: str, days: int, reason: str) -> None:
    authority = Authority(tmp_path)
    async with Upstream(hang, tls=authority.server(host, days=days)) as server:
        reported = await refused(RemoteKeys(server.url, ssl_context=authority.trusted()))
    assert reported == f"the issuer's keys cannot be read: TLS failed: {reason}"


@pytest.mark.slow
async def test_a_server_without_tls_is_named_as_the_cause() -> None:
    async with Upstream(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        keys = RemoteKeys(server.url.replace("http:", "https:"), ssl_context=ssl.create_default_context())
        assert "TLS failed: " in await refused(keys)


async def test_a_connection_timeout_is_named_as_the_cause(keys: RemoteKeys, issuer: FakeIssuer) -> None:
    issuer.metadata.mock(side_effect=httpx.ConnectTimeout("slow"))
    assert "no connection within 4 s" in await refused(keys)


@swept(
    "jwks_uri",
    [
        "http://auth.test/.well-known/jwks.json",
        "file:///etc/passwd",
        "/.well-known/jwks.json",
        "https:///.well-known/jwks.json",
        "",
        None,
        ["https://auth.test/.well-known/jwks.json"],
        "http://127.0.0.1:8000/keys",
        "http://localhost/keys",
        "http://[::1]/keys",
        "https://[::1/set",
        "https://auth.test:port/set",
        "https://auth .test/\x00",
    ],
)
async def test_a_jwks_uri_that_is_not_https_is_refused(issuer: FakeIssuer, jwks_uri: object) -> None:
    issuer.document["jwks_uri"] = jwks_uri
    keys = RemoteKeys(ISSUER, ssl_context=BELIEVES_NOBODY)
    assert (await refused(keys)).endswith(
        ("the metadata's jwks_uri is missing or not https", "InvalidURL", "ValueError")
    )


@swept("which", ["metadata", "jwks"])
@swept(
    "answer",
    [
        httpx.Response(404),
        httpx.Response(500, json={"keys": []}),
        httpx.Response(204),
        httpx.Response(200, content=b""),
        httpx.Response(200, content=b"<html>"),
        httpx.Response(200, content=b'{"keys": [\xff]}'),
        httpx.Response(200, content=b"[" * 100_000),
        httpx.Response(200, content=b'{"a":' * 20_000 + b"1" + b"}" * 20_000),
        httpx.Response(200, json=[]),
        httpx.Response(200, json=None),
        httpx.Response(200, json={}),
        httpx.Response(200, json={"keys": {}, "issuer": {}}),
        httpx.Response(200, content=b'{"keys": [], "x": "' + b"x" * 300_000 + b'"}'),
        httpx.ReadTimeout("slow"),
        httpx.RemoteProtocolError("not HTTP"),
    ],
    ids=lambda answer: str(answer.content[:20] if isinstance(answer, httpx.Response) else answer),
)
async def test_a_document_that_makes_no_sense_is_an_outage(
    keys: RemoteKeys, issuer: FakeIssuer, which: str, answer: httpx.Response | Exception
) -> None:
    getattr(issuer, which).mock(side_effect=[answer])
    assert (await refused(keys)).startswith("the issuer's keys cannot be read: ")


@pytest.mark.parametrize("which", ["metadata", "jwks"])
async def test_a_redirect_is_not_followed(keys: RemoteKeys, issuer: FakeIssuer, which: str) -> None:
    getattr(issuer, which).mock(return_value=httpx.Response(307, headers={"Location": f"{ISSUER}/elsewhere"}))
    assert await refused(keys) == "the issuer's keys cannot be read: status 307"


async def test_no_compressed_answer_is_requested(keys: RemoteKeys, issuer: FakeIssuer) -> None:
    await keys.find(issuer.key.kid)
    asked = [route.calls.last.request.headers["accept-encoding"] for route in (issuer.metadata, issuer.jwks)]
    assert asked == ["identity", "identity"]


async def test_an_issuer_may_have_a_path(respx_mock: respx.MockRouter) -> None:
    key = SigningKey.generate()
    metadata = {"issuer": f"{ISSUER}/wx/auth", "jwks_uri": "https://keys.test/set"}
    respx_mock.get(f"{ISSUER}/wx/auth{METADATA_PATH}").respond(json=metadata)
    respx_mock.get("https://keys.test/set").respond(json={"keys": [key.public_jwk]})
    assert await RemoteKeys(f"{ISSUER}/wx/auth", ssl_context=BELIEVES_NOBODY).find(key.kid)


# A real server that misbehaves.


OK = b"HTTP/1.1 200 OK\r\n"
DOCUMENT = OK + b"Content-Type: application/json\r\n\r\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    "behaviour",
    [
        pytest.param(hang, id="silent"),
        pytest.param(endless(DOCUMENT + b"{", b" ", pause=0.01), id="drips-its-body"),
        pytest.param(endless(OK, b"X: y\r\n", pause=0.01), id="drips-its-head"),
    ],
)
async def test_a_slow_server_is_not_waited_for(behaviour: Behaviour) -> None:
    async with Upstream(behaviour) as server, asyncio.timeout(PATIENCE):
        assert "no answer within 0.3 s" in await refused(
            RemoteKeys(server.url, timeout=0.3, ssl_context=BELIEVES_NOBODY)
        )


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        pytest.param(endless(DOCUMENT, b" " * 65536), "the document is too large", id="endless-body"),
        pytest.param(endless(OK, b"X: " + b"y" * 65536 + b"\r\n"), "RemoteProtocolError", id="endless-head"),
        pytest.param(raw(b"SSH-2.0-OpenSSH_9.2\r\n"), "RemoteProtocolError", id="no-HTTP"),
        pytest.param(abort, "RemoteProtocolError", id="closed"),
    ],
)
async def test_a_server_that_talks_nonsense_is_an_outage(behaviour: Behaviour, reason: str) -> None:
    async with Upstream(behaviour) as server:
        assert reason in await refused(RemoteKeys(server.url, ssl_context=BELIEVES_NOBODY))


async def test_a_document_that_unfolds_is_not_unfolded() -> None:
    bomb = gzip.compress(b'{"keys": [' + b" " * 30_000_000 + b"]}")
    assert len(bomb) < 50_000

    async with Upstream(answer(bomb, headers="Content-Encoding: gzip\r\n")) as server:
        keys = RemoteKeys(server.url, ssl_context=BELIEVES_NOBODY)
        tracemalloc.start()
        try:
            await refused(keys)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert most < 5_000_000


@pytest.mark.parametrize("is_internal", [True, False], ids=["inside", "on loopback"])
async def test_an_issuer_nearby_is_read_past_any_proxy(monkeypatch: pytest.MonkeyPatch, is_internal: bool) -> None:
    key = SigningKey.generate()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    async def document(writer: asyncio.StreamWriter) -> None:
        issuer = ISSUER if is_internal else server.url
        await answer({"issuer": issuer, "jwks_uri": f"{issuer}/keys", "keys": [key.public_jwk]})(writer)

    async with Upstream(document) as server:
        keys = keys_inside(server.url) if is_internal else RemoteKeys(server.url, ssl_context=BELIEVES_NOBODY)
        assert await keys.find(key.kid)
