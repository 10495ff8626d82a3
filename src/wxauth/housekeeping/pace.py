"""The pace of housekeeping: the size of a page of rows, and the pause after each page."""

from dataclasses import dataclass
from typing import Final

PAGE_SIZE: Final = 1000
"""The largest number of rows in one page of a sweep."""
PAGE_PAUSE_SECONDS: Final = 0.1
"""The usual pause, in seconds, between two pages."""
ROWS_PER_SECOND: Final = 3000
"""The largest number of rows of a large table that a sweep with pauses writes in a second, on average."""
REST_RATIO: Final = 5
"""The smallest ratio of the rest after a page to the time that the page took, while a large table is swept.

With this ratio, the sweep uses at most a sixth of one connection's time, and slows down when the database has other
work.
"""


@dataclass(frozen=True, slots=True)
class Pace:
    """The size of a page, and the pause between two pages, during which other work can use the database."""

    page_size: int = PAGE_SIZE
    pause: float = PAGE_PAUSE_SECONDS
    """The pause in seconds. After a page of a large table, the pause is `rest_after` instead."""

    def rest_after(self, page_seconds: float, rows: int) -> float:
        """Return the rest, in seconds, after a page of a large table, in place of `pause`.

        The page took `page_seconds`, and wrote `rows` rows. The rest is at least a tenth of `pause`, which is enough
        for most pages, because the sweep only reads them. If `pause` is 0, there is no rest.
        """
        if self.pause == 0:
            return 0.0
        return max(self.pause / 10, REST_RATIO * page_seconds, rows / ROWS_PER_SECOND - page_seconds)


USUAL_PACE: Final = Pace()
