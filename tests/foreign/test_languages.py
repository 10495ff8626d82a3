"""The services that pages of the languages name are started with these pages' commands and get the same requests."""

import json
import os
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from operator import methodcaller
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest

from tests.databases import TEMPLATE
from tests.docs import ROOT, block
from tests.fakes import service_env
from tests.foreign.conftest import Front, Issuer, issuer_at
from tests.foreign.corpus import ACCEPTED, REFUSED
from tests.foreign.jdks import UNREACHED, jdks
from tests.guard.hostile import CLAIMS, HOSTILE, Forgery, decode
from tests.processes import WXAUTH, Running, free_port, run, until
from tests.programs import EXPRESS, NODE_PATIENCE, lacks, needs, needs_node
from tests.serving import serving
from tests.sweeps import Sweep
from tests.world import bearer
from wxauth_desk.postgres import EmbeddedPostgres
from wxauth_desk.wechat import APPS, create_simulator

pytestmark = [pytest.mark.process, pytest.mark.node, pytest.mark.slow]

RESOURCE = "https://mcp.example.com/mcp"
OTHERWISE = ("signature padded", "signature spelt another way", "padded header, signed so", "plain base64")


@dataclass(frozen=True, slots=True)
class Language:
    programs: tuple[str, ...]
    line: str
    """The first words of the command that starts the service."""
    changes: tuple[tuple[str, str], ...] = ()
    """Replacements that a reader makes in the command."""
    env: Mapping[str, str] = field(default_factory=dict)
    page: str = ""
    asks: bool = False
    """Whether the service asks wxauth about each token."""
    site: tuple[int, int, int] = (403, 403, 403)
    """The statuses of a website's token on the three routes."""


def spring(jdk: int, *changes: tuple[str, str], **options: Any) -> Language:
    home = {"JAVA_HOME": jdks()[jdk]} if jdks() else {}
    env = {**home, "JAVA_TOOL_OPTIONS": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}
    env["WXAUTH_WEBSITES"] = str(options.get("site", (403,))[0] == 200).lower()
    env["WXAUTH_CURRENT"] = str("asks" in options).lower()
    return Language(("mvn", "javac"), "mvn -q -f", changes, env, page="docs/build/spring.md", **options)


def newest_java() -> Language:
    home = jdks()[-1] if jdks() else "/usr"
    env = {"JAVA_HOME": home, "PATH": f"{home}/bin:{os.environ['PATH']}"}
    return Language(("java", "mvn"), "mvn -q -f clients", env=env, page="docs/build/java.md")


INSTALLED = ("mvn -q -f clients/java install -pl spring-boot-starter -am\n", "")
OLDER = ("spring-boot:", "-Dspring-boot.version=3.5.16 spring-boot:")
LANGUAGES = {
    "Java": Language(("java", "mvn"), "mvn -q -f clients", page="docs/build/java.md"),
    "Java 25": newest_java(),
    # These share Maven's folder, so that only the first one may write to it.
    "Spring Boot 4": spring(-1),
    "Spring Boot 3": spring(0, INSTALLED, OLDER, site=(200, 403, 200)),
    "Spring Boot 4, asking": spring(-1, INSTALLED, ("spring-boot:", "test spring-boot:"), asks=True),
    "Go": Language(("go",), "go run -C", page="docs/build/go.md"),
    "PHP": Language(("php", "composer"), "php -S", page="docs/build/php.md"),
    "Express": Language(("node", "npm"), "npm start", page="examples/express/README.md"),
}


@dataclass(slots=True)
class Wxauth:
    """The wxauth of these tests, and tokens that it has issued."""

    front: Front
    issuer: Issuer
    command: Callable[..., Any]
    """A function that runs `wxauth` with these arguments and parses its output as JSON."""
    secret: str
    """The secret of the client "orders", for the services that ask wxauth."""
    own: dict[str, str] = field(default_factory=dict)
    """Tokens that wxauth has issued, by name."""

    def log_in(self, person: str) -> dict[str, Any]:
        return self.ask("/v1/login", json={"code": person})

    def ask(self, path: str, **request: Any) -> dict[str, Any]:
        answer = httpx.post(self.issuer.url + path, **request, trust_env=False, verify=False)
        assert answer.is_success, answer.text
        return answer.json() if answer.content else {}

    def device(self, name: str, secret: str, **form: str) -> dict[str, Any]:
        """Let Alice approve a login to a site on her phone, and return the site's tokens."""
        site = {"auth": (name, secret)}
        browser = {"browser_ip": "203.0.113.7", "browser_user_agent": "Mozilla/5.0"}
        started = self.ask("/v1/device_authorization", data={**browser, **form}, **site)
        scan = {"scene": started["verification_uri_complete"].rpartition("/")[2], "entry_scene": 1047}
        phone = {"headers": bearer(self.issuer.token)}
        claimed = self.ask("/v1/me/scans", json=scan, **phone)
        self.ask(f"/v1/me/scans/{claimed['id']}/approve", json={"login_code": "alice"}, **phone)
        kind = "urn:ietf:params:oauth:grant-type:device_code"
        return self.ask("/v1/token", data={"grant_type": kind, "device_code": started["device_code"]}, **site)


