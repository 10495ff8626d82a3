"""CPU, memory and open files that the processes of the service use, from Linux's /proc. Elsewhere, nothing is told."""

import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

_PROC: Final = Path("/proc")
_LABELS: Final = ("worker",)


@dataclass(frozen=True, slots=True)
class _Usage:
    cpu_seconds: float
    resident_bytes: int
    started_at: float
    open_files: int
    most_open_files: float


class Processes(Collector):
    """The usual `process_` metrics, with a series for each process. A restarted process counts from zero.

    prometheus_client's own collector tells only of the process that happens to answer the scrape.

    Args:
        processes: Gives the ids of the present processes, by their names.
    """

    def __init__(self, processes: Callable[[], Mapping[str, int]]) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        """What each process has used so far, or uses now."""
        if sys.platform != "linux":
            return
        cpu = CounterMetricFamily("process_cpu_seconds", "CPU time used, user and system.", labels=_LABELS)
        memory = GaugeMetricFamily(
            "process_resident_memory_bytes", "Memory in use; what processes share is in each.", labels=_LABELS
        )
        start = GaugeMetricFamily("process_start_time_seconds", "When it began, in Unix time.", labels=_LABELS)
        files = GaugeMetricFamily("process_open_fds", "Open files and connections.", labels=_LABELS)
        most_files = GaugeMetricFamily("process_max_fds", "How many may be open.", labels=_LABELS)
        for name, pid in self._processes().items():
            try:
                usage = _usage_of(pid)
            except (FileNotFoundError, ProcessLookupError, PermissionError):
                continue  # this process has ended, and its successor has not started yet
            cpu.add_metric([name], usage.cpu_seconds)
            memory.add_metric([name], usage.resident_bytes)
            start.add_metric([name], usage.started_at)
            files.add_metric([name], usage.open_files)
            most_files.add_metric([name], usage.most_open_files)
        yield from (cpu, memory, start, files, most_files)


def _usage_of(pid: int) -> _Usage:
    folder = _PROC / str(pid)
    # proc(5): the name, in parentheses, may hold any character. The other fields come after the last parenthesis.
    fields = (folder / "stat").read_text().rpartition(")")[2].split()
    user, system, started, pages = int(fields[11]), int(fields[12]), int(fields[19]), int(fields[21])
    ticks = os.sysconf("SC_CLK_TCK")
    limit = re.search(r"^Max open files +(\d+|unlimited)", (folder / "limits").read_text(), re.MULTILINE)
    assert limit is not None
    return _Usage(
        cpu_seconds=(user + system) / ticks,
        resident_bytes=pages * os.sysconf("SC_PAGE_SIZE"),
        started_at=_boot_time() + started / ticks,
        open_files=len(os.listdir(folder / "fd")),
        most_open_files=float("inf") if limit[1] == "unlimited" else int(limit[1]),
    )


@cache
def _boot_time() -> int:
    found = re.search(r"^btime (\d+)", (_PROC / "stat").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])
