"""A sibling reads the issuer's keys, stores and renews them, and goes on during an outage."""

from __future__ import annotations

import asyncio
import gzip
import logging
import os
import signal
import socket
import ssl
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
import respx
from cryptography.hazmat.primitives.asymmetric import ec

from tests.certificates import Authority
from tests.clock import PATIENCE
from tests.guard.fakes import BELIEVES_NOBODY, ISSUER, FakeIssuer, Gate, Timer, in_one_document
from tests.sweeps import swept
from tests.upstream import Behaviour, Upstream, abort, answer, endless, hang, know_no_name, raw
from wxauth_guard.errors import KeysUnavailable
from wxauth_guard.issuer import FETCH_TIMEOUT, METADATA_PATH
from wxauth_guard.json_texts import base64url
from wxauth_guard.jwks import RemoteKeys
from wxauth_guard.keys import VerificationKey
from wxauth_guard.testing import TestKey

DAY = 86400


class Sibling:
    """A service that reads an issuer's keys."""

    def __init__(self, issuer: FakeIssuer, timer: Timer, timeout: float = FETCH_TIMEOUT) -> None:
        self.issuer, self.timer = issuer, timer
        self.keys = RemoteKeys(ISSUER, timer=timer, timeout=timeout, ssl_context=BELIEVES_NOBODY)

    async def find(self, kid: str | None = None, *, after: float = 0) -> VerificationKey | None:
        """Advance the timer by `after` seconds, and look for a key. The default is the issuer's first key."""
        self.timer.seconds += after
        return await self.keys.find(kid or self.issuer.key.kid)

    def find_sync(self, kid: str | None = None) -> VerificationKey | None:
        return self.keys.find_sync(kid or self.issuer.key.kid)

    def finding_in_a_thread(self, kid: str | None = None) -> asyncio.Task[VerificationKey | None]:
        return asyncio.create_task(asyncio.to_thread(self.find_sync, kid))

    async def look(self, *, after: float) -> VerificationKey | None:
        """Advance the timer by `after` seconds, look for the issuer's first key, and wait until fetches have ended."""
        found = await self.find(after=after)
        await self.settled()
        return found

    async def settled(self) -> None:
        """Wait until a fetch in the background has ended."""
        for thread in threading.enumerate():
            if thread.name == f"read the keys of {ISSUER}":
                await asyncio.to_thread(thread.join, PATIENCE)


@pytest.fixture
def sibling(issuer: FakeIssuer, timer: Timer) -> Sibling:
    return Sibling(issuer, timer)


# How a sibling reads the keys.


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
    sibling: Sibling, cache_control: str, age: str, seconds: int
) -> None:
    sibling.issuer.headers = {"Cache-Control": cache_control, "Age": age}
    await sibling.find()
    await sibling.look(after=seconds - 0.1)
    assert sibling.issuer.fetches == (1, 1)
    await sibling.look(after=0.1)
    assert sibling.issuer.fetches == (2, 2)


async def test_event_loops_and_threads_share_the_keys_of_one_fetch_though_who_began_it_gives_up(
    sibling: Sibling,
) -> None:
    gate = sibling.issuer.gated()
    given_up, *waiting = [asyncio.create_task(sibling.find()) for _ in range(2)]
    await gate.reached()
    given_up.cancel()
    await asyncio.wait([given_up])
    waiting += [asyncio.create_task(asyncio.to_thread(asyncio.run, sibling.find())) for _ in range(3)]
    waiting += [sibling.finding_in_a_thread() for _ in range(3)]
    gate.opened.set()
    found = [*await asyncio.gather(*waiting), await sibling.find(), sibling.find_sync()]
    assert given_up.cancelled()
    assert all(found)
    assert len({id(key) for key in found}) <= 2  # a thread that is late by itself may fetch once more
    assert sibling.issuer.fetches == (1, 1)


async def test_a_loop_that_ended_amid_a_fetch_does_no_harm(sibling: Sibling) -> None:
    gate = sibling.issuer.gated()

    async def cancel_reader() -> None:
        waiting = asyncio.create_task(sibling.find())
        await gate.reached()
        assert not waiting.done()

    await asyncio.to_thread(asyncio.run, cancel_reader())
    gate.opened.set()
    assert await sibling.find()
    assert sibling.issuer.fetches == (1, 1)


# Keys in threads without an event loop.


