"""SIGTERM and SIGINT end `wxauth serve` and `wxauth-desk dev` at any moment of their start."""

import re
import signal
import sys
import tempfile
from pathlib import Path

import pytest

from tests.fakes import service_env
from tests.processes import WXAUTH, WXAUTH_DESK, Running, free_port, until, users_of

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(sys.platform != "linux", reason="waits for processes by their descriptors"),
]

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
    assert {name for name, _ in moments} & {"_remove", "cb", "__del__"}
    assert len(moments) > 3


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
        "_prepare",
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