@pytest.fixture(scope="module")
async def wxauth(
    postgres: EmbeddedPostgres, admin: asyncpg.Connection, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Wxauth]:
    await admin.execute(f"CREATE DATABASE languages TEMPLATE {TEMPLATE}")
    database, folder, port = postgres.url("languages"), tmp_path_factory.mktemp("wxauth"), free_port()
    with serving(create_simulator()) as wechat_url, Front(f"http://127.0.0.1:{port}") as front:
        resources = json.dumps([{"resource": RESOURCE, "title": "小店助手", "scopes": {"orders:read": "查看你的订单"}}])
        settings = {"wechat_base_url": wechat_url, "issuer": front.url, "port": port, "resources": resources}
        env = service_env(database, apps=[APPS[0]], **settings)

        def command(*arguments: str) -> Any:
            done = run(*arguments, cwd=folder, env=env)
            assert done.returncode == 0, done.stderr
            return json.loads(done.stdout) if "--json" in arguments else done.stdout

        with Running(WXAUTH, "serve", cwd=folder, env=env) as service:
            service.wait_for('"started"')
            async with issuer_at(front.url, database) as issuer:
                added = {
                    name: command("clients", "add", name, *options, "--json")["client_secret"]
                    for name, options in (
                        ("orders", []),
                        ("shop", ["--device"]),
                        ("agent", ["--device", "--resource", RESOURCE]),
                    )
                }
                world = Wxauth(front, issuer, command, added["orders"])
                shop = world.device("shop", added["shop"], scope="openid profile")
                agent = world.device("agent", added["agent"], resource=RESOURCE, scope="orders:read")
                command("users", "grant", world.log_in("carol")["user"]["id"], "staff")
                login = world.log_in("alice")
                world.own |= {"a login": login["access_token"], "its refresh token": login["refresh_token"]}
                world.own |= {
                    f"a site, its {name}": shop[name] for name in ("access_token", "refresh_token", "id_token")
                }
                world.own |= {f"an agent, its {name}": agent[name] for name in ("access_token", "refresh_token")}
                world.own |= {"staff": world.log_in("carol")["access_token"]}
                dave = {"app_id": APPS[0]["app_id"], "openid": world.log_in("dave")["user"]["openid"]}
                (folder / "users.jsonl").write_text(json.dumps({**dave, "external_id": "10023"}))
                command("users", "import", "users.jsonl")
                world.own |= {"imported": world.log_in("dave")["access_token"]}
                yield world
    await admin.execute("DROP DATABASE languages WITH (FORCE)")


@dataclass(slots=True)
class Service:
    language: Language
    process: Running
    client: httpx.Client
    away: httpx.Response | None = None
    """The service's first response to a good token. It was sent while wxauth was unreachable."""

    def ask(self, token: str | None, path: str = "/whoami") -> httpx.Response:
        return self.client.get(path, headers=bearer(token) if token is not None else {})

    def status(self, token: str, path: str = "/whoami") -> int:
        return self.ask(token, path).status_code


def started(language: Language, folder: Path, wxauth: Wxauth, stack: ExitStack) -> Service:
    """Start a service of this language as a reader does."""
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("node_modules", "express"))
    (folder / "examples/express").symlink_to(EXPRESS)
    (folder / "clients").mkdir()
    for name in ("go", "node", "php"):
        (folder / "clients" / name).symlink_to(ROOT / "clients" / name)
    shutil.copytree(ROOT / "clients/java", folder / "clients/java", ignore=shutil.ignore_patterns("target"))
    line, port = block(language.page, language.line), str(free_port())
    for change in language.changes:
        line = line.replace(*change)
    env = {"WXAUTH_ISSUER": wxauth.front.url, "PORT": port, "no_proxy": "127.0.0.1", **language.env}
    env |= {"COMPOSER_ALLOW_SUPERUSER": "1", "WXAUTH_KEYS_DIR": str(folder / "keys")}
    (folder / "keys").mkdir(mode=0o700)
    env |= {"WXAUTH_CLIENT": f"orders:{wxauth.secret}", "ORDERS_SECRET": wxauth.secret}
    client = httpx.Client(
        base_url=f"http://127.0.0.1:{port}",
        trust_env=False,
        verify=False,
        timeout=NODE_PATIENCE,
    )
    stack.callback(client.close)
    return Service(language, stack.enter_context(Running("sh", "-c", line, cwd=folder, env=env)), client)