def test_threads_that_want_a_new_key_while_it_is_read_are_not_told_that_it_is_unknown(sibling: Sibling) -> None:
    sibling.find_sync()
    sibling.timer.seconds += 300.1
    new = sibling.issuer.add_key()

    def ask(_: int) -> bool:
        try:
            return sibling.find_sync(new.kid) is not None
        except KeysUnavailable:
            return True

    with ThreadPoolExecutor(32) as threads:
        assert all(threads.map(ask, range(1000)))
    assert sibling.find_sync(new.kid)
    assert sibling.issuer.fetches == (2, 2)


@pytest.mark.parametrize(("age", "verdict"), [(0, None), (300, None), (300.1, 503), (3600, 503)])
async def test_of_threads_with_unknown_keys_only_the_first_waits_and_young_keys_make_no_503(
    issuer: FakeIssuer, timer: Timer, age: float, verdict: int | None
) -> None:
    sibling = Sibling(issuer, timer, timeout=1)
    sibling.find_sync()
    timer.seconds += age
    gate = issuer.gated()

    def verdict_on(kid: str) -> int | None:
        try:
            return None if sibling.find_sync(kid) is None else 200
        except KeysUnavailable as unavailable:
            return unavailable.status

    first = asyncio.create_task(asyncio.to_thread(verdict_on, "unknown"))
    try:
        await gate.reached()
        # wxauth publishes each key six minutes before it signs. This thread also opens the gate, so it must not wait.
        assert {verdict_on(f"unknown-{number}") for number in range(20)} == {verdict}
        assert sibling.find_sync()
        assert await first == verdict  # it has waited for only a fifth of the timeout
    finally:
        gate.opened.set()
        await sibling.settled()


async def test_threads_wait_again_for_a_fetch_that_the_server_has_not_run(issuer: FakeIssuer, timer: Timer) -> None:
    sibling = Sibling(issuer, timer, timeout=20)
    sibling.find_sync()
    new, gate = issuer.add_key(), issuer.gated()
    waiting = [sibling.finding_in_a_thread(new.kid)]
    await gate.reached()
    timer.seconds += 20.1
    waiting.append(sibling.finding_in_a_thread(new.kid))
    done, _ = await asyncio.wait(waiting, timeout=0.1)
    assert not done  # both threads are waiting
    gate.opened.set()
    assert all(await asyncio.gather(*waiting))
    assert issuer.fetches == (2, 2)


async def test_threads_without_any_key_wait_together_for_the_first_fetch_alone(sibling: Sibling) -> None:
    sibling.issuer.fails()
    with pytest.raises(KeysUnavailable, match="no connection"):
        sibling.find_sync()
    sibling.timer.seconds += 1
    sibling.issuer.works()
    gate = sibling.issuer.gated()
    first = sibling.finding_in_a_thread()
    await gate.reached()
    with pytest.raises(KeysUnavailable):
        sibling.find_sync()
    gate.opened.set()
    assert await first


async def test_of_threads_the_first_waits_for_a_renewal_and_no_other(issuer: FakeIssuer, timer: Timer) -> None:
    sibling = Sibling(issuer, timer, timeout=20)
    sibling.find_sync()
    gate = Gate(lambda: httpx.Response(200, json={"keys": []}))
    sibling.issuer.jwks.mock(side_effect=gate)
    sibling.timer.seconds += 300
    first = sibling.finding_in_a_thread()
    await gate.reached()
    assert all([await asyncio.to_thread(sibling.find_sync) for _ in range(20)])
    gate.opened.set()
    assert await first
    assert sibling.issuer.fetches == (2, 2)


@pytest.mark.process
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("moment", ["before a fetch", "during a fetch"])
def test_a_process_forked_while_a_thread_needs_the_keys_fetches_them_itself(issuer: FakeIssuer, moment: str) -> None:
    gate = issuer.gated() if moment == "during a fetch" else Gate(lambda: httpx.Response(200))
    times = count()

    def time() -> float:
        if next(times) == 1 and moment == "before a fetch":  # the second call happens under a lock
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
                signal.alarm(round(PATIENCE))  # if a lock was held at the fork, the child would hang
                issuer.works()
                found = keys.find_sync(issuer.key.kid)
            finally:
                os._exit(0 if found else 1)
        gate.opened.set()
        assert os.waitpid(child, 0)[1] == 0
        assert waiting.result()


# Outages of the issuer.


async def test_keys_are_kept_through_an_outage_of_a_day(sibling: Sibling) -> None:
    await sibling.find()
    sibling.issuer.fails()
    for _ in range(24):
        assert await sibling.look(after=DAY / 24)
    with pytest.raises(KeysUnavailable):
        await sibling.find(after=1)
    sibling.issuer.works()
    assert await sibling.find(after=5)


