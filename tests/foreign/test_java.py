"""The Java of examples/java, with the JDK alone."""

import base64
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from tests.clock import PATIENCE
from tests.docs import ROOT
from tests.foreign.conftest import Issuer, Publisher
from tests.foreign.corpus import GuardsOrders
from tests.processes import Running, free_port
from tests.programs import NODE_PATIENCE, needs
from tests.world import bearer

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    javac, folder = needs("javac"), tmp_path_factory.mktemp("java")
    sources = sorted(str(path) for path in (ROOT / "examples/java").glob("*.java"))
    subprocess.run([javac, "-Xlint:all", "-Werror", "-d", str(folder), *sources], check=True, timeout=NODE_PATIENCE)
    return folder


def served(classes: Path, issuer_url: str) -> Iterator[httpx.Client]:
    port = free_port()
    with Running(
        needs("java"), "-XX:TieredStopAtLevel=1", "-cp", str(classes), "com.example.orders.Orders", issuer_url,
        str(port), cwd=classes, env={},
    ) as process:  # fmt: skip
        process.wait_for("listening on ")
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE) as client:
            yield client


@pytest.fixture(scope="module")
def orders(classes: Path, issuer: Issuer) -> Iterator[httpx.Client]:
    yield from served(classes, issuer.url)


class TestJava(GuardsOrders):
    pass


def test_java_knows_whose_token_it_is(orders: httpx.Client, issuer: Issuer) -> None:
    def told(openid: str) -> str:
        token = issuer.forge(lambda forger: forger.with_claims(openid=openid))
        return orders.get("/orders", headers=bearer(token)).text

    for openid in ("openid-bob", '小明 "\\\n\u2028'):
        assert told(openid) == openid


def test_java_demands_the_role(orders: httpx.Client, issuer: Issuer) -> None:
    def status(**claims: object) -> int:
        token = issuer.forge(lambda forger: forger.with_claims(**claims))
        return orders.delete("/orders/7", headers=bearer(token)).status_code

    assert [status(), status(roles=[]), status(roles=["clerks"]), status(roles="clerk")] == [403] * 4
    assert status(roles=["auditor", "clerk"]) == 200


def test_java_admits_nobody_if_wxauth_is_unavailable(classes: Path, issuer: Issuer) -> None:
    for orders in served(classes, f"http://127.0.0.1:{free_port()}"):
        answer = orders.get("/orders", headers=bearer(issuer.token))
        assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, "keys_unavailable", "5")


def test_a_flood_of_unknown_keys_causes_one_reading(classes: Path, publisher: Publisher) -> None:
    publisher.answers.clear()

    def token(kid: int) -> str:
        header = json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": f"unknown-{kid}"}).encode()
        return f"{base64.urlsafe_b64encode(header).rstrip(b'=').decode()}.e30.AA"

    for orders in served(classes, publisher.url):
        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(orders.get, "/orders", headers=bearer(token(kid))) for kid in range(8)]
            assert publisher.is_asked.wait(PATIENCE)
            publisher.answers.set()
            assert [each.result().text for each in asking] == ["invalid_token"] * 8
        assert {orders.get("/orders", headers=bearer(token(kid))).status_code for kid in range(100)} == {401}
        assert publisher.readings == 1
