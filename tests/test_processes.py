"""A command under test leaves no process behind, which would act on the rows of later tests."""

import sys
from pathlib import Path

import pytest

from tests.fakes import service_env
from tests.processes import WXAUTH, Running, children_of, free_port, is_running, until


@pytest.mark.parametrize("is_installed", [False, True], ids=["forked", "installed"])
@pytest.mark.process
def test_a_killed_service_takes_its_workers_along(is_installed: bool, database_url: str, tmp_path: Path) -> None:
    env = service_env(database_url, wechat_base_url="http://127.0.0.1:1", port=str(free_port()))
    with Running(
        WXAUTH, "serve", cwd=tmp_path, env=env | {"WXAUTH_WORKERS": "2"}, is_installed=is_installed
    ) as service:
        until(lambda: service.output.count('"started"') == 2)
        workers = children_of(service.process.pid)
        assert len(workers) == 2
    assert not any(is_running(worker) for worker in workers)


@pytest.mark.process
def test_processes_started_by_a_command_end_even_if_the_command_has_ended_before(tmp_path: Path) -> None:
    script = "import subprocess; print('started', subprocess.Popen(['sleep', '60']).pid, flush=True)"
    with Running(sys.executable, "-c", script, cwd=tmp_path) as command:
        started = int(command.wait_for("started").split()[1])
        assert command.process.wait() == 0
        assert is_running(started)
    assert not is_running(started)
