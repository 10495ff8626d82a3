"""The PHP code of examples/php works within frameworks, and its verifier handles the issuer's keys."""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import httpx
import pytest

from tests.docs import ROOT, block
from tests.foreign.conftest import Issuer, Publisher, listening
from tests.foreign.corpus import ACCEPTED, REFUSED
from tests.processes import free_port
from tests.programs import needs
from tests.sweeps import Sweep
from tests.world import bearer

pytestmark = pytest.mark.process


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the example's files."""
    return Path(shutil.copytree(ROOT / "examples/php", tmp_path_factory.mktemp("php"), dirs_exist_ok=True))


def served(
    site: Path, issuer_url: str, credentials: str, script: str, **more: str
) -> AbstractContextManager[httpx.Client]:
    address = f"127.0.0.1:{free_port()}"
    env = {"WXAUTH_ISSUER": issuer_url, "WXAUTH_CLIENT": credentials, **more}
    return listening(needs("php"), "-S", address, script, says="started", cwd=site, url=f"http://{address}", **env)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize("wrong", ["nobody:secret", "orders:secret"])
def test_php_admits_nobody_if_wxauth_does_not_know_the_client(site: Path, issuer: Issuer, wrong: str) -> None:
    with served(site, issuer.url, wrong, "index.php") as orders:
        assert code_of(orders.get("/orders", headers=bearer(issuer.token))) == (503, "keys_unavailable")


FRAMEWORK = """<?php
require 'guard.php';

// As much of a framework as its middleware uses, and its handler, which throws each warning that `@` does not silence.
set_error_handler(fn (int $level, string $said) => error_reporting() & $level ? throw new ErrorException($said) : null);
class Request
{
    public object $attributes;
    public array $wxauth = [];

    public function __construct()
    {
        $this->attributes = new class extends ArrayObject {
            public function set(string $name, mixed $value): void { $this[$name] = $value; }
        };
    }

    public function header(string $name, string $default): string
    {
        return $_SERVER['HTTP_' . strtoupper($name)] ?? $default;
    }
}
function config(string $name): array
{
    return ['issuer' => getenv('WXAUTH_ISSUER'), 'client' => 'orders:secret'];
}
function response(): object
{
    return new class { public function __call(string $name, array $with): array { return $with; } };
}
function json(mixed ...$with): array
{
    return $with;
}
$middleware = new class {
MIDDLEWARE
};
$roles = $_SERVER['REQUEST_URI'] === '/staff' ? ['staff'] : [];
$next = fn (Request $request) => [['user' => $request->attributes['wxauth'] ?? $request->wxauth], 200, []];
[$body, $status, $headers] = $middleware->handle(new Request(), $next, ...$roles);
array_walk($headers, fn ($value, $name) => header("$name: $value"));
http_response_code($status);
echo json_encode($body);
"""


@pytest.mark.parametrize("words", ["services.wxauth", "config('wxauth')"], ids=["Laravel", "ThinkPHP"])
def test_a_frameworks_middleware_is_guarded_and_tested_without_wxauth(site: Path, words: str) -> None:
    (site / "framework.php").write_text(FRAMEWORK.replace("MIDDLEWARE", block("docs/build/languages.md", words)))
    with served(site, f"http://127.0.0.1:{free_port()}", "", "framework.php") as orders:
        assert code_of(orders.get("/orders", headers=bearer("alice"))) == (503, "keys_unavailable")
    with (
        served(site, "", "", "fake_wxauth.php") as fake,
        served(site, str(fake.base_url).rstrip("/"), "", "framework.php") as orders,
    ):
        assert orders.get("/orders", headers=bearer("alice")).json()["user"]["openid"] == "openid-alice"
        refused = orders.get("/staff", headers=bearer("alice"))
        assert code_of(refused) == (403, "insufficient_role")
        assert refused.headers["www-authenticate"] == 'Bearer error="insufficient_scope"'
        assert orders.get("/staff", headers=bearer("carol")).status_code == 200
        assert code_of(orders.get("/orders", headers=bearer("shop"))) == (403, "insufficient_scope")
        assert code_of(orders.get("/orders", headers=bearer("mallory"))) == (401, "invalid_token")


# The recipe that verifies tokens itself: its claims and its keys. A stub replaces php-jwt, which checks signatures and
# times.


CLAIMS = """<?php
namespace Firebase\\JWT {
    class JWT
    {
        public static int $leeway;

        public static function decode(string $token, array $keys, ?\\stdClass &$header): \\stdClass
        {
            $read = fn (string $part) => json_decode(base64_decode(strtr($part, '-_', '+/')));
            [$header, $claims] = array_map($read, explode('.', $token));
            return $claims;
        }
    }
}
namespace {
    require 'wxauth_claims.php';
    set_exception_handler(fn ($met) => http_response_code($met instanceof UnexpectedValueException ? 401 : 500));
    wxauth_claims(substr($_SERVER['HTTP_AUTHORIZATION'], 7), getenv('WXAUTH_ISSUER'), []);
}
"""


def test_php_refuses_tokens_whose_form_type_or_claims_are_others(site: Path, issuer: Issuer) -> None:
    own = ("alg ES", "no ", "typ", "an id_token", "crit", "iss", "aud", "signature", "two", "five")
    refused = {name: REFUSED[name] for name in REFUSED if name.startswith(own)}
    (site / "claims.php").write_text(CLAIMS)
    with served(site, issuer.url, "", "claims.php") as orders, Sweep() as sweep:
        for name, forgery in {**ACCEPTED, **refused}.items():
            with sweep.case(name):
                answer = orders.get("/", headers=bearer(issuer.forge(forgery)))
                assert answer.status_code == (401 if name in refused else 200), answer.text


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
    """A function that returns the status for a token with this key. The service runs four processes."""
    (site / "service.php").write_text(SERVICE)
    with served(site, publisher.url, "", "service.php", KEYS=str(kept), PHP_CLI_SERVER_WORKERS="4") as client:
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


def test_php_serves_known_keys_if_wxauth_hangs(service: Callable[[str], int], publisher: Publisher, kept: Path) -> None:
    assert service("known") == 200
    made_older(kept, 3600)
    publisher.answers.clear()
    with ThreadPoolExecutor(16) as strangers:
        refused = [strangers.submit(service, f"unknown-{number}") for number in range(8)]
        assert [service("known") for _ in range(50)] == [200] * 50
        # 401 if the process has read the keys, and 503 if another process was reading them
        assert {answer.result() for answer in refused} == {401, 503}
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
