"""`GET /v1/admin/logins` and `/v1/admin/names`: who has logged in, and who some ids are."""

from typing import Annotated, Final
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field, StringConstraints

from wxauth.errors import Title
from wxauth.server.users.admin_routes import StaffReadsDep
from wxauth.server.users.callers import StaffDep
from wxauth.server.users.listing_rows import Glimpse, ListedLogin, LoginSearch, find_logins, glimpses_of
from wxauth.server.users.staff_reads import Read
from wxauth.server.web.bodies import (
    TEXT,
    Network,
    Time,
)
from wxauth.server.web.dependencies import DatabaseDep
from wxauth.server.web.direct import Router
from wxauth.server.web.paging import Items, OrEmpty, Page, PageQuery, cursor_at

router = Router("admin")

MAX_NAMES: Final = 100
"""How many ids one request may name: more would not fit into a URL."""


class LoginsQuery(PageQuery):
    """Which logins to list."""

    user_id: Annotated[UUID | None, OrEmpty] = Field(default=None, description="The user.")
    app_id: Annotated[str, StringConstraints(pattern=TEXT)] | None = Field(default=None, description="The app.")
    network: Annotated[Network | None, OrEmpty] = Field(
        default=None, description="Only from this network (CIDR) or address, such as `203.0.113.0/24`."
    )
    since: Annotated[Time | None, OrEmpty] = Field(default=None, description="Only at or after this time.")
    until: Annotated[Time | None, OrEmpty] = Field(default=None, description="Only before this time.")


class NamesQuery(BaseModel):
    """Whose names to read."""

    user_id: Annotated[list[UUID], Field(min_length=1, max_length=MAX_NAMES)] = Field(
        description=f"Repeated for several, at most {MAX_NAMES}."
    )


class LoginsAnswer(Items[ListedLogin]):
    """Some logins, the newest first."""

    incomplete_results: bool = Field(
        description="true if the search took a second and stopped: `next_cursor` continues it."
    )


class NamesAnswer(BaseModel):
    """Users, in no order. Ids of nobody are left out."""

    items: list[Glimpse]


@router.get("/v1/admin/logins", summary=Title("List logins", "查看登录记录"))
async def list_logins(
    staff: StaffDep, reads: StaffReadsDep, database: DatabaseDep, query: Annotated[LoginsQuery, Query()]
) -> LoginsAnswer:
    """The newest first, as far as their sessions are stored. All filters must match; an empty one counts as absent.

    Refused logins are listed by `GET /v1/admin/refusals`.
    """
    search = LoginSearch(
        user_id=query.user_id, app_id=query.app_id, network=query.network, since=query.since, until=query.until
    )
    found = await find_logins(database, search, before=query.cursor, limit=query.limit + 1)
    page = Page.of(found.logins, query.limit)
    if query.user_id is not None and page.items:
        reads.note_read(staff.actor, Read.LOGINS, query.user_id)
    stopped_at = found.stopped_at if page.next_cursor is None else None
    return LoginsAnswer.model_construct(
        items=list(page.items),
        next_cursor=page.next_cursor if stopped_at is None else cursor_at(stopped_at),
        incomplete_results=stopped_at is not None,
    )


@router.get("/v1/admin/names", summary=Title("Read names of users", "查看用户的名称"))
async def read_names(
    staff: StaffDep, reads: StaffReadsDep, database: DatabaseDep, query: Annotated[NamesQuery, Query()]
) -> NamesAnswer:
    """Who the ids in events, logins and refusals are, in a line each. The audit trail has one event for all of them."""
    found = await glimpses_of(database, query.user_id)
    if found:
        reads.note_read(staff.actor, Read.NAMES, *(each.id for each in found))
    return NamesAnswer.model_construct(items=list(found))
