"""The PHP package is used as the page shows, plainly and in frameworks, and its keys withstand strangers."""

import json
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.clock import PATIENCE
from tests.docs import ROOT, block
from tests.foreign.conftest import Publisher, listening
from tests.foreign.php_packages import CLIENT, autoload
from tests.processes import free_port
from tests.programs import NODE_PATIENCE, needs, output_of
from tests.world import bearer

pytestmark = pytest.mark.process

PAGE = "docs/build/php.md"
WECHAT = "Mozilla/5.0 (iPhone; CPU iPhone OS 17_1 like Mac OS X) MicroMessenger/8.0.44"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    autoload(tmp_path / "vendor")
    return tmp_path


def served(site: Path, script: str, **env: str) -> AbstractContextManager[httpx.Client]:
    address = f"127.0.0.1:{free_port()}"
    return listening(needs("php"), "-S", address, script, says="started", cwd=site, url=f"http://{address}", **env)


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.mark.slow
def test_a_reader_follows_the_page_to_a_service_with_a_test(tmp_path: Path) -> None:
    (tmp_path / "wxauth/clients").mkdir(parents=True)
    (tmp_path / "wxauth/clients/php").symlink_to(CLIENT)
    shop = tmp_path / "shop"
    shop.mkdir()
    (shop / "index.php").write_text(block(PAGE, "$refusal->send();"))
    (shop / "test.php").write_text(block(PAGE, "new Issuer()"))
    needs("composer")
    # No package of another index is needed, and none is reached here.
    line = f"composer config --global repositories.packagist.org false\n{block(PAGE, 'composer require')}"
    env = {
        "COMPOSER_ALLOW_SUPERUSER": "1",
        "COMPOSER_HOME": str(tmp_path / "home"),
        "PATH": "/usr/local/bin:/usr/bin:/bin",
    }
    done = subprocess.run(["sh", "-ec", line], cwd=shop, env=env, capture_output=True, text=True, timeout=NODE_PATIENCE)
    assert done.returncode == 0, done.stdout + done.stderr
    output_of(needs("php"), "-d", "zend.assertions=1", "-d", "assert.exception=1", "test.php", cwd=shop)
    with served(shop, "index.php") as orders:
        assert code_of(orders.get("/")) == (401, "missing_token")


