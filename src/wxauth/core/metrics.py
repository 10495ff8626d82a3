"""The classes of metrics. No label identifies a user, or contains text that a caller chooses."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Any, ClassVar, Final, Self, TypeVar

import prometheus_client
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.metrics import MetricWrapperBase

from wxauth.errors import InternalError, StorageUnavailable
from wxauth_guard.errors import WxAuthError

REGISTRY: Final = CollectorRegistry()
DECLARED: "Final[list[_Metric[Any]]]" = []  # by the imported modules, including metrics that have counted nothing
# Any request can fail with these. The counters of requests, logins and refreshes create their series in advance,
# because alerts depend on them.
OUR_FAULTS: Final = (InternalError, StorageUnavailable)

# The `_created` series are disabled, because they do not work with several workers.
disable_created_metrics()  # type: ignore[no-untyped-call]

Series = TypeVar("Series", bound=MetricWrapperBase)


class _Metric(dict[Any, Series]):
    """The series of a metric by their labels.

    wxauth looks the series up itself, because a lookup by prometheus_client costs more than counting does. The
    declaration of a metric creates no series: with several workers, prometheus_client writes one file per process, and
    the process that forks the workers would write such a file, too.

    `first` are labels whose series begin with the value 0, even if nothing has been counted in them yet. Alerts depend
    on increases, and the first value of a new series is not an increase.
    """

    kind: ClassVar[Any]

    def __init__(
        self, name: str, help: str, *label_names: str, first: Iterable[str | tuple[str, ...]] = (), **options: Any
    ) -> None:
        self._create = partial(self.kind, name, help, label_names, registry=REGISTRY, **options)
        self._first = [(labels,) if isinstance(labels, str) else labels for labels in first]
        self.created: Series | None = None
        DECLARED.append(self)

    def __missing__(self, labels: tuple[object, ...]) -> Series:
        metric = self._create_once()
        series = metric.labels(*labels) if labels else metric  # a metric without labels is itself the only series
        self[labels] = series
        return series

    def make_first(self, *further: tuple[object, ...]) -> None:
        """Create the series of `first` and `further`.

        Each report of the metrics calls this method for all metrics. The first report takes 20 ms for these calls, so
        don't call this method at startup.
        """
        for labels in (*self._first, *further):
            self[labels]  # `__missing__` creates the series
        self._create_once()  # so that a metric without series is reported, too

    def _create_once(self) -> Series:
        if self.created is None:
            self.created = self._create()
        return self.created


class Counter(_Metric[prometheus_client.Counter]):
    """A counter of events, which only increases."""

    kind = prometheus_client.Counter

    def count(self, *labels: object, number: int = 1) -> None:
        self[labels].inc(number)

    def outcome_of(self, *labels: object) -> "CountedBlock":
        """Return a context manager that counts how its block ends, with the outcome as the last label."""
        return CountedBlock(lambda outcome, _: self.count(*labels, outcome))


class Histogram(_Metric[prometheus_client.Histogram]):
    """The distribution of durations in seconds, or of other numbers. `buckets` are upper limits."""

    kind = prometheus_client.Histogram

    def observe(self, value: float, *labels: object) -> None:
        self[labels].observe(value)


class Gauge(_Metric[prometheus_client.Gauge]):
    """A number that may rise and fall. `multiprocess_mode` says how the numbers of several workers are combined."""

    kind = prometheus_client.Gauge

    def set(self, number: int, *labels: object) -> None:
        self[labels].set(number)


@dataclass(slots=True, eq=False)
class CountedBlock:
    """Counts how its block ends: with `outcome`, or with the failure that the block raises.

    The block may set `outcome`, for example to count logins of new users separately.
    """

    count: Callable[[str, WxAuthError | None], None]  # gets the outcome or the failure's code, and the failure
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
        elif isinstance(exc, Exception):  # a cancelled block, for example, has no outcome
            self.count(InternalError.code, None)


def _subclasses_of(failure: type[WxAuthError]) -> Iterator[type[WxAuthError]]:
    for kind in failure.__subclasses__():
        yield kind
        yield from _subclasses_of(kind)


LOG_LINES_LOST: Final = Counter(
    "wxauth_log_lines_lost", "Log lines that couldn't be written, for example because the disk is full."
)
REFUSED: Final = Counter(
    "wxauth_requests_refused",
    "Requests answered with an error, by its code. wechat_misconfigured counts each rejection by WeChat that only the "
    "operator can end, even if the request got another response.",
    "code",
    # The modules that declare codes are imported above. Error classes of other modules only inherit a code.
    first=sorted({kind.code for kind in _subclasses_of(WxAuthError) if hasattr(kind, "code")}),
)
