"""The interface of the metrics that rooms record. `wxauth.server.service.prometheus` implements it."""

from collections.abc import Callable
from time import perf_counter
from types import TracebackType
from typing import Protocol, Self

from wxauth.errors import InternalError, WxAuthError


class Metrics(Protocol):
    """Records metrics. Labels have few values: none identifies a user, and none is text that a caller chooses."""

    def login(self, app_id: str | None) -> "CountedBlock":
        """Count the login in the block."""

    def refresh(self) -> "CountedBlock":
        """Count the refresh in the block."""

    def exchange(self) -> "Stopwatch":
        """Time the exchange of a code in the block."""

    def storing(self) -> "Stopwatch":
        """Time the storing of a login in the block."""

    def wechat_token_read(self, app_id: str) -> "CountedBlock":
        """Count the request for a WeChat token in the block."""

    def signature(self, app_id: str) -> "CountedBlock":
        """Count the request for a signature in the block."""

    def merged(self, source: str) -> None:
        """Count a merge of two users."""

    def scan(self, outcome: str, number: int = 1) -> None:
        """Count scans that have reached this stage."""

    def door(self, door: str, outcome: str) -> None:
        """Count a finished login to a site."""

    def client_request(self, client: str, operation: str, outcome: str) -> None:
        """Count the request of a client, whose name has been proved."""


class CountedBlock:
    """Counts how a block ends: as `outcome`, or as the failure that it raises.

    Args:
        count: Called with the outcome, or the failure's code, and with the failure if it is one of ours.
    """

    __slots__ = ("_count", "outcome")

    def __init__(self, count: Callable[[str, WxAuthError | None], None]) -> None:
        self._count = count
        self.outcome = "ok"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if exc is None:
            self._count(self.outcome, None)
        elif isinstance(exc, WxAuthError):
            self._count(exc.code, exc)
        else:
            self._count(InternalError.code, None)


class Stopwatch:
    """Times a block, even if it fails.

    Args:
        observe: Called with the seconds.
    """

    __slots__ = ("_observe", "_started", "milliseconds")

    def __init__(self, observe: Callable[[float], object]) -> None:
        self._observe = observe

    def __enter__(self) -> Self:
        self._started = perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        seconds = perf_counter() - self._started
        self.milliseconds = round(seconds * 1000, 1)
        self._observe(seconds)
