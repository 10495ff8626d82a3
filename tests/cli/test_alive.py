"""`wxauth alive` tells a container's health check whether the service is running."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from tests.docs import ROOT
from tests.processes import free_port, run, serving
from wxauth.cli import running
from wxauth.settings.settings import Settings

pytestmark = pytest.mark.process


async def alive_but_not_ready(scope: Scope, receive: Receive, send: Send) -> None:
    await Response(status_code={"/livez": 200, "/readyz": 503}[scope["path"]])(scope, receive, send)


@pytest.fixture(scope="module")
def port() -> Iterator[str]:
    with serving(alive_but_not_ready, lifespan="off") as url:
        yield url.rpartition(":")[2]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "::", "localhost"])
def test_a_service_that_answers_is_alive(port: str, tmp_path: Path, host: str) -> None:
    done = run("alive", cwd=tmp_path, env={"WXAUTH_HOST": host, "WXAUTH_PORT": f" {port}\r"})
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_host_and_port_may_be_in_the_env_file(port: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"WXAUTH_HOST=0.0.0.0\nWXAUTH_PORT={port}\n")
    assert run("alive", cwd=tmp_path).returncode == 0
    (tmp_path / ".env").write_bytes(b"\xff")
    assert run("alive", cwd=tmp_path).stderr == ".env: must be UTF-8 text\n"
    (tmp_path / ".env").unlink()
    (tmp_path / ".env").symlink_to("/proc/self/mem")  # can't be read even by root
    assert run("alive", cwd=tmp_path).stderr == "can't read .env: Input/output error\n"


def test_a_service_that_lives_but_cannot_serve_is_not_ready(port: str, tmp_path: Path) -> None:
    done = run("alive", "--ready", cwd=tmp_path, env={"WXAUTH_PORT": port})
    assert (done.returncode, "status 503" in done.stderr) == (1, True)


def test_a_service_that_does_not_answer_is_not_alive(tmp_path: Path) -> None:
    for host in ("127.0.0.1", "no host"):
        done = run("alive", cwd=tmp_path, env={"WXAUTH_HOST": host, "WXAUTH_PORT": str(free_port())})
        assert (done.returncode, done.stderr.startswith(f"nothing responds on {host}")) == (1, True)


@pytest.mark.parametrize("value", ["tcp://10.0.0.7:8000", "²"])
def test_what_is_no_port_such_as_kubernetes_variable_for_a_service_is_not_taken_as_one(
    tmp_path: Path, value: str
) -> None:
    done = run("alive", cwd=tmp_path, env={"WXAUTH_HOST": "127.0.0.2", "WXAUTH_PORT": value})
    assert done.stderr.startswith("nothing responds on 127.0.0.2, port 8000")


def test_the_host_and_port_without_settings_are_the_defaults_of_the_settings() -> None:
    defaults = [Settings.model_fields[name].default for name in ("host", "port")]
    assert defaults == [running._DEFAULT_HOST, running._DEFAULT_PORT]


def test_a_health_check_loads_no_settings() -> None:
    code = "import sys; from wxauth.cli.running import _address; _address(); print(*sys.modules)"
    imported = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    assert not {"wxauth.settings.settings", "wxauth.settings.apps"} & set(imported)
