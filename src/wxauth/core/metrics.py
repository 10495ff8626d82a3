"""The classes of metrics.

The module that counts a metric declares it, and `wxauth.service.metrics` reports all metrics. Each label has few
values. No label identifies a user, and no label contains text that a caller chooses.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

from wxauth.errors import InternalError, StorageUnavailable
from wxauth_guard.errors import WxAuthError

REGISTRY: Final = CollectorRegistry()
"""The metrics that this process has counted."""
DECLARED: "Final[list[_Metric[Any]]]" = []
"""All metrics of the modules that are imported, even those that this process has not counted yet."""
OUR_FAULTS: Final = (InternalError, StorageUnavailable)
"""The errors with which any request can fail.

The counters of requests, logins and refreshes create the series of these errors in advance, because alerts depend on
them.
"""

# The `_created` series are disabled, because they do not work with several workers.
disable_created_metrics()  # type: ignore[no-untyped-call]

Series = TypeVar("Series", bound=MetricWrapperBase)


class _Metric(dict[Any, Series]):
    """The series of a metric by their labels.

    wxauth looks the series up itself, because a lookup by prometheus_client costs more than counting does.

    The declaration of a metric creates no series. With several workers, prometheus_client writes one file per process.
    If a declaration created series, the process that forks the workers would write such a file, too.

    `make_first` creates the series whose labels are in `first`, with the value 0, even if nothing has been counted in
    them yet. Alerts depend on increases, and the first value of a new series is not an increase.
    """

    kind: ClassVar[Any]
    """The class of prometheus_client for this kind of metric."""

    def __init__(
        self, name: str, help: str, *label_names: str, first: Iterable[str | tuple[str, ...]] = (), **options: Any
    ) -> None:
        self._create = partial(self.kind, name, help, label_names, registry=REGISTRY, **options)
        self._first = [(labels,) if isinstance(labels, str) else labels for labels in first]
        self.created: Series | None = None
        """The metric of prometheus_client; None until `_create_once` creates it."""
        DECLARED.append(self)

    def __missing__(self, labels: tuple[object, ...]) -> Series:
        metric = self._create_once()
        series = metric.labels(*labels) if labels else metric  # a metric without labels is itself the only series
        self[labels] = series
        return series

    def make_first(self, *further: tuple[object, ...]) -> None:
        """Create a series for the labels of each item of `first`, and for each tuple of labels in `further`.

        Each report of the metrics calls this method for all metrics. The first report takes 20 ms for these calls, so
        don't call this method at startup.
        """
        for labels in (*self._first, *further):
            self[labels]  # `__missing__` creates the series
        self._create_once()  # so that a metric without series is reported, too

    def _create_once(self) -> Series:
        """Return the metric of prometheus_client. If it does not exist yet, create it."""
        if self.created is None:
            self.created = self._create()
        return self.created


class Counter(_Metric[prometheus_client.Counter]):
    """A counter of events, which only increases."""

    kind = prometheus_client.Counter

    def count(self, *labels: object, number: int = 1) -> None:
        """Add `number` to the series with these labels."""
        self[labels].inc(number)

    def outcome_of(self, *labels: object) -> "CountedBlock":
        """Return a context manager that counts how its block ends, with the outcome as the last label."""
        return CountedBlock(lambda outcome, _: self.count(*labels, outcome))


class Histogram(_Metric[prometheus_client.Histogram]):
    """The distribution of durations in seconds, or of other numbers.

    The option `buckets` sets the upper limits of its buckets.
    """

    kind = prometheus_client.Histogram

    def observe(self, value: float, *labels: object) -> None:
        """Record a duration in seconds, or another number, in the series with these labels."""
        self[labels].observe(value)

    def time(self) -> "Stopwatch":
        """Return a context manager that records the duration of its block in the series without labels."""
        return Stopwatch(self[()])


class Gauge(_Metric[prometheus_client.Gauge]):
    """A number that may rise and fall.

    The option `multiprocess_mode` determines how the numbers of several workers are combined.
    """

    kind = prometheus_client.Gauge

    def set(self, number: int, *labels: object) -> None:
        """Set the value of the series with these labels."""
        self[labels].set(number)


@dataclass(slots=True, eq=False)
class CountedBlock:
    """A context manager that counts how its block ends: with `outcome`, or with the failure that the block raises.

    The block may set `outcome`, for example to count logins of new users separately. An exception that is not a
    WxAuthError counts as an internal error.
    """

    count: Callable[[str, WxAuthError | None], None]
    """The function that counts. It gets the outcome or the failure's code, and the failure if it is a WxAuthError."""
    outcome: str = "ok"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            self.count(self.outcome, None)
        elif isinstance(exc, WxAuthError):
            self.count(exc.code, exc)
        else:
            self.count(InternalError.code, None)


@dataclass(slots=True, eq=False)
class Stopwatch:
    """A context manager that records the duration of its block, in seconds, even if the block fails."""

    series: prometheus_client.Histogram
    milliseconds: float = field(init=False)
    """The block's duration. It is set when the block ends."""
    _started: float = field(init=False)

    def __enter__(self) -> Self:
        self._started = perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = perf_counter() - self._started
        self.milliseconds = round(seconds * 1000, 1)
        self.series.observe(seconds)
