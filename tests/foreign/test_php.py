"""The PHP of docs/languages.md that asks wxauth about each token."""

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.fakes import SECRET_KEY
from tests.foreign.conftest import Issuer
from tests.foreign.corpus import ACCEPTED, REFUSED
from tests.processes import Running, free_port, run
from tests.programs import needs
from tests.sweeps import swept
from tests.test_readme import ROOT, code_blocks
from tests.tokens.hostile import Forgery, decode
from tests.world import bearer

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The two files that are shown."""
    folder = tmp_path_factory.mktemp("php")
    guard, index, fake, _ = code_blocks(ROOT / "docs/languages.md", "php")
    (folder / "fake_wxauth.php").write_text(fake)
    (folder / "guard.php").write_text(guard)
    (folder / "index.php").write_text(index)
    return folder


@pytest.fixture(scope="module")
def settings(issuer: Issuer, database_of_issuer: str) -> dict[str, str]:
    return {"WXAUTH_DATABASE_URL": database_of_issuer, "WXAUTH_SECRET_KEY": SECRET_KEY}


@pytest.fixture(scope="module")
def credentials(settings: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> str:
    added = run("clients", "add", "orders", "--json", cwd=tmp_path_factory.mktemp("client"), env=settings)
    client = json.loads(added.stdout)
    return f"{client['client_id']}:{client['client_secret']}"


def served(site: Path, issuer_url: str, credentials: str) -> Iterator[httpx.Client]:
    url = f"127.0.0.1:{free_port()}"
    env = {"WXAUTH_ISSUER": issuer_url, "WXAUTH_CLIENT": credentials}
    with Running(needs("php"), "-S", url, "index.php", cwd=site, env=env) as process:
        process.wait_for("started")
        with httpx.Client(base_url=f"http://{url}", trust_env=False, verify=False) as client:
            yield client


@pytest.fixture(scope="module")
def orders(site: Path, issuer: Issuer, credentials: str) -> Iterator[httpx.Client]:
    yield from served(site, issuer.url, credentials)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@swept("forgery", ACCEPTED.values(), ids=ACCEPTED)
def test_php_accepts_every_good_token(orders: httpx.Client, issuer: Issuer, forgery: Forgery) -> None:
    answer = orders.get("/orders", headers=bearer(issuer.forge(forgery)))
    assert answer.status_code == 200, answer.text


@swept("forgery", REFUSED.values(), ids=REFUSED)
def test_php_refuses_every_hostile_token(orders: httpx.Client, issuer: Issuer, forgery: Forgery) -> None:
    status, code = code_of(orders.get("/orders", headers=bearer(issuer.forge(forgery))))
    assert (status, code) in {(401, "invalid_token"), (401, "missing_token")}


def test_php_knows_whose_token_it_is(orders: httpx.Client, issuer: Issuer) -> None:
    assert orders.get("/orders", headers=bearer(issuer.token)).text.startswith("o")


def test_php_refuses_a_request_without_a_token(orders: httpx.Client) -> None:
    answer = orders.get("/orders")
    assert code_of(answer) == (401, "missing_token")
    assert answer.headers["www-authenticate"] == "Bearer"


def test_php_demands_the_role_that_the_user_has_by_now(
    orders: httpx.Client, issuer: Issuer, settings: dict[str, str], tmp_path: Path
) -> None:
    claimed = issuer.forge(lambda forger: forger.with_claims(roles=["clerk"]))
    refused = orders.delete("/orders/7", headers=bearer(claimed))
    assert code_of(refused) == (403, "insufficient_role")
    assert refused.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
    user_id = json.loads(decode(issuer.token.split(".")[1]))["sub"]
    run("users", "grant", user_id, "clerk", cwd=tmp_path, env=settings)
    assert orders.delete("/orders/7", headers=bearer(issuer.token)).status_code == 200
    run("users", "revoke", user_id, "clerk", cwd=tmp_path, env=settings)


@pytest.mark.parametrize("wrong", ["nobody:secret", "orders:secret"])
def test_php_admits_nobody_if_wxauth_does_not_know_the_client(site: Path, issuer: Issuer, wrong: str) -> None:
    for orders in served(site, issuer.url, wrong):
        assert code_of(orders.get("/orders", headers=bearer(issuer.token))) == (503, "keys_unavailable")


def test_php_admits_nobody_if_wxauth_is_unavailable(site: Path, issuer: Issuer) -> None:
    for orders in served(site, f"http://127.0.0.1:{free_port()}", "orders:secret"):
        answer = orders.get("/orders", headers=bearer(issuer.token))
        assert code_of(answer) == (503, "keys_unavailable")
        assert answer.headers["retry-after"] == "5"


def test_php_is_tested_without_wxauth(site: Path) -> None:
    url = f"127.0.0.1:{free_port()}"
    with Running(needs("php"), "-S", url, "fake_wxauth.php", cwd=site) as fake:
        fake.wait_for("started")
        for orders in served(site, f"http://{url}", "orders:secret"):
            assert orders.get("/orders", headers=bearer("alice")).text == "openid-alice"
            assert code_of(orders.delete("/orders/7", headers=bearer("alice"))) == (403, "insufficient_role")
            assert orders.delete("/orders/7", headers=bearer("carol")).status_code == 200
            assert code_of(orders.get("/orders", headers=bearer("mallory"))) == (401, "invalid_token")
