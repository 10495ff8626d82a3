"""Any ASGI server can serve the app of `wxauth.asgi:create_app`, and `wxauth serve` adds the features it promises."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.processes import memory_of_tree
from tests.docs import block, guide
from tests.fakes import OTHER_SECRET_KEY, service_env
from tests.processes import PATIENCE, WXAUTH, Running, free_port, is_free, serving, until
from tests.world import Server, bearer
from wxauth_desk.wechat import create_simulator

pytestmark = [pytest.mark.process, pytest.mark.skipif(sys.platform != "linux", reason="as production does")]

[SHOWN] = {block(guide("operations", language), "uvicorn --factory") for language in ("", ".zh-CN")}
UVICORN = SHOWN.replace("\\\n", "").strip() + " --port {port}"
ENDS = (0, -signal.SIGTERM)
"""The statuses with which servers may end. Uvicorn ends by the signal itself after it has stopped."""
OTHERS = {
    "uvicorn": UVICORN,
    "uvicorn with workers": f"{UVICORN} --workers 2",
    "granian": "granian --interface asgi --factory wxauth.asgi:create_app --port {port}",
    "granian with workers": "granian --interface asgi --factory wxauth.asgi:create_app --port {port} --workers 2",
}


@pytest.fixture(scope="module")
def wechat_url() -> Iterator[str]:
    with serving(create_simulator()) as url:
        yield url


def running(command: str, folder: Path, env: dict[str, str], port: int, *, is_installed: bool = False) -> Running:
    program, *arguments = command.format(port=port).split()
    return Running(
        str(Path(sys.executable).with_name(program)), *arguments, cwd=folder, env=env, is_installed=is_installed
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
def test_another_server_serves_the_whole_service(name: str, tmp_path: Path, database_url: str, wechat_url: str) -> None:
    port = free_port()
    env = service_env(database_url, wechat_base_url=wechat_url, trusted_proxies="192.0.2.1")
    with running(OTHERS[name], tmp_path, env, port) as command:
        service = Server(command, port)
        until(lambda: service.has_started == (2 if "workers" in name else 1) and not is_free(port))
        with service.client:
            until(service.is_ready)
            answer = service.log_in("alice", **{"X-Forwarded-For": "203.0.113.7"})
            assert service.client.get("/v1/me", headers=bearer(answer)).json() == answer["user"]
            (session,) = service.client.get("/v1/me/sessions", headers=bearer(answer)).json()["items"]
            assert session["ip"] == "127.0.0.1"
        assert command.end(signal.SIGTERM) in ENDS
        assert '"stopped"' in command.output


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERS)
@pytest.mark.parametrize("wrong", [{"WXAUTH_ACCESS_TOKEN_TTL": "0"}, {"WXAUTH_SECRET_KEY": OTHER_SECRET_KEY}])
def test_wrong_settings_end_another_server_with_their_sentence_and_no_stack(
    name: str, wrong: dict[str, str], tmp_path: Path, database_url: str
) -> None:
    env = service_env(database_url)
    port = free_port()
    if "WXAUTH_SECRET_KEY" in wrong:  # is compared with that of a run that makes the signing keys
        with running("wxauth serve", tmp_path, env | {"WXAUTH_PORT": str(port)}, port) as first:
            first.wait_for('"started"')
            first.end(signal.SIGTERM)
    with running(OTHERS[name], tmp_path, env | wrong, port) as command:
        command.process.wait(3 * PATIENCE)  # three processes import everything in turn
        assert f"{next(iter(wrong))}: " in command.output
        assert "Traceback" not in command.output


@pytest.mark.slow
@pytest.mark.parametrize("name", [*OTHERS, "wxauth serve", "wxauth serve with workers"])
def test_traces_without_their_packages_end_any_server_with_a_sentence_and_no_stack(
    name: str, tmp_path: Path, database_url: str
) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['opentelemetry.sdk'] = None\n")
    port, workers = free_port(), "2" if "workers" in name else "1"
    env = service_env(database_url, otlp_url="http://127.0.0.1:1") | {"PYTHONPATH": str(tmp_path)}
    env |= {"WXAUTH_PORT": str(port), "WXAUTH_WORKERS": workers}
    command = OTHERS.get(name, "wxauth serve")
    with running(command, tmp_path, env, port, is_installed=True) as server:
        status = server.process.wait(3 * PATIENCE)
        assert "Run pip install ./clients/python '.[otel]'" in server.output
        assert "Traceback" not in server.output
        assert name in OTHERS or status == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_wrong_stored_state_ends_serve_with_its_sentence_and_status_1(
    workers: int, tmp_path: Path, database_url: str
) -> None:
    env = service_env(database_url, port=free_port())
    with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as first:
        first.wait_for('"started"')
        first.end(signal.SIGTERM)
    env |= {"WXAUTH_SECRET_KEY": OTHER_SECRET_KEY, "WXAUTH_WORKERS": str(workers)}
    with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as command:
        assert command.process.wait(PATIENCE) == 1
        assert "WXAUTH_SECRET_KEY: " in command.output
        assert "Traceback" not in command.output


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "most"), [(1, 110), (2, 250)])
def test_an_idle_service_takes_little_memory(workers: int, most: int, tmp_path: Path, database_url: str) -> None:
    port = free_port()
    env = service_env(database_url, port=port, workers=workers)
    with Running(WXAUTH, "serve", cwd=tmp_path, env=env, is_installed=True) as command:
        service = Server(command, port)
        until(lambda: service.has_started == workers)
        with service.client:
            until(service.is_ready)
        assert len(service.workers()) == (0 if workers == 1 else workers), "one worker is one process"
        assert memory_of_tree(command.process.pid) < most * (1.0 if sys.version_info < (3, 12) else 1.2)


@pytest.mark.parametrize("program", ["wxauth serve", OTHERS["uvicorn"]])
def test_counting_in_a_folder_that_is_not_there_ends_nothing(program: str, tmp_path: Path, database_url: str) -> None:
    port = free_port()
    env = service_env(database_url, port=port) | {"PROMETHEUS_MULTIPROC_DIR": "/nowhere/at/all"}
    with running(program, tmp_path, env, port) as command:
        service = Server(command, port)
        until(lambda: service.has_started == 1 and not is_free(port))
        with service.client:
            until(service.is_ready)
            assert 'route="/readyz"' in service.get("/metrics").text
        assert command.end(signal.SIGTERM) in ENDS


def test_of_workers_whose_parent_is_killed_none_serves_on(tmp_path: Path, database_url: str) -> None:
    port = free_port()
    env = service_env(database_url, port=port, workers=2)
    with Running(WXAUTH, "serve", cwd=tmp_path, env=env) as command:
        service = Server(command, port)
        until(lambda: service.has_started == 2)
        os.kill(command.process.pid, signal.SIGKILL)
        until(lambda: is_free(port))
        until(lambda: command.output.count('"stopped"') == 2)


@pytest.mark.parametrize("workers", [1, 2])
def test_no_process_that_serves_has_huge_pages(workers: int, tmp_path: Path, database_url: str) -> None:
    port = free_port()
    with Running(WXAUTH, "serve", cwd=tmp_path, env=service_env(database_url, port=port, workers=workers)) as command:
        service = Server(command, port)
        until(lambda: service.has_started == workers)
        pids = service.workers() or {service.pid}
        states = [Path(f"/proc/{pid}/status").read_text().split("THP_enabled:")[1].split()[0] for pid in pids]
        assert states == ["0"] * workers
