"""`GET /v1/admin/logins` and `/v1/admin/names`: who has logged in, and who some ids are."""

from datetime import datetime
from typing import Annotated, Final
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field, StringConstraints
from typing_extensions import TypedDict

from wxauth.errors import Title
from wxauth.server.core.models import shown_address
from wxauth.server.sessions.devices import describe_device
from wxauth.server.users.admin_routes import StaffReadsDep
from wxauth.server.users.bodies import ShownDevice
from wxauth.server.users.callers import StaffDep
from wxauth.server.users.listing_rows import LoginSearch, find_logins, glimpses_of
from wxauth.server.users.staff_reads import Read
from wxauth.server.web.bodies import (
    TEXT,
    Network,
    ShownAppId,
    ShownIp,
    ShownNickname,
    ShownPictureUrl,
    ShownSessionId,
    ShownUserId,
    Time,
)
from wxauth.server.web.dependencies import DatabaseDep
from wxauth.server.web.direct import Router
from wxauth.server.web.paging import NextCursor, OrEmpty, Page, PageQuery, cursor_at

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


class LoginAnswer(TypedDict):
    """A login, as it was when its session was opened."""

    session_id: ShownSessionId
    at: Annotated[datetime, Field(examples=["2026-11-20T10:02:00Z"])]
    user_id: ShownUserId
    nickname: ShownNickname
    app_id: ShownAppId
    client_id: Annotated[str | None, Field(description="The website; null for a login in the mini-program.")]
    device: Annotated[ShownDevice | None, Field(description="Operating system, and WeChat or browser.")]
    ip: Annotated[ShownIp | None, Field(description="The IP address; its network if it is old.")]
    ended_at: Annotated[datetime | None, Field(description="When the session was ended; null if it was not.")]


class LoginsAnswer(TypedDict):
    """Some logins, the newest first."""

    items: list[LoginAnswer]
    next_cursor: NextCursor
    incomplete_results: Annotated[
        bool, Field(description="true if the search took a second and stopped: `next_cursor` continues it.")
    ]


class NameAnswer(TypedDict):
    """Who somebody is, in a line."""

    id: ShownUserId
    nickname: ShownNickname
    avatar_url: ShownPictureUrl
    app_id: Annotated[ShownAppId | None, Field(description="The app of the newest session; null if there is none.")]
    device: Annotated[ShownDevice | None, Field(description="The device of the newest session.")]
    ip: Annotated[ShownIp | None, Field(description="The address of its last use.")]
    last_login_at: datetime


class NamesAnswer(TypedDict):
    """Users, in no order. Ids of nobody are left out."""

    items: list[NameAnswer]


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
    return {
        "items": [
            {
                "session_id": login.id,
                "at": login.created_at,
                "user_id": login.user_id,
                "nickname": login.nickname,
                "app_id": login.app_id,
                "client_id": login.client_id,
                "device": describe_device(login.opened_user_agent),
                "ip": shown_address(login.opened_ip),
                "ended_at": login.revoked_at,
            }
            for login in page.items
        ],
        "next_cursor": page.next_cursor if stopped_at is None else cursor_at(stopped_at),
        "incomplete_results": stopped_at is not None,
    }


@router.get("/v1/admin/names", summary=Title("Read names of users", "查看用户的名称"))
async def read_names(
    staff: StaffDep, reads: StaffReadsDep, database: DatabaseDep, query: Annotated[NamesQuery, Query()]
) -> NamesAnswer:
    """Who the ids in events, logins and refusals are, in a line each. The audit trail has one event for all of them."""
    found = await glimpses_of(database, query.user_id)
    if found:
        reads.note_read(staff.actor, Read.NAMES, *(each.id for each in found))
    return {
        "items": [
            {
                "id": each.id,
                "nickname": each.nickname,
                "avatar_url": each.avatar_url,
                "app_id": each.app_id,
                "device": describe_device(each.user_agent),
                "ip": shown_address(each.ip),
                "last_login_at": each.last_login_at,
            }
            for each in found
        ]
    }
