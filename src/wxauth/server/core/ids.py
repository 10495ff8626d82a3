"""Ids that contain the time at which they were made: UUIDv7 (RFC 9562)."""

import os
from datetime import datetime
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

LAST_ID: Final = UUID(int=2**128 - 1)
"""An id after every other one."""

_STEP_BYTES: Final = 4
_last = 0
"""The newest id of this process. It only orders ids within a millisecond."""


def new_id(now: datetime) -> UUID:
    """Make an id of this time. Within a millisecond, the ids of a process increase (section 6.2, method 2).

    The time is an argument because a library's own `uuid7()` reads the machine's clock: if the clocks of replicas
    differ, sessions and events would be out of order, and the newest might seem old.
    """
    global _last
    made = uuid7(nanoseconds=_milliseconds(now) * 1_000_000)
    if made.int >> 80 == _last >> 80:
        made = UUID(int=_last + 1 + int.from_bytes(os.urandom(_STEP_BYTES)))
    _last = made.int
    return made


def first_id_at(time: datetime) -> UUID:
    """The lower bound of all ids of this time (section 5.7)."""
    return UUID(int=_milliseconds(time) << 80)


def id_range(since: datetime | None, until: datetime | None, before: UUID | None) -> tuple[UUID, UUID]:
    """The lowest id of a page of a list, and the id that all of it stand before. Ids begin with their times.

    `before` is where the page before has ended. None: no bound.
    """
    lowest = UUID(int=0) if since is None else first_id_at(since)
    end = LAST_ID if until is None else first_id_at(until)
    return lowest, min(end, before or LAST_ID)


def _milliseconds(time: datetime) -> int:
    return min(max(0, int(time.timestamp() * 1000)), 2**48 - 1)