HEADER = "'HTTP_' . strtoupper(strtr($name, '-', '_'))"
# As much of each framework as its middleware uses, because the frameworks are only in Composer's own index. The handler
# throws each warning that `@` does not silence, as both frameworks do.
FRAMEWORKS = {
    "Laravel": """<?php
namespace Illuminate\\Http {
    class Response { public function __construct(public $body, public $status, public $headers) {} }
}
namespace Illuminate\\Support {
    class ServiceProvider { public function __construct(public $app) {} }
}
namespace {
    class App extends ArrayObject
    {
        public $made = [];
        public function singleton($name, $make) { $this->made[$name] = $make; }
        public function make($name) { return new $name(($this->made[Wxauth\\Guard::class])($this)); }
    }
    class Router
    {
        public $names = [];
        public function aliasMiddleware($name, $class) { $this->names[$name] = $class; }
    }
    class Attributes extends ArrayObject { public function set($name, $value) { $this[$name] = $value; } }
    class Request
    {
        public $attributes;
        public function __construct() { $this->attributes = new Attributes(); }
        public function header($name, $default) { return $_SERVER[HEADER] ?? $default; }
    }
    function handled($name, $roles, $options)
    {
        $config = new class($options) {
            public function __construct(public $options) {}
            public function get($name) { return $name === 'wxauth' ? $this->options : null; }
        };
        $app = new App(['config' => $config, 'router' => new Router()]);
        $provider = new Wxauth\\Laravel\\WxauthServiceProvider($app);
        $provider->register();
        $provider->boot();
        $next = fn ($request) => new Illuminate\\Http\\Response($request->attributes['wxauth']?->openid, 200, []);
        $found = $app->make($app['router']->names[$name])->handle(new Request(), $next, ...$roles);
        return [$found->body, $found->status, $found->headers];
    }
}
""",
    "ThinkPHP 6": """<?php
namespace {
    class Request
    {
        public function header($name, $default) { return $_SERVER[HEADER] ?? $default; }
    }
    // In 5.1, a name without a dot is a key of app.php. In 6 and 8, what follows the dot is a missing key.
    function config($name)
    {
        return $name === (getenv('FRAMEWORK') === 'ThinkPHP 5.1' ? 'wxauth.' : 'wxauth') ? $GLOBALS['options'] : null;
    }
    function bind($name, $instance) { $GLOBALS['bound'][$name] = $instance; }
    function response($body, $status, $headers) { return [$body, $status, $headers]; }
    function handled($name, $roles, $options)
    {
        $class = $name === 'wxauth' ? Wxauth\\ThinkPHP\\Authenticate::class : Wxauth\\ThinkPHP\\AuthenticateNow::class;
        $next = fn ($request) => [$GLOBALS['bound']['wxauth_user']->openid, 200, []];
        // 5.1 passes one argument, which is null if the route names no role.
        $roles = getenv('FRAMEWORK') === 'ThinkPHP 5.1' ? [$roles[0] ?? null] : $roles;
        return (new $class())->handle(new Request(), $next, ...$roles);
    }
}
""",
    "PSR-15": """<?php
namespace Psr\\Http\\Message {
    interface ServerRequestInterface {}
    interface ResponseInterface {}
    interface ResponseFactoryInterface {}
}
namespace Psr\\Http\\Server {
    interface MiddlewareInterface {}
    interface RequestHandlerInterface {}
}
namespace {
    class Request implements Psr\\Http\\Message\\ServerRequestInterface
    {
        public $attributes = [];
        public function getHeaderLine($name) { return $_SERVER[HEADER] ?? ''; }
        public function withAttribute($name, $value)
        {
            $copy = clone $this;
            $copy->attributes[$name] = $value;
            return $copy;
        }
    }
    class Body { public $text = ''; public function write($text) { $this->text .= $text; } }
    class Response implements Psr\\Http\\Message\\ResponseInterface
    {
        public $headers = [];
        public $body;
        public function __construct(public $status) { $this->body = new Body(); }
        public function withHeader($name, $value) { $copy = clone $this; $copy->headers[$name] = $value; return $copy; }
        public function getBody() { return $this->body; }
    }
    class Factory implements Psr\\Http\\Message\\ResponseFactoryInterface
    {
        public function createResponse($status) { return new Response($status); }
    }
    class Handler implements Psr\\Http\\Server\\RequestHandlerInterface
    {
        public function handle($request)
        {
            $response = new Response(200);
            $response->getBody()->write($request->attributes['wxauth']->openid);
            return $response;
        }
    }
    function handled($name, $roles, $options)
    {
        $guard = new Wxauth\\Guard($options);
        $guard = $name === 'wxauth' ? $guard : $guard->current();
        $middleware = new Wxauth\\Psr15\\Authenticate($guard, new Factory(), ...$roles);
        $response = $middleware->process(new Request(), new Handler());
        return [$response->body->text, $response->status, $response->headers];
    }
}
""",
}
FRAMEWORKS["ThinkPHP 5.1"] = FRAMEWORKS["ThinkPHP 6"]
ROUTES = """
namespace {
    require 'vendor/autoload.php';
    set_error_handler(fn ($level, $said) => error_reporting() & $level ? throw new ErrorException($said) : null);
    $options = ['issuer' => getenv('ISSUER'), 'keys_dir' => 'keys'];
    [$body, $status, $headers] = handled(...json_decode($_SERVER['HTTP_X_ROUTE'], true), options: $options);
    http_response_code($status); // before the headers, as ThinkPHP does
    array_walk($headers, fn ($value, $name) => header("$name: $value"));
    echo $body;
}
"""


