"""The ids of rows. An id begins with the time of its creation (UUIDv7, RFC 9562)."""

import os
from datetime import datetime
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

_STEP_BYTES: Final = 4
"""The number of random bytes in the difference between two ids with the same millisecond."""
_BITS_AFTER_TIME: Final = 80
"""The number of bits that follow the time in an id. The time consists of the first 48 bits, in milliseconds."""
_MAX_MILLISECONDS: Final = 2**48 - 1
"""The latest time that an id can contain, in milliseconds since 1970."""
FIRST_ID: Final = UUID(int=0)
"""An id that is lower than every other id."""
LAST_ID: Final = UUID(int=2**128 - 1)
"""An id that is greater than every other id."""

_last_id = 0
"""The id that this process created last, as a number. A new id of the same millisecond is greater than this id."""


def new_id(now: datetime) -> UUID:
    """Create an id for this time.

    If a process creates several ids of one millisecond in a row, these ids increase (RFC 9562, section 6.2, method 2).
    The time is an argument, because the library's `uuid7()` would otherwise read this machine's clock. If the clocks of
    two replicas differed, sessions and events would be out of order, and the newest session might seem old.
    """
    global _last_id
    created = uuid7(nanoseconds=_milliseconds(now) * 1_000_000)
    if created.int >> _BITS_AFTER_TIME == _last_id >> _BITS_AFTER_TIME:
        created = UUID(int=_last_id + 1 + int.from_bytes(os.urandom(_STEP_BYTES)))
    _last_id = created.int
    return created


def first_id_at(at: datetime) -> UUID:
    """Return the lowest possible id of this time (RFC 9562, section 5.7)."""
    return UUID(int=_milliseconds(at) << _BITS_AFTER_TIME)


def id_range(since: datetime | None, until: datetime | None, before: UUID | None) -> tuple[UUID, UUID]:
    """Return the bounds of the ids in a page of a list. The ids are at least the first bound, and below the second one.

    Ids begin with their times, so the times from `since` until just before `until` are a range of ids. `before` is the
    last id of the previous page, which had higher ids. None means no bound.
    """
    lowest = FIRST_ID if since is None else first_id_at(since)
    end = LAST_ID if until is None else first_id_at(until)
    return lowest, min(end, before or LAST_ID)


def _milliseconds(at: datetime) -> int:
    """Return the milliseconds since 1970, limited to the numbers that an id can contain."""
    return min(max(0, int(at.timestamp() * 1000)), _MAX_MILLISECONDS)
