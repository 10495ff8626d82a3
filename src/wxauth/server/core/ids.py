"""Ids that tell when they were made: UUIDv7 (RFC 9562)."""

import os
from datetime import datetime
from typing import Final
from uuid import UUID

from uuid_utils.compat import uuid7

_STEP_BYTES: Final = 4
_last = 0
"""The newest id of this process. Whoever shares it shares no more than the order within a millisecond."""


def new_id(now: datetime) -> UUID:
    """An id of this time. Within a millisecond, a process makes each id behind the one before (section 6.2, method 2).

    A library's `uuid7()` would ask the machine's own clock. Sessions and events of replicas whose clocks differ would
    not stand in the order in which they came, and the newest of them might be taken for old.
    """
    global _last
    made = uuid7(nanoseconds=_milliseconds(now) * 1_000_000)
    if made.int >> 80 == _last >> 80:
        made = UUID(int=_last + 1 + int.from_bytes(os.urandom(_STEP_BYTES)))
    _last = made.int
    return made


def first_id_at(time: datetime) -> UUID:
    """An id before all ids of this time, and behind all earlier ones (section 5.7)."""
    return UUID(int=_milliseconds(time) << 80)


def _milliseconds(time: datetime) -> int:
    return min(max(0, int(time.timestamp() * 1000)), 2**48 - 1)
