"""CPU, memory and open files of the service's processes, from Linux's /proc. Elsewhere there are no such metrics."""

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

_LABELS: Final = ("worker",)


class Processes(Collector):
    """prometheus_client's `process_` metrics, with a series for each process. A restarted process counts from zero.

    Args:
        processes: Returns the ids of the current processes, by name.
    """

    def __init__(self, processes: Callable[[], Mapping[str, int]]) -> None:
        self._processes = processes

    def collect(self) -> Iterator[Metric]:
        """What each process has used so far, or uses now. A process that has just ended is left out."""
        families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
        for name, pid in self._processes().items():
            for one in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                kind = CounterMetricFamily if one.type == "counter" else GaugeMetricFamily
                family = families.setdefault(one.name, kind(one.name, one.documentation, labels=_LABELS))
                family.add_metric([name], one.samples[0].value)
        yield from families.values()
