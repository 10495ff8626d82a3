"""`GET /v1/admin/numbers`: how many users and sessions there are, and what has happened on each of the last days."""

from datetime import date, timedelta
from typing import Annotated, Final

from fastapi import Depends, Query
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from wxauth.errors import Title
from wxauth.server.numbers.numbers import Numbers
from wxauth.server.users.callers import StaffDep
from wxauth.server.web.dependencies import provide
from wxauth.server.web.direct import Router

router = Router("admin")

NumbersDep = Annotated[Numbers, Depends(provide(Numbers))]

MOST_DAYS: Final = 366


class NumbersQuery(BaseModel):
    """Which days to read."""

    days: Annotated[int, Field(ge=1, le=MOST_DAYS)] = 30
    utc_offset: Annotated[int, Field(ge=-12 * 60, le=14 * 60)] = Field(
        default=0,
        description="The time zone in which days begin: minutes east of UTC, such as 480 for China; whole hours.",
    )


class DayAnswer(TypedDict):
    """The counts of a day."""

    date: Annotated[date, Field(examples=["2026-11-20"])]
    new_users: Annotated[int, Field(examples=[12])]
    logins: Annotated[int, Field(description="Successful logins, without refreshes.", examples=[401])]


class NumbersAnswer(TypedDict):
    """Totals, and counts for each day."""

    users: Annotated[int, Field(description="An estimate above some 50,000.", examples=[52310])]
    sessions: Annotated[int, Field(description="Open sessions; an estimate above some 50,000.", examples=[60122])]
    days: Annotated[list[DayAnswer], Field(description="Every day, today being the last one.")]


@router.get("/v1/admin/numbers", summary=Title("Read daily statistics", "查看每日统计"))
async def read_numbers(_: StaffDep, numbers: NumbersDep, query: Annotated[NumbersQuery, Query()]) -> NumbersAnswer:
    """The totals, and the counts of each day.

    Each process stores its counts every few seconds, so the last seconds of other processes may be missing.
    """
    found = await numbers.overview(days=query.days, utc_offset=timedelta(minutes=query.utc_offset))
    return {
        "users": found.users,
        "sessions": found.sessions,
        "days": [{"date": it.day, "new_users": it.new_users, "logins": it.logins} for it in found.days],
    }
