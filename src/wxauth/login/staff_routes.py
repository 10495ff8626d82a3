"""The routes with which administrators and support staff read daily numbers and refused logins."""

from datetime import timedelta
from typing import Annotated, Final

from fastapi import Depends, Query
from pydantic import BaseModel, Field

from wxauth.i18n import lazy_gettext as _
from wxauth.login import refusal_queries
from wxauth.login.count_queries import LoginCounts, Overview
from wxauth.login.refusal_queries import Refusal, RefusalSearch
from wxauth.login.refusals import Refusals
from wxauth.users.admin_routes import StaffReadsDep
from wxauth.users.callers import StaffDep
from wxauth.users.staff_read_queries import Read
from wxauth.web.dependencies import DatabaseDep, provide
from wxauth.web.direct import Router
from wxauth.web.pages import Items, items_of

router = Router("admin")
LoginCountsDep = Annotated[LoginCounts, Depends(provide(LoginCounts))]
RefusalsDep = Annotated[Refusals, Depends(provide(Refusals))]

_MAX_DAYS: Final = 366  # a leap year
_MIN_UTC_OFFSET_MINUTES: Final = -12 * 60
_MAX_UTC_OFFSET_MINUTES: Final = 14 * 60  # some islands in the Pacific


class NumbersQuery(BaseModel):
    """The query parameters that select the days."""

    days: Annotated[int, Field(ge=1, le=_MAX_DAYS)] = Field(
        default=30, description="The number of days, including today."
    )
    utc_offset: Annotated[int, Field(ge=_MIN_UTC_OFFSET_MINUTES, le=_MAX_UTC_OFFSET_MINUTES)] = Field(
        default=0,
        description="The time zone in which days begin: minutes east of UTC, such as 480 for China. wxauth counts "
        "by the hour, so use whole hours.",
    )


@router.get("/v1/admin/numbers", summary=_("Read daily statistics"))
async def read_numbers(
    _staff: StaffDep, login_counts: LoginCountsDep, query: Annotated[NumbersQuery, Query()]
) -> Overview:
    """Return the totals, and the counts of each day.

    Each process stores its counts every few seconds, so the last seconds of other processes may be missing.
    """
    return await login_counts.overview(days=query.days, utc_offset=timedelta(minutes=query.utc_offset))


@router.get("/v1/admin/refusals", summary=_("List refused logins"))
async def list_refusals(
    staff: StaffDep,
    refusals: RefusalsDep,
    reads: StaffReadsDep,
    database: DatabaseDep,
    query: Annotated[RefusalSearch, Query()],
) -> Items[Refusal]:
    """List the refused logins of the last 14 days, newest first.

    All given filters must match, and an empty parameter counts as absent. The list contains refusals of
    `POST /v1/login`, and refreshes that were refused because the user is banned. It contains no logins to sites.

    In each minute, each of the first ten refusals from a network has its own entry. Further refusals in that minute
    share one entry for each `code`, which contains their `count`. The refusals that concern one user are grouped in the
    same way. If refusals come from too many networks or concern too many users at once, one entry for each `code`,
    without a network or a user, counts them. If wxauth runs in several processes, each of them makes its own entries.
    """
    await refusals.store()  # otherwise the list would lack the last refusals of this process
    page = await refusal_queries.list_refusals(database, query)
    if query.user_id is not None and page.items:  # the audit trail records that staff has read a user's data
        reads.note_read(staff, Read.REFUSALS, query.user_id)
    return items_of(page)