async def test_keys_are_kept_if_the_process_may_start_no_thread(
    sibling: Sibling, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    known = await sibling.find()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_more_threads)
        assert await sibling.find(after=DAY / 2) is known
        assert sibling.find_sync() is known
        assert await sibling.find("unknown", after=60) is None
        with pytest.raises(KeysUnavailable):
            await Sibling(sibling.issuer, sibling.timer).find()
    assert "RuntimeError" in caplog.text
    await sibling.look(after=60)
    assert sibling.issuer.fetches == (2, 2)


def no_more_threads(thread: threading.Thread) -> None:
    raise RuntimeError("can't start new thread")


async def test_in_an_outage_the_issuer_is_asked_after_ten_seconds_and_then_ever_more_rarely(sibling: Sibling) -> None:
    await sibling.find()
    sibling.issuer.fails()
    sibling.timer.seconds += 300
    asked_at = []
    for second in range(200):
        count = sibling.issuer.metadata.call_count
        await sibling.look(after=0)
        assert await sibling.find("unknown") is None
        if sibling.issuer.metadata.call_count > count:
            asked_at.append(second)
        sibling.timer.seconds += 1
    assert asked_at == [0, 10, 30, 70, 130, 190]
    sibling.issuer.works()
    new = sibling.issuer.add_key()
    assert await sibling.find(new.kid, after=60)


async def test_without_any_key_the_issuer_is_asked_after_a_second_and_then_more_rarely(sibling: Sibling) -> None:
    sibling.issuer.fails()
    asked_at = []
    for second in range(20):
        count = sibling.issuer.metadata.call_count
        for _ in range(50):
            with pytest.raises(KeysUnavailable) as failure:
                await sibling.find()
            assert failure.value.headers()["Retry-After"] == "5"
        if sibling.issuer.metadata.call_count > count:
            asked_at.append(second)
        sibling.timer.seconds += 1
    assert asked_at == [0, 1, 3, 7, 12, 17]
    sibling.issuer.works()
    assert await sibling.find(after=5)


# Keys that the issuer adds or withdraws.


async def test_an_unknown_key_is_looked_for_at_once_and_then_every_ten_seconds(sibling: Sibling) -> None:
    assert await sibling.find("unknown") is None  # this is the first fetch, which does not count
    assert await sibling.find("unknown") is None
    assert sibling.issuer.fetches == (2, 2)
    for seconds in (0, 5, 4.9):
        sibling.timer.seconds += seconds
        assert [await sibling.find(f"unknown-{number}") for number in range(50)] == [None] * 50
    assert sibling.issuer.fetches == (2, 2)
    await sibling.find("unknown", after=0.1)
    assert sibling.issuer.fetches == (3, 3)


@pytest.mark.parametrize("pause", [0, 3600])
async def test_an_unknown_key_is_looked_for_once_and_does_not_delay_a_known_key(sibling: Sibling, pause: int) -> None:
    await sibling.find()
    sibling.timer.seconds += pause
    gate = sibling.issuer.gated()
    asking = asyncio.create_task(sibling.find("unknown"))
    await gate.reached()
    assert await sibling.find()
    gate.opened.set()
    assert await asking is None
    assert sibling.issuer.fetches == (2, 2)


async def test_an_unknown_key_in_an_outage_leaves_the_known_key_fresh(sibling: Sibling) -> None:
    await sibling.find()
    sibling.issuer.fails()
    assert await sibling.find("unknown") is None
    for _ in range(29):  # 290 seconds, which is nearly max-age
        assert await sibling.look(after=10)
    assert sibling.issuer.metadata.call_count == 2


async def test_a_key_withdrawn_while_nobody_asked_is_not_used_once_the_new_set_is_read(sibling: Sibling) -> None:
    await sibling.find()
    new = TestKey()
    sibling.issuer.keys = [new.public_jwk]
    sibling.timer.seconds += 300 + 300
    gate = sibling.issuer.gated()
    first = asyncio.create_task(sibling.find())
    await gate.reached()
    gate.opened.set()
    assert await first is None
    assert await sibling.find(new.kid)
    assert sibling.issuer.fetches == (2, 2)


async def test_a_key_that_has_taken_the_name_of_another_is_the_one_that_counts(sibling: Sibling) -> None:
    await sibling.find()
    successor = TestKey()
    sibling.issuer.keys = [successor.public_jwk | {"kid": sibling.issuer.key.kid}]
    await sibling.look(after=300)
    assert (found := await sibling.find())
    assert found.public_key == successor.verification_key.public_key


