"""Workers that hang, or do not start."""

import os
import random
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from tests.processes import PATIENCE, WXAUTH, Running, children_of, until
from wxauth.server.core.settings import Settings
from wxauth.server.service.app import create_app
from wxauth.server.service.build import build_services

pytestmark = [
    pytest.mark.process,
    pytest.mark.no_database,
    pytest.mark.skipif(sys.platform != "linux", reason="looks for processes under /proc"),
]

PARENT = """
import asyncio, socket, sys
from wxauth.server.core.logs import configure_logging
from wxauth.server.service.workers import Workers

def serve(parent):
    print("serves", flush=True)
    asyncio.run(parent.report(is_ready=lambda: True))

def wait(parent):
    print("waits", flush=True)
    asyncio.run(parent.report(is_ready=lambda: False))

def lose(parent):
    import time, weakref
    def wait(_):
        print("loses", flush=True)
        time.sleep({patience})
    its = weakref.ref(set(), wait)
    serve(parent)

def stay(parent):
    import signal
    for number in (signal.SIGTERM, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    print("stays", flush=True)
    asyncio.run(parent.report(is_ready=lambda: True))

def fail(parent):
    raise SystemExit({status})

later = iter([{later}])

def renew():
    return next(later)

configure_logging(level="info", log_format="json")
with socket.socket() as listener:
    status = Workers({number}, listener, work={at_first}, renew=renew, max_silent_checks=2,
        max_checks_of_leaving=5).run()
{afterwards}
sys.exit(status)
"""

Start = Callable[..., Running]
SAYS = {"serve": "serves", "wait": "waits", "lose": "loses", "stay": "stays"}


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start a parent whose workers do this at first, and that after SIGHUP; wait until they do."""
    started: list[Running] = []

    def run(
        *, at_first: str = "serve", later: str = "serve", number: int = 2, status: int = 1, afterwards: str = ""
    ) -> Running:
        script = PARENT.format(
            patience=PATIENCE, at_first=at_first, later=later, number=number, status=status, afterwards=afterwards
        )
        command = Running(WXAUTH, "-c", script, cwd=tmp_path)
        started.append(command)
        if at_first in SAYS:
            until(lambda: command.output.count(SAYS[at_first]) == number)
        return command

    yield run
    for command in started:
        command.__exit__(None, None, None)


def workers_of(command: Running) -> set[int]:
    return children_of(command.process.pid)


def test_what_is_built_before_the_fork_has_nothing_random_and_no_time(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> NoReturn:
        pytest.fail("all workers would have the same")

    settings = make_settings(login_rate_limit="5/minute", redis_url="redis://127.0.0.1:1/0")
    for module, name in ((os, "urandom"), (random, "_urandom"), (random, "random")):
        monkeypatch.setattr(module, name, refuse)
    create_app(build_services(settings, clock=refuse))


def test_a_worker_that_hangs_is_replaced(start: Start) -> None:
    command = start()
    victim, other = workers_of(command)
    os.kill(victim, signal.SIGSTOP)
    until(lambda: command.output.count("serves") == 3)
    assert "worker_hangs" in command.output
    assert other in workers_of(command)
    assert victim not in workers_of(command)


def test_workers_that_do_not_end_when_told_to_are_killed(start: Start) -> None:
    command = start(at_first="stay")
    assert command.end(signal.SIGTERM) == 0
    assert command.output.count("worker_hangs") == 2


def test_a_worker_that_does_not_end_holds_up_no_reload(start: Start) -> None:
    command = start(at_first="stay", later="serve", number=1)
    (first,) = workers_of(command)
    command.process.send_signal(signal.SIGHUP)
    until(lambda: first not in workers_of(command))
    assert command.output.count("worker_hangs") == 1
    assert command.end(signal.SIGTERM) == 0


def test_the_service_ends_if_the_first_workers_do_not_start(start: Start) -> None:
    assert start(at_first="fail", status=3).process.wait(PATIENCE) == 3


def test_a_worker_that_fails_otherwise_is_restarted(start: Start) -> None:
    command = start(at_first="fail", number=1)
    until(lambda: command.output.count("worker_ended") >= 2)
    assert command.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("status", [1, 3])
def test_a_reload_whose_workers_do_not_start_leaves_the_others_at_work(start: Start, status: int) -> None:
    command = start(later="fail", status=status)
    workers = workers_of(command)
    command.process.send_signal(signal.SIGHUP)
    command.wait_for("reload_failed")
    assert workers <= workers_of(command)
    assert command.end(signal.SIGTERM) == 0


def test_a_sighup_after_the_last_worker_ended_does_not_change_the_status(start: Start) -> None:
    assert start(afterwards="import os, signal; os.kill(os.getpid(), signal.SIGHUP)").end(signal.SIGTERM) == 0


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_ends_where_python_would_drop_an_exception(start: Start, ending: int) -> None:
    command = start(at_first="lose")
    assert command.end(ending) == 0
    assert "serves" not in command.output


def test_a_worker_is_replaced_where_python_would_drop_an_exception(start: Start) -> None:
    command = start(at_first="lose", later="serve", number=1)
    command.process.send_signal(signal.SIGHUP)
    until(lambda: "serves" in command.output and len(workers_of(command)) == 1)
    assert command.end(signal.SIGTERM) == 0


def test_a_sighup_beside_a_sigterm_starts_no_workers(start: Start) -> None:
    command = start()
    os.kill(command.process.pid, signal.SIGSTOP)
    for number in (signal.SIGHUP, signal.SIGTERM, signal.SIGCONT):
        command.process.send_signal(number)
    assert command.process.wait(PATIENCE) == 0
    assert "reloading" not in command.output


def test_a_worker_leaves_only_when_another_one_can_serve(start: Start) -> None:
    command = start(later="wait, serve", number=1)
    (first,) = workers_of(command)
    command.process.send_signal(signal.SIGHUP)
    until(lambda: "waits" in command.output)
    (other,) = workers_of(command) - {first}
    os.kill(other, signal.SIGKILL)
    command.wait_for("reload_failed")
    assert workers_of(command) == {first}
    assert command.end(signal.SIGTERM) == 0


def test_workers_that_cannot_serve_yet_do_not_hold_up_a_reload(start: Start) -> None:
    command = start(at_first="wait", later="lambda parent: wait(parent), serve")
    first = workers_of(command)
    command.process.send_signal(signal.SIGHUP)
    until(lambda: command.output.count("waits") == 3)
    command.process.send_signal(signal.SIGHUP)
    until(lambda: command.output.count("serves") == 2 and len(workers_of(command)) == 2)
    assert not workers_of(command) & first
    assert command.end(signal.SIGTERM) == 0
    assert "worker_ended" not in command.output
