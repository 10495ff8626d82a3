"""`examples/express`, started as its README says: `express-oauth2-jwt-bearer`, by issuer discovery."""

import signal
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.asking import bearer
from tests.foreign.conftest import Issuer
from tests.foreign.corpus import REFUSED, TAKEN
from tests.processes import Running, free_port
from tests.programs import needs, needs_node
from tests.sweeps import Sweep

pytestmark = [pytest.mark.process, pytest.mark.node]

EXAMPLE = Path(__file__).parents[2] / "examples/express"


@pytest.fixture(scope="module")
def orders(issuer: Issuer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    needs_node(EXAMPLE)
    port = free_port()
    command = (needs("npm"), "start", "--prefix", str(EXAMPLE))
    env = {"WXAUTH_ISSUER": issuer.url, "PORT": str(port)}
    with Running(*command, cwd=tmp_path_factory.mktemp("express"), env=env) as process:
        try:
            process.wait_for("Orders: ")
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, verify=False) as client:
                yield client
        finally:
            process.end(signal.SIGTERM)  # npm hands it on


def test_express_takes_every_good_token(orders: httpx.Client, issuer: Issuer) -> None:
    with Sweep() as sweep:
        for name, forgery in TAKEN.items():
            with sweep.case(name):
                answer = orders.get("/orders", headers=bearer(issuer.forge(forgery)))
                assert answer.status_code == 200, answer.text


def test_express_refuses_every_hostile_token(orders: httpx.Client, issuer: Issuer) -> None:
    with Sweep() as sweep:
        for name, forgery in REFUSED.items():
            with sweep.case(name):
                answer = orders.get("/orders", headers=bearer(issuer.forge(forgery)))
                assert (answer.status_code, answer.json()) == (401, {"status": 401, "code": "invalid_token"})
                assert 'error="invalid_token"' in answer.headers["www-authenticate"]


def test_express_knows_whose_token_it_is(orders: httpx.Client, issuer: Issuer) -> None:
    answer = orders.get("/orders", headers=bearer(issuer.forge(lambda forger: forger.with_claims(openid="openid-bob"))))
    assert answer.json() == [{"item": "oolong tea", "for": "openid-bob"}]


def test_express_refuses_a_request_without_a_token(orders: httpx.Client) -> None:
    answer = orders.get("/orders")
    assert (answer.status_code, answer.json()) == (401, {"status": 401, "code": "missing_token"})
    assert answer.headers["www-authenticate"] == 'Bearer realm="api"'


@pytest.mark.parametrize("in_header", [False, True])
def test_express_refuses_a_token_in_the_url(orders: httpx.Client, issuer: Issuer, in_header: bool) -> None:
    headers = bearer(issuer.token) if in_header else {}
    answer = orders.get("/orders", params={"access_token": issuer.token}, headers=headers)
    assert (answer.status_code, answer.json()) == (400, {"status": 400, "code": "invalid_request"})
    assert 'error="invalid_request"' in answer.headers["www-authenticate"]
    assert issuer.token not in answer.headers["www-authenticate"]


@pytest.mark.parametrize("roles", [None, [], ["admin"], ["clerks"], ["Clerk"]])
def test_without_the_role_express_answers_403(orders: httpx.Client, issuer: Issuer, roles: list[str] | None) -> None:
    token = issuer.forge(lambda forger: forger.with_claims(**({} if roles is None else {"roles": roles})))
    answer = orders.delete("/orders/7", headers=bearer(token))
    assert (answer.status_code, answer.json()) == (403, {"status": 403, "code": "insufficient_scope"})
    assert 'error="insufficient_scope"' in answer.headers["www-authenticate"]


def test_with_the_role_express_lets_in(orders: httpx.Client, issuer: Issuer) -> None:
    token = issuer.forge(lambda forger: forger.with_claims(roles=["auditor", "clerk"]))
    assert orders.delete("/orders/7", headers=bearer(token)).status_code == 204


def test_roles_that_are_no_list_open_nothing(orders: httpx.Client, issuer: Issuer) -> None:
    token = issuer.forge(lambda forger: forger.with_claims(roles="clerks"))
    assert orders.delete("/orders/7", headers=bearer(token)).status_code == 401


def test_what_express_does_not_have_is_404(orders: httpx.Client, issuer: Issuer) -> None:
    answer = orders.get("/other", headers=bearer(issuer.token))
    assert (answer.status_code, answer.json()) == (404, {"status": 404, "code": "not_found"})
