"""Runs the tests in processes forked from one that has imported and collected them.

Imports and collection take five seconds of CPU time. Each process of pytest-xdist (`-n`) spends this time again. A
worker takes one file at a time, in the order of the items. If a file's cases take long, workers take it case by case.
"""

import mmap
import os
import pickle
import random
import selectors
import sys
import traceback
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from struct import Struct
from typing import Any, NoReturn

import pytest

AT_ONCE = Struct("I")
"""A number in a pipe: a file's number, or the length of the data that follows."""
BRIEF = 0.005
"""The seconds below which a set-up or teardown is left out, because no list of durations needs it."""
SPLIT = ("_in_a_browser[", "/test_histories.py")
"""Parts of the names of tests whose cases workers take one by one."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--workers", default="0", help="how many processes run the tests; auto: two more than processors")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> Generator[None]:
    """Print what failed in the last lines."""
    yield
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if reporter is not None:
        for report in (*reporter.stats.get("failed", []), *reporter.stats.get("error", [])):
            reporter.line(f"failed: {report.nodeid}", red=True)


def number_of_workers(config: pytest.Config) -> int:
    """Return how many workers to use. None are used for a few named files.

    Otherwise there are two more than processors, because some tests wait.
    """
    wanted = config.getoption("workers")
    if wanted != "auto":
        return int(wanted)
    named = [Path(argument.partition("::")[0]) for argument in config.args]
    if config.args_source is pytest.Config.ArgsSource.ARGS and all(path.suffix == ".py" for path in named):
        return 0
    return 2 + (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    options = session.config.option
    groups = [list(group) for _, group in groupby(session.items, _taken_together)]
    number = min(number_of_workers(session.config), len(groups))
    if number < 2 or options.collectonly or options.usepdb or session.testsfailed:
        return None
    Workers(session, groups).run(number)
    return True


def _taken_together(item: pytest.Item) -> str:
    if item.get_closest_marker("container"):
        return "container"  # these tests share one engine
    return item.nodeid if any(mark in item.nodeid for mark in SPLIT) else str(item.path)


@dataclass(slots=True)
class Worker:
    """A worker as the first process sees it."""

    pid: int
    unread: bytes = b""
    runs: str | None = None


@dataclass(slots=True)
class Workers:
    """The worker processes, and the pipe from which they take the number of their next file."""

    session: pytest.Session
    groups: list[list[pytest.Item]]
    workers: dict[int, Worker] = field(default_factory=dict)
    queue: int = -1
    is_over: mmap.mmap = field(default_factory=lambda: mmap.mmap(-1, 1))
    """A byte that all processes share. If it is not zero, no further test begins."""

    def run(self, number: int) -> None:
        self.queue, filling = os.pipe()
        os.write(filling, b"".join(map(AT_ONCE.pack, range(len(self.groups)))))
        os.close(filling)
        # The workers' folders are in this folder, which pytest removes at the end.
        folder = self.session.config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        for name in range(number):
            reading, writing = os.pipe()
            pid = os.fork()
            if pid == 0:
                os.close(reading)
                self._work(writing, folder / f"worker{name}")
            os.close(writing)
            self.workers[reading] = Worker(pid)
        try:
            self._listen()
        finally:
            self.is_over[0] = 1
            for worker in self.workers.values():
                os.waitpid(worker.pid, 0)
        if self.session.shouldfail:
            raise self.session.Failed(self.session.shouldfail)

    def _listen(self) -> None:
        with selectors.DefaultSelector() as selector:
            for reading in self.workers:
                selector.register(reading, selectors.EVENT_READ)
            while selector.get_map():
                for key, _ in selector.select():
                    worker = self.workers[key.fd]
                    if data := os.read(key.fd, 1 << 16):
                        worker.unread += data
                        self._hear(worker)
                    else:
                        selector.unregister(key.fd)
                        os.close(key.fd)
                        del self.workers[key.fd]
                        _, status = os.waitpid(worker.pid, 0)
                        if status or worker.runs:
                            self._lose(worker, os.waitstatus_to_exitcode(status))

    def _hear(self, worker: Worker) -> None:
        hook, config = self.session.config.hook, self.session.config
        while (whole := AT_ONCE.size + int.from_bytes(worker.unread[: AT_ONCE.size], sys.byteorder)) <= len(
            worker.unread
        ):
            worker.runs, data = pickle.loads(worker.unread[AT_ONCE.size : whole])
            worker.unread = worker.unread[whole:]
            if data is not None:
                hook.pytest_runtest_logreport(report=hook.pytest_report_from_serializable(config=config, data=data))
            if self.session.shouldfail:
                self.is_over[0] = 1

    def _lose(self, worker: Worker, status: int) -> None:
        """Report that a worker has crashed. The tests it had taken but not run stay unrun."""
        where = (worker.runs or "its end", None, "")
        report = pytest.TestReport(
            where[0], where, {}, "failed", f"the worker ended with status {status} in {where[0]}", "call"
        )
        self.session.config.hook.pytest_runtest_logreport(report=report)

    def _work(self, writing: int, folder: Path) -> NoReturn:
        status = 3
        try:
            config, plugins = self.session.config, self.session.config.pluginmanager
            random.seed()
            folder.mkdir()
            config._tmp_path_factory._basetemp = folder  # type: ignore[attr-defined]
            plugins.unregister(name="terminalreporter")
            capturing: Any = plugins.get_plugin("capturemanager")  # otherwise the processes would share its files
            capturing.stop_global_capturing()
            capturing.start_global_capturing()
            teller = Teller(config, writing)
            plugins.register(teller)
            for item, following in self._taken():
                teller.tell(item.nodeid)
                config.hook.pytest_runtest_protocol(item=item, nextitem=following)
            self.session._setupstate.teardown_exact(None)
            teller.tell(None)
            status = 0
        except KeyboardInterrupt:  # the first process reports it
            with suppress(BaseException):
                self.session._setupstate.teardown_exact(None)
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(status)  # skips the exit functions, which belong to the first process

    def _taken(self) -> Iterator[tuple[pytest.Item, pytest.Item | None]]:
        """Yield each item with the next one. The next file is taken as late as possible, so that no worker is idle."""
        items = self._take()
        while items:
            following = []
            for number, item in enumerate(items, 1):
                if number == len(items):
                    following = self._take()
                if self.is_over[0]:
                    return
                yield item, next(iter(items[number:] or following), None)
            items = following

    def _take(self) -> list[pytest.Item]:
        taken = os.read(self.queue, AT_ONCE.size)
        return self.groups[AT_ONCE.unpack(taken)[0]] if taken else []


class Teller:
    """A plugin in a worker that tells the first process which test runs, and sends it each report."""

    def __init__(self, config: pytest.Config, writing: int) -> None:
        self._config = config
        self._writing = writing
        self._runs: str | None = None

    def tell(self, runs: str | None, report: object = None) -> None:
        self._runs = runs
        data = pickle.dumps((runs, report))
        data = AT_ONCE.pack(len(data)) + data
        while data:
            data = data[os.write(self._writing, data) :]

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.passed and report.when != "call" and report.duration < BRIEF:
            return
        self.tell(self._runs, self._config.hook.pytest_report_to_serializable(config=self._config, report=report))
