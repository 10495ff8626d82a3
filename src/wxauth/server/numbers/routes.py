"""`GET /v1/admin/numbers`: how many users and sessions there are, and what has happened on each of the last days."""

from datetime import date
from typing import Annotated, Any, Final

from fastapi import APIRouter, Depends, Query
from pydantic import Field
from typing_extensions import TypedDict  # pydantic wants this one before Python 3.12

from wxauth.errors import InvalidRequest
from wxauth.server.core.services import ServicesDep
from wxauth.server.users.callers import AdministratorDep
from wxauth.server.web.answers import BEARER_SECURITY, FOR_ADMINISTRATORS, answers
from wxauth.server.web.direct import operation_id
from wxauth.server.web.paging import not_stored

router = APIRouter(tags=["admin"], dependencies=[Depends(not_stored)], generate_unique_id_function=operation_id)

MOST_DAYS: Final = 366

_EXAMPLE: Final[dict[str, Any]] = {
    "users": 52310,
    "sessions": 60122,
    "days": [
        {"date": "2026-11-19", "new_users": 310, "logins": 8120},
        {"date": "2026-11-20", "new_users": 12, "logins": 401},
    ],
}
_WRONG_DAYS: Final = InvalidRequest.of("days", f"Input should be less than or equal to {MOST_DAYS}")


class DayAnswer(TypedDict):
    """What has happened on a day, in UTC."""

    date: date
    new_users: int
    logins: Annotated[int, Field(description="Those that succeeded; a refresh is none.")]


class NumbersAnswer(TypedDict):
    """How many there are, and what has happened."""

    users: Annotated[int, Field(description="An estimate where there are more than some 50,000.")]
    sessions: Annotated[int, Field(description="Open ones; an estimate where there are more than some 50,000.")]
    days: Annotated[list[DayAnswer], Field(description="Every day, today being the last one.")]


@router.get(
    "/v1/admin/numbers",
    summary="Read what has happened on each day",
    responses=answers(_EXAMPLE, _WRONG_DAYS, *FOR_ADMINISTRATORS),
    openapi_extra=BEARER_SECURITY,
)
async def read_numbers(
    _: AdministratorDep, services: ServicesDep, days: Annotated[int, Query(ge=1, le=MOST_DAYS)] = 30
) -> NumbersAnswer:
    """Counted as it happens by each process, which stores it every few seconds.

    Of other processes than the one that answers, the last seconds are not in it yet.
    """
    found = await services.numbers.overview(days=days)
    return {
        "users": found.users,
        "sessions": found.sessions,
        "days": [{"date": it["day"], "new_users": it["new_users"], "logins": it["logins"]} for it in found.days],
    }
