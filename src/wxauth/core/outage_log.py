"""The log of outages, which keeps a process from logging an outage once per request."""

from time import monotonic
from typing import Final

import asyncpg

from wxauth.core.logs import get_logger
from wxauth.core.outage_texts import outage_text
from wxauth.errors import StorageUnavailable

_REFUSED: Final = (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidCatalogNameError)
"""The errors that mean that PostgreSQL refuses wxauth.

The password, role or database name is wrong, or `pg_hba.conf` does not allow the connection.
"""

log = get_logger()


class OutageLog:
    """The log of outages. It reports an outage at most once per interval, instead of once per request.

    At the end of an outage that it has reported, it logs how long the outage lasted.
    """

    def __init__(self, interval: float) -> None:
        self._interval = interval
        """The shortest time, in seconds, between two log lines that report an outage."""
        self._due_at = 0.0
        """The end of the present interval, in seconds of the monotonic clock."""
        self._since: float | None = None
        """The start of the present outage, in seconds of the monotonic clock; None if there is no outage."""
        self._is_logged = False
        """Whether `note` has written a line since the last outage ended.

        The line can be older than the present outage, because open connections may fail before a new one does.
        """

    def claim(self) -> bool:
        """Return whether a line may be written now. If so, start the next interval."""
        now = monotonic()
        if now < self._due_at:
            return False
        self._due_at = now + self._interval
        return True

    def note(self, exc: StorageUnavailable) -> None:
        """Log why the database cannot be used, if a line is due.

        The level is warning. If PostgreSQL refuses wxauth with one of the errors in `_REFUSED`, for example because of
        the password, the level is error, because such an outage lasts until the operator changes something.
        """
        if not self.claim():
            return
        self._is_logged = True
        # If no connection could be opened, the cause of `exc` is NotConnected, whose cause is the driver's error.
        driver_error = None if exc.__cause__ is None else exc.__cause__.__cause__
        write = log.error if isinstance(driver_error, _REFUSED) else log.warning
        is_read_only = isinstance(exc.__cause__, asyncpg.ReadOnlySQLTransactionError)
        event = "database_takes_no_writes" if is_read_only else "database_does_not_answer"
        write(event, reason=outage_text(exc), consequence="not ready until it does")

    def begin(self) -> None:
        """Note that no connection can be opened. This begins an outage, unless one has begun already."""
        if self._since is None:
            self._since = monotonic()

    def end(self, attempt_started_at: float) -> None:
        """Note that a connection has been opened, and log the end of the outage if a line about it was written.

        `attempt_started_at` is the start of the attempt, in seconds of the monotonic clock. An attempt that began
        before the outage does not show that the outage has ended.
        """
        if self._since is None or attempt_started_at <= self._since:
            return
        if self._is_logged:
            log.info("database_answers_again", seconds=round(monotonic() - self._since, 1))
        self._since, self._is_logged = None, False


outage_log: Final = OutageLog(10.0)
"""The log of outages of this process. It reports an outage at most every ten seconds."""
