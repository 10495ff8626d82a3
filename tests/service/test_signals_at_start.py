"""SIGTERM and SIGINT end `wxauth serve` and `wxauth-desk dev` at any moment of their start.

SIGHUP ends nothing, and is not lost either.
"""

import re
import signal
import socket
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from random import Random
from time import sleep

import pytest

from tests.fakes import service_env
from tests.processes import PATIENCE, WXAUTH, WXAUTH_DESK, Running, free_port, until, users_of

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="waits for processes by their descriptors"),
]

NOWHERE = "postgresql://postgres@127.0.0.1:1/none"
AT_MANY_MOMENTS = """
import os, select, signal, sys, time
from MODULE.__main__ import main

CALLED_BACK = ("_remove", "cb", "__del__")  # where Python drops an exception
due = {True: 0.0, False: 0.0}
seconds = {"serve": 0.02, "dev": 0.02}[sys.argv[1]]

def look(frame, event, _):
    # So often in its work, and as often again where Python calls back, a copy of this process gets a signal.
    name = frame.f_code.co_name
    if name in ("_serve", "in_thread"):  # copies have no threads, and no loop
        sys.setprofile(None)
        os.write(1, b"goes on\\n")
    elif event == "call" and time.process_time() >= due[name in CALLED_BACK]:
        number = (signal.SIGTERM, signal.SIGINT)[int(time.process_time() * 1000) % 2]
        pid = os.fork()
        if pid == 0:
            sys.setprofile(None)
            os.kill(os.getpid(), number)
            return
        ended = os.pidfd_open(pid)
        if not select.select([ended], [], [], 5 * 6)[0]:  # six times what is promised: the machine may be busy
            os.kill(pid, signal.SIGKILL)
        os.close(ended)
        os.write(1, b"in %b: %d\\n" % (name.encode(), os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
        due[name in CALLED_BACK] = time.process_time() + seconds

sys.setprofile(look)
main()
"""
BY_FUNCTION = """
import os, signal, sys
from MODULE.__main__ import main

name = sys.argv.pop()

def look(frame, event, _):
    if event == "call" and frame.f_code.co_name == name:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGTERM)

sys.setprofile(look)
main()
"""
IN_SUPERVISOR = """
import os, signal, sys
from wxauth.__main__ import main
from wxauth.service import server

server.SILENT_SECONDS = 10**6  # whoever waits for a response of a worker that has ended waits forever
steps = [step.split(":") for step in sys.argv.pop().split()]

def look(frame, event, _):
    if event == "call" and steps and frame.f_code.co_name == steps[0][0] and is_supervising(frame):
        _name, number = steps.pop(0)
        os.kill(os.getpid(), int(number))

def is_supervising(frame):
    while frame is not None and frame.f_code.co_qualname != "Multiprocess.run":
        frame = frame.f_back
    return frame is not None

sys.setprofile(look)
main()
"""
MOMENTS = [
    "init_processes:15",
    "dump:2",  # the worker's sockets are being copied
    "start:2 _launch:2 terminate_all:15",  # while workers are being created
    "_release_save:2 join_all:2",  # first while the lock of `should_exit` is held
    "keep_subprocess_alive:15",
    "_healthcheck:15 join_all:15",  # first while a worker is asked for a response that never comes
    "init_processes:1 _launch:1 handle_hup:15",
    "init_processes:1 wait_until_ready:15",
    "init_processes:1 restart_all:1 terminate:15 join_all:2",
]
"""Functions of the supervisor, each with the signal that arrives as the function is called."""


def start_of(command: str, url: str) -> tuple[list[str], dict[str, str]]:
    """Return the arguments and the environment with which the command starts on free ports with this database."""
    env = service_env(url, port=str(free_port()))
    if command == "serve":
        return ["serve"], env
    del env["WXAUTH_APPS"]  # otherwise dev would call the real WeChat
    return ["dev", "--wechat-port", str(free_port()), "--site-port", str(free_port())], env


@pytest.mark.slow
@pytest.mark.parametrize(("command", "answers"), [("serve", True), ("serve", False), ("dev", True)])
def test_a_signal_ends_a_start_at_any_moment(tmp_path: Path, database_url: str, command: str, answers: bool) -> None:
    url = database_url if answers else f"postgresql://postgres@127.0.0.1:{free_port()}/none"
    arguments, env = start_of(command, url)
    program, module = (WXAUTH_DESK, "wxauth_desk") if command == "dev" else (WXAUTH, "wxauth")
    code = AT_MANY_MOMENTS.replace("MODULE", module)
    with Running(program, "-c", code, *arguments, cwd=tmp_path, env=env) as running:
        running.wait_for("goes on")
        assert running.end(signal.SIGINT) == 0
    moments = re.findall(r"in (\S+): (-?\d+)", running.output)
    assert {int(status) for _, status in moments} <= {0, -signal.SIGTERM, -signal.SIGINT}, moments
    # Before `dev` has threads, nothing is called back, because its URLs are checked without an import.
    assert command == "dev" or {name for name, _ in moments} & {"_remove", "cb", "__del__"}
    assert len(moments) > 3


