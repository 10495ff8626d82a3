"""`/v1/admin/users/{user_id}/phone`: staff remove a number that must not stay."""

from uuid import UUID

from wxauth.errors import NotFound, Title
from wxauth.server.phones import removing
from wxauth.server.users.callers import StaffDep
from wxauth.server.web.dependencies import ClockDep, DatabaseDep
from wxauth.server.web.direct import Router

router = Router("admin")


@router.delete(
    "/v1/admin/users/{user_id}/phone",
    summary=Title("Remove a user's phone number", "移除用户的手机号"),
    failures=[NotFound("there is no such user")],
)
async def remove_phone_of_user(staff: StaffDep, database: DatabaseDep, clock: ClockDep, user_id: UUID) -> None:
    """Remove a user's phone number. Idempotent. The user may verify it again with the phone button."""
    await removing.remove_phone_of(
        database, user_id, by=staff.actor, spares_staff=not staff.is_administrator, now=clock()
    )