@pytest.mark.parametrize("published", [[], [{"kty": "RSA", "kid": "other", "n": "AQAB", "e": "AQAB"}], {}, None])
async def test_a_key_set_without_a_usable_key_is_an_outage_in_which_the_known_keys_stay(
    sibling: Sibling, published: Any
) -> None:
    await sibling.find()
    sibling.issuer.keys = published
    for _ in range(24):
        assert await sibling.look(after=DAY / 24)
    assert await sibling.find("unknown") is None
    with pytest.raises(KeysUnavailable, match="the JWK set has no"):
        await sibling.find(after=1)
    sibling.issuer.keys = [sibling.issuer.key.public_jwk]
    assert await sibling.find(after=5)


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
async def test_a_key_that_is_not_for_es256_is_passed_over(sibling: Sibling, change: dict[str, Any]) -> None:
    sibling.issuer.keys = [TestKey().public_jwk, sibling.issuer.key.public_jwk | change, None, [], "key"]
    assert await sibling.find() is None


@pytest.mark.parametrize("absent", ["use", "alg"])
async def test_use_and_alg_may_be_absent(sibling: Sibling, absent: str) -> None:
    sibling.issuer.keys = [{name: value for name, value in sibling.issuer.key.public_jwk.items() if name != absent}]
    assert await sibling.find()


async def test_two_usable_keys_with_the_same_kid_are_both_refused(sibling: Sibling) -> None:
    other, twin = TestKey(), TestKey()
    sibling.issuer.keys += [other.public_jwk, twin.public_jwk | {"kid": sibling.issuer.key.kid}]
    assert await sibling.find() is None
    assert await sibling.find(other.kid)


async def test_a_key_of_another_kind_may_share_a_kid(sibling: Sibling) -> None:
    sibling.issuer.keys.append(sibling.issuer.key.public_jwk | {"use": "enc"})
    assert await sibling.find()


async def test_a_keys_private_part_is_not_kept(sibling: Sibling) -> None:
    number = sibling.issuer.key.private_key.private_numbers().private_value
    sibling.issuer.keys = [sibling.issuer.key.public_jwk | {"d": base64url(number.to_bytes(32, "big"))}]
    assert (found := await sibling.find())
    assert isinstance(found.public_key, ec.EllipticCurvePublicKey)
    assert not hasattr(found.public_key, "private_numbers")


# Documents that the guard rejects.


async def refused(keys: RemoteKeys) -> str:
    """Return the reason why the keys cannot be read."""
    with pytest.raises(KeysUnavailable, match=r"^the issuer's keys cannot be read: ") as failure:
        await keys.find("any")
    return failure.value.detail.partition(": ")[2]


@pytest.mark.parametrize("named", ["https://evil.test", f"{ISSUER}/", ISSUER.upper(), None, [ISSUER]])
@pytest.mark.requirement("rfc8414-3.3")
async def test_metadata_that_names_another_issuer_is_refused(sibling: Sibling, named: object) -> None:
    sibling.issuer.document["issuer"] = named
    reason = f"the metadata names another issuer, {str(named)!r}, in place of {ISSUER!r}"
    assert await refused(sibling.keys) == reason
    assert sibling.issuer.fetches == (1, 0)


async def test_another_issuer_is_named_without_its_password(sibling: Sibling, caplog: pytest.LogCaptureFixture) -> None:
    sibling.issuer.document["issuer"] = "https://operator:p@ss?word@auth.example.com/\n" + "x" * 10_000
    with caplog.at_level(logging.WARNING, "wxauth"):
        reported = [await refused(sibling.keys), caplog.text]
    for text in reported:
        assert "the metadata names another issuer, 'auth.example.com/\\nx" in text
        assert len(text) < 1000
        assert not any(secret in text for secret in ("operator", "p@ss", "word"))


# URLs in the operator's internal network.


INTERNAL = "http://wxauth:8000"


@pytest.fixture
def inside(respx_mock: respx.MockRouter) -> FakeIssuer:
    """Return an issuer that answers only at its internal URL."""
    return FakeIssuer(respx_mock, at=INTERNAL)


def keys_inside(internal_url: str = INTERNAL) -> RemoteKeys:
    return RemoteKeys(ISSUER, internal_url=internal_url, ssl_context=BELIEVES_NOBODY)


async def test_an_internal_url_and_an_issuer_may_each_have_a_path(respx_mock: respx.MockRouter) -> None:
    key, issuer = TestKey(), f"{ISSUER}/wx"
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
    assert await refused(keys_inside()) == "the metadata's jwks_uri is not below the issuer"
    assert inside.fetches == (1, 0)


