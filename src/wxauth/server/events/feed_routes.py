"""`/v1/events`: the feed."""

from typing import Annotated

from fastapi import Query

from wxauth.errors import CursorExpired, Title
from wxauth.server.clients.service_clients import EventsClientDep
from wxauth.server.events import feed
from wxauth.server.events.feed_bodies import NOW, FeedAnswer, FeedQuery, feed_answer
from wxauth.server.web.dependencies import DatabaseDep
from wxauth.server.web.direct import Router

router = Router("siblings")


@router.get("/v1/events", summary=Title("Read the event feed", "读取事件流"), failures=[CursorExpired])
async def read_feed(_: EventsClientDep, database: DatabaseDep, query: Annotated[FeedQuery, Query()]) -> FeedAnswer:
    """The events about users, the oldest first, for a service client with the scope `events`.

    Store `next_cursor` and continue from it: no event is skipped, and none is repeated. An event appears within two
    seconds of its commit. If events after your cursor are missing, because they were swept or a backup was restored,
    the answer is `cursor_expired`, never a silent gap.
    """
    if query.after == NOW:
        return feed_answer(await feed.begin_now(database))
    return feed_answer(await feed.read_page(database, query.place, query.type, limit=query.limit))
