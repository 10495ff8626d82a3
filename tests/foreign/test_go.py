"""The Go of examples/go with Debian's golang-jwt, which has no `/v5` to its name and the same functions."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.docs import ROOT
from tests.foreign.conftest import Issuer
from tests.foreign.corpus import REFUSED, GuardsOrders
from tests.processes import Running, free_port
from tests.programs import NODE_PATIENCE, lacks, needs
from tests.world import bearer

pytestmark = pytest.mark.process

DEBIANS = Path("/usr/share/gocode")
LIBRARY = "github.com/golang-jwt/jwt"
ENV = {**os.environ, "GO111MODULE": "off", "GOPATH": str(DEBIANS), "GOFLAGS": ""}
ATTACK = Path(__file__).with_name("keys_attacked_test.go")
ALL_REFUSED = {name: forgery for name, forgery in REFUSED.items() if name != "exp a string"}
"""golang-jwt accepts a number in quotes, which only the issuer could sign."""


@pytest.fixture(scope="module")
def program(issuer: Issuer, address: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = needs("go")
    if not (DEBIANS / "src" / LIBRARY).exists():
        lacks(f"needs {LIBRARY}: apt-get install golang-github-golang-jwt-jwt-dev 请先安装该软件包")
    folder = tmp_path_factory.mktemp("go")
    for source in (*(ROOT / "examples/go").glob("*.go"), ATTACK):
        shown = source.read_text()
        for here, there in (
            (f"{LIBRARY}/v5", LIBRARY),
            ("127.0.0.1:8000", issuer.url[7:]),
            ("127.0.0.1:8005", address),
        ):
            shown = shown.replace(here, there)
        (folder / source.name).write_text(shown)
    subprocess.run([go, "build", "-o", "guard", "."], cwd=folder, env=ENV, check=True, timeout=NODE_PATIENCE)
    return folder / "guard"


@pytest.fixture(scope="module")
def address() -> str:
    return f"127.0.0.1:{free_port()}"


@pytest.fixture(scope="module")
def orders(program: Path, address: str) -> Iterator[httpx.Client]:
    with Running(str(program), cwd=program.parent, env={"no_proxy": "127.0.0.1"}) as process:
        process.wait_for("listening on ")
        transport = httpx.HTTPTransport(retries=5, verify=False)  # it says so a moment before it listens
        with httpx.Client(base_url=f"http://{address}", transport=transport) as client:
            yield client


def test_the_go_test_shown_passes_and_so_does_the_attack_by_unknown_keys(program: Path) -> None:
    subprocess.run([needs("go"), "test", "."], cwd=program.parent, env=ENV, check=True, timeout=NODE_PATIENCE)


class TestGo(GuardsOrders):
    refused = ALL_REFUSED


def test_go_knows_whose_token_it_is(orders: httpx.Client, issuer: Issuer) -> None:
    token = issuer.forge(lambda forger: forger.with_claims(openid="openid-bob"))
    assert orders.get("/orders", headers=bearer(token)).text == "openid-bob"


def test_go_demands_the_role(orders: httpx.Client, issuer: Issuer) -> None:
    def status(**claims: object) -> int:
        token = issuer.forge(lambda forger: forger.with_claims(**claims))
        return orders.delete("/orders/7", headers=bearer(token)).status_code

    assert [status(), status(roles=[]), status(roles=["clerks"])] == [403] * 3
    assert status(roles=["auditor", "clerk"]) == 204
    assert status(roles="clerk") == 401
