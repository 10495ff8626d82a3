"""The search for rows that no index finds, which examines windows of rows, the newest first, for a limited time."""

from collections.abc import Awaitable, Sequence
from itertools import chain, repeat
from time import monotonic
from typing import Final, Protocol, TypeVar
from uuid import UUID

from wxauth.core.clock import FIRST_ID
from wxauth.core.database import Database
from wxauth.core.statements import Statement
from wxauth.web.pages import HasId, Page, RowWithId, cursor_at

SEARCH_SECONDS: Final = 1.0  # a search takes CPU time from logins (decision 12)

FoundRow_co = TypeVar("FoundRow_co", bound=HasId, covariant=True)


class RowSearch(Protocol[FoundRow_co]):
    def __call__(self, *, before: UUID, lowest: UUID, limit: int) -> Awaitable[Sequence[FoundRow_co]]:
        """Find the newest rows in a range of ids, which includes `lowest`, but not `before`."""


async def search_in_windows(
    database: Database,
    lowest_in_window_query: Statement[UUID],
    search: RowSearch[RowWithId],
    *,
    search_remaining: RowSearch[RowWithId] | None = None,
    before: UUID,
    lowest: UUID = FIRST_ID,
    limit: int,
    windows: Sequence[int],
    seconds: float,
) -> Page[RowWithId]:
    """Search windows of rows, the newest first, until a page is full or `seconds` have passed, and return the page.

    The numbers in `windows` are the sizes of the windows. The last one also applies to all further windows.
    `lowest_in_window_query` returns no row for the last window. `search_remaining`, which needs no windows, finds the
    remaining rows after the first window of the last size, or earlier if the time is over.
    """
    rows: list[RowWithId] = []
    began_at = monotonic()
    for size in chain(windows, repeat(windows[-1])):
        found_id = await database.value(lowest_in_window_query, before=before, size=size)
        lowest_in_window = lowest if found_id is None else max(found_id, lowest)
        rows += await search(before=before, lowest=lowest_in_window, limit=limit + 1 - len(rows))
        if lowest_in_window == lowest or len(rows) > limit:
            break
        before = lowest_in_window
        time_is_over = monotonic() - began_at > seconds
        if search_remaining is not None and (time_is_over or size == windows[-1]):
            rows += await search_remaining(before=before, lowest=lowest, limit=limit + 1 - len(rows))
            break
        if time_is_over:
            return Page(rows, cursor_at(before), is_incomplete=True)
    return Page.of(rows, limit)
