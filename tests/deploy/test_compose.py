"""`deploy/compose` follows the Compose specification, makes its secrets, and puts Caddy in front of two replicas."""

import asyncio
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import termios
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import httpx
import pytest
import yaml
from starlette.types import Receive, Scope, Send

from tests.deploy.conftest import Replicas, restart_in_turn
from tests.fakes import SECRET_KEY
from tests.foreign import sign_ins
from tests.processes import PATIENCE, Running, free_port, run, serving, until
from tests.programs import ROOT, needs, needs_node, output_of, postgres_program
from tests.proxies.longest import add_site, check_longest
from tests.sweeps import swept
from tests.world import add_client, bearer
from wxauth.core.services import Services
from wxauth.service.app import create_app
from wxauth.service.build import build_services
from wxauth.settings.loading import settings_from
from wxauth.settings.settings import Settings
from wxauth_desk.postgres import EmbeddedPostgres
from wxauth_desk.wechat import ACCOUNT, APPS, WEBSITE, create_simulator

FOLDER = ROOT / "deploy/compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
ANSWERS = {"SITE": "auth.example.com", "APP_ID": "wx1a2b3c4d5e6f7a8b", "APP_SECRET": "0123456789abcdef0123456789abcdef"}
REPLICAS = ("wxauth-1", "wxauth-2")
POLICY = "lb_policy random"
SITE = {
    "title": "Shop",
    "redirect_uris": [sign_ins.CALLBACK],
    "account_app_id": ACCOUNT["app_id"],
    "website_app_id": WEBSITE["app_id"],
}


@pytest.mark.node
@pytest.mark.operations
def test_the_file_is_valid_by_the_compose_specification() -> None:
    here = Path(__file__).parent
    needs_node(here)
    linter = here / "node_modules/.bin/dclint"
    assert "problems" not in output_of(linter, "--config", here / "dclint.json", FOLDER / "compose.yaml")


def test_the_database_is_reached_by_nobody_from_outside() -> None:
    networks = {name: set(service["networks"]) for name, service in COMPOSE["services"].items()}
    assert COMPOSE["networks"]["back"] == {"internal": True}
    assert networks["postgres"] == networks["migrate"] == {"back"}
    assert networks["caddy"] == {"front"}
    assert [name for name, service in COMPOSE["services"].items() if "ports" in service] == ["caddy"]


@pytest.fixture
def make_secrets(tmp_path: Path) -> Callable[..., Path]:
    """Return a function that runs the script in its own folder, and returns the folder that the script has made."""
    script = shutil.copy(FOLDER / "make-secrets", tmp_path)

    def make(**answers: str) -> Path:
        environment = {"PATH": os.environ["PATH"], **answers}
        subprocess.run([script], env=environment, stdin=subprocess.DEVNULL, capture_output=True, check=True)
        return tmp_path / "secrets"

    return make


@swept(
    "name, given",
    [
        ("SITE", "auth.example.com:8443"),
        ("SITE", "auth.example.com/login"),
        ("SITE", "http://auth.example.com"),
        ("APP_ID", "auth.example.com"),
        ("APP_SECRET", "wx1a2b3c4d5e6f7a8b"),
    ],
)
def test_a_wrong_answer_is_refused_and_not_kept(
    make_secrets: Callable[..., Path], tmp_path: Path, name: str, given: str
) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        make_secrets(**ANSWERS | {name: given})
    assert not [*tmp_path.glob("secrets/wxauth_app_*")]
    (tmp_path / ".env").unlink(missing_ok=True)


@pytest.mark.process
def test_an_url_is_taken_for_the_name_of_its_host(make_secrets: Callable[..., Path], tmp_path: Path) -> None:
    make_secrets(**ANSWERS | {"SITE": "https://Auth.example.com/"})
    assert (tmp_path / ".env").read_text() == "SITE=auth.example.com\n"