@pytest.mark.parametrize("name", FRAMEWORKS)
def test_a_frameworks_middleware_admits_those_with_the_roles(site: Path, publisher: Publisher, name: str) -> None:
    keys = site / "keys"
    keys.mkdir(mode=0o700)
    (site / "framework.php").write_text(FRAMEWORKS[name].replace("HEADER", HEADER) + ROUTES)
    with served(site, "framework.php", FRAMEWORK=name, ISSUER=publisher.url) as shop:

        def ask(route: str, *roles: str, **values: Any) -> httpx.Response:
            headers = bearer(publisher.token(**values)) if values else {}
            return shop.get("/", headers={**headers, "X-Route": json.dumps([route, roles])})

        assert code_of(ask("wxauth")) == (401, "missing_token")
        in_wechat = {"User-Agent": WECHAT, "Accept-Language": "", "X-Route": '["wxauth", []]'}
        assert shop.get("/", headers=in_wechat).json()["title"] == "请先登录。"
        in_english = {**in_wechat, "User-Agent": f"{WECHAT} Language/en"}
        assert shop.get("/", headers=in_english).json()["title"] == "Please log in."
        assert ask("wxauth", openid="o1").text == "o1"
        refused = ask("wxauth", "staff", openid="o1")
        assert (*code_of(refused), refused.headers.get("www-authenticate")) == (403, "insufficient_role", None)
        assert ask("wxauth", "staff", openid="o1", roles=["staff"]).text == "o1"
        assert code_of(ask("wxauth", openid="o1", scope="openid")) == (403, "insufficient_scope")
        assert code_of(ask("wxauth.current", openid="o1")) == (503, "verification_unavailable")
        invalid = shop.get("/", headers={**bearer("x"), "X-Route": '["wxauth", []]'})
        assert (*code_of(invalid), invalid.headers["www-authenticate"]) == (
            401,
            "invalid_token",
            'Bearer error="invalid_token"',
        )


MODULE = """<?php
require 'vendor/autoload.php';
USER_ONLY
class Request
{
    public function header($name, $default) { return $_SERVER[HEADER] ?? $default; }
    public function controller() { return 'Goods'; }
    public function action() { return ltrim($_SERVER['REQUEST_URI'], '/'); }
}
function config($name) { return ['issuer' => getenv('ISSUER'), 'keys_dir' => 'keys']; }
function bind($name, $instance) { $GLOBALS['user'] = $instance; }
function response($body, $status, $headers) { return [$body, $status, $headers]; }
class Refused extends RuntimeException { public function __construct(public array $response) {} }
class_alias('Refused', 'think\\exception\\HttpResponseException');
class Controller
{
    public $request;

    public function open() { return $this->user('staff'); }

    ANCESTOR
}
if ($_SERVER['REQUEST_URI'] === '/5.0') {
    $controller = new Controller();
    $controller->request = new Request();
    try {
        [$body, $status, $headers] = [$controller->open()->openid, 200, []];
    } catch (think\\exception\\HttpResponseException $refused) {
        [$body, $status, $headers] = $refused->response;
    }
} else {
    $next = fn () => [isset($GLOBALS['user']) ? $GLOBALS['user']->openid : 'guest', 200, []];
    [$body, $status, $headers] = (new UserOnly())->handle(new Request(), $next);
}
http_response_code($status);
echo $body;
"""