@pytest.mark.parametrize("url", ["wxauth:8000", "http://wxauth:8000/", "http://operator:secret@wxauth", ""])
def test_an_internal_url_is_a_host_and_perhaps_a_path(url: str) -> None:
    with pytest.raises(ValueError, match="internal_url must be an http or https URL without user") as refusal:
        keys_inside(url)
    assert "secret" not in str(refusal.value)


# Fetches that fail.


async def test_a_host_without_an_address_is_named_as_the_cause(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", know_no_name)
    reported = await refused(keys_inside("http://wxauth.invalid:8000"))
    assert "the host's name could not be resolved: " in reported
    assert "wxauth.invalid" not in reported
    assert f"The keys of {ISSUER} could not be read at http://wxauth.invalid:8000: the host's name" in caplog.text


async def test_a_refused_connection_is_named_as_the_cause() -> None:
    assert await refused(keys_inside("http://127.0.0.1:1")) == "no connection: Connection refused"


@pytest.mark.parametrize(
    ("host", "days", "reason"),
    [("127.0.0.1", -1, "certificate has expired"), ("wxauth.internal", 2, "IP address mismatch")],
)
async def test_an_invalid_certificate_is_named_as_the_cause(tmp_path: Path, host: str, days: int, reason: str) -> None:
    authority = Authority(tmp_path)
    async with Upstream(hang, tls=authority.server(host, days=days)) as server:
        assert await refused(RemoteKeys(server.url, ssl_context=authority.trusted())) == f"TLS failed: {reason}"


@pytest.mark.slow
async def test_a_server_without_tls_is_named_as_the_cause() -> None:
    async with Upstream(raw(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        keys = RemoteKeys(server.url.replace("http:", "https:"), ssl_context=ssl.create_default_context())
        assert "TLS failed: " in await refused(keys)


async def test_a_connection_timeout_is_named_as_the_cause(sibling: Sibling) -> None:
    sibling.issuer.metadata.mock(side_effect=httpx.ConnectTimeout("slow"))
    assert "no connection within 4 s" in await refused(sibling.keys)


async def test_what_a_process_imports_for_its_first_fetch_is_no_part_of_the_time_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = TestKey()
    monotonic, passed = time.monotonic, 0.0
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + passed)

    def from_a_cold_disk(**_: Any) -> ssl.SSLContext:
        nonlocal passed
        passed += FETCH_TIMEOUT + 1
        return BELIEVES_NOBODY

    for imports in ("create_ssl_context", "AsyncHTTPTransport"):
        monkeypatch.setattr(httpx, imports, from_a_cold_disk)
    async with Upstream(in_one_document(key)) as server:
        assert await RemoteKeys(ISSUER, internal_url=server.url).find(key.kid)


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
    reason = await refused(RemoteKeys(ISSUER, ssl_context=BELIEVES_NOBODY))
    assert reason in ("the metadata's jwks_uri is missing or not https", "InvalidURL", "ValueError")


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
    sibling: Sibling, which: str, answer: httpx.Response | Exception
) -> None:
    getattr(sibling.issuer, which).mock(side_effect=[answer])
    assert await refused(sibling.keys)


@pytest.mark.parametrize("which", ["metadata", "jwks"])
async def test_a_redirect_is_not_followed(sibling: Sibling, which: str) -> None:
    getattr(sibling.issuer, which).mock(return_value=httpx.Response(307, headers={"Location": f"{ISSUER}/elsewhere"}))
    assert await refused(sibling.keys) == "status 307"


async def test_no_compressed_answer_is_requested(sibling: Sibling) -> None:
    await sibling.find()
    for route in (sibling.issuer.metadata, sibling.issuer.jwks):
        assert route.calls.last.request.headers["accept-encoding"] == "identity"


# Real servers that misbehave.


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
    async with Upstream(behaviour) as server:
        keys = RemoteKeys(server.url, timeout=1, ssl_context=BELIEVES_NOBODY)  # enough to connect on a busy machine
        assert "no answer within 1 s" in await asyncio.wait_for(refused(keys), PATIENCE)


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
    key = TestKey()
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")

    async def document(writer: asyncio.StreamWriter) -> None:
        await in_one_document(key, ISSUER if is_internal else server.url)(writer)

    async with Upstream(document) as server:
        keys = keys_inside(server.url) if is_internal else RemoteKeys(server.url, ssl_context=BELIEVES_NOBODY)
        assert await keys.find(key.kid)