@pytest.mark.no_database
@pytest.mark.slow
@pytest.mark.parametrize("moment", MOMENTS)
def test_a_signal_to_the_parent_of_workers_ends_them_at_any_moment(tmp_path: Path, moment: str) -> None:
    env = service_env(NOWHERE, port=free_port(), workers=2)
    with Running(WXAUTH, "-c", IN_SUPERVISOR, "serve", moment, cwd=tmp_path, env=env) as running:
        assert running.process.wait(PATIENCE) == 0
        until(lambda: not users_of(tmp_path))
        assert "Traceback" not in running.output
        assert running.output.count('"settings_read"') <= moment.count(":1 ")


@pytest.mark.no_database
@pytest.mark.slow
def test_signals_at_random_moments_of_simultaneous_starts_are_heeded(tmp_path: Path) -> None:
    def start_and_end(number: int) -> None:
        random, workers = Random(number), 1 + number % 2
        folder = tmp_path / str(number)
        folder.mkdir()
        env = service_env(NOWHERE, port=free_port(), workers=workers)
        with Running(WXAUTH, "serve", cwd=folder, env=env, is_installed=True) as running:
            maps = Path(f"/proc/{running.process.pid}/maps")
            until(lambda: "pydantic_core" in maps.read_text())  # most imports are still to come
            sleep(random.uniform(0, 4))
            if random.random() < 0.5:
                running.process.send_signal(signal.SIGHUP)
                running.wait_for('"reload_ignored"' if workers == 1 else '"settings_read"')
                sleep(random.uniform(0, 2))
            for _signal in range(random.choice([1, 1, 2])):
                assert running.process.poll() in (None, 0)
                if running.process.poll() is None:
                    running.process.send_signal(random.choice([signal.SIGTERM, signal.SIGINT]))
                sleep(random.uniform(0, 0.3))
            assert running.process.wait(PATIENCE) == 0
            until(lambda: not users_of(folder))
            assert "Traceback" not in running.output

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(start_and_end, number) for number in range(4)]:
            done.result()


UNDER_UVICORN = """
import os, signal, sys
from uvicorn.main import main

name = sys.argv.pop()

def look(frame, event, _):
    if event == "call" and frame.f_code.co_name == name:
        sys.setprofile(None)
        os.kill(os.getpid(), signal.SIGTERM)

sys.setprofile(look)
main()
"""


@pytest.mark.no_database
@pytest.mark.slow
@pytest.mark.parametrize("function", ["_serve", "create_app", "build_services", "_prepare"])
def test_a_signal_before_the_app_serves_ends_another_server_at_once(tmp_path: Path, function: str) -> None:
    port = free_port()
    arguments = ["--factory", "wxauth.asgi:create_app", "--no-proxy-headers", f"--port={port}", function]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = service_env(f"postgresql://wxauth@127.0.0.1:{silent.getsockname()[1]}/wxauth")
        with Running(sys.executable, "-c", UNDER_UVICORN, *arguments, cwd=tmp_path, env=env) as running:
            assert running.process.wait(PATIENCE) == 0
            assert '"started"' not in running.output


@pytest.mark.no_database
@pytest.mark.slow
def test_a_signal_leaves_nothing_of_a_postgresql_that_dev_starts(tmp_path: Path) -> None:
    temporary = Path(tempfile.mkdtemp(prefix="wxauth-test-"))
    arguments, env = start_of("dev", "")
    for name in (
        "_make_cluster",
        "_start_server",
        "_wait_until_ready",
        "in_thread",
        "_prepare_database",
        "welcome",
        "_create_service",
    ):
        own = env | {"TMPDIR": str(temporary)}
        code = BY_FUNCTION.replace("MODULE", "wxauth_desk")
        with Running(WXAUTH_DESK, "-c", code, *arguments, name, cwd=tmp_path, env=own) as running:
            assert running.process.wait(30) == 0
            until(lambda: not users_of(tmp_path / ".wxauth"))
        assert running.output == ""
        assert not list(temporary.iterdir())
    temporary.rmdir()


IMPORTS = """
import os, signal, sys
from wxauth.__main__ import main

loaded = {name for name in sys.modules if name.startswith("wxauth.")}
assert loaded == {"wxauth.__main__"}, loaded
"""


@pytest.mark.no_database
def test_nothing_is_imported_before_the_signals_are_set(tmp_path: Path) -> None:
    with Running(sys.executable, "-c", IMPORTS, cwd=tmp_path) as running:
        assert running.process.wait(PATIENCE) == 0, running.output
