"""Metrics, each declared where it is counted. `wxauth.service.metrics` reports them.

Labels have few values: none identifies a user, and none is text that a caller chooses.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
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
OUR_FAULTS: Final = (InternalError, StorageUnavailable)

# Disabled, because each metric would get a second series, `_created`, which several workers cannot have.
disable_created_metrics()  # type: ignore[no-untyped-call]

Series = TypeVar("Series", bound=MetricWrapperBase)


class _Metric(dict[Any, Series]):
    """The series of a metric by their labels. prometheus_client's own lookup costs more than counting does.

    Nothing is made before it is counted: it would be counted in a file of the process that has forked the workers. The
    series with the `first` labels exist from the start, at 0: otherwise their first count would not be an increase, on
    which alerts are based.
    """

    kind: ClassVar[Any]

    def __init__(
        self, name: str, help: str, *labels: str, first: Iterable[str | tuple[str, ...]] = (), **options: Any
    ) -> None:
        self._declaration = (name, help, labels), options
        self._first = [(one,) if isinstance(one, str) else one for one in first]
        self.made: Series | None = None
        """What prometheus_client has, once something was counted."""
        DECLARED.append(self)

    def __missing__(self, labels: tuple[object, ...]) -> Series:
        series = self[labels] = self._make().labels(*labels) if labels else self._make()
        return series

    def make_first(self, *more: tuple[object, ...]) -> None:
        """Make the series that exist from the start, and these. Not at startup: that would cost 20 ms."""
        for labels in (*self._first, *more):
            self[labels]
        self._make()

    def _make(self) -> Series:
        if self.made is None:
            arguments, options = self._declaration
            self.made = self.kind(*arguments, registry=REGISTRY, **options)
        return self.made


class Counter(_Metric[prometheus_client.Counter]):
    """What is counted."""

    kind = prometheus_client.Counter

    def count(self, *labels: object, number: int = 1) -> None:
        """Count this number in the series with these labels."""
        self[labels].inc(number)

    def outcome_of(self, *labels: object) -> "CountedBlock":
        """Count how a block ends, with its outcome as the last label."""
        return CountedBlock(lambda outcome, _: self.count(*labels, outcome))


class Histogram(_Metric[prometheus_client.Histogram]):
    """What is timed, in seconds. It has the option `buckets`."""

    kind = prometheus_client.Histogram

    def observe(self, seconds: float, *labels: object) -> None:
        """Note a duration in the series with these labels."""
        self[labels].observe(seconds)

    def time(self) -> "Stopwatch":
        """Time a block."""
        return Stopwatch(self.observe)


class Gauge(_Metric[prometheus_client.Gauge]):
    """A number that may rise and fall. It has the option `multiprocess_mode`."""

    kind = prometheus_client.Gauge

    def set(self, number: int, *labels: object) -> None:
        """Set the series with these labels."""
        self[labels].set(number)


@dataclass(slots=True, eq=False)
class CountedBlock:
    """Counts how a block ends: as `outcome`, or as the failure that it raises."""

    count: Callable[[str, WxAuthError | None], None]
    """Called with the outcome, or the failure's code, and with the failure if it is one of ours."""
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
    """Times a block, even if it fails. `observe` gets the seconds."""

    observe: Callable[[float], object]
    milliseconds: float = field(init=False)
    _started: float = field(init=False)

    def __enter__(self) -> Self:
        self._started = perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = perf_counter() - self._started
        self.milliseconds = round(seconds * 1000, 1)
        self.observe(seconds)