def test_the_classes_that_the_page_shows_for_older_thinkphps_guard_a_module(site: Path, publisher: Publisher) -> None:
    (site / "keys").mkdir(mode=0o700)
    module = MODULE.replace("USER_ONLY", block(PAGE, "PUBLIC_ACTIONS")).replace("HEADER", HEADER)
    (site / "module.php").write_text(module.replace("ANCESTOR", block(PAGE, "HttpResponseException")))
    with served(site, "module.php", ISSUER=publisher.url) as shop:
        for public in ("/lists", "/detail", "/LISTS"):
            assert shop.get(public).text == "guest"
        for private in ("/list", "/lists2", "/buy", "/", "/lists/", "/5.0"):
            assert code_of(shop.get(private)) == (401, "missing_token")
        for private in ("/buy", "/5.0"):
            assert shop.get(private, headers={"User-Agent": WECHAT}).json()["title"] == "请先登录。"
        assert shop.get("/buy", headers=bearer(publisher.token(openid="o7"))).text == "o7"
        assert code_of(shop.get("/5.0", headers=bearer(publisher.token(openid="o7")))) == (403, "insufficient_role")
        assert shop.get("/5.0", headers=bearer(publisher.token(openid="o7", roles=["staff"]))).text == "o7"


def test_a_project_writes_its_own_envelope(site: Path) -> None:
    envelope = block(PAGE, "'refusals' =>")
    program = f"""<?php
use Wxauth\\Guard;
use Wxauth\\Refusal;
require 'vendor/autoload.php';
$issuer = 'https://auth.test';
{envelope}
try {{
    $guard->user('');
}} catch (Refusal $refusal) {{
    echo json_encode($guard->response($refusal, 'zh-CN'));
}}
"""
    (site / "envelope.php").write_text(program)
    status, _headers, body = json.loads(output_of(needs("php"), "envelope.php", cwd=site))
    assert (status, json.loads(body)) == (200, {"code": 401, "msg": "请先登录。", "data": None})


SERVICE = """<?php
require 'vendor/autoload.php';
try {
    $guard = new Wxauth\\Guard(['issuer' => getenv('WXAUTH_ISSUER'), 'keys_dir' => getenv('KEYS')]);
    $guard->user($_SERVER['HTTP_AUTHORIZATION']);
} catch (Wxauth\\Refusal $refusal) {
    $refusal->send();
}
"""


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    folder = tmp_path / "keys"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def service(site: Path, publisher: Publisher, kept: Path) -> Iterator[Callable[[str], int]]:
    """A function that returns the status for a token with this key. The service runs four processes."""
    (site / "service.php").write_text(SERVICE)
    env = {"WXAUTH_ISSUER": publisher.url, "KEYS": str(kept), "PHP_CLI_SERVER_WORKERS": "4"}
    with served(site, "service.php", **env) as client:
        yield lambda kid: client.get("/", headers=bearer(publisher.token(kid))).status_code


def made_older(kept: Path, seconds: int) -> None:
    [file] = kept.glob("*.json")
    state = json.loads(file.read_text())
    file.write_text(json.dumps({**state, "read_at": state["read_at"] - seconds}))
    file.with_name(f"{file.name}.lock").unlink()


def test_tokens_with_unknown_keys_lock_no_user_of_php_out(service: Callable[[str], int], publisher: Publisher) -> None:
    assert service("known") == 200
    assert [service(f"unknown-{number}") for number in range(30)] == [401] * 30
    assert service("id-token") == 401
    assert service("known") == 200
    assert publisher.readings == 1


def test_all_processes_wait_for_the_very_first_reading(service: Callable[[str], int], publisher: Publisher) -> None:
    publisher.answers.clear()
    with ThreadPoolExecutor(4) as users:
        first = users.submit(service, "known")
        assert publisher.is_asked.wait(PATIENCE)
        others = [users.submit(service, "known") for _ in range(2)]
        assert not wait(others, 0.2).done
        publisher.answers.set()
        assert [first.result(), *(other.result() for other in others)] == [200] * 3
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


def test_the_package_has_the_version_of_wxauth() -> None:
    version = json.loads((CLIENT / "composer.json").read_text())["version"]
    assert f"VERSION = '{version}'" in (CLIENT / "src/Guard.php").read_text()
    assert f'version = "{version}"' in (ROOT / "pyproject.toml").read_text()
