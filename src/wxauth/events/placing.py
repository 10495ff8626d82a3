"""The placing of events: wxauth gives them places in the feed, and queues them for webhooks in the same order."""

from typing import Final

from wxauth.core.background import keep_doing
from wxauth.core.services import Services
from wxauth.events.feed_queries import (
    HAS_UNPLACED,
    NOT_PLACED,
    TRY_LOCK_PLACES,
    correct_sequences,
    place_after_last,
    place_by_sequence,
)
from wxauth.events.webhook_deliveries import Deliveries
from wxauth.events.webhook_queries import queue_deliveries

PLACE_PAUSE_SECONDS: Final = 0.5
EVENTS_PLACED_PER_TRANSACTION: Final = 1000


async def keep_placing(services: Services) -> None:
    """Give events their places forever. A lock lets only one process do so at a time."""
    # Once is enough, because sequences go wrong when a database is restored or moved. If that happens while the process
    # runs, `place_events` corrects them.
    has_checked_sequences = False

    async def place() -> None:
        nonlocal has_checked_sequences
        if not has_checked_sequences:
            has_checked_sequences = await _try_to_correct_sequences(services)
        if await services.database.value(HAS_UNPLACED):
            await place_events(services)

    await keep_doing(place, pause=PLACE_PAUSE_SECONDS, failure_event="feed_held_up")


async def place_events(services: Services) -> int:
    """Give each waiting event its place, queue its deliveries, and return the number of events.

    Stop if another process holds the lock. If the sequence is unusable, count from the last place, and correct it.
    """
    total = 0
    uses_sequence = True
    while True:
        try:
            placed = await _place_some_events(services, uses_sequence=uses_sequence)
        except NOT_PLACED:
            if not uses_sequence:
                raise
            uses_sequence = False
            continue
        total += placed
        if placed < EVENTS_PLACED_PER_TRANSACTION:
            return total


async def _place_some_events(services: Services, *, uses_sequence: bool) -> int:
    now = services.clock()
    async with services.database.begin(replan=True) as transaction:
        if not await transaction.value(TRY_LOCK_PLACES):
            return 0
        if uses_sequence:
            events = await place_by_sequence(transaction, limit=EVENTS_PLACED_PER_TRANSACTION)
        else:
            events = await place_after_last(transaction, limit=EVENTS_PLACED_PER_TRANSACTION)
            await correct_sequences(transaction)
        queued = await queue_deliveries(transaction, events, now=now)
    if queued:
        services[Deliveries].wake()
    return len(events)


async def _try_to_correct_sequences(services: Services) -> bool:
    """Return whether the lock for placing events was free."""
    async with services.database.begin() as transaction:
        has_lock = bool(await transaction.value(TRY_LOCK_PLACES))
        if has_lock:
            await correct_sequences(transaction)
    return has_lock
