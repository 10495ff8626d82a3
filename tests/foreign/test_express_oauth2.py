"""`express-oauth2-jwt-bearer`, which reads the algorithms of access tokens from the metadata."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.foreign.conftest import Issuer
from tests.processes import Running
from tests.programs import needs_node
from tests.tokens.hostile import HOSTILE
from tests.world import bearer

pytestmark = [pytest.mark.process, pytest.mark.node]

NODE_TESTS = Path(__file__).parents[1] / "node"


@pytest.fixture(scope="module")
def verifier(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    script = NODE_TESTS / "verify_with_express_oauth2.js"
    command = (needs_node(NODE_TESTS), str(script), issuer.url, "wxauth")
    with Running(*command, cwd=tmp_path_factory.mktemp("express-oauth2")) as process:
        url = process.wait_for("listening on ").split()[-1]
        with httpx.Client(base_url=url, trust_env=False, verify=False) as client:
            yield client


def test_express_oauth2_verifies_an_access_token_with_only_the_issuers_url(
    verifier: httpx.Client, issuer: Issuer
) -> None:
    answer = verifier.get("/", headers=bearer(issuer.token))
    assert answer.status_code == 200, answer.text
    assert answer.json()["iss"] == issuer.url


@pytest.mark.parametrize("name", ["alg none", "aud another", "one bit off", "an id_token by the key of access tokens"])
def test_express_oauth2_refuses_anything_but_an_access_token(verifier: httpx.Client, issuer: Issuer, name: str) -> None:
    assert verifier.get("/", headers=bearer(issuer.forge(HOSTILE[name]))).status_code == 401