@pytest.fixture(scope="module")
def services(wxauth: Wxauth, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Service]]:
    """The services whose programs are installed, started while wxauth is unreachable.

    They start one by one, because they share Maven's folder.
    """
    wxauth.front.is_away = True
    with ExitStack() as stack:
        running = {}
        for name, language in LANGUAGES.items():
            if all(map(shutil.which, language.programs)):
                service = started(language, tmp_path_factory.mktemp("service"), wxauth, stack)
                deadline = time.monotonic() + NODE_PATIENCE
                while service.away is None and service.process.process.poll() is None and time.monotonic() < deadline:
                    with suppress(httpx.TransportError):
                        service.away = service.ask(wxauth.issuer.token)
                    time.sleep(0.1)
                running[name] = service
        wxauth.front.is_away = False
        yield running


@pytest.fixture(params=LANGUAGES)
def service(request: pytest.FixtureRequest, services: dict[str, Service], wxauth: Wxauth) -> Service:
    for program in LANGUAGES[request.param].programs:
        needs(program)
    if "npm" in LANGUAGES[request.param].programs:
        needs_node(EXPRESS)
    found = services[request.param]
    if found.away is None and UNREACHED.search(found.process.output):
        lacks(f"{request.param} needs packages: {found.process.output.strip()[-500:]} 未能下载依赖包")
    assert found.away is not None, found.process.output
    until(lambda: found.status(wxauth.issuer.token) == 200)
    return found


def part(token: str, number: int) -> dict[str, Any]:
    """Return the header (0) or the claims (1) of a token."""
    return json.loads(decode(token.split(".")[number]))


def challenge_of(answer: httpx.Response) -> str:
    return answer.headers.get("www-authenticate", "")


def test_it_answers_503_until_wxauth_is_there(service: Service) -> None:
    assert service.away is not None
    assert (service.away.status_code, service.away.headers["retry-after"]) == (503, "5")


def test_it_accepts_every_good_token(service: Service, wxauth: Wxauth) -> None:
    with Sweep() as sweep:
        for name, forgery in ACCEPTED.items():
            with sweep.case(name):
                assert service.status(wxauth.issuer.forge(forgery)) == 200


def test_it_refuses_every_other_token(service: Service, wxauth: Wxauth) -> None:
    others = (*OTHERWISE, *(f"{name} null" for name in CLAIMS))
    refused = {**REFUSED, **{name: HOSTILE[name] for name in others}}
    with Sweep() as sweep:
        for name, forgery in refused.items():
            with sweep.case(name):
                answer = service.ask(wxauth.issuer.forge(forgery))
                assert (answer.status_code, challenge_of(answer)) == (401, 'Bearer error="invalid_token"'), answer.text


def test_it_admits_those_whom_wxauths_own_tokens_are_for(service: Service, wxauth: Wxauth) -> None:
    admitted = {"a login": (200, 403, 200), "staff": (200, 200, 200)}
    admitted["imported"] = admitted["a login"]
    admitted["a site, its access_token"] = service.language.site
    with Sweep() as sweep:
        for name, token in wxauth.own.items():
            with sweep.case(name):
                answers = [service.ask(token, path) for path in ("/whoami", "/staff", "/orders")]
                assert tuple(answer.status_code for answer in answers) == admitted.get(name, (401, 401, 401))
                # If the service lets the token in, the user lacks a role, and a new token would not help.
                challenge = "" if answers[0].status_code == 200 else 'Bearer error="insufficient_scope"'
                for answer in answers:
                    if answer.status_code == 403:
                        assert challenge_of(answer).partition(",")[0] == challenge
    assert service.ask(wxauth.own["staff"]).json()["sub"] == part(wxauth.own["staff"], 1)["sub"]


def test_it_refuses_each_token_with_a_scope_whatever_its_value_is(service: Service, wxauth: Wxauth) -> None:
    if service.language.asks or service.language.site[0] == 200:
        return  # wxauth itself refuses forged values
    with Sweep() as sweep:
        scopes: list[Any] = ["openid", "orders:read", "", " ", [], ["openid"], {}, 0, 7, False, True]
        for scope in scopes:
            with sweep.case(repr(scope)):
                answer = service.ask(wxauth.issuer.forge(methodcaller("with_claims", scope=scope)))
                assert (answer.status_code, challenge_of(answer)) == (403, 'Bearer error="insufficient_scope"')
        with sweep.case("null"):
            answer = service.ask(wxauth.issuer.forge(methodcaller("with_claims", scope=None)))
            assert answer.status_code in (401, 403)


