"""The Java of examples/java, with the JDK alone."""

import base64
import json
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.clock import PATIENCE
from tests.docs import ROOT, block
from tests.foreign.conftest import Issuer, Publisher, listening
from tests.foreign.corpus import GuardsOrders
from tests.processes import free_port
from tests.programs import NODE_PATIENCE, needs
from tests.world import bearer

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    javac, folder = needs("javac"), tmp_path_factory.mktemp("java")
    sources = sorted(str(path) for path in (ROOT / "examples/java").glob("*.java"))
    field, *calls = block("docs/languages.md", "static final Wxauth").splitlines(keepends=True)
    method = f"static Wxauth.User of(String token) throws Exception {{\n{''.join(calls)} return user; }}"
    shown = folder / "Shown.java"
    shown.write_text(f"package com.example.orders; class Shown {{ {field} {method} }}")
    command = [javac, "-Xlint:all", "-Werror", "-d", str(folder), *sources, str(shown)]
    subprocess.run(command, check=True, timeout=NODE_PATIENCE)
    return folder


def served(classes: Path, issuer_url: str) -> AbstractContextManager[httpx.Client]:
    port = str(free_port())
    command = (needs("java"), "-XX:TieredStopAtLevel=1", "-cp", str(classes), "com.example.orders.Orders")
    return listening(*command, issuer_url, port, says="listening on ", cwd=classes, url=f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def orders(classes: Path, issuer: Issuer) -> Iterator[httpx.Client]:
    with served(classes, issuer.url) as client:
        yield client


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
    with served(classes, f"http://127.0.0.1:{free_port()}") as orders:
        answer = orders.get("/orders", headers=bearer(issuer.token))
        assert (answer.status_code, answer.text, answer.headers["retry-after"]) == (503, "keys_unavailable", "5")


def test_a_flood_of_unknown_keys_causes_one_reading(classes: Path, publisher: Publisher) -> None:
    publisher.answers.clear()

    def token(kid: int) -> str:
        header = json.dumps({"alg": "ES256", "typ": "at+jwt", "kid": f"unknown-{kid}"}).encode()
        return f"{base64.urlsafe_b64encode(header).rstrip(b'=').decode()}.e30.AA"

    with served(classes, publisher.url) as orders:
        with ThreadPoolExecutor(8) as pool:
            asking = [pool.submit(orders.get, "/orders", headers=bearer(token(kid))) for kid in range(8)]
            assert publisher.is_asked.wait(PATIENCE)
            publisher.answers.set()
            assert [each.result().text for each in asking] == ["invalid_token"] * 8
        assert {orders.get("/orders", headers=bearer(token(kid))).status_code for kid in range(100)} == {401}
        assert publisher.readings == 1