def test_a_terminal_shows_again_what_is_typed_after_an_interrupt(tmp_path: Path) -> None:
    terminal = os.openpty()[1]
    script = shutil.copy(FOLDER / "make-secrets", tmp_path)
    env = {"PATH": os.environ["PATH"], **ANSWERS, "APP_SECRET": ""}
    with subprocess.Popen([script], stdin=terminal, stderr=terminal, env=env, start_new_session=True) as asking:
        until(lambda: not termios.tcgetattr(terminal)[3] & termios.ECHO)
        os.killpg(asking.pid, signal.SIGINT)
    assert termios.tcgetattr(terminal)[3] & termios.ECHO


@pytest.mark.process
async def test_the_role_of_the_service_migrates_its_database_and_is_no_superuser(
    make_secrets: Callable[..., Path], postgres: EmbeddedPostgres, admin: asyncpg.Connection, tmp_path: Path
) -> None:
    postgres_service = COMPOSE["services"]["postgres"]
    assert "POSTGRES_USER" not in postgres_service["environment"], "it would be the superuser"
    (script,) = (
        FOLDER / volume.partition(":")[0]
        for volume in postgres_service["volumes"]
        if ":/docker-entrypoint-initdb.d/" in volume
    )
    secrets = make_secrets(**ANSWERS)
    made = tmp_path / script.name
    made.write_text(script.read_text().replace("/run/secrets", str(secrets)))
    # The entry point of the image runs the script with these options.
    command = [postgres_program("psql"), "-v", "ON_ERROR_STOP=1", "--no-psqlrc", f"--file={made}", postgres.url()]
    try:
        await asyncio.to_thread(subprocess.run, command, check=True)
        url = postgres.url("wxauth").replace("postgres@", "wxauth@")
        done = await asyncio.to_thread(run, "migrate", cwd=tmp_path, env={"WXAUTH_DATABASE_URL": url})
        assert done.returncode == 0, done.stderr
        connection = await asyncpg.connect(url)
        rights = "rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls"
        assert await connection.fetchval(f"SELECT {rights} FROM pg_roles WHERE rolname = current_user") is False
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("COPY (SELECT 1) TO PROGRAM 'true'")
        await connection.close()
    finally:
        await admin.execute("DROP DATABASE IF EXISTS wxauth")
        await admin.execute("DROP ROLE IF EXISTS wxauth")


@pytest.mark.requirement("asvs-13.3.1")
def test_existing_secrets_stay_and_only_their_owner_reads_them(make_secrets: Callable[..., Path]) -> None:
    secrets = make_secrets(**ANSWERS)
    before = {path.name: path.read_text() for path in secrets.iterdir()}
    make_secrets(**dict.fromkeys(ANSWERS, "another"))
    assert secrets.with_name(".env").read_text() == "SITE=auth.example.com\n"
    assert {path.name: path.read_text() for path in secrets.iterdir()} == before
    assert len(set(before.values())) == len(before)
    assert stat.S_IMODE(secrets.stat().st_mode) == 0o700
    # The container runs as another user, and gets the files but not the folder.
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets.iterdir()} == {0o444}


def test_without_an_answer_no_empty_secret_is_made(make_secrets: Callable[..., Path], tmp_path: Path) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        make_secrets(**{**ANSWERS, "APP_SECRET": ""})
    assert not (tmp_path / "secrets/wxauth_app_secret").exists()
    assert (make_secrets(**ANSWERS) / "wxauth_app_secret").read_text() == ANSWERS["APP_SECRET"]


# Caddy in front of two replicas.


