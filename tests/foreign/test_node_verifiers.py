"""`jose` and `express-oauth2-jwt-bearer`, which reads the metadata, verify tokens in Node."""

import asyncio
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.foreign.conftest import Issuer, Publisher, listening
from tests.foreign.corpus import ACCEPTED, REFUSED, SCOPED
from tests.guard.hostile import HOSTILE, Forgery
from tests.processes import until
from tests.programs import NODE_TESTS, needs_node
from tests.sweeps import swept
from tests.world import bearer

pytestmark = [pytest.mark.process, pytest.mark.node]


def verifying(script: str, folder: Path, *arguments: str) -> AbstractContextManager[httpx.Client]:
    command = (needs_node(NODE_TESTS), str(NODE_TESTS / script), *arguments)
    return listening(*command, says="listening on ", cwd=folder)


@pytest.fixture(scope="module")
def jose(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with verifying("verify_with_jose.js", tmp_path_factory.mktemp("jose"), issuer.url, "wxauth", "0") as client:
        yield client


@pytest.fixture(scope="module")
def express_oauth2(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("express")
    with verifying("verify_with_express_oauth2.js", folder, issuer.url, "wxauth") as client:
        yield client


def status_of(verifier: httpx.Client, token: str) -> int:
    return verifier.get("/", headers=bearer(token)).status_code


@swept("forgery", ACCEPTED.values(), ids=ACCEPTED)
def test_jose_accepts_every_good_token(jose: httpx.Client, issuer: Issuer, forgery: Forgery) -> None:
    assert status_of(jose, issuer.forge(forgery)) == 200


@swept("forgery", REFUSED.values(), ids=REFUSED)
def test_jose_refuses_every_hostile_token(jose: httpx.Client, issuer: Issuer, forgery: Forgery) -> None:
    assert status_of(jose, issuer.forge(forgery)) == 401


@swept("forgery", SCOPED.values(), ids=SCOPED)
def test_jose_refuses_a_token_of_a_website(jose: httpx.Client, issuer: Issuer, forgery: Forgery) -> None:
    answer = jose.get("/", headers=bearer(issuer.forge(forgery)))
    assert (answer.status_code, answer.text) == (403, "insufficient_scope")
    assert answer.headers["WWW-Authenticate"] == 'Bearer error="insufficient_scope"'


def test_jose_refuses_a_request_without_a_token(jose: httpx.Client) -> None:
    assert jose.get("/").status_code == 401


async def test_jose_accepts_a_new_key_without_a_restart(jose: httpx.Client, issuer: Issuer) -> None:
    assert status_of(jose, issuer.token) == 200
    token = await issuer.rotate()
    await asyncio.to_thread(until, lambda: status_of(jose, token) == 200)  # at first, the service must read the new key
    assert status_of(jose, issuer.token) == 200


def test_a_flood_of_unknown_keys_causes_one_reading(issuer: Issuer, publisher: Publisher, tmp_path: Path) -> None:
    token = issuer.forge(REFUSED["kid unknown"])
    with verifying("verify_with_jose.js", tmp_path, publisher.url, "wxauth") as verifier:
        publisher.readings = 0  # don't count the metadata
        assert {status_of(verifier, token) for _ in range(20)} == {401}
    assert publisher.readings == 1


# `express-oauth2-jwt-bearer` finds the algorithm of access tokens with only the issuer's URL.


def test_express_oauth2_verifies_an_access_token(express_oauth2: httpx.Client, issuer: Issuer) -> None:
    answer = express_oauth2.get("/", headers=bearer(issuer.token))
    assert answer.status_code == 200, answer.text
    assert answer.json()["iss"] == issuer.url


@swept("name", ["alg none", "aud another", "one bit off", "an id_token by the key of access tokens"])
def test_express_oauth2_refuses_any_other_token(express_oauth2: httpx.Client, issuer: Issuer, name: str) -> None:
    assert status_of(express_oauth2, issuer.forge(HOSTILE[name])) == 401
