"""The PHP of examples/php: that which asks wxauth about each token, and the keys of that which does not."""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.clock import PATIENCE
from tests.docs import ROOT, code_blocks
from tests.fakes import SECRET_KEY
from tests.foreign.conftest import Issuer, Publisher, listening
from tests.foreign.corpus import GuardsOrders
from tests.processes import Running, free_port, run
from tests.programs import needs
from tests.tokens.hostile import decode
from tests.world import bearer

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The example's files."""
    folder = tmp_path_factory.mktemp("php")
    for name in ("fake_wxauth.php", "guard.php", "wxauth_keys.php"):
        shutil.copy(ROOT / "examples/php" / name, folder)
    [index] = code_blocks(ROOT / "docs/languages.md", "php")
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


def served(site: Path, issuer_url: str, credentials: str) -> AbstractContextManager[httpx.Client]:
    address = f"127.0.0.1:{free_port()}"
    env = {"WXAUTH_ISSUER": issuer_url, "WXAUTH_CLIENT": credentials}
    return listening(needs("php"), "-S", address, "index.php", says="started", cwd=site, url=f"http://{address}", **env)


@pytest.fixture(scope="module")
def orders(site: Path, issuer: Issuer, credentials: str) -> Iterator[httpx.Client]:
    with served(site, issuer.url, credentials) as client:
        yield client


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


class TestPhp(GuardsOrders):
    pass


def test_php_knows_whose_token_it_is(orders: httpx.Client, issuer: Issuer) -> None:
    assert orders.get("/orders", headers=bearer(issuer.token)).text.startswith("o")


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
    with served(site, issuer.url, wrong) as orders:
        assert code_of(orders.get("/orders", headers=bearer(issuer.token))) == (503, "keys_unavailable")


def test_php_admits_nobody_if_wxauth_is_unavailable(site: Path, issuer: Issuer) -> None:
    with served(site, f"http://127.0.0.1:{free_port()}", "orders:secret") as orders:
        answer = orders.get("/orders", headers=bearer(issuer.token))
        assert code_of(answer) == (503, "keys_unavailable")
        assert answer.headers["retry-after"] == "5"


def test_php_is_tested_without_wxauth(site: Path) -> None:
    url = f"127.0.0.1:{free_port()}"
    with Running(needs("php"), "-S", url, "fake_wxauth.php", cwd=site) as fake:
        fake.wait_for("started")
        with served(site, f"http://{url}", "orders:secret") as orders:
            assert orders.get("/orders", headers=bearer("alice")).text == "openid-alice"
            assert code_of(orders.delete("/orders/7", headers=bearer("alice"))) == (403, "insufficient_role")
            assert orders.delete("/orders/7", headers=bearer("carol")).status_code == 200
            assert code_of(orders.get("/orders", headers=bearer("mallory"))) == (401, "invalid_token")


# The keys of the recipe that verifies tokens itself.


SERVICE = """<?php
require 'wxauth_keys.php';
$token = rtrim(strtr(base64_encode(json_encode(['kid' => $_GET['kid']])), '+/', '-_'), '=') . '.e30.AA';
$keys = wxauth_keys(getenv('WXAUTH_ISSUER'), $token, getenv('KEYS'));
$isKnown = in_array($_GET['kid'], array_column($keys['keys'] ?? [], 'kid'), true);
http_response_code($keys === null ? 503 : ($isKnown ? 200 : 401));
"""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    return tmp_path / "keys.json"


@pytest.fixture
def service(site: Path, publisher: Publisher, kept: Path) -> Iterator[Callable[[str], int]]:
    """Status of the answer to a token with this key; the service has four processes."""
    (site / "service.php").write_text(SERVICE)
    address = f"127.0.0.1:{free_port()}"
    env = {
        "WXAUTH_ISSUER": publisher.url,
        "KEYS": str(kept),
        "PHP_CLI_SERVER_WORKERS": "4",
    }
    with Running(needs("php"), "-S", address, "service.php", cwd=site, env=env) as process:
        process.wait_for("started")
        limits = httpx.Limits(max_keepalive_connections=0)
        with httpx.Client(base_url=f"http://{address}", trust_env=False, limits=limits, timeout=PATIENCE) as client:
            yield lambda kid: client.get("/", params={"kid": kid}).status_code


def made_older(kept: Path, seconds: int) -> None:
    state = json.loads(kept.read_text())
    kept.write_text(json.dumps({**state, "read_at": state["read_at"] - seconds}))
    kept.with_name(f"{kept.name}.lock").unlink()


def test_tokens_with_unknown_keys_lock_no_user_of_php_out(service: Callable[[str], int], publisher: Publisher) -> None:
    assert service("known") == 200
    assert [service(f"unknown-{number}") for number in range(30)] == [401] * 30
    assert service("id-token") == 401
    assert service("known") == 200
    assert publisher.readings == 1


def test_php_serves_known_keys_while_wxauth_hangs(
    service: Callable[[str], int], publisher: Publisher, kept: Path
) -> None:
    assert service("known") == 200
    made_older(kept, 3600)
    publisher.answers.clear()
    with ThreadPoolExecutor(16) as strangers:
        refused = [strangers.submit(service, f"unknown-{number}") for number in range(8)]
        assert [service("known") for _ in range(50)] == [200] * 50
        assert {answer.result() for answer in refused} == {401}
    assert publisher.readings == 2
    made_older(kept, 86400)
    assert service("known") == 503


def test_php_finds_a_new_key_and_forgets_a_withdrawn_one(
    service: Callable[[str], int], publisher: Publisher, kept: Path
) -> None:
    assert service("known") == 200
    publisher.kid = "new"
    made_older(kept, 0)
    assert [service("new"), service("known")] == [200, 401]