@dataclass(frozen=True, slots=True)
class Front:
    """Caddy with the configuration of `deploy/compose`, and the replicas behind it."""

    url: str
    caddy: Running
    replicas: list[ExitStack]

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request on a new connection."""
        return httpx.request(method, f"{self.url}{path}", timeout=PATIENCE, verify=False, **options)


@contextmanager
def caddy_before(
    addresses: list[str], folder: Path, *, policy: str = POLICY, port: int | None = None, office: str = ""
) -> Iterator[tuple[Running, str]]:
    """Run Caddy in front of these replicas, with this load-balancing policy, and yield its process and its URL.

    If `office` is given, the file's rule that opens the console only to this network is active.
    """
    port = port or free_port()
    env = {
        "SITE": f"http://127.0.0.1:{port}",
        "BIND": "127.0.0.1",
        "REPLICAS": " ".join(addresses),
        **{name: str(folder) for name in ("HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME")},
    }
    text = (FOLDER / "Caddyfile").read_text()
    assert text.count(POLICY) == text.count("203.0.113.0/24") == 1
    if office:
        rule = re.compile(r"(?ms)^\t#@outside .*?^\t#respond @outside 403$")
        text = rule.sub(lambda found: found[0].replace("\t#", "\t"), text).replace("203.0.113.0/24", office)
    (folder / "Caddyfile").write_text(text.replace(POLICY, policy))
    command = (needs("caddy"), "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile")
    with Running(*command, cwd=folder, env=env) as caddy:
        caddy.wait_for("serving initial configuration")
        yield caddy, f"http://127.0.0.1:{port}"


@pytest.fixture
def front(request: pytest.FixtureRequest, tmp_path: Path, database_url: str) -> Iterator[Front]:
    """Run Caddy in front of two replicas. A test can set its own load-balancing policy."""
    policy = getattr(request, "param", POLICY)
    with ExitStack() as stack:
        wechat_url = stack.enter_context(serving(create_simulator()))
        port = free_port()
        settings = settings_from(
            Settings,
            database_url=database_url,
            apps=[*APPS, ACCOUNT, WEBSITE],
            secret_key=SECRET_KEY,
            wechat_base_url=wechat_url,
            wechat_open_url=wechat_url,
            issuer=f"http://127.0.0.1:{port}",
        )
        replicas, addresses = [], []
        for _ in REPLICAS:
            replica = stack.enter_context(ExitStack())
            app = create_app(build_services(settings))
            # A replica that dies leaves running tasks. uvloop fails if its loop is closed during such tasks.
            url = replica.enter_context(serving(app, forwarded_allow_ips="127.0.0.1", loop="asyncio"))
            replicas.append(replica)
            addresses.append(url.removeprefix("http://"))
        caddy, url = stack.enter_context(caddy_before(addresses, tmp_path, policy=policy, port=port))
        yield Front(url, caddy, replicas)


@pytest.mark.proxy
def test_a_login_goes_through_and_is_of_the_clients_address(front: Front) -> None:
    answer = front.ask("POST", "/v1/login", json={"code": "alice"}, headers={"X-Forwarded-For": "203.0.113.9"})
    assert answer.status_code == 200, answer.text
    sessions = front.ask("GET", "/v1/me/sessions", headers=bearer(answer.json())).json()["items"]
    assert [session["ip"] for session in sessions] == ["127.0.0.1"], "what the client says of itself does not count"


@pytest.mark.proxy
@pytest.mark.requirement("asvs-13.4.5")
def test_paths_for_operators_are_closed_to_the_public(front: Front) -> None:
    assert front.ask("GET", "/livez").status_code == 200
    for path in ("/metrics", "/readyz", "/auth/metrics", "/auth/readyz", "//metrics", "/%6Detrics"):
        answer = front.ask("GET", path)
        assert (answer.status_code, answer.text) == (404, ""), path  # Caddy itself has answered
    for path in ("/metrics%0a", "/readyz%0A", "/auth/metrics%0a", "//metrics%0a", "/metrics%0d", "/metrics%00", "/%7f"):
        answer = front.ask("GET", path)
        assert (answer.status_code, answer.text) == (400, ""), path


@pytest.mark.proxy
@pytest.mark.parametrize("front", ["lb_policy round_robin\nheader_down Replica {upstream_hostport}"], indirect=True)
@pytest.mark.parametrize("way", [sign_ins.in_wechat, sign_ins.in_web_view, sign_ins.on_a_computer])
async def test_a_login_with_authlib_succeeds_with_each_step_at_another_replica(
    front: Front, services: Services, way: sign_ins.Way
) -> None:
    credentials = await add_client(services.database, "shop", **SITE, now=services.clock())
    served: list[str] = []

    async def note(answer: httpx.Response) -> None:
        served.extend(answer.headers.get_list("replica"))  # responses of WeChat don't have this header

    async with httpx.AsyncClient(
        base_url=front.url, timeout=PATIENCE, verify=False, trust_env=False, event_hooks={"response": [note]}
    ) as browser:
        await sign_ins.come_and_go_with_authlib(browser, credentials.client_id, credentials.client_secret, way)
    assert len(set(served)) == len(REPLICAS)
    assert all(one != next_one for one, next_one in pairwise(served)), served


@pytest.mark.proxy
async def test_the_longest_request_of_a_site_comes_back_whole(front: Front, services: Services) -> None:
    await add_site(services)
    with httpx.Client(base_url=front.url, timeout=PATIENCE, verify=False, trust_env=False) as client:
        await asyncio.to_thread(check_longest, client)


@pytest.mark.proxy
def test_a_replica_that_is_gone_is_asked_no_more(front: Front) -> None:
    def log_in() -> int:
        return front.ask("POST", "/v1/login", json={"code": "alice"}).status_code

    assert [log_in() for _ in range(4)] == [200] * 4
    front.replicas[0].close()
    assert [front.ask("GET", "/livez").status_code for _ in range(4)] == [200] * 4
    front.caddy.wait_for("HTTP request failed")  # this is from Caddy's health check
    assert [log_in() for _ in range(10)] == [200] * 10


@pytest.mark.proxy
def test_while_one_replica_is_away_each_of_many_requests_at_once_gets_the_other(tmp_path: Path) -> None:
    # This replica answers faster than wxauth, so that more requests collide.
    async def replica(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    def post(host: str) -> Counter[bytes]:
        """Send many requests without waiting for responses, and count the statuses."""
        request = f"POST / HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\n".encode()
        address, _, port = host.partition(":")
        with socket.create_connection((address, int(port)), timeout=PATIENCE) as connection:
            connection.sendall((request + b"\r\n") * 499 + request + b"Connection: close\r\n\r\n")
            with connection.makefile("rb") as answers:
                return Counter(re.findall(rb"^HTTP/1.1 (\d+)", answers.read(), re.MULTILINE))

    with serving(replica, lifespan="off") as there:
        addresses = [there.removeprefix("http://"), f"127.0.0.1:{free_port()}"]
        with caddy_before(addresses, tmp_path) as (caddy, url), ThreadPoolExecutor(16) as pool:
            caddy.wait_for("HTTP request failed")
            seen = sum(pool.map(post, [url.removeprefix("http://")] * 16), Counter[bytes]())
    assert seen == {b"200": 16 * 500}


@pytest.mark.proxy
@pytest.mark.parametrize(("office", "status"), [("203.0.113.0/24", 403), ("127.0.0.1", 200)], ids=["outside", "inside"])
def test_the_console_can_be_closed_to_all_but_the_office(office: str, status: int, tmp_path: Path) -> None:
    async def replica(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body"})

    console = ("/admin", "/admin/", "/v1/admin", "/v1/admin/users", "/auth/v1/admin/users", "//v1/admin/users")
    disguised = ("/v1//admin/users", "/v1/%61dmin/users", "/v1%2fadmin/users", "/v1/me/../admin/users")
    with ExitStack() as stack:
        address = stack.enter_context(serving(replica, lifespan="off")).removeprefix("http://")
        _, url = stack.enter_context(caddy_before([address], tmp_path, office=office))
        client = stack.enter_context(httpx.Client(timeout=PATIENCE))
        seen = {path: client.get(url + path).status_code for path in (*console, *disguised)}
        others = {client.get(url + path).status_code for path in ("/v1/me", "/v1/administrators")}
    assert seen == dict.fromkeys(seen, status)
    assert others == {200}


@pytest.mark.proxy
def test_replicas_restarted_in_turn_fail_no_request(replicas: Replicas, tmp_path: Path) -> None:
    with caddy_before(replicas.addresses, tmp_path) as (_, url):
        seen = restart_in_turn(
            replicas, lambda: httpx.Client(base_url=url, verify=False, trust_env=False, timeout=PATIENCE)
        )
    assert set(seen) == {"200"}, seen
