"""Events get their places in the feed after they were committed, and are queued for the webhooks in that order."""

import asyncio
from typing import Final

from wxauth.server.core.background import keep_doing
from wxauth.server.core.services import Services
from wxauth.server.events.feed_rows import are_unplaced, may_place, place_some, record_folded_changes
from wxauth.server.events.webhook_deliveries import Deliveries
from wxauth.server.events.webhook_rows import queue_deliveries

PLACE_PAUSE_SECONDS: Final = 0.5
"""Seconds between two checks for events without a place."""
EVENTS_PLACED_PER_TRANSACTION: Final = 1000


async def keep_placing(services: Services) -> None:
    """Give events their places, forever, through outages. Every process tries; a lock admits one at a time."""

    async def place() -> None:
        if await are_unplaced(services.database, now=services.clock()):
            await place_events(services)

    await asyncio.sleep(PLACE_PAUSE_SECONDS)
    await keep_doing(place, pause=PLACE_PAUSE_SECONDS, failed="feed_held_up")


async def place_events(services: Services) -> int:
    """Give all waiting events places, unless another process is doing so, and return how many."""
    placed = 0
    while True:
        now = services.clock()
        async with services.database.begin() as transaction:
            if not await may_place(transaction):
                return placed
            folded = await record_folded_changes(transaction, now=now, limit=EVENTS_PLACED_PER_TRANSACTION)
            events = await place_some(transaction, limit=EVENTS_PLACED_PER_TRANSACTION)
            queued = await queue_deliveries(transaction, events, now=now)
        placed += len(events)
        if queued:
            services[Deliveries].wake()
        if max(folded, len(events)) < EVENTS_PLACED_PER_TRANSACTION:
            return placed
