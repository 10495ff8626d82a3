"""`examples/express`, started as its README says: a service in Node, guarded by `clients/node`."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.foreign.conftest import Issuer, listening
from tests.problems import problem_of
from tests.processes import free_port
from tests.programs import needs, needs_node
from tests.world import bearer

pytestmark = [pytest.mark.process, pytest.mark.node]

EXAMPLE = Path(__file__).parents[2] / "examples/express"


def served(issuer_url: str, folder: Path) -> AbstractContextManager[httpx.Client]:
    """The service, started as its README says."""
    needs_node(EXAMPLE)
    port = str(free_port())
    command, url = (needs("npm"), "start", "--prefix", str(EXAMPLE)), f"http://127.0.0.1:{port}"
    return listening(*command, says="Orders: ", cwd=folder, url=url, WXAUTH_ISSUER=issuer_url, PORT=port)


@pytest.fixture(scope="module")
def orders(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    with served(issuer.url, tmp_path_factory.mktemp("express")) as client:
        yield client


# What the guard refuses is in test_node_guard.py.


def test_express_knows_whose_token_it_is(orders: httpx.Client, issuer: Issuer) -> None:
    answer = orders.get("/orders", headers=bearer(issuer.forge(lambda forger: forger.with_claims(openid="openid-bob"))))
    assert answer.json() == [{"item": "oolong tea", "for": "openid-bob"}]


def test_express_demands_the_role(orders: httpx.Client, issuer: Issuer) -> None:
    answer = orders.delete("/orders/7", headers=bearer(issuer.token))
    problem_of(answer, "insufficient_role", 403)
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
    token = issuer.forge(lambda forger: forger.with_claims(roles=["auditor", "clerk"]))
    assert orders.delete("/orders/7", headers=bearer(token)).status_code == 204


def test_express_looks_for_no_token_in_the_url(orders: httpx.Client, issuer: Issuer) -> None:
    answer = orders.get("/orders", params={"access_token": issuer.token})
    problem_of(answer, "missing_token", 401)


def test_without_wxauth_express_answers_503(issuer: Issuer, tmp_path: Path) -> None:
    with served(f"http://127.0.0.1:{free_port()}", tmp_path) as orders:
        answer = orders.get("/orders", headers=bearer(issuer.token))
        problem_of(answer, "keys_unavailable", 503)
        assert answer.headers["retry-after"] == "5"
        assert orders.get("/orders").status_code == 401
