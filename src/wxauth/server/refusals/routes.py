"""`GET /v1/admin/refusals`: why somebody could not log in."""

from datetime import datetime
from typing import Annotated
from uuid import UUID

from fastapi import Depends, Query
from pydantic import Field, StringConstraints
from typing_extensions import TypedDict

from wxauth.errors import Title
from wxauth.server.refusals import refusals
from wxauth.server.refusals.models import Refusal
from wxauth.server.refusals.refusals import Refusals
from wxauth.server.refusals.rows import RefusalSearch
from wxauth.server.users.callers import StaffDep
from wxauth.server.web.bodies import TEXT, Network, ShownAppId, ShownUserId, Time
from wxauth.server.web.dependencies import DatabaseDep, provide
from wxauth.server.web.direct import Router
from wxauth.server.web.paging import NextCursor, OrEmpty, Page, PageQuery

router = Router("admin")

RefusalsDep = Annotated[Refusals, Depends(provide(Refusals))]


class RefusalsQuery(PageQuery):
    """Which refused logins to list."""

    request_id: Annotated[str, StringConstraints(pattern=TEXT)] | None = Field(
        default=None, description="The request id that the phone shows."
    )
    user_id: Annotated[UUID | None, OrEmpty] = Field(default=None, description="The refused user, if known.")
    code: Annotated[str, StringConstraints(pattern=TEXT)] | None = Field(
        default=None, description="The code of the problem, such as `account_disabled`."
    )
    app_id: Annotated[str, StringConstraints(pattern=TEXT)] | None = Field(
        default=None, description="The app in which the login was refused."
    )
    network: Annotated[Network | None, OrEmpty] = Field(
        default=None,
        description="The networks inside this one (CIDR), such as `203.0.113.0/24`; of an address, its /24 or /48.",
    )
    since: Annotated[Time | None, OrEmpty] = Field(default=None, description="Only at or after this time.")
    until: Annotated[Time | None, OrEmpty] = Field(default=None, description="Only before this time.")


class RefusalAnswer(TypedDict):
    """A login that was refused, or several that are counted together."""

    at: Annotated[datetime, Field(examples=["2026-11-20T10:02:00Z"])]
    code: Annotated[str, Field(examples=["account_disabled"])]
    wechat_errcode: Annotated[int | None, Field(description="WeChat's errcode, if it gave one.")]
    app_id: ShownAppId | None
    user_id: Annotated[ShownUserId | None, Field(description="Null if unknown.")]
    network: Annotated[str | None, Field(description="The /24 or /48 of the address.", examples=["203.0.113.0/24"])]
    request_id: Annotated[
        str, Field(description="At most 64 characters of it.", examples=["0f8fad5bd9cb469fa16570867728950e"])
    ]
    count: Annotated[
        int,
        Field(
            description="How many this entry stands for: those of this user or network with this `code`, from `at` to "
            "the end of its minute. The other fields are those of the first.",
            examples=[1],
        ),
    ]


class RefusalsAnswer(TypedDict):
    """Some refused logins, the newest first."""

    items: list[RefusalAnswer]
    next_cursor: NextCursor


@router.get("/v1/admin/refusals", summary=Title("List refused logins", "查看被拒绝的登录"))
async def list_refusals(
    _: StaffDep, recorded: RefusalsDep, database: DatabaseDep, query: Annotated[RefusalsQuery, Query()]
) -> RefusalsAnswer:
    """The newest first, of the last 14 days. All given filters must match; an empty parameter counts as absent.

    Refused logins, and refreshes refused because the user is banned. In each minute, the first ten of a network have an
    entry each, and so do the first ten of a user; one entry for each `code` has the `count` of the others. If too many
    networks send them at once, one entry without a network counts them.
    """
    await recorded.store()
    search = RefusalSearch(
        request_id=query.request_id,
        user_id=query.user_id,
        code=query.code,
        app_id=query.app_id,
        network=query.network,
        since=query.since,
        until=query.until,
    )
    page = await refusals.list_refusals(database, search, before=query.cursor, limit=query.limit)
    return refusals_answer(page)


def refusals_answer(page: Page[Refusal]) -> RefusalsAnswer:
    """A page of refused logins."""
    items: list[RefusalAnswer] = [
        {
            "at": refusal.at,
            "code": refusal.code,
            "wechat_errcode": refusal.wechat_errcode,
            "app_id": refusal.app_id,
            "user_id": refusal.user_id,
            "network": refusal.network,
            "request_id": refusal.request_id,
            "count": refusal.count,
        }
        for refusal in page.items
    ]
    return {"items": items, "next_cursor": page.next_cursor}