def test_it_knows_the_app_of_a_user_and_the_id_from_before(service: Service, wxauth: Wxauth) -> None:
    def shown(token: str) -> tuple[Any, ...]:
        answer = service.ask(token).json()
        return answer["app_id"], answer["external_id"]

    app_id = APPS[0]["app_id"]
    assert shown(wxauth.own["a login"]) == (app_id, None)
    assert shown(wxauth.own["imported"]) == (app_id, "10023")


def test_it_takes_no_role_from_what_is_no_list(service: Service, wxauth: Wxauth) -> None:
    for roles in ("staff", "x staff", {"staff": True}, ["Staff"], []):
        token = wxauth.issuer.forge(methodcaller("with_claims", roles=roles))
        assert service.status(token, "/staff") in (401, 403), roles


def test_it_reads_claims_by_their_exact_names(service: Service, wxauth: Wxauth) -> None:
    others = {
        "ROLES": ["staff"],
        "role\u017f": ["staff"],
        "Scope": "openid",
        "SUB": "x",
        "\u017fub": "x",
        "Exp": 1,
        "NBF": 1e12,
    }
    token = wxauth.issuer.forge(methodcaller("with_claims", **others))
    assert [service.status(token, path) for path in ("/whoami", "/staff", "/orders")] == [200, 403, 200]
    assert service.ask(token).json()["sub"] == part(token, 1)["sub"]


def test_it_refuses_a_request_without_a_token(service: Service, wxauth: Wxauth) -> None:
    for answer in (service.ask(None), service.client.get("/whoami", params={"access_token": wxauth.issuer.token})):
        assert (answer.status_code, challenge_of(answer)) == (401, "Bearer")


def test_it_allows_half_a_minute_of_clock_skew(service: Service, wxauth: Wxauth) -> None:
    def status(**claims: int) -> int:
        at = {name: int(time.time()) + seconds for name, seconds in claims.items()}
        return service.status(wxauth.issuer.forge(lambda forger: forger.with_claims(**at)))

    assert [status(exp=-10), status(exp=-45), status(nbf=10), status(nbf=90)] == [200, 401, 200, 401]


def test_a_ban_takes_effect_at_once_where_wxauth_is_asked(services: dict[str, Service], wxauth: Wxauth) -> None:
    asking = [each for each in services.values() if each.language.asks and each.away is not None]
    login = wxauth.log_in("mallory")
    assert {each.status(login["access_token"]) for each in asking} <= {200}
    wxauth.command("users", "ban", login["user"]["id"])
    assert {each.status(login["access_token"]) for each in asking} <= {401}


def unknown(number: int) -> Forgery:
    return methodcaller("with_header", kid=f"unknown-{number}")


def test_a_flood_of_unknown_keys_reads_them_seldom_delays_nobody_and_makes_no_503(
    service: Service, wxauth: Wxauth
) -> None:
    if service.language.asks:
        return
    front, token = wxauth.front, wxauth.issuer.token
    front.readings = 0
    flood = [wxauth.issuer.forge(unknown(number)) for number in range(300)]
    assert {service.status(each) for each in flood[:100]} == {401}
    assert service.status(token) == 200
    assert front.readings <= 3
    front.answers.clear()
    try:
        with ThreadPoolExecutor(32) as strangers:
            hanging = [strangers.submit(service.status, each) for each in flood]
            begun = time.monotonic()
            assert {service.status(token) for _ in range(20)} == {200}
            assert time.monotonic() - begun < 5
            front.answers.set()
            assert {each.result() for each in hanging} == {401}
    finally:
        front.answers.set()


async def test_a_key_is_known_when_new_and_refused_once_withdrawn(services: dict[str, Service], wxauth: Wxauth) -> None:
    offline = {name: each for name, each in services.items() if not each.language.asks and each.away is not None}
    former = wxauth.issuer.token
    token = await wxauth.issuer.rotate()
    kid = part(former, 0)["kid"]  # it also signed all of `wxauth.own`, so this test must be the last one

    def statuses(token: str) -> dict[str, int]:
        return {name: each.status(token) for name, each in offline.items()}

    def stranger_asks() -> bool:
        return {*statuses(wxauth.issuer.forge(REFUSED["kid unknown"])).values()} == {401}

    until(lambda: {*statuses(token).values()} == {200})
    assert {*statuses(former).values()} == {200}
    wxauth.command("keys", "withdraw", kid)
    until(lambda: stranger_asks() and {*statuses(former).values()} == {401})
    for new in (token, wxauth.log_in("alice")["access_token"]):
        assert {*statuses(new).values()} == {200}
