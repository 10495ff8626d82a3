"""`jose` in Node, the library that most of Node checks tokens with."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.foreign.conftest import Issuer, Publisher
from tests.foreign.corpus import ACCEPTED, REFUSED
from tests.processes import Running, until
from tests.programs import needs_node
from tests.sweeps import swept
from tests.tokens.hostile import Forgery
from tests.world import bearer

pytestmark = [pytest.mark.process, pytest.mark.node]

NODE_TESTS = Path(__file__).parents[1] / "node"


@pytest.fixture(scope="module")
def verifier(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with verifying(tmp_path_factory.mktemp("jose"), issuer.url, "wxauth", "0") as client:
        yield client


@contextmanager
def verifying(folder: Path, *arguments: str) -> Iterator[httpx.Client]:
    with Running(needs_node(NODE_TESTS), str(NODE_TESTS / "verify_with_jose.js"), *arguments, cwd=folder) as process:
        url = process.wait_for("listening on ").split()[-1]
        with httpx.Client(base_url=url, trust_env=False, verify=False) as client:
            yield client


def status_of(verifier: httpx.Client, token: str) -> int:
    return verifier.get("/", headers=bearer(token)).status_code


@swept("forgery", ACCEPTED.values(), ids=ACCEPTED)
def test_jose_accepts_every_good_token(verifier: httpx.Client, issuer: Issuer, forgery: Forgery) -> None:
    assert status_of(verifier, issuer.forge(forgery)) == 200


@swept("forgery", REFUSED.values(), ids=REFUSED)
def test_jose_refuses_every_hostile_token(verifier: httpx.Client, issuer: Issuer, forgery: Forgery) -> None:
    assert status_of(verifier, issuer.forge(forgery)) == 401


def test_jose_refuses_a_request_without_a_token(verifier: httpx.Client) -> None:
    assert verifier.get("/").status_code == 401


def test_a_flood_of_unknown_keys_causes_one_reading(issuer: Issuer, publisher: Publisher, tmp_path: Path) -> None:
    token = issuer.forge(REFUSED["kid unknown"])
    with verifying(tmp_path, publisher.url, "wxauth") as verifier:
        publisher.readings = 0  # that of the metadata
        assert {status_of(verifier, token) for _ in range(20)} == {401}
    assert publisher.readings == 1


async def test_jose_accepts_a_new_key_without_a_restart(verifier: httpx.Client, issuer: Issuer) -> None:
    assert status_of(verifier, issuer.token) == 200
    token = await issuer.rotate()
    await asyncio.to_thread(until, lambda: status_of(verifier, token) == 200)  # the service itself has yet to read it
    assert status_of(verifier, issuer.token) == 200
