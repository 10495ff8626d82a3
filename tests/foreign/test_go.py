"""The Go of docs/languages.md with Debian's golang-jwt, which has no `/v5` to its name and the same functions."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.asking import bearer
from tests.foreign.conftest import Issuer
from tests.foreign.corpus import REFUSED, TAKEN
from tests.processes import Running
from tests.programs import lacks, needs
from tests.sweeps import Sweep
from tests.test_readme import ROOT, code_blocks

pytestmark = pytest.mark.process

DEBIANS = Path("/usr/share/gocode")
LIBRARY = "github.com/golang-jwt/jwt"
NUMBERS_IN_QUOTES = {"exp a string"}
"""golang-jwt takes them for numbers; only the issuer could write them."""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    go = needs("go")
    if not (DEBIANS / "src" / LIBRARY).exists():
        lacks(f"needs {LIBRARY}: apt-get install golang-github-golang-jwt-jwt-dev 请先安装该软件包")
    folder = tmp_path_factory.mktemp("go")
    shown, *_ = code_blocks(ROOT / "docs/languages.md", "go")
    for name, source in {"guard.go": shown, "main.go": (Path(__file__).parent / "go/main.go").read_text()}.items():
        (folder / name).write_text(source.replace(f"{LIBRARY}/v5", LIBRARY))
    env = {**os.environ, "GO111MODULE": "off", "GOPATH": str(DEBIANS), "GOFLAGS": ""}
    subprocess.run([go, "build", "-o", "guard", "."], cwd=folder, env=env, check=True, timeout=300)
    return folder / "guard"


@pytest.fixture(scope="module")
def orders(program: Path, issuer: Issuer) -> Iterator[httpx.Client]:
    with Running(str(program), issuer.url, cwd=program.parent, env={"no_proxy": "127.0.0.1"}) as process:
        url = process.wait_for("listening on ").split()[-1]
        with httpx.Client(base_url=url, trust_env=False, verify=False) as client:
            yield client


def test_go_takes_every_good_token(orders: httpx.Client, issuer: Issuer) -> None:
    with Sweep() as sweep:
        for name, forgery in TAKEN.items():
            with sweep.case(name):
                answer = orders.get("/orders", headers=bearer(issuer.forge(forgery)))
                assert answer.status_code == 200, answer.text


def test_go_refuses_every_hostile_token(orders: httpx.Client, issuer: Issuer) -> None:
    with Sweep() as sweep:
        for name in REFUSED.keys() - NUMBERS_IN_QUOTES:
            with sweep.case(name):
                answer = orders.get("/orders", headers=bearer(issuer.forge(REFUSED[name])))
                assert (answer.status_code, answer.text.strip()) == (401, "invalid_token")


def test_go_knows_whose_token_it_is(orders: httpx.Client, issuer: Issuer) -> None:
    token = issuer.forge(lambda forger: forger.with_claims(openid="openid-bob"))
    assert orders.get("/orders", headers=bearer(token)).text == "openid-bob"


def test_go_refuses_a_request_without_a_token(orders: httpx.Client) -> None:
    answer = orders.get("/orders")
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


def test_go_demands_the_role(orders: httpx.Client, issuer: Issuer) -> None:
    statuses = [
        orders.delete(
            "/orders/7", headers=bearer(issuer.forge(lambda forger, roles=roles: forger.with_claims(**roles)))
        )
        for roles in ({}, {"roles": []}, {"roles": ["clerks"]}, {"roles": ["auditor", "clerk"]}, {"roles": "clerk"})
    ]
    assert [answer.status_code for answer in statuses] == [403, 403, 403, 204, 401]
