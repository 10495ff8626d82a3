"""`/v1/events`: the feed."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from wxauth.errors import CursorExpired, InvalidRequest
from wxauth.server.clients.callers import FOR_CLIENTS, SERVICE_CLIENT_SECURITY, EventsClientDep
from wxauth.server.core.services import ServicesDep
from wxauth.server.events import feed
from wxauth.server.events.feed_bodies import EXAMPLE_FEED, NOW, FeedAnswer, FeedQuery, feed_answer
from wxauth.server.web.answers import answers
from wxauth.server.web.direct import operation_id
from wxauth.server.web.paging import not_stored

lists = APIRouter(tags=["siblings"], dependencies=[Depends(not_stored)], generate_unique_id_function=operation_id)


@lists.get(
    "/v1/events",
    summary="Read the feed of events",
    responses=answers(
        EXAMPLE_FEED, InvalidRequest.of("after", "Not a next_cursor of this feed"), CursorExpired, *FOR_CLIENTS
    ),
    openapi_extra=SERVICE_CLIENT_SECURITY,
)
async def read_feed(_: EventsClientDep, services: ServicesDep, query: Annotated[FeedQuery, Query()]) -> FeedAnswer:
    """What happened to people, the oldest first, for a service client with the scope `events`.

    Keep `next_cursor`, and ask again from there: no event is skipped, and none is told twice. An event is there within
    two seconds of its commit. Behind a cursor from before the last sweep, or before a backup was restored, events are
    missing: that is `cursor_expired`, never a silent gap.
    """
    if query.after == NOW:
        return feed_answer(await feed.begin_now(services.database))
    return feed_answer(await feed.read(services.database, query.place, query.type, limit=query.limit))
