"""`/v1/events`: the feed."""

from typing import Annotated

from fastapi import Query

from wxauth.errors import CursorExpired, Title
from wxauth.server.clients.callers import EventsClientDep
from wxauth.server.events import feed
from wxauth.server.events.feed_bodies import NOW, FeedAnswer, FeedQuery, feed_answer
from wxauth.server.web.dependencies import ServicesDep
from wxauth.server.web.direct import Router

router = Router("siblings")


@router.get("/v1/events", summary=Title("Read the event feed", "读取事件流"), failures=[CursorExpired])
async def read_feed(_: EventsClientDep, services: ServicesDep, query: Annotated[FeedQuery, Query()]) -> FeedAnswer:
    """What happened to people, the oldest first, for a service client with the scope `events`.

    Keep `next_cursor`, and ask again from there: no event is skipped, and none is told twice. An event is there within
    two seconds of its commit. Behind a cursor from before the last sweep, or before a backup was restored, events are
    missing: that is `cursor_expired`, never a silent gap.
    """
    if query.after == NOW:
        return feed_answer(await feed.begin_now(services.database))
    return feed_answer(await feed.read(services.database, query.place, query.type, limit=query.limit))
