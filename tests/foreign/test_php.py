"""The PHP code of examples/php works within frameworks, and its verifier handles the issuer's keys."""

import json
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from operator import methodcaller
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
if (getenv('FRAMEWORK') === 'ThinkPHP 5.0') {
    require 'refused.php';
}

// As much of a framework as its middleware uses, and its handler, which throws each warning that `@` does not silence.
// Both frameworks are only in Composer's registry.
set_error_handler(fn (int $level, string $said) => error_reporting() & $level ? throw new ErrorException($said) : null);
class Request
{
    public object $attributes;

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

    public function controller(): string { return 'Goods'; }
    public function action(): string { return ltrim($_SERVER['REQUEST_URI'], '/'); }
}
function config(string $name): ?array
{
    $options = ['issuer' => getenv('WXAUTH_ISSUER'), 'client' => 'orders:secret'];
    return match (getenv('FRAMEWORK') . ' ' . $name) {
        'Laravel services.wxauth', 'ThinkPHP 6 wxauth', 'ThinkPHP 5.0 wxauth', 'ThinkPHP 5.1 wxauth.' => $options,
        // In 5.1, a name without a dot is a key of app.php. In 6 and 8, what follows the dot is a missing key.
        'ThinkPHP 5.1 wxauth', 'ThinkPHP 6 wxauth.' => null,
    };
}
function bind(string $name, object $instance): void
{
    $GLOBALS['bound'] = $instance;
}
function response(): object
{
    return new class { public function __call(string $name, array $with): array { return $with; } };
}
function json(mixed ...$with): array
{
    return $with;
}
class Wxauth
{
MIDDLEWARE
}
MODULE
$roles = $_SERVER['REQUEST_URI'] === '/staff' ? ['staff'] : [];
if (getenv('FRAMEWORK') === 'ThinkPHP 5.1') {
    $roles = [$roles[0] ?? null]; // 5.1 passes one argument, which is null if the route names none
}
$next = function (Request $request) {
    return [['user' => $request->attributes['wxauth'] ?? $GLOBALS['bound'] ?? null], 200, []];
};
[$body, $status, $headers] = (new CLASS_NAME())->handle(new Request(), $next, ...$roles);
http_response_code($status); // before the headers, as ThinkPHP does
array_walk($headers, fn ($value, $name) => header("$name: $value"));
echo json_encode($body);
"""
PAGE = "docs/build/languages.md"
MODULE = block(PAGE, "PUBLIC_ACTIONS")
MIDDLEWARE = {
    "Laravel": "services.wxauth",
    "ThinkPHP 5.0": "HttpResponseException",
    "ThinkPHP 5.1": "bind('wxauth_user'",
    "ThinkPHP 6": "bind('wxauth_user'",
}
CONTROLLER = """
public $request;

METHOD

public function handle(Request $request, Closure $next, string ...$roles)
{
    $this->request = $request;
    try {
        bind('wxauth_user', (object) $this->user(...$roles));
    } catch (think\\exception\\HttpResponseException $refused) {
        return $refused->response;
    }
    return $next($request);
}
"""
REFUSAL = """<?php
namespace think\\exception;

class HttpResponseException extends \\RuntimeException
{
    public function __construct(public array $response) {}
}
"""


def framework(site: Path, name: str, used: str = "Wxauth") -> None:
    middleware = block(PAGE, MIDDLEWARE[name])
    if name == "ThinkPHP 5.0":
        middleware = CONTROLLER.replace("METHOD", middleware)
        (site / "refused.php").write_text(REFUSAL)
    program = FRAMEWORK.replace("MIDDLEWARE", middleware).replace("MODULE", MODULE).replace("CLASS_NAME", used)
    (site / "framework.php").write_text(program)


@pytest.mark.parametrize("name", MIDDLEWARE)
def test_a_frameworks_middleware_is_guarded_and_tested_without_wxauth(site: Path, name: str) -> None:
    framework(site, name)
    with served(site, f"http://127.0.0.1:{free_port()}", "", "framework.php", FRAMEWORK=name) as orders:
        assert code_of(orders.get("/orders", headers=bearer("alice"))) == (503, "keys_unavailable")
    with (
        served(site, "", "", "fake_wxauth.php") as fake,
        served(site, str(fake.base_url).rstrip("/"), "", "framework.php", FRAMEWORK=name) as orders,
    ):
        assert orders.get("/orders", headers=bearer("alice")).json()["user"]["openid"] == "openid-alice"
        refused = orders.get("/staff", headers=bearer("alice"))
        assert code_of(refused) == (403, "insufficient_role")
        assert "www-authenticate" not in refused.headers
        assert orders.get("/staff", headers=bearer("carol")).status_code == 200
        assert code_of(orders.get("/orders", headers=bearer("shop"))) == (403, "insufficient_scope")
        unknown = orders.get("/orders", headers=bearer("mallory"))
        assert code_of(unknown) == (401, "invalid_token")
        assert unknown.headers["www-authenticate"] == 'Bearer error="invalid_token"'


@pytest.mark.parametrize("name", ["ThinkPHP 5.1", "ThinkPHP 6"])
def test_the_middleware_of_a_module_leaves_only_the_listed_actions_public(site: Path, name: str) -> None:
    framework(site, name, "UserOnly")
    with (
        served(site, "", "", "fake_wxauth.php") as fake,
        served(site, str(fake.base_url).rstrip("/"), "", "framework.php", FRAMEWORK=name) as shop,
    ):
        for public in ("/lists", "/detail", "/LISTS"):
            assert shop.get(public).json() == {"user": None}
        for private in ("/list", "/lists2", "/buy", "/", "/lists/"):
            assert code_of(shop.get(private)) == (401, "missing_token")
        assert shop.get("/buy", headers=bearer("alice")).json()["user"]["openid"] == "openid-alice"
        assert code_of(shop.get("/staff", headers=bearer("alice"))) == (403, "insufficient_role")


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
    set_exception_handler(fn ($met) => http_response_code(match (true) {
        $met instanceof WxauthInsufficientScope => 403,
        $met instanceof UnexpectedValueException => 401,
        default => 500,
    }));
    $both = $_SERVER['REQUEST_URI'] === '/both';
    wxauth_claims(substr($_SERVER['HTTP_AUTHORIZATION'], 7), getenv('WXAUTH_ISSUER'), [], 'wxauth', $both);
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
        scopes: list[object] = ["openid", "", None, []]
        for scope in scopes:
            with sweep.case(f"scope {scope!r}"):
                token = bearer(issuer.forge(methodcaller("with_claims", scope=scope)))
                assert [orders.get(path, headers=token).status_code for path in ("/", "/both")] == [403, 200]


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
        assert {answer.result() for answer in refused} == {503}
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
